// Package watch tells requests when the sessions end that they have loaded. It asks the
// store for each such session at an interval, once for all requests of the session.
package watch

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

// A Holder is what a request knows of its session.
type Holder struct {
	ID       string    // the session's
	Key      string    // the hash of the key by which the request has the session
	User     string    // "" while anonymous
	Explicit string    // the key of the last explicit renewal that the request knows; "": the request sees the session as before one
	Since    time.Time // when the request loaded the session, or last renewed its key
}

// A Status is what has become of a holder's session.
type Status uint8

const (
	StatusAlive    Status = iota
	StatusReplaced        // an explicit renewal by another request has replaced the key
	StatusEnded
)

// A Check asks the store for a session. It returns a function that says what has become
// of the session for each of its holders, and until when StatusReplaced leaves a request its
// session. The function is nil if the check has failed.
type Check func(c *storectx.Context, id string) func(h *Holder) (s Status, until time.Time)

// Config is what New needs.
type Config struct {
	Every   time.Duration // between two checks of one session
	Timeout time.Duration // of one check
	Check   Check
	Random  func(n time.Duration) time.Duration // returns a duration in [0, n); nil: at random
	Resumed func(what, id string)               // is called by each goroutine of the Watch that goes on after a wait: what it is, and for which session; nil: nothing
}

// A Watch checks sessions while requests wait for their ends. It divides the sessions at
// random into parts that have their turns at equal distances: so the calls of the store
// are spread over the interval, also when all clients reconnect at once, and one goroutine
// wakes for a part and not for every session. It has no goroutine while no request waits.
type Watch struct {
	Config
	start time.Time     // of the turns, at random: processes that start together do not ask together
	wake  chan struct{} // tells the goroutine that something has changed

	mu        sync.Mutex
	free      sync.Cond           // is signaled when a check has ended
	checks    int                 // that run now
	limit     int                 // of checks
	isRunning bool                // the goroutine exists
	sessions  map[string]*session // by id
	parts     [parts][]*session   // the same sessions
	turn      int64               // the last turn, counted since start
	urgent    []*session          // that do not wait for their turn
	lastEnd   time.Time           // when Ended was called last
}

const parts = 64

// There are as many concurrent checks as the interval needs with a store that is as slow as
// it was last, but at least minChecks and at most maxChecks. With a store that takes 10 ms, 64
// of them serve 32 000 sessions in 5 s. Checks that fail do not count: a store that hangs
// gets no more of them.
const (
	minChecks = 8
	maxChecks = 64
)

// A session is one for all requests that wait for its end.
type session struct {
	id       string
	part     int // index in Watch.parts
	at       int // index in that part
	watchers map[*Watcher]bool
	call     *storectx.Context // of the check that runs, or nil
	extra    *time.Timer       // fires when the session is to be checked out of turn; nil: does not run
	extraAt  time.Time         // when extra fires
}

// A Watcher waits for the end of a session.
type Watcher struct {
	session *session
	holder  Holder // Watch.mu guards it
	ended   chan struct{}
}

// New returns a Watch.
func New(c Config) *Watch {
	if c.Random == nil {
		c.Random = rand.N[time.Duration]
	}
	if c.Resumed == nil {
		c.Resumed = func(string, string) {}
	}
	w := &Watch{Config: c, wake: make(chan struct{}, 1), limit: minChecks, sessions: map[string]*session{}}
	w.start = time.Now().Add(-w.Random(w.Every))
	w.free.L = &w.mu
	return w
}

// Done returns a channel that is closed when the session has ended for this watcher.
func (r *Watcher) Done() <-chan struct{} { return r.ended }

// ID returns the session's id.
func (r *Watcher) ID() string { return r.session.id }

// Add returns a Watcher for h. If until is not zero, an explicit renewal has replaced h's
// key, and the session ends for it at that time.
func (w *Watch) Add(h Holder, until time.Time) *Watcher {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.sessions[h.ID]
	if e == nil {
		e = w.enter(h.ID)
		if !w.lastEnd.Before(h.Since) { // perhaps that was this session
			w.urgent = append(w.urgent, e)
		}
		w.changed()
	}
	r := &Watcher{session: e, holder: h, ended: make(chan struct{})}
	e.watchers[r] = true
	if !until.IsZero() {
		w.checkAt(e, until)
	}
	return r
}

// enter makes the entry of a session. mu is held.
func (w *Watch) enter(id string) *session {
	e := &session{id: id, part: int(w.Random(parts)), watchers: map[*Watcher]bool{}}
	e.at = len(w.parts[e.part])
	w.parts[e.part] = append(w.parts[e.part], e)
	w.sessions[id] = e
	return e
}

// checkAt checks a session at that time, out of turn. mu is held.
func (w *Watch) checkAt(e *session, at time.Time) {
	if e.extra != nil && !at.Before(e.extraAt) {
		return // the check at extraAt finds out that there is another one to make
	}
	e.stopExtra()
	e.extraAt = at
	e.extra = time.AfterFunc(time.Until(at), func() {
		w.Resumed("grace", e.id)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.has(e) && e.extraAt.Equal(at) {
			e.extra = nil
			w.urgent = append(w.urgent, e)
			w.changed()
		}
	})
}

