package session

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// maxUser is the longest name of a user that every store can keep and list, in bytes.
const maxUser = 1024

// Login binds the session to a user who has just been authenticated. It gives the session a new
// token (OWASP ASVS 5, 7.2.4: session fixation) and restarts both clocks, but not the absolute
// end of a remembered session (see [Session.Remember]).
//
// The values of an anonymous session, or of the same user, are kept; those of another user are
// dropped. A Login of the user who is logged in already (reauthentication) keeps the id of the
// session. Any other Login begins a new session, and in-flight requests of the old session lose
// it. If the request carries two live sessions, both end. An empty user fails the request, and so
// does a user of more than 1024 bytes: limit what a form may send.
//
// A Login is an authentication and always issues a new token, even if the request's own token
// was replaced meanwhile: after a double click a browser ignores the first response. A Login
// with a token that another Login of the same user has replaced less than a minute before takes
// over the values of the user's present session, and ends that session. With [Options].Tokens a
// Login of the user who is logged in already keeps the token.
func (s *Session) Login(user string) {
	if user == "" {
		s.refuse(errors.New("session: Login: the user is empty"))
		return
	}
	if len(user) > maxUser {
		s.refuse(fmt.Errorf("session: Login: the user has %d bytes, the limit is %d", len(user), maxUser))
		return
	}
	s.revise("Login", func(t *tx, p *pending) {
		was := t.record().User
		if p.user != "" {
			was = p.user
		}
		if was != "" && was != user {
			*p = pending{logout: p.logout, remember: p.remember}
		}
		p.endBy = time.Time{}
		p.logout = p.logout || t.stored.status == statusAmbiguous
		p.user, p.at = strings.Clone(user), milliseconds(time.Now())
	})
}

// Logout ends the session: once the response has reached the client, no request of any process
// makes a token of the session valid again. Pending changes are dropped; values that are set
// afterwards begin a new session.
//
// If the session has ended already, Logout deletes its cookie, unless the client may have a newer
// one. A request whose token was replaced before the request arrived, or whose grace has passed,
// has no session, and its Logout ends none.
func (s *Session) Logout() {
	s.revise("", func(t *tx, p *pending) {
		*p = pending{logout: true}
		t.awaitSave("Logout")
		if errors.Is(t.problem.err, ErrStore) {
			t.problem.kind = problemPassing // a successful Save clears the problem, which does not prevent the ending
		} else {
			t.problem = problem{}
		}
	})
}

// Renew gives the session a new token. Id, values and absolute end stay. Call it when the
// privileges of the session change (OWASP Session Management Cheat Sheet, "Renew the Session ID
// After Any Privilege Level Change"). In-flight requests with the previous token lose nothing:
// for [Options].RenewGrace, by default 10 seconds, they see the session as it was just before, and
// their changes are kept. After that the previous token gives [ErrReplaced], and Done is closed
// for the requests that hold it. Of concurrent Renews one makes a token. A Renew or Remember of a
// request whose own token was replaced meanwhile is dropped ([EventDropped], and Err returns the
// reason). A session that is not stored yet needs no Renew.
//
// The grace is measured by the clock of the process that renews. In a process whose clock is
// ahead it is shorter by the difference.
//
// With Options.Tokens, Renew changes nothing.
func (s *Session) Renew() {
	if s.m.keyless {
		return
	}
	s.revise("Renew", func(t *tx, p *pending) { p.renew = p.renew || !p.logout && t.stored.status != statusNone })
}

// Remember makes the session end d from now, instead of by [Options].IdleTimeout and Lifetime,
// and its cookie survive the closing of the browser. It issues a new token as [Session.Renew]
// does, but not with Options.Tokens. Renew and a Login of the same user keep the end; Logout and a
// later Login of another user end the session. A d of zero or less fails the request. Browsers
// keep a cookie for at most 400 days (RFC 6265bis, 5.5). A remembered session has no idle timeout,
// so it does not meet AAL2; with more than 30 days it does not meet AAL1 either (NIST SP 800-63B-4,
// 2.2.3 and 2.1.3).
func (s *Session) Remember(d time.Duration) {
	if d <= 0 {
		s.refuse(errors.New("session: Remember: the duration is not positive"))
		return
	}
	s.revise("Remember", func(_ *tx, p *pending) { p.remember = milliseconds(time.Now().Add(d)) })
}

