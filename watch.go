package session

import (
	"container/heap"
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

// Done returns a channel that is closed when the session has ended: by Logout,
// Revoke and its like, because its time was up, or because it was given to
// another user. It is for long requests (a WebSocket, an event stream), which
// learn of it at once if this process ended the session, and otherwise within
// Options.WatchEvery, which costs one Load of the session, however many requests
// watch it. A renewal does not close it, and neither does a store that fails: that
// is asked again.
//
// Without a stored session it is closed already. While the store failed to load
// the session it stays open, and so it does once the handler has returned:
// whoever hands his connection to a goroutine waits for that before he returns.
// Being watched is no use of the session; a message of the user's is, and says so
// by Save. A session that List returned is watched until List's ctx is done.
func (s *Session) Done() <-chan struct{} {
	s.lock()
	defer s.unlock()
	switch {
	case s.stored.is == unknown:
		return make(chan struct{})
	case s.visible() == noRecord:
		return closed
	case s.at == returned:
		return make(chan struct{})
	case s.watched != nil && s.watched.id == s.stored.held.ID:
		return s.watched.done
	}
	s.m.watch.remove(s.watched)
	s.watched = s.m.watch.add(s.stored.held.ID, s.first.Began())
	if e := s.watched; s.source == nil {
		context.AfterFunc(s.ctx, func() { s.m.watch.remove(e) })
	}
	return s.watched.done
}

var closed = make(chan struct{})

func init() { close(closed) }

// A watch asks the store for the sessions whose Done somebody waits for. Its
// goroutine runs while there are any.
type watch struct {
	m     *Manager
	every time.Duration
	wake  chan struct{} // the goroutine, for something has changed
	slots chan struct{} // one for each Load at the same time: a store that hangs gets no more

	mu       sync.Mutex
	runs     bool                // the goroutine does
	sessions map[string]*watched // whose channels are open, by id
	queue    queue               // those that are not being looked at
	ending   time.Time           // when this process last ended a session, any
}

// A watched session is one for all requests that wait for its end.
type watched struct {
	id       string
	done     chan struct{}
	requests int
	next     time.Time         // to ask the store
	place    int               // in the queue, or notQueued
	call     *storectx.Context // while it is being looked at
}

const notQueued = -1

func newWatch(m *Manager, every time.Duration) *watch {
	return &watch{m: m, every: every, wake: make(chan struct{}, 1), slots: make(chan struct{}, 8), sessions: map[string]*watched{}}
}

// add watches a session for one more request, which loaded it at that time. The
// store is asked for the first time at random within the interval: so the calls
// are spread, also when all clients have come back at once.
func (w *watch) add(id string, loaded time.Time) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.sessions[id]
	if e == nil {
		now := time.Now()
		e = &watched{id: id, done: make(chan struct{}), next: now.Add(rand.N(w.every))}
		if !w.ending.Before(loaded) {
			e.next = now // perhaps it was this one
		}
		w.sessions[id] = e
		heap.Push(&w.queue, e)
		w.changed()
	}
	e.requests++
	return e
}

// remove is for a request that no longer waits. A nil e is none.
func (w *watch) remove(e *watched) {
	if e == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.requests--; e.requests == 0 && w.sessions[e.id] == e {
		w.forget(e)
	}
}

// ended closes the channel of a session that this process has ended.
func (w *watch) ended(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = time.Now()
	w.close(id)
}

// over closes the channel of a session that this process has found over.
func (w *watch) over(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close(id)
}

// close is what ended and over do. mu is held.
func (w *watch) close(id string) {
	if e := w.sessions[id]; e != nil {
		close(e.done)
		w.forget(e)
	}
}

// forget takes a session out. mu is held.
func (w *watch) forget(e *watched) {
	delete(w.sessions, e.id)
	if e.place != notQueued {
		heap.Remove(&w.queue, e.place)
	}
	if e.call != nil {
		e.call.Release() // nobody wants to know any more
	}
	w.changed()
}

// changed sees to it that the goroutine runs, and looks again whom to ask for
// next, and whether it is still needed. mu is held.
func (w *watch) changed() {
	if !w.runs {
		w.runs = true
		go w.run()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// run asks the store for one session after the other, while there are any.
func (w *watch) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		w.slots <- struct{}{}
		e, wait := w.next()
		if e != nil {
			go w.look(e)
			continue
		}
		<-w.slots
		if wait == 0 {
			return
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-w.wake:
		}
	}
}

// next returns the session that is to be asked for now, or how long there is
// none; 0: for ever.
func (w *watch) next() (*watched, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sessions) == 0 {
		w.runs = false
		return nil, 0
	}
	if len(w.queue) == 0 {
		return nil, w.every // all are being looked at
	}
	if wait := time.Until(w.queue[0].next); wait > 0 {
		return nil, wait
	}
	e := heap.Pop(&w.queue).(*watched)
	e.call = storectx.New(context.Background(), w.m.timeout)
	e.next = e.call.Began().Add(w.every)
	return e, 0
}

// look asks the store for a session; Manager.load closes the channel if that is
// over.
func (w *watch) look(e *watched) {
	defer func() { <-w.slots }()
	w.load(e.call, e.id)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sessions[e.id] == e {
		e.call.Release()
		e.call = nil
		heap.Push(&w.queue, e)
	}
}

// load is Manager.load outside any request, where nobody else would recover from
// a panic.
func (w *watch) load(c *storectx.Context, id string) {
	ctx := context.Background()
	defer func() {
		if v := recover(); v != nil {
			slog.ErrorContext(ctx, "session: Done: the store or OnEvent panicked", "panic", v)
		}
	}()
	if _, err := w.m.load(c, id); err != nil && c.Err() != context.Canceled {
		w.m.emit(ctx, EventStoreFailed, &Record{ID: id}, err)
	}
}
