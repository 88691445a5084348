package session

import (
	"bytes"
	"fmt"
)

// change keeps a change for the commit.
func (s *Session) change(c change) {
	s.revise("", func(t *pending) { s.keep(c) })
}

// keep adds a change to what is pending.
func (s *Session) keep(c change) {
	if c.name == "" && c.call != "Clear" {
		panic("session: a Key must be made by NewKey")
	}
	if !s.shut {
		s.todo.changes = add(s.todo.changes, c)
	}
}

// update applies f to a member's value and keeps f for the case that the
// commit finds another value there.
func (s *Session) update(call, name string, f func(in []byte) ([]byte, error)) {
	for done := false; !done; {
		done = true // also if there is nothing to revise
		in := s.value(name)
		raw, err := f(in) // without a lock: it is the program's code
		if err != nil {
			s.refuse(err)
			return
		}
		s.revise("", func(t *pending) {
			if done = bytes.Equal(in, lookup(s.base(), t.changes, name)); done {
				s.keep(change{call, name, raw, in, f})
			}
		})
	}
}

// revise changes what is pending, unless the session could not be loaded: then
// nothing is changed, and Err tells why. token names the call if it is one that
// always needs a cookie.
func (s *Session) revise(token string, f func(*pending)) {
	s.turn.Lock()
	defer s.done()
	s.lock()
	defer s.mu.Unlock()
	switch {
	case s.unread:
	case s.late && token != "":
		var t pending
		f(&t)
		if s.shut = s.shut || t.forget; t.user != "" || t.renew || t.remember {
			s.tooLate(token)
		}
	default:
		f(&s.todo)
		if !s.stuck {
			s.told = false
		}
		if s.late {
			s.takeBack()
		}
	}
}

// refuse fails the request: nothing of the session is stored.
func (s *Session) refuse(err error) {
	s.turn.Lock()
	defer s.done()
	s.lock()
	defer s.mu.Unlock()
	if s.err == nil || !s.stuck {
		s.err, s.stuck, s.told = err, true, false
		if s.late {
			s.report(err)
		}
	}
}

// takeBack forgets what needs a cookie, now that none can be set, and reports
// it by the name of the call.
func (s *Session) takeBack() {
	t, call := &s.todo, ""
	switch {
	case t.user != "":
		call = "Login"
		if t.forget {
			t.changes = nil // they were the other user's
		}
	case t.renew:
		call = "Renew"
	case t.remember || s.resend:
		call = "Remember"
	case s.issued != nil && !s.late:
		call = "Save"
	}
	t.user, t.forget, t.renew, t.remember, s.resend = "", false, false, false, false
	if (s.rec == nil || t.logout) && s.fate == alive && s.source != nil && s.holds() {
		if call == "" {
			call = t.changes[0].call
		}
		t.changes = nil
	}
	if call != "" {
		s.tooLate(call)
	}
}

// tooLate reports a call whose cookie can no longer be set.
func (s *Session) tooLate(call string) {
	if s.source == nil {
		s.err, s.stuck = fmt.Errorf("session: %s: a session that List returned has no cookie", call), true
		return
	}
	s.err, s.tardy = fmt.Errorf("session: %s: the header of the response has left, and with it the cookie that this needs: call it before the first byte", call), true
	s.report(s.err)
}

// forgive forgets the error and what follows from it.
func (s *Session) forgive() {
	s.err, s.stuck, s.tardy, s.told, s.shut = nil, false, false, false, false
}

// done ends the turn of who changed or committed, and hands over the events.
func (s *Session) done() {
	s.turn.Unlock()
	if s.k.onEvent != nil {
		s.mu.Lock()
		s.unlock()
	}
}
