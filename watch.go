package session

import (
	"context"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

// A watch asks the store for the sessions whose Done somebody waits for. They are
// in parts at random, and the parts have their turns at equal distances: so the
// calls are spread over the interval, also when all clients have come back at
// once, and its goroutine wakes for a part and not for every session. It runs
// while there are any.
type watch struct {
	m     *Manager
	every time.Duration // a part has its turn
	start time.Time     // of the turns, at random: processes that start together do not ask together
	seed  maphash.Seed
	wake  chan struct{} // the goroutine: something has changed
	slots chan struct{} // one for each Load at the same time: a store that hangs gets no more

	mu     sync.Mutex
	runs   bool // the goroutine does
	parts  [parts]map[string]*watched
	n      int        // sessions in them
	turn   int64      // of the part that had it last, counted since start
	hurry  []*watched // sessions that do not wait for their turn
	ending time.Time  // when this process last ended a session, any
}

const parts = 64

// A watched session is one for all requests that wait for its end.
type watched struct {
	id       string // changes by a renewal, where a token has no key
	done     chan struct{}
	requests int
	call     *storectx.Context // that asks for it, or nil
	others   []*watched        // who waited for it under an earlier id
	one      *watched          // not nil: this is one of the others of that
}

func newWatch(m *Manager, every time.Duration) *watch {
	start := time.Now().Add(-rand.N(every))
	return &watch{m: m, every: every, start: start, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1), slots: make(chan struct{}, 8)}
}

// part returns the part that a session is in.
func (w *watch) part(id string) *map[string]*watched {
	return &w.parts[maphash.String(w.seed, id)%parts]
}

// add watches a session for one more request, which loaded it at that time.
func (w *watch) add(id string, loaded time.Time) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	part := w.part(id)
	e := (*part)[id]
	if e == nil {
		e = &watched{id: id, done: make(chan struct{})}
		if *part == nil {
			*part = map[string]*watched{}
		}
		(*part)[id] = e
		w.n++
		if !w.ending.Before(loaded) { // perhaps it was this one
			w.hurry = append(w.hurry, e)
		}
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
	e = e.whole()
	if e.requests--; e.requests == 0 && w.has(e) {
		w.forget(e)
	}
}

// watches tells whether e is of the session with this id.
func (w *watch) watches(e *watched, id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return e.whole().id == id
}

// whole returns what e is one of the others of, or e.
func (e *watched) whole() *watched {
	for e.one != nil {
		e = e.one
	}
	return e
}

// moved lets those wait on who wait for a session that has another id now.
func (w *watch) moved(id, next string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := (*w.part(id))[id]
	if e == nil {
		return
	}
	w.forget(e)
	part := w.part(next)
	if whole := (*part)[next]; whole != nil {
		e.one, whole.others = whole, append(whole.others, e)
		whole.requests += e.requests
		return
	}
	if *part == nil {
		*part = map[string]*watched{}
	}
	e.id, (*part)[next] = next, e
	w.n++
	w.hurry = append(w.hurry, e) // that may have ended meanwhile
	w.changed()
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
	if e := (*w.part(id))[id]; e != nil {
		e.close()
		w.forget(e)
	}
}

func (e *watched) close() {
	close(e.done)
	for _, other := range e.others {
		other.close()
	}
}

// has tells whether somebody still waits. mu is held.
func (w *watch) has(e *watched) bool { return (*w.part(e.id))[e.id] == e }

// forget takes a session out. mu is held.
func (w *watch) forget(e *watched) {
	delete(*w.part(e.id), e.id)
	if e.call != nil {
		e.call.Release() // nobody wants to know any more
		e.call = nil
	}
	if w.n--; w.n == 0 {
		w.changed()
	}
}

// changed sees to it that the goroutine runs, and looks again when to wake, and
// whether it is still needed. mu is held.
func (w *watch) changed() {
	if !w.runs {
		w.runs, w.turn = true, w.now()
		go w.run()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// now returns how many turns there were.
func (w *watch) now() int64 { return int64(time.Since(w.start)) / int64(w.every/parts) }

// run asks the store for the sessions, while there are any.
func (w *watch) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due, wait := w.due()
		for _, e := range due {
			w.slots <- struct{}{}
			go w.look(e)
		}
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

// due returns the sessions to ask for now, and how long there are no others; 0:
// nobody waits any more.
func (w *watch) due() (all []*watched, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == 0 {
		w.runs = false
		return nil, 0
	}
	all, w.hurry = w.hurry, nil
	now := w.now()
	for turn := max(w.turn, now-parts) + 1; turn <= now; turn++ {
		for _, e := range w.parts[turn%parts] {
			all = append(all, e)
		}
	}
	w.turn = now
	next := now + 1
	for next < now+parts && len(w.parts[next%parts]) == 0 {
		next++
	}
	return all, max(1, time.Until(w.start.Add(time.Duration(next)*(w.every/parts))))
}

// look asks the store for a session; Manager.load closes the channel if that is
// over.
func (w *watch) look(e *watched) {
	c := storectx.New(context.Background(), w.m.timeout)
	if id, ok := w.call(e, nil, c); ok {
		w.load(c, id)
		w.call(e, c, nil)
	}
	c.Release()
	<-w.slots
}

// call replaces the call that asks for a session, of that id, unless nobody waits
// any more or another one asks.
func (w *watch) call(e *watched, was, is *storectx.Context) (id string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.has(e) || e.call != was {
		return "", false
	}
	e.call = is
	return e.id, true
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