func (e *session) stopExtra() {
	if e.extra != nil {
		e.extra.Stop()
		e.extra = nil
	}
}

// Remove is for a request that no longer waits. Its channel stays open. Nil is no Watcher.
func (w *Watch) Remove(r *Watcher) {
	if r == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(r.session.watchers, r)
	w.tidy(r.session)
}

// Rekey is for a request that has renewed its session: it waits on with the new key. Nil and
// the zero Watcher wait for no session.
func (w *Watch) Rekey(r *Watcher, key, explicit string) {
	if r == nil || r.session == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.holder.Key, r.holder.Explicit, r.holder.Since = key, explicit, time.Now()
}

// Renewed checks a session that this process has renewed explicitly once more when the
// grace of that is over.
func (w *Watch) Renewed(id string, grace time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e := w.sessions[id]; e != nil {
		w.checkAt(e, time.Now().Add(grace))
	}
}

// Ended closes the channels of a session that this process has ended.
func (w *Watch) Ended(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastEnd = time.Now()
	if e := w.sessions[id]; e != nil {
		for r := range e.watchers {
			w.end(r)
		}
		w.tidy(e)
	}
}

// end closes a watcher's channel. mu is held.
func (w *Watch) end(r *Watcher) {
	delete(r.session.watchers, r)
	close(r.ended)
}

// tidy removes a session that has no watchers. mu is held.
func (w *Watch) tidy(e *session) {
	if len(e.watchers) > 0 || !w.has(e) {
		return
	}
	delete(w.sessions, e.id)
	e.stopExtra()
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

// has reports whether a session is being watched. mu is held.
func (w *Watch) has(e *session) bool { return w.sessions[e.id] == e }

// changed sees to it that the goroutine exists, and looks again when to wake, and whether
// it is still needed. mu is held.
func (w *Watch) changed() {
	if !w.isRunning {
		w.isRunning, w.turn = true, w.turnNow()
		go w.run()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// turnNow returns how many turns there have been since start.
func (w *Watch) turnNow() int64 { return int64(time.Since(w.start)) / int64(w.Every/parts) }

// run checks the sessions, while there are any.
func (w *Watch) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	w.Resumed("turn", "") // the goroutine that started this one may have more to change
	for {
		due, wait := w.due()
		for _, e := range due {
			w.acquire()
			c := storectx.New(context.Background(), w.Timeout)
			if w.replaceCall(e, nil, c) {
				go w.check(e, c)
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
		w.Resumed("turn", "")
	}
}

// due returns the sessions to check now, and how long there are no others; 0: no request
// waits any more.
func (w *Watch) due() (all []*session, wait time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sessions) == 0 {
		w.isRunning, w.limit, w.urgent = false, minChecks, nil
		return nil, 0
	}
	all, w.urgent = w.urgent, nil
	now := w.turnNow()
	for turn := max(w.turn, now-parts) + 1; turn <= now; turn++ {
		all = append(all, w.parts[turn%parts]...)
	}
	w.turn = now
	next := now + 1
	for next < now+parts && len(w.parts[next%parts]) == 0 {
		next++
	}
	return all, max(1, time.Until(w.start.Add(time.Duration(next)*(w.Every/parts))))
}

// check checks a session with c, which is the session's call.
func (w *Watch) check(e *session, c *storectx.Context) {
	status := w.Check(c, e.id)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.has(e) && e.call == c {
		e.call = nil
		if status != nil {
			w.adjust(time.Since(c.Began()))
			w.apply(e, status, c.Began())
		}
	}
	c.Release()
	w.checks--
	w.free.Signal()
}

// apply closes the channels of the watchers whose session has ended. status is by a check
// that began at that time: it does not know what a request has loaded or made later. mu is
// held.
func (w *Watch) apply(e *session, status func(*Holder) (Status, time.Time), began time.Time) {
	now := time.Now()
	for r := range e.watchers {
		status, until := status(&r.holder)
		switch {
		case status == StatusEnded && !r.holder.Since.After(began):
			w.end(r)
		case status != StatusReplaced || !began.After(r.holder.Since):
		case now.Before(until):
			w.checkAt(e, until)
		default:
			w.end(r)
		}
	}
	w.tidy(e)
}

// acquire waits until another check may run.
func (w *Watch) acquire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.checks >= w.limit {
		w.free.Wait()
	}
	w.checks++
}

func (w *Watch) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checks--
	w.free.Signal()
}

// adjust sets the limit of checks, now that one took this long and succeeded. mu is held.
func (w *Watch) adjust(took time.Duration) {
	needed := int(int64(len(w.sessions)) * int64(took) / int64(w.Every))
	w.limit = min(max(w.limit, minChecks+2*needed), maxChecks) // twice, to catch up after a late turn
}

// replaceCall replaces the call that checks a session. It returns false if no request waits
// for the session any more, or another call checks it.
func (w *Watch) replaceCall(e *session, was, is *storectx.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.has(e) || e.call != was {
		return false
	}
	e.call = is
	return true
}
