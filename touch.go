package session

import (
	"errors"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// touches are the sessions that this process is touching or has touched, so that a request that
// had loaded a session before its touch does not touch it again.
type touches struct {
	mu          sync.Mutex
	now, before map[string]lastTouch // by the session's id
}

type lastTouch struct {
	ended time.Time // zero: the touch has not ended
}

// maxTouches is how many sessions each of the two maps holds, about a megabyte.
const maxTouches = 4096

// begin reports whether a request that has loaded the session at that time has to touch it. If
// so, the caller calls end.
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

// end records the end of a touch. After a failed touch, the next request tries again.
func (ts *touches) end(id string, hasSucceeded bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.before, id)
	if delete(ts.now, id); hasSucceeded {
		ts.now[id] = lastTouch{ended: time.Now()}
	}
}

// isTouchDue reports whether the request has to touch the record: a use at that time moves
// LastSeen or Expires forward by more than 1/20 of the idle timeout. After a deployment of a
// longer idle timeout, Expires moves by more than LastSeen.
func (s *Session) isTouchDue(st *stored, used time.Time) bool {
	if st.status != statusLive || !s.isUse() {
		return false
	}
	rec := st.rec
	return max(used.Sub(rec.LastSeen), s.m.idleEnd(rec, used).Sub(rec.Expires)) > s.m.idleOf(rec)/20
}

// idleEnd returns when a session ends whose last use is at that time.
func (m *Manager) idleEnd(rec *Record, used time.Time) time.Time {
	return earlier(used.Add(m.idleOf(rec)), rec.Deadline)
}

// isUse reports whether the request moves the session's clocks.
func (s *Session) isUse() bool { return s.source != nil && !s.isPassive.Load() }

// touch touches the record if that is due.
func (t *tx) touch(used time.Time) error {
	rec := t.stored.rec
	if !t.s.isTouchDue(&t.stored, used) || !t.m.touches.begin(rec.ID, used) {
		return nil
	}
	touched, err := t.m.touch(t.context(), rec)
	return t.touched(touched, err)
}

// touchAtLoad touches the session at once if less than half of its idle time is left, because the
// request may take longer than that. Session.LastSeen and Expires still return the values from
// before the request.
func (t *tx) touchAtLoad() {
	rec, now := t.stored.rec, t.loaded
	switch {
	case t.stored.status != statusLive, !t.s.isUse(), rec.Expires.Sub(now) >= t.m.idleOf(rec)/2:
	case !rec.Expires.Before(rec.Deadline): // no use moves its end
	case t.m.touches.begin(rec.ID, now):
		if _, err := t.m.touch(t.context(), rec); err != nil {
			_ = t.touched(rec, err) // finish tries again
		}
	}
}

// used returns rec as it is after a use now.
func (m *Manager) used(rec *Record) *Record {
	used, now := *rec, milliseconds(time.Now())
	used.LastSeen, used.Expires = now, later(rec.Expires, m.idleEnd(rec, now))
	return &used
}

// idleOf returns the idle timeout of a session: its own, if another program has set one, or that of
// the Manager.
func (m *Manager) idleOf(rec *Record) time.Duration {
	if m.isShared {
		if d := body.IdleOf(rec.Data); d > 0 {
			return d
		}
	}
	return m.idle
}

// touch moves LastSeen and Expires of the stored record forward.
func (m *Manager) touch(c *storectx.Context, rec *Record) (*Record, error) {
	touched := m.used(rec)
	hasSucceeded := false
	defer func() { m.touches.end(rec.ID, hasSucceeded) }() // also if the store panics
	err := m.store.Touch(c, rec.ID, touched.LastSeen, touched.Expires)
	hasSucceeded = err == nil
	return touched, err
}

// touched updates the state after a touch.
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
