package session

import (
	"errors"
	"sync"
	"time"

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

// touchIsDue reports whether this request is to move the record's clocks forward,
// because at that time they were old enough to bother.
func (s *Session) touchIsDue(used time.Time) bool {
	return s.stored.is == live && s.isUse() && used.Sub(s.stored.rec.LastSeen) > s.m.idle/20
}

// touch moves the record's clocks forward if that is due. A nil c is a context of its
// own.
func (s *Session) touch(c *storectx.Context, used time.Time) error {
	rec := s.stored.rec
	if !s.touchIsDue(used) || !s.m.touches.begin(rec.ID, used) {
		return nil
	}
	if c == nil {
		c = s.context()
		defer c.Release()
	}
	touched, err := s.m.touch(c, rec)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.touched(touched, err)
}

// touchAtLoad touches a session at once of whose idle time more than half is gone: the
// request may take longer than the rest. LastSeen and Expires go on showing what was
// before this request. mu is held.
func (s *Session) touchAtLoad(c *storectx.Context) {
	rec, now := s.stored.rec, s.loaded
	switch {
	case s.stored.is != live, !s.isUse(), now.Sub(rec.LastSeen) <= s.m.idle/2:
	case !rec.Expires.Before(rec.Deadline): // no use puts off its end
	case s.m.touches.begin(rec.ID, now):
		if _, err := s.m.touch(c, rec); err != nil {
			_ = s.touched(rec, err) // it is tried again after the handler
		}
	}
}

// used returns a record as a use now leaves it.
func (m *Manager) used(rec *Record) *Record {
	used, now := *rec, milliseconds(time.Now())
	used.LastSeen, used.Expires = now, later(rec.Expires, earlier(now.Add(m.idle), rec.Deadline))
	return &used
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

// touched keeps what a touch has made of the record. mu is held.
func (s *Session) touched(rec *Record, err error) error {
	switch {
	case err == nil:
		s.stored.rec = rec
		s.sendAgain(true)
		return nil
	case errors.Is(err, ErrNotFound):
		s.note(EventDropped, s.stored.rec, ErrEnded)
		s.stored = stored{is: ended, held: s.stored.held, wasHad: true}
		return ErrEnded
	}
	err = storeError("touch", err)
	s.note(EventStoreFailed, s.stored.rec, err)
	return err
}
