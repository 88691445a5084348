// Package watch notifies requests when the sessions that they have loaded end. It checks each
// such session in the store at an interval, once for all requests of the session.
package watch

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

// Holder describes a request's view of its session.
type Holder struct {
	ID       string    // id of the session
	Key      string    // hash of the key with which the request has loaded the session
	User     string    // "" while anonymous
	Explicit string    // key of the last explicit renewal that the request knows; "": the request sees the session as it was before one
	Since    time.Time // when the request loaded the session, or last renewed its key
}

// Status is the state of a holder's session.
type Status uint8

const (
	StatusAlive    Status = iota
	StatusReplaced        // an explicit renewal by another request has replaced the key
	StatusEnded
)

// Check loads a session from the store. It returns a function that returns the status of the
// session for each of its holders, and the time until which a holder with StatusReplaced keeps
// its session. The function is nil if the check has failed.
type Check func(c *storectx.Context, id string) func(h *Holder) (s Status, until time.Time)

// Config configures a [Watch].
type Config struct {
	Every   time.Duration // interval between two checks of one session
	Timeout time.Duration // limit of one check
	Check   Check
	Random  func(n time.Duration) time.Duration // returns a duration in [0, n); nil: at random
	Resumed func(what, id string)               // called by each goroutine of the Watch that continues after a wait, with the kind of the goroutine and the session's id; nil: no call
}

// Watch checks sessions while requests wait for their ends. It distributes the sessions at
// random over parts, which are checked in turn at equal intervals. So the store calls are
// spread over the interval, even if all clients reconnect at the same time, and one goroutine
// wakes for each part, not for each session. A Watch has no goroutine while no request waits.
type Watch struct {
	Config
	start time.Time     // start of the turns, random so that processes that start together do not check together
	wake  chan struct{} // wakes the goroutine after a change

	mu        sync.Mutex
	free      sync.Cond           // signaled when a check has ended
	checks    int                 // number of checks that run now
	limit     int                 // maximum of checks
	isRunning bool                // whether the goroutine exists
	sessions  map[string]*session // by id
	parts     [parts][]*session   // the same sessions
	turn      int64               // the last turn, counted since start
	urgent    []*session          // sessions to check out of turn
	lastEnd   time.Time           // time of the last call of Ended
}

const parts = 64 // enough to spread the store calls over the interval: of 32 000 sessions, each part has 500

// The limit of concurrent checks lies between minChecks and maxChecks. It rises with the latency
// of the store, so that all sessions are checked within the interval. With a latency of 10 ms, 64
// concurrent checks serve 32 000 sessions in 5 s. Failed checks do not raise the limit, so a store
// that hangs is not called more often.
const (
	minChecks = 8
	maxChecks = 64
)

// session is the state shared by all requests that wait for the end of one session.
type session struct {
	id       string
	part     int // index in Watch.parts
	at       int // index in that part
	watchers []*Watcher
	call     *storectx.Context // context of the running check, or nil
	extra    *time.Timer       // fires when the session must be checked out of turn; nil: not set
	extraAt  time.Time         // time at which extra fires
}

// Watcher waits for the end of a session on behalf of one request.
type Watcher struct {
	session *session
	at      int    // index in session.watchers, or removed
	holder  Holder // Watch.mu guards it
	ended   chan struct{}
}

// removed is the index of a Watcher whose channel is closed, or whose request no longer waits.
const removed = -1

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

// Done returns a channel that is closed when the session has ended for this Watcher.
func (r *Watcher) Done() <-chan struct{} { return r.ended }

// ID returns the session's id.
func (r *Watcher) ID() string { return r.session.id }

// Add returns a Watcher for h. If until is not zero, an explicit renewal has replaced h's
// key, and the session ends for h at that time.
func (w *Watch) Add(h Holder, until time.Time) *Watcher {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.sessions[h.ID]
	if e == nil {
		e = w.enter(h.ID)
		if !w.lastEnd.Before(h.Since) { // the session that ended may have been this one
			w.urgent = append(w.urgent, e)
		}
		w.changed()
	}
	r := &Watcher{session: e, at: len(e.watchers), holder: h, ended: make(chan struct{})}
	e.watchers = append(e.watchers, r)
	if !until.IsZero() {
		w.checkAt(e, until)
	}
	return r
}

// enter adds a session. mu is held.
func (w *Watch) enter(id string) *session {
	e := &session{id: id, part: int(w.Random(parts))}
	e.at = len(w.parts[e.part])
	w.parts[e.part] = append(w.parts[e.part], e)
	w.sessions[id] = e
	return e
}

// checkAt schedules a check of the session at that time, out of turn. mu is held.
func (w *Watch) checkAt(e *session, at time.Time) {
	if e.extra != nil && !at.Before(e.extraAt) {
		return // the check at extraAt schedules a later one if necessary
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

// Remove ends the wait of a request, whose channel stays open. r may be nil.
func (w *Watch) Remove(r *Watcher) {
	if r == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.session.remove(r)
	w.tidy(r.session)
}

// Rekey records that the request of r has renewed its session and continues with the new key. r
// may be nil or the zero Watcher.
func (w *Watch) Rekey(r *Watcher, key, explicit string) {
	if r == nil || r.session == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r.holder.Key, r.holder.Explicit, r.holder.Since = key, explicit, time.Now()
}

// Renewed schedules a check of a session that this process has renewed explicitly, for the end
// of its grace.
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
		for _, r := range slices.Backward(e.watchers) { // end moves the last one
			w.end(r)
		}
		w.tidy(e)
	}
}

// end closes a watcher's channel. mu is held.
func (w *Watch) end(r *Watcher) {
	r.session.remove(r)
	close(r.ended)
}

// remove removes a watcher, unless it is removed already. Watch.mu is held.
func (e *session) remove(r *Watcher) {
	if r.at == removed {
		return
	}
	end := len(e.watchers) - 1
	last := e.watchers[end]
	e.watchers[r.at], last.at = last, r.at
	e.watchers[end], r.at = nil, removed
	e.watchers = e.watchers[:end]
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

// changed starts the goroutine if there is none, and wakes it so that it computes its next turn
// again. mu is held.
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

// run checks the sessions until no request waits.
func (w *Watch) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	w.Resumed("turn", "") // the caller of changed may have more changes to make before due reads them
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

// due returns the sessions to check now, and the time until the next turn with sessions; 0 if
// no request waits.
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

// check runs a check of e with the context c, which is e.call.
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

// apply closes the channels of the watchers whose session has ended. status is the result of a
// check that began at the time began. apply ignores the result for a request that has loaded or
// renewed the session since then, because the request knows a newer state. mu is held.
func (w *Watch) apply(e *session, status func(*Holder) (Status, time.Time), began time.Time) {
	now := time.Now()
	for _, r := range slices.Backward(e.watchers) { // end moves the last one
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

// acquire waits until the limit allows another check.
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

// adjust sets the limit after a check that succeeded and took this long. mu is held.
func (w *Watch) adjust(took time.Duration) {
	needed := int(int64(len(w.sessions)) * int64(took) / int64(w.Every))
	w.limit = min(max(w.limit, minChecks+2*needed), maxChecks) // twice what is needed, to catch up after a late turn
}

// replaceCall replaces the context of the check of e. It returns false if no request waits for
// the session, or if another check has replaced the context.
func (w *Watch) replaceCall(e *session, old, new *storectx.Context) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.has(e) || e.call != old {
		return false
	}
	e.call = new
	return true
}
