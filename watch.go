package session

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// A watch asks the store for the sessions whose Done a request waits for. They are
// in parts at random, and the parts have their turns at equal distances: so the
// calls are spread over the interval, also when all clients reconnect at once, and
// its goroutine wakes for a part and not for every session. It runs while there are
// any.
type watch struct {
	m     *Manager
	every time.Duration // between two turns of a part
	start time.Time     // of the turns, at random: processes that start together do not ask together
	wake  chan struct{} // tells the goroutine that something has changed

	mu       sync.Mutex
	free     sync.Cond           // tells acquire that a Load has ended
	loads    int                 // that run
	limit    int                 // of them
	runs     bool                // the goroutine does
	sessions map[string]*watched // by id
	parts    [parts][]*watched   // the same sessions
	turn     int64               // of the part that had it last, counted since start
	hurry    []*watched          // sessions that do not wait for their turn
	ending   time.Time           // when this process last ended a session, any
}

const parts = 64

// Of the concurrent Loads there are as many as the interval needs with a store that is
// as slow as it was, and these at least and at most. With one that takes 10 ms they
// serve 32 000 sessions in the default WatchEvery of 5 s. Loads that fail do not
// count: a store that hangs gets no more of them.
const (
	minLoads = 8
	maxLoads = 64
)

// A watched session is one for all requests that wait for its end.
type watched struct {
	id      string // constant
	part    int    // index in watch.parts
	at      int    // index in that part
	waiters map[*waiter]bool
	call    *storectx.Context // that asks for the session, or nil
}

// A waiter is a request that waits for the end of its session.
type waiter struct {
	of    *watched  // constant
	key   string    // by which the request has the session
	user  string    // to whom the session belonged when the request loaded it
	since time.Time // when the request loaded the session, or last renewed it
	first string    // the key of the last explicit renewal at that time; "": the session is shown as before one
	done  chan struct{}
	timer *time.Timer // fires at the end of the grace of an explicit renewal; nil: none
}

func newWatch(m *Manager, every time.Duration) *watch {
	start := time.Now().Add(-random(every))
	w := &watch{m: m, every: every, start: start, wake: make(chan struct{}, 1), limit: minLoads, sessions: map[string]*watched{}}
	w.free.L = &w.mu
	return w
}

// add watches a session for one more request, which loaded it at that time.
func (w *watch) add(st *stored, loaded time.Time) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.sessions[st.rec.ID]
	if e == nil {
		e = w.enter(st.rec.ID)
		if !w.ending.Before(loaded) { // perhaps it was this one
			w.hurry = append(w.hurry, e)
		}
		w.changed()
	}
	r := &waiter{of: e, key: st.held.Key, user: st.rec.User, since: loaded, done: make(chan struct{})}
	e.waiters[r] = true
	if st.frozen == nil {
		r.first = body.ExplicitKey(st.rec.Data)
	} else {
		w.askAt(r, st.frozenUntil)
	}
	return r
}

// enter makes the entry of a session. mu is held.
func (w *watch) enter(id string) *watched {
	e := &watched{id: id, part: random(parts), waiters: map[*waiter]bool{}}
	e.at = len(w.parts[e.part])
	w.parts[e.part] = append(w.parts[e.part], e)
	w.sessions[id] = e
	return e
}

// askAt asks for the session of a waiter at that time, out of turn. mu is held.
func (w *watch) askAt(r *waiter, at time.Time) {
	if r.timer != nil {
		return
	}
	id := r.of.id
	r.timer = time.AfterFunc(time.Until(at), func() {
		w.resumed("grace", id)
		w.mu.Lock()
		defer w.mu.Unlock()
		r.timer = nil
		if w.has(r.of) && r.of.waiters[r] {
			w.hurry = append(w.hurry, r.of)
			w.changed()
		}
	})
}

// remove is for a request that no longer waits. A nil r is none.
func (w *watch) remove(r *waiter) {
	if r == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(r)
	if len(r.of.waiters) == 0 && w.has(r.of) {
		w.forget(r.of)
	}
}

// drop takes a waiter out. mu is held.
func (w *watch) drop(r *waiter) {
	delete(r.of.waiters, r)
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
}

// rekey lets a request that has renewed its session wait on, with the new key. A nil
// r is none.
func (w *watch) rekey(r *waiter, key, first string) {
	if r == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.key, r.first, r.since = key, first, time.Now()
}

// renewed asks for a session once more when the grace of an explicit renewal by this
// process is over.
func (w *watch) renewed(id string, grace time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.sessions[id]; e != nil {
		for r := range e.waiters {
			w.askAt(r, time.Now().Add(grace))
		}
	}
}

// ended closes the channels of a session that this process has ended.
func (w *watch) ended(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending = time.Now()
	w.close(id)
}

// over closes the channels of a session that this process has found to have ended.
func (w *watch) over(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close(id)
}

