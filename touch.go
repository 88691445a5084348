package session

import (
	"errors"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// isTouchDue reports whether the request has to touch the record: a use at that time moves
// LastSeen or Expires forward by more than 1/20 of the idle timeout. After a deployment of a
// longer idle timeout, Expires moves by more than LastSeen.
func (s *Session) isTouchDue(st *stored, used time.Time) bool {
	if st.status != statusLive || !s.isUse() {
		return false
	}
	rec, idle := st.rec, s.m.idleOf(st.rec)
	least := idle / 20
	return used.Add(-least).After(rec.LastSeen) ||
		used.Add(idle-least).After(rec.Expires) && rec.Deadline.After(rec.Expires.Add(least))
}

// idleEnd returns when a session ends whose last use is at that time.
func (m *Manager) idleEnd(rec *Record, used time.Time) time.Time {
	return earlier(used.Add(m.idleOf(rec)), rec.Deadline)
}

// isUse reports whether the request moves the session's clocks.
func (s *Session) isUse() bool { return !s.isPassive.Load() }

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
	case t.stored.status != statusLive, !t.s.isUse(), !now.Add(t.m.idleOf(rec) / 2).After(rec.Expires):
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

// isPersistent reports whether the cookie survives the closing of the browser without a
// Remember. If another program reads the record too, the record decides.
func (m *Manager) isPersistent(rec *Record) bool {
	if m.isShared {
		return body.IdleOf(rec.Data) > 0
	}
	return m.persistent
}

// sendsAgain reports whether the token is sent again when the session is saved or touched: no
// renewal replaces a foreign token, and a persistent cookie has to last as long as the session
// does now.
func (m *Manager) sendsAgain(rec *Record) bool { return m.keyless && m.isPersistent(rec) }

// sendAgain makes the response set the token of the request again if sendsAgain says so.
// isAutomatic is false if the program has called Remember.
func (t *tx) sendAgain(rec *Record, isAutomatic bool) {
	if t.m.keyless && (!isAutomatic || t.m.isPersistent(rec)) && t.phase() == phaseOpen && t.cookie.action == cookieKeep {
		t.cookie = cookie{action: cookieSend, isAutomatic: isAutomatic}
	}
}
