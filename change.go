package session

import (
	"bytes"
	"cmp"
	"fmt"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// Clear removes all values and flashes. User, clocks and token stay.
func (s *Session) Clear() {
	s.revise("", func(t *tx, p *pending) {
		if t.record() != noRecord || len(p.changes) > 0 {
			t.keep(body.Change{Call: "Clear"})
			t.awaitSave("Clear")
		}
	})
}

// change adds a change to the pending ones.
func (s *Session) change(c body.Change) {
	s.revise("", func(t *tx, _ *pending) {
		t.keep(c)
		t.awaitSave(c.Call)
	})
}

// update adds a change of a member to f of its value. The commit calls f again if it finds
// another value.
func (s *Session) update(call, name string, f func(in []byte) ([]byte, error)) {
	for isDone := false; !isDone; {
		isDone = true // even if nothing can be changed
		in := s.use().value(name)
		raw, err := f(in) // outside the transaction, because f is code of the program
		if err != nil {
			s.refuse(err)
			return
		}
		s.revise("", func(t *tx, _ *pending) {
			if isDone = bytes.Equal(in, t.value(name)); isDone {
				t.keep(body.Change{Call: call, Name: name, Raw: raw, In: in, Again: f})
				t.awaitSave(call)
			}
		})
	}
}

// revise calls f to change what is pending. If the session could not be loaded, nothing is
// changed, and Err returns the reason. tokenCall is the name of the call if it always needs a
// cookie, otherwise "".
func (s *Session) revise(tokenCall string, f func(t *tx, p *pending)) {
	_ = s.transact(func(t *tx) error {
		switch {
		case !t.stored.isKnown():
		case t.phase() != phaseOpen && tokenCall != "":
			var asked pending
			f(t, &asked)
			if asked.needsToken() {
				t.tooLate(tokenCall, t.changesUser(asked.user))
			}
		default:
			f(t, &t.pending)
			t.problem.retry()
			if t.phase() != phaseOpen {
				t.takeBack()
			}
		}
		return nil
	})
}

// refuses fails an Edit if its function makes a call that only a request may make.
func (s *Session) refuses(call string) error {
	err := s.origin.allows(call)
	if err != nil {
		s.refuse(err)
	}
	return err
}

// keep adds a change to the pending ones.
func (t *tx) keep(c body.Change) {
	if c.Name == "" && c.Call != "Clear" {
		panic("session: a Key must be made by NewKey")
	}
	if t.pending.changes == nil {
		t.pending.changes = t.room[:0]
	}
	if t.problem.kind != problemLateLogin {
		t.pending.changes = t.pending.changes.Add(c)
	}
}

// timeToSave is how long after a change the Save may follow without an EventDropped.
const timeToSave = time.Second

// awaitSave is called for each change. After the handler has returned, only a Save, an
// UpdateNow or a Take stores a change: awaitSave logs the first such change of the Manager, and
// reports the change as dropped unless one of these calls follows within timeToSave. takeBack
// reports a change that would begin a session.
func (t *tx) awaitSave(call string) {
	if t.phase() != phaseReturned || t.stored.status == statusNone {
		return
	}
	s := t.s
	if s.m.unsaved.CompareAndSwap(false, true) {
		s.m.log.WarnContext(s.ctx, "session: change after the handler has returned is not stored; call Save, Key.UpdateNow or Key.Take (logged once)", "call", call)
	}
	if s.m.onEvent == nil {
		return
	}
	saves := s.saves.Load()
	time.AfterFunc(timeToSave, func() {
		defer func() {
			if v := recover(); v != nil {
				s.m.log.ErrorContext(s.ctx, "session: OnEvent panicked", "panic", v)
			}
		}()
		resumed(s.ctx)
		if s.saves.Load() == saves {
			st := &s.state.Load().stored
			rec := cmp.Or(st.rec, &Record{ID: st.ref.ID}) // the session may have ended
			s.m.emit(s.ctx, EventDropped, rec, fmt.Errorf("session: %s: called after the handler has returned, and not followed by a Save", call))
		}
	})
}

// takeBack drops pending calls that need a cookie when no cookie can be set any more, and reports
// them by name.
func (t *tx) takeBack() {
	p, call, isOtherUser := &t.pending, "", false
	switch {
	case p.user != "":
		call = "Login"
		if isOtherUser = t.changesUser(p.user); isOtherUser {
			p.changes, p.endBy = nil, time.Time{} // they belong to the other user
		}
	case p.renew:
		call = "Renew"
	case !p.remember.IsZero():
		call = "Remember"
	case t.cookie.action == cookieSend && !t.cookie.isAutomatic && t.phase() == phaseOpen:
		call = "Save"
	}
	p.user, p.renew, p.remember = "", false, time.Time{}
	if (t.stored.status == statusNone || p.logout) && p.changes.AddValues() {
		if call == "" {
			call = p.changes[0].Call
		}
		p.changes = nil
	}
	if call != "" {
		t.tooLate(call, isOtherUser)
	}
}

// tooLate reports a call whose cookie can no longer be set. isOtherUser is whether the call is a
// Login as another user.
func (t *tx) tooLate(call string, isOtherUser bool) {
	err := lateError(call)
	switch {
	case t.problem.isLasting():
	case isOtherUser || t.problem.kind == problemLateLogin:
		t.problem = problem{problemLateLogin, err}
	default:
		t.problem = problem{problemLate, err}
	}
	t.report(err)
}