// EndBy makes the session end at t at the latest, whatever [Options].Lifetime and
// [Session.Remember] say, before this call or after it. It is for an end that an identity provider
// sets (SAML 2.0 core, 2.7.2: SessionNotOnOrAfter). Of several times the earliest counts. EndBy
// applies until the next Login, so call it after Login. t is truncated to milliseconds.
//
// EndBy needs no cookie, so it also works after the first byte of the response. It begins no
// session, but applies to a session that another change begins. If t has passed at the commit,
// the commit ends the session as Logout does and stores no changes; a pending Login then begins
// no session, and Save returns [ErrEnded]. A zero t fails the request.
func (s *Session) EndBy(t time.Time) {
	if t.IsZero() {
		s.refuse(errors.New("session: EndBy: the time is zero"))
		return
	}
	end := milliseconds(t)
	s.revise("", func(t *tx, p *pending) {
		if t.problem.kind != problemLateLogin && (p.endBy.IsZero() || end.Before(p.endBy)) {
			p.endBy = end
		}
		t.awaitSave("EndBy")
	})
}

// Clear removes all values and flashes. User, clocks and token stay.
func (s *Session) Clear() {
	s.revise("", func(t *tx, p *pending) {
		if t.record() != noRecord || len(p.changes) > 0 {
			t.keep(body.Change{Call: "Clear"})
			t.awaitSave("Clear")
		}
	})
}

// MarkPassive marks the request as not the user's doing: a poll, a prefetch, a request for the
// time that is left. Such a request moves neither LastSeen nor the idle end, whatever it changes,
// unless it calls Login. Call MarkPassive before any other method of the session, at the latest
// before Save and before the first byte of the response. It does not load the session.
func (s *Session) MarkPassive() { s.isPassive.Store(true) }

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

// refuse makes err the session's problem, so that nothing is stored.
func (s *Session) refuse(err error) {
	_ = s.transact(func(t *tx) error {
		if !t.problem.isLasting() {
			t.problem = problem{problemLasting, err}
			if t.phase() != phaseOpen {
				t.report(err)
			}
		}
		return nil
	})
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
		s.m.log.WarnContext(s.ctx, "session: a change after the handler has returned is not stored by itself; call Save, or Key.UpdateNow or Key.Take in its place (logged once)", "call", call)
	}
	if s.m.onEvent == nil {
		return
	}
	saves := s.saves
	time.AfterFunc(timeToSave, func() {
		defer func() {
			if v := recover(); v != nil {
				s.m.log.ErrorContext(s.ctx, "session: OnEvent panicked", "panic", v)
			}
		}()
		s.mu.Lock()
		isSaved := s.saves != saves
		s.mu.Unlock()
		if !isSaved {
			s.m.emit(s.ctx, EventDropped, s.state.Load().stored.rec, fmt.Errorf("session: %s: called after the handler has returned, and not followed by a Save", call))
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
	if t.s.source != nil && (t.stored.status == statusNone || p.logout) && p.changes.AddValues() {
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
	if t.s.source == nil {
		t.problem = problem{problemLasting, fmt.Errorf("session: %s: a session that List returned has no cookie", call)}
		return
	}
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

func lateError(call string) error {
	return fmt.Errorf("session: %s: the header of the response has left, and with it the cookie that this needs: call it before the first byte", call)
}

// report logs an error that cannot replace the response any more.
func (t *tx) report(err error) {
	if !errors.Is(err, ErrStore) { // an ErrStore has an event
		t.note(EventDropped, t.stored.rec, err)
	}
	t.m.log.ErrorContext(t.s.ctx, "session: too late to answer with an error", "err", err)
}
