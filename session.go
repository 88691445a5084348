package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Session is what one request sees of a session. From returns it; it may be
// used by any number of goroutines, and after the request for reading.
//
// The first method called loads the session from the store (one round trip); a
// request that calls none costs nothing. Changes are made in memory and
// committed once, just before the first byte of the response; what is changed
// later is saved when the handler returns.
type Session struct {
	k      *keeper
	ctx    context.Context // the request's
	born   time.Duration   // when the request began, since keeper.start
	source source          // nil: detached, made by Manager.List
	asked  storeContext    // of the load; nobody else's before loaded, and constant after

	// turn is held by whoever changes or commits, one at a time. It is taken
	// before mu.
	turn sync.Mutex

	// mu guards the fields below. It is held while loading, and never during a
	// commit's calls of the store: nobody who reads waits for a commit.
	mu      sync.Mutex
	loaded  bool
	carried bool          // the request brought a cookie of our name
	late    bool          // the header has left: no cookie can be set
	over    bool          // the handler has returned: changes are saved by Save only
	unread  bool          // loading failed, with err: nothing can be changed
	stuck   bool          // err stands until Reload: nothing is stored before
	tardy   bool          // err is of a call that came too late for its cookie
	told    bool          // err was returned by Save: it is the caller's
	shut    bool          // a Login as somebody else came too late: nothing is changed after it
	resend  bool          // the browser's own token must be sent again, as persistent
	expire  bool          // the cookie must be deleted
	fate    fate          // of a session that ended while, or just before, we ran
	rec     *Record       // as the store has it; nil: nothing stored
	grave   string        // the id of the tombstone that was found
	until   time.Time     // Remember's end, if this request called it
	todo    pending       // what was changed since
	issued  func() *token // what the cookie must carry, made by this request; a func has no contents to print
	err     error
	events  []Event
}

type fate uint8

const (
	alive    fate = iota
	replaced      // by a Login or Renew: there is a successor
	gone          // by a Logout or Revoke, or its time was up
)

// pending is what a request did and has not committed yet.
type pending struct {
	changes  []change
	user     string    // Login
	at       time.Time // Login
	logout   bool      // end the stored session first; all else came after
	forget   bool      // Login as somebody else: the stored values stay behind
	renew    bool
	remember bool
}

// ID returns the session's public handle: the record's id, safe to log and to
// show, for it is a hash of the token. It is "" before the first save and
// after Logout, and another one after Login and Renew.
func (s *Session) ID() string { return s.stored().ID }

// User returns who Login bound the session to, or "" while it is anonymous.
func (s *Session) User() string {
	s.lock()
	defer s.unlock()
	return s.user()
}

// IsNew tells whether nothing of the session is stored yet.
func (s *Session) IsNew() bool { return s.stored().ID == "" }

// Created returns when the session began; Login begins it anew. It is zero
// before the first save.
func (s *Session) Created() time.Time { return s.stored().Created }

// LastSeen returns when the session was last used before this request, give or
// take 1/20 of the idle timeout. It is zero before the first save.
func (s *Session) LastSeen() time.Time { return s.stored().LastSeen }

// Expires returns when the session ends if nobody uses it again: the nearer of
// its idle and its absolute end. It is zero before the first save.
func (s *Session) Expires() time.Time { return s.stored().Expires }

// Authenticated returns when Login was last called. It is zero while the
// session is anonymous. Ask for the password again before a sensitive step if
// it is long ago (OWASP ASVS 5, 7.5.1), and compare it with the time of the
// last password change.
func (s *Session) Authenticated() time.Time {
	s.lock()
	defer s.unlock()
	switch {
	case s.todo.user != "":
		return s.todo.at
	case s.user() == "":
		return time.Time{}
	}
	return s.rec.Created
}

// Keys returns the names of the values, sorted.
func (s *Session) Keys() []string {
	s.lock()
	defer s.unlock()
	there := map[string]bool{}
	for w := (walker{data: s.base()}); w.next(); {
		there[string(w.name)] = true
	}
	for _, c := range s.todo.changes {
		if c.name == "" {
			clear(there)
			continue
		}
		there[c.name] = c.raw != nil
	}
	var names []string
	for quoted, is := range there {
		if name, ok := decode[string]([]byte(quoted)); ok && is && !strings.HasPrefix(quoted, reserved) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Clear forgets all values and flashes. User, clocks and token stay.
func (s *Session) Clear() {
	s.revise("", func(t *pending) {
		if s.rec != nil || len(t.changes) > 0 {
			s.keep(change{call: "Clear"})
		}
	})
}

// Login binds the session to a user who has just been authenticated, gives it a
// new token (OWASP ASVS 5, 7.2.4: session fixation) and starts both clocks
// again. The values of an anonymous session or of the same user are kept,
// another user's are forgotten. The empty user fails the request.
func (s *Session) Login(user string) {
	if user == "" {
		s.refuse(errors.New("session: Login: the user is empty"))
		return
	}
	s.revise("Login", func(t *pending) {
		if was := s.user(); was != "" && was != user {
			*t = pending{logout: t.logout, forget: true, remember: t.remember}
		}
		t.user, t.at = user, milliseconds(time.Now())
	})
}

// Logout ends the session, here and in the store: once the response has
// reached the client, no request of any process makes the old token valid
// again. Unsaved changes are discarded; values set afterwards start a new one.
func (s *Session) Logout() {
	s.revise("", func(t *pending) {
		*t = pending{logout: true}
		s.until, s.shut = time.Time{}, false
		err := s.err
		if s.forgive(); errors.Is(err, ErrStore) {
			s.err = err // it stands until a Save succeeds, but not in the way of the ending
		}
	})
}

// Renew gives the session a new token, with the same values and the same
// absolute end. Call it when its privileges change (NIST SP 800-63B-4, 5.1).
// A session that is not stored yet needs none.
func (s *Session) Renew() {
	s.revise("Renew", func(t *pending) { t.renew = t.renew || !t.logout && (s.rec != nil || s.fate != alive) })
}

// Remember ends the session d from now, in place of both clocks and beyond
// Options.Lifetime too, in a cookie that survives the closing of the browser.
// Renew keeps it; a later request's Login and Logout end it. A d of zero or
// less fails the request. Browsers keep a cookie for 400 days at most
// (RFC 6265bis, 5.5).
func (s *Session) Remember(d time.Duration) {
	if d <= 0 {
		s.refuse(errors.New("session: Remember: the duration is not positive"))
		return
	}
	s.revise("Remember", func(t *pending) {
		t.remember, s.until = true, milliseconds(time.Now().Add(d))
	})
}

// stored returns the record behind the accessors, zero where there is none.
func (s *Session) stored() Record {
	s.lock()
	defer s.unlock()
	if s.rec == nil || s.todo.logout {
		return Record{}
	}
	return *s.rec
}

// user is User for who holds mu.
func (s *Session) user() string {
	switch {
	case s.todo.user != "":
		return s.todo.user
	case s.rec == nil || s.todo.logout:
		return ""
	}
	return s.rec.User
}

// base returns the stored values that the changes apply to.
func (s *Session) base() []byte {
	if s.rec == nil || s.todo.logout || s.todo.forget {
		return nil
	}
	return s.rec.Data
}

// value returns a member's raw value, or nil.
func (s *Session) value(name string) []byte {
	s.lock()
	defer s.unlock()
	return lookup(s.base(), s.todo.changes, name)
}
