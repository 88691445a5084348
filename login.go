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
		s.refuse(errors.New("session: Login: the user is empty: pass the id of the user who has logged in"))
		return
	}
	if len(user) > maxUser {
		s.refuse(fmt.Errorf("session: Login: the user has %d bytes, the limit is %d", len(user), maxUser))
		return
	}
	s.revise("Login", func(t *tx, p *pending) { t.login(p, user) })
}

// login adds a Login to p.
func (t *tx) login(p *pending, user string) {
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
	s.revise("", func(t *tx, p *pending) { t.logout(p) })
}

// logout makes p a Logout.
func (t *tx) logout(p *pending) {
	*p = pending{logout: true}
	t.awaitSave("Logout")
	if errors.Is(t.problem.err, ErrStore) {
		t.problem.kind = problemPassing // a successful Save clears the problem, which does not prevent the ending
	} else {
		t.problem = problem{}
	}
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
