package session

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// maxUser is how many bytes of a user every store can keep and list.
const maxUser = 1024

// Login binds the session to a user who has just been authenticated, gives it a
// new token (OWASP ASVS 5, 7.2.4: session fixation) and starts both clocks
// again, the absolute one only if the session is not remembered (see Remember).
//
// The values of an anonymous session or of the same user are kept, another
// user's are dropped. A Login of the user who is logged in already, such as a
// password asked for again, keeps the session's id; any other begins a new
// session, and in-flight requests of the old one lose it. Two live sessions in
// one request end. The empty user fails the request, and so does one of more than
// 1024 bytes, which no store keeps: limit what a form may send.
//
// A Login is an authentication and always gives the client a new token, also if the
// request's own token has been replaced meanwhile: a browser whose user clicks twice
// throws the first response away. With a token that another Login of the same user
// has replaced less than a minute before, it takes over the values of the session
// that the user has now, and ends that. With Options.Tokens a Login of the user who is
// logged in already keeps the token.
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

// Logout ends the session, here and in the store: once the response has
// reached the client, no request of any process makes a token of it valid
// again. Unsaved changes are discarded; values set afterwards start a new one.
//
// If the session has ended already, Logout deletes its cookie where the client cannot
// have a newer one. A request whose token was replaced before it arrived, or whose
// grace is over, has no session, and its Logout ends none.
func (s *Session) Logout() {
	s.revise("", func(t *tx, p *pending) {
		*p = pending{logout: true}
		t.awaitSave("Logout")
		if errors.Is(t.problem.err, ErrStore) {
			t.problem.kind = problemPassing // until a Save succeeds, but not in the way of the ending
		} else {
			t.problem = problem{}
		}
	})
}

// Renew gives the session a new token, with the same id, values and absolute
// end. Call it when its privileges change (OWASP Session Management Cheat Sheet,
// "Renew the Session ID After Any Privilege Level Change"). In-flight requests
// with the previous token lose nothing: for Options.RenewGrace, 10 seconds by
// default, they see the session as it was just before, and what they change is
// kept. After that the previous token is ErrReplaced, and Done is closed for the
// requests that hold it. Of concurrent Renews one makes a token. A request whose
// own token was replaced meanwhile cannot Renew or Remember: that is dropped, with
// EventDropped, and Err tells. A session that is not stored yet needs no Renew.
//
// The grace is counted by the clock of the process that renews. In another process
// it is shorter by as much as the clock there is ahead.
//
// With Options.Tokens Renew changes nothing.
func (s *Session) Renew() {
	if s.m.keyless {
		return
	}
	s.revise("Renew", func(t *tx, p *pending) { p.renew = p.renew || !p.logout && t.stored.status != statusNone })
}

// Remember ends the session d from now, in place of both clocks and beyond
// Options.Lifetime too, in a cookie that survives the closing of the browser,
// with a new token as by Renew (with Options.Tokens with the same token). Renew and a Login of the same user keep it;
// Logout and a later Login of another user end it. A d of zero or less fails
// the request. Browsers keep a cookie for 400 days at most (RFC 6265bis, 5.5).
// A remembered session has no idle timeout and so does not meet AAL2; one of more
// than 30 days does not even meet AAL1 (NIST SP 800-63B-4, 2.2.3 and 2.1.3).
func (s *Session) Remember(d time.Duration) {
	if d <= 0 {
		s.refuse(errors.New("session: Remember: the duration is not positive"))
		return
	}
	s.revise("Remember", func(_ *tx, p *pending) { p.remember = milliseconds(time.Now().Add(d)) })
}

// EndBy ends the session at t at the latest, whatever Options.Lifetime says, and
// Remember, before this call or after it: for an end that an identity provider sets
// (SAML 2.0 core, 2.7.2: SessionNotOnOrAfter). Of several times the earliest counts. It
// holds until the next Login, so call EndBy after Login. t is truncated to milliseconds.
//
// EndBy needs no cookie, so that it also works after the first byte of the response, and
// begins no session; one that another change begins ends at t too. If t has passed at
// the commit, that ends the session as Logout does, and stores nothing else: a pending
// Login begins no session then, and what it should have stored is ErrEnded. A zero t
// fails the request.
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

// Clear forgets all values and flashes. User, clocks and token stay.
func (s *Session) Clear() {
	s.revise("", func(t *tx, p *pending) {
		if t.record() != noRecord || len(p.changes) > 0 {
			t.keep(body.Change{Call: "Clear"})
			t.awaitSave("Clear")
		}
	})
}

// MarkPassive says that the request is not the user's doing: a poll, a prefetch, a page that
// asks how long is left. Such a request moves neither LastSeen nor the idle end, whatever it
// changes; a Login does. Call MarkPassive before any other method, at the latest before Save
// and before the first byte of the response. It alone does not load the session.
func (s *Session) MarkPassive() { s.isPassive.Store(true) }

// change keeps a change for the commit.
func (s *Session) change(c body.Change) {
	s.revise("", func(t *tx, _ *pending) {
		t.keep(c)
		t.awaitSave(c.Call)
	})
}

// update applies f to a member's value and keeps f for the case that the
// commit finds another value there.
func (s *Session) update(call, name string, f func(in []byte) ([]byte, error)) {
	for isDone := false; !isDone; {
		isDone = true // also if nothing can be changed
		in := s.use().value(name)
		raw, err := f(in) // outside the transaction: f is the program's code
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

// revise changes what is pending, unless the session could not be loaded: then
// nothing is changed, and Err tells why. tokenCall names the call if it always needs a
// cookie, and is "" for others.
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

// refuse fails the request: nothing of the session is stored.
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

// keep adds a change to what is pending.
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

// timeToSave is how long after its change a Save may come without an EventDropped.
const timeToSave = time.Second

// awaitSave is called for each change. If the handler has returned, only a Save, an
// UpdateNow or a Take stores the change: awaitSave logs the first one, and if none of
// these is called in time it reports the change as dropped. In a session that would
// have to begin, takeBack reports it.
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

// takeBack drops what needs a cookie, when none can be set any more, and reports
// it by the name of the call.
func (t *tx) takeBack() {
	p, call, isOtherUser := &t.pending, "", false
	switch {
	case p.user != "":
		call = "Login"
		if isOtherUser = t.changesUser(p.user); isOtherUser {
			p.changes, p.endBy = nil, time.Time{} // they were the other user's
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

// tooLate reports a call whose cookie can no longer be set. isOtherUser is whether
// it was a Login as another user.
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

// report logs an error that came too late to replace the response.
func (t *tx) report(err error) {
	if !errors.Is(err, ErrStore) { // which has its event already
		t.note(EventDropped, t.stored.rec, err)
	}
	t.m.log.ErrorContext(t.s.ctx, "session: too late to answer with an error", "err", err)
}
