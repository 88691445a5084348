package session

import (
	"errors"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// touches remember which sessions this process is touching or has touched, so that
// requests that had loaded a session before do not touch it once more.
type touches struct {
	mu          sync.Mutex
	now, before map[string]lastTouch // by the session's id
}

type lastTouch struct {
	ended time.Time // zero: it has not
}

// maxTouches is how many sessions each of the two maps holds: about a megabyte.
const maxTouches = 4096

// begin reports whether a session is to be touched for a request that loaded it at
// that time. The caller calls end.
func (ts *touches) begin(id string, loaded time.Time) bool {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, m := range []map[string]lastTouch{ts.now, ts.before} {
		if last, ok := m[id]; ok && (last.ended.IsZero() || !loaded.After(last.ended)) {
			return false
		}
	}
	if len(ts.now) >= maxTouches || ts.now == nil {
		ts.now, ts.before = map[string]lastTouch{}, ts.now
	}
	ts.now[id] = lastTouch{}
	return true
}

// end keeps when a touch has ended. One that failed is forgotten: the next request
// tries again.
func (ts *touches) end(id string, hasSucceeded bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.before, id)
	if delete(ts.now, id); hasSucceeded {
		ts.now[id] = lastTouch{ended: time.Now()}
	}
}

// isTouchDue reports whether the request, a use at that time, is to move the record's clocks
// forward: one of them by more than 1/20 of the idle timeout. Expires may have further to go
// than LastSeen after a deployment of a longer idle timeout.
func (s *Session) isTouchDue(st *stored, used time.Time) bool {
	if st.status != statusLive || !s.isUse() {
		return false
	}
	rec := st.rec
	return max(used.Sub(rec.LastSeen), s.m.idleEnd(rec, used).Sub(rec.Expires)) > s.m.idleOf(rec)/20
}

// idleEnd returns when a session ends that is used at that time, and not afterwards.
func (m *Manager) idleEnd(rec *Record, used time.Time) time.Time {
	return earlier(used.Add(m.idleOf(rec)), rec.Deadline)
}

// isUse reports whether the request moves the session's clocks.
func (s *Session) isUse() bool { return s.source != nil && !s.isPassive.Load() }

// touch moves the record's clocks forward if that is due.
func (t *tx) touch(used time.Time) error {
	rec := t.stored.rec
	if !t.s.isTouchDue(&t.stored, used) || !t.m.touches.begin(rec.ID, used) {
		return nil
	}
	touched, err := t.m.touch(t.context(), rec)
	return t.touched(touched, err)
}

// touchAtLoad touches a session at once that has less than half of the idle time left: the
// request may take longer than the rest. LastSeen and Expires go on showing what was
// before this request.
func (t *tx) touchAtLoad() {
	rec, now := t.stored.rec, t.loaded
	switch {
	case t.stored.status != statusLive, !t.s.isUse(), rec.Expires.Sub(now) >= t.m.idleOf(rec)/2:
	case !rec.Expires.Before(rec.Deadline): // no use puts off its end
	case t.m.touches.begin(rec.ID, now):
		if _, err := t.m.touch(t.context(), rec); err != nil {
			_ = t.touched(rec, err) // it is tried again after the handler
		}
	}
}

// used returns a record as a use now leaves it.
func (m *Manager) used(rec *Record) *Record {
	used, now := *rec, milliseconds(time.Now())
	used.LastSeen, used.Expires = now, later(rec.Expires, m.idleEnd(rec, now))
	return &used
}

// idleOf returns the idle timeout of a session: its own, if another program has given it one,
// or the Manager's.
func (m *Manager) idleOf(rec *Record) time.Duration {
	if m.isShared {
		if d := body.IdleOf(rec.Data); d > 0 {
			return d
		}
	}
	return m.idle
}

// touch moves the clocks of a record forward in the store.
func (m *Manager) touch(c *storectx.Context, rec *Record) (*Record, error) {
	touched := m.used(rec)
	hasSucceeded := false
	defer func() { m.touches.end(rec.ID, hasSucceeded) }() // also if the store panics
	err := m.store.Touch(c, rec.ID, touched.LastSeen, touched.Expires)
	hasSucceeded = err == nil
	return touched, err
}

// touched keeps what a touch has made of the record.
func (t *tx) touched(rec *Record, err error) error {
	switch {
	case err == nil:
		t.stored.rec = rec
		t.sendAgain(rec, true)
		return nil
	case errors.Is(err, ErrNotFound):
		t.note(EventDropped, t.stored.rec, ErrEnded)
		t.stored = stored{status: statusEnded, ref: t.stored.ref, wasLoaded: true}
		return ErrEnded
	}
	err = storeError("touch", err)
	t.note(EventStoreFailed, t.stored.rec, err)
	return err
}
