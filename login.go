package session

import (
	"errors"
	"fmt"
	"strings"
	"time"
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
	if s.refuses("Login") != nil {
		return
	}
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
	if s.refuses("Logout") != nil {
		return
	}
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
	if s.refuses("Renew") != nil || s.m.keyless {
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
	if s.refuses("Remember") != nil {
		return
	}
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