// expired closes the channels of a session that a Load, which began at that time, has
// found to have run out by this process's clock. A request that has loaded it since may
// know of a later use.
func (w *watch) expired(id string, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.sessions[id]
	if e == nil {
		return
	}
	for r := range e.waiters {
		if !r.since.After(began) {
			w.end(r)
		}
	}
	if len(e.waiters) == 0 {
		w.forget(e)
	}
}

// close is what ended and over do. mu is held.
func (w *watch) close(id string) {
	if e := w.sessions[id]; e != nil {
		for r := range e.waiters {
			w.end(r)
		}
		w.forget(e)
	}
}

// end closes a waiter's channel. mu is held.
func (w *watch) end(r *waiter) {
	w.drop(r)
	close(r.done)
}

// check closes the channels of requests whose session another program has taken from
// its user, and of those whose key an explicit renewal has replaced, if its grace is
// over. The record is of a Load that began at that time: what a request has loaded or
// made later is not in it.
func (w *watch) check(e *watched, rec *Record, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.has(e) {
		return
	}
	now := time.Now()
	for r := range e.waiters {
		switch {
		case !began.After(r.since):
		case isTaken(rec, r.user):
			w.end(r)
		case body.HasAccess(rec.Data, r.key, now), body.ExplicitKey(rec.Data) == r.first:
		default:
			if frozen, ok := body.FrozenFor(rec.Data, r.key, now); ok {
				w.askAt(r, frozen.Until)
			} else {
				w.end(r)
			}
		}
	}
	if len(e.waiters) == 0 {
		w.forget(e)
	}
}

// has reports whether a request still waits for a session. mu is held.
func (w *watch) has(e *watched) bool { return w.sessions[e.id] == e }

// forget takes a session out. mu is held.
func (w *watch) forget(e *watched) {
	delete(w.sessions, e.id)
	part := w.parts[e.part]
	last := part[len(part)-1]
	part[e.at], last.at = last, e.at
	part[len(part)-1] = nil
	w.parts[e.part] = part[:len(part)-1]
	if e.call != nil {
		e.call.Release() // no request waits for the answer
		e.call = nil
	}
	if len(w.sessions) == 0 {
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
	w.resumed("turn", "") // the goroutine that started this one may have more to change
	for {
		due, wait := w.due()
		for _, e := range due {
			w.acquire()
			c := storectx.New(context.Background(), w.m.timeout)
			if w.call(e, nil, c) {
				go w.look(e, c)
			} else {
				c.Release()
				w.release()
			}
		}
		if wait == 0 {
			return
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-w.wake:
		}
		w.resumed("turn", "")
	}
}

// due returns the sessions to ask for now, and how long there are no others; 0:
// nobody waits any more.
func (w *watch) due() (all []*watched, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sessions) == 0 {
		w.runs, w.limit, w.hurry = false, minLoads, nil
		return nil, 0
	}
	all, w.hurry = w.hurry, nil
	now := w.now()
	for turn := max(w.turn, now-parts) + 1; turn <= now; turn++ {
		all = append(all, w.parts[turn%parts]...)
	}
	w.turn = now
	next := now + 1
	for next < now+parts && len(w.parts[next%parts]) == 0 {
		next++
	}
	return all, max(1, time.Until(w.start.Add(time.Duration(next)*(w.every/parts))))
}

// look asks the store for a session with c, which is the session's call. Manager.load
// closes the channels if the session has ended.
func (w *watch) look(e *watched, c *storectx.Context) {
	rec := w.load(c, e.id)
	w.call(e, c, nil)
	if is, _ := statusOf(rec); is == live {
		w.check(e, rec, c.Began())
	}
	c.Release()
	w.release()
}

// acquire waits until another Load may run.
func (w *watch) acquire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.loads >= w.limit {
		w.free.Wait()
	}
	w.loads++
}

func (w *watch) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loads--
	w.free.Signal()
}

// took notes what a Load took that succeeded.
func (w *watch) took(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	needed := int(int64(len(w.sessions)) * int64(d) / int64(w.every))
	w.limit = min(max(w.limit, minLoads+2*needed), maxLoads) // twice, to catch up when a turn was late
}

// call replaces the call that asks for a session. It returns false if no request waits
// for the session any more, or another call asks for it.
func (w *watch) call(e *watched, was, is *storectx.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.has(e) || e.call != was {
		return false
	}
	e.call = is
	return true
}

// load is Manager.load outside any request, where nothing else recovers from a panic.
func (w *watch) load(c *storectx.Context, id string) *Record {
	ctx := context.Background()
	defer func() {
		if v := recover(); v != nil {
			slog.ErrorContext(ctx, "session: Done: the store or OnEvent panicked", "panic", v)
		}
	}()
	rec, err := w.m.load(c, id)
	switch {
	case err == nil:
		w.took(time.Since(c.Began()))
	case c.Err() != context.Canceled:
		w.m.emit(ctx, EventStoreFailed, &Record{ID: id}, err)
	}
	return rec
}
