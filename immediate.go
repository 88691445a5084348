package session

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/coatcheck/session/internal/body"
)

// An immediate change is committed by the call that makes it: Key.Take and
// Key.UpdateNow.
type immediate struct {
	s           *Session
	call        string // the method's name, for errors
	name        string // of the member
	f           func(in []byte) ([]byte, error)
	was, is     []byte // the value that f was last called with, and the value that f returned
	isUnchanged bool   // f last returned errUnchanged
}

// errUnchanged is returned by an f that leaves the value as it is.
var errUnchanged = errors.New("session: unchanged")

// updateNow replaces a value by f of it and commits all pending changes. It returns the value
// that was replaced and the value that was stored. f runs again if the commit finds another
// value.
func (s *Session) updateNow(ctx context.Context, call, name string, f func(in []byte) ([]byte, error)) (was, is []byte, err error) {
	if err := s.refuses(call); err != nil {
		return nil, nil, err
	}
	u := &immediate{s: s, call: call, name: name, f: f}
	s.useWithin(ctx)
	for isDone := false; !isDone; {
		var in []byte
		if in, err = s.use().current(name); err == nil {
			err = u.run(in) // outside the transaction, because f is code of the program
		}
		if err != nil {
			s.reportProblem(err)
			return nil, nil, err
		}
		if isDone, err = u.commit(ctx); err != nil {
			return nil, nil, err
		}
	}
	return u.was, u.is, nil
}

func (u *immediate) run(in []byte) error {
	is, err := u.f(in)
	if u.isUnchanged = err == errUnchanged; u.isUnchanged {
		is, err = in, nil
	}
	if err == nil {
		u.was, u.is = in, is
	}
	return err
}

// commit commits the change and all pending changes. It returns false if the value is another
// one than f was called with. If the commit fails, this change is no longer pending, and all
// others still are.
func (u *immediate) commit(ctx context.Context) (isDone bool, err error) {
	s := u.s
	err = s.transactWithin(ctx, func(t *tx) error {
		s.saves.Add(1)
		if t.phase() != phaseOpen {
			t.takeBack()
		}
		p := &t.pending
		before := len(p.changes)
		switch {
		case !bytes.Equal(u.was, t.value(u.name)), t.problem.kind == problemLateLogin:
			return nil
		case u.isUnchanged && !p.logout && !p.hasWork():
			isDone = true
			return nil
		case u.isUnchanged:
		case t.phase() != phaseOpen && (t.stored.status == statusNone || p.logout):
			return lateError(u.call)
		default:
			t.keep(body.Change{Call: u.call, Name: u.name, Raw: u.is, In: notJSON, Again: u.again(t)})
		}
		asksEnd := p.logout
		err := t.commit()
		if err == nil && !asksEnd {
			err = t.stored.err() // an EndBy has ended it
		}
		isDone = err == nil
		switch {
		case isDone && !t.problem.isLate():
			t.problem = problem{}
		case !isDone:
			t.problem.report()
			if !t.problem.isLasting() && len(p.changes) > before {
				p.changes = slices.Clip(p.changes[:before])
			}
		}
		return err
	})
	return isDone, err
}

// again returns the function that reapplies the change in the commit: it calls f if the value
// is not the one that f was called with before.
func (u *immediate) again(t *tx) func(in []byte) ([]byte, error) {
	return func(in []byte) ([]byte, error) {
		if t.isOutdated(u.name) {
			return nil, ErrReplaced
		}
		if bytes.Equal(in, u.was) {
			return u.is, nil
		}
		err := u.run(in)
		return u.is, err
	}
}

// reportProblem notes that the caller has got err, if that is the session's problem.
func (s *Session) reportProblem(err error) {
	_ = s.transact(func(t *tx) error {
		if t.problem.err == err {
			t.problem.report()
		}
		return nil
	})
}

// current returns a value for Take, UpdateNow and Refresh, which act on a value at most once.
// It returns an error if the request must not act on the value.
func (st *state) current(name string) ([]byte, error) {
	begins := st.pending.user != "" || st.pending.logout
	switch {
	case !st.stored.isKnown(), st.problem.isLasting(), st.problem.kind == problemLateLogin:
		return nil, st.problem.err
	case begins:
	case st.stored.status == statusAmbiguous:
		return nil, errTwins
	case st.stored.err() != nil:
		return nil, st.stored.err()
	}
	if st.isOutdated(name) {
		return nil, ErrReplaced
	}
	return st.value(name), nil
}

// notJSON is a Change.In that no member equals, so that Again is always called.
var notJSON = []byte{0}
