package session

import (
	"bytes"
	"context"
	"errors"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// An immediate change is committed by the call that makes it: Key.Take and
// Key.UpdateNow.
type immediate struct {
	s         *Session
	call      string // the method's name, for errors
	name      string // of the member
	f         func(in []byte) ([]byte, error)
	was, is   []byte // the value that f was last called with, and what f made of it
	unchanged bool   // f last returned errUnchanged
}

// errUnchanged is what f returns to leave a value as it is.
var errUnchanged = errors.New("session: unchanged")

// updateNow replaces a value by f of it and commits everything that is pending. It
// returns the value that was replaced and the one that was stored. f runs again if
// the commit finds another value.
func (s *Session) updateNow(ctx context.Context, call, name string, f func(in []byte) ([]byte, error)) (was, is []byte, err error) {
	u := &immediate{s: s, call: call, name: name, f: f}
	s.loadWithin(ctx)
	for done := false; !done; {
		var in []byte
		if in, err = s.current(name); err == nil {
			err = u.run(in) // without a lock: f is the program's code
		}
		if err != nil {
			s.reportProblem(err)
			return nil, nil, err
		}
		if done, err = u.commit(ctx); err != nil {
			return nil, nil, err
		}
	}
	return u.was, u.is, nil
}

func (u *immediate) run(in []byte) error {
	is, err := u.f(in)
	if u.unchanged = err == errUnchanged; u.unchanged {
		is, err = in, nil
	}
	if err == nil {
		u.was, u.is = in, is
	}
	return err
}

// again is the change's function for the commit: it calls f if the value is not the
// one that f was called with before.
func (u *immediate) again(in []byte) ([]byte, error) {
	if u.s.isOutdated(u.name) {
		return nil, ErrReplaced
	}
	if bytes.Equal(in, u.was) {
		return u.is, nil
	}
	err := u.run(in)
	return u.is, err
}

// commit commits the change and everything else that is pending. It returns false
// if this request sees another value than the one that f was called with. If it fails, the change is
// no longer pending; everything else is.
func (u *immediate) commit(ctx context.Context) (done bool, err error) {
	s := u.s
	s.changing.Lock()
	defer s.done()
	c := storectx.Within(ctx, s.m.timeout)
	defer c.Release()
	s.mu.Lock()
	s.saves++
	if s.at != open {
		s.takeBack()
	}
	t, before := &s.todo, len(s.todo.changes)
	switch {
	case !bytes.Equal(u.was, t.changes.Value(s.base(), u.name)), s.problem.is == missedLogin:
		s.mu.Unlock()
		return false, nil
	case u.unchanged && !t.logout && !t.asks():
		s.mu.Unlock()
		return true, nil
	case u.unchanged:
	case s.at != open && s.source != nil && (s.stored.is == nothing || t.logout):
		s.mu.Unlock()
		return false, lateError(u.call)
	default:
		s.keep(body.Change{Call: u.call, Name: u.name, Raw: u.is, In: notJSON, Again: u.again})
	}
	s.mu.Unlock()
	defer func() { // also if f or the store panics
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case done && !s.problem.late():
			s.problem = problem{}
		case !done:
			s.problem.report()
			if !s.problem.lasts() && len(t.changes) > before {
				t.changes = t.changes[:before]
			}
		}
	}()
	wantsEnd := t.logout
	if err = (commit{s, c, t}).run(); err == nil && !wantsEnd {
		err = s.stored.over() // an EndBy has ended it
	}
	return err == nil, err
}

// reportProblem makes the session's problem the one of the caller that got err.
func (s *Session) reportProblem(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem.err == err {
		s.problem.report()
	}
}

// loadWithin loads the session, if this is its first use, within the time of ctx.
func (s *Session) loadWithin(ctx context.Context) {
	c := storectx.Within(ctx, s.m.timeout)
	defer c.Release()
	s.lockWithin(c)
	s.unlock()
}

// current returns a value for a call that only one request may make with it:
// Take, UpdateNow and Refresh. It returns an error if this request cannot have the
// value.
func (s *Session) current(name string) ([]byte, error) {
	s.lock()
	defer s.unlock()
	st, begins := &s.stored, s.todo.user != "" || s.todo.logout
	switch {
	case st.is == unknown, s.problem.lasts(), s.problem.is == missedLogin:
		return nil, s.problem.err
	case begins:
	case st.is == twins:
		return nil, errTwins
	case st.over() != nil:
		return nil, st.over()
	}
	if s.isOutdated(name) {
		return nil, ErrReplaced
	}
	return s.todo.changes.Value(s.base(), name), nil
}

// isOutdated reports whether a value that this request sees has changed since an
// explicit renewal by another request. What this request sees of it is used up, and it
// must not see the newer value.
func (s *Session) isOutdated(name string) bool {
	st := &s.stored
	return st.frozen != nil && s.base() != nil && !bytes.Equal(body.Value(st.rec.Data, name), body.Value(st.frozen.Data, name))
}
