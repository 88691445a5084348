// Package migrate takes the sessions that an application has in flight with another
// library over into [session.Manager], once, when their browsers come back: no user has
// to log in again because the library was changed.
//
//	take, err := migrate.New(sessions, &migrate.Options{
//		Old:    migrate.SCS(old), // as it was configured
//		Store:  store,            // the one of sessions
//		User:   "user",
//		Values: []migrate.Value{migrate.As("cart", cart), migrate.As("visits", visits)},
//	})
//	handler := sessions.Handler(take.Handler(mux))
//
// The two cookies must have different names: scs and a Manager with Cookie.Insecure
// both call theirs "session" by default.
//
// Deploy it everywhere at once (an instance of before would not know who was taken
// over), watch [Takeover.Count] fall, and remove it when the longest old session has
// run out.
//
// Until an old session is taken over, only the old library knows it: the Manager's
// RevokeAll, RevokeOthers and MaxPerUser do not end it. Options.Allow is asked before
// a takeover, and must refuse the users whose sessions those were called for. For
// MaxPerUser a takeover counts as a login of that moment.
//
// A session is taken over by the first request that claims it in the Store, in
// whatever process: a record under a hash of the old cookie. Requests that come with
// the old cookie meanwhile wait for that, and all of them are in the one session that
// was made. The record stays until the old session would have ended, so that no cookie
// is taken twice, not even where the old session is all in it. (But see [Gorilla]: such a
// session may have many cookies.) The new token is in the record, sealed with the old
// cookie, which the Store does not have.
package migrate

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session"
)

// Options say what is taken over, and from where.
type Options struct {
	// Old is the other library: SCS or Gorilla.
	Old Old

	// Store is the Manager's.
	Store session.Store

	// User is the name of the old value that says who is logged in: text, an integer,
	// or an array of bytes with a String method, such as a UUID. A zero value means
	// that no user is logged in. Without User and UserFunc only values are taken
	// over. Where it takes more than one value to say, and where a struct is the user,
	// use UserFunc.
	User string

	// UserFunc, in place of User, returns who is logged in with these old values, and
	// false if no user is. Ask what the old application asked: many leave the user in
	// a session that has logged out, and set another value to false. A session at
	// which it panics counts as none, and the panic is logged.
	UserFunc func(old map[string]any) (user string, ok bool)

	// Allow is asked before a user's session is taken over. If it returns false the
	// session ends, and its user has to log in: RevokeAll, RevokeOthers and MaxPerUser
	// do not reach a session before its takeover, so that Allow must say no for an
	// account that was disabled, or whose password was changed after created, which is
	// when the user logged in; zero where that is not known, as with gorilla/sessions.
	// It is asked again once the new session is stored, for a change meanwhile, and by
	// each of several requests at the same time. nil: all are taken over.
	Allow func(user string, created time.Time) bool

	// Values are the values to take over, made by As and Convert. Those that the old
	// session has besides are reported.
	Values []Value

	// Ignore names old values that may be left behind.
	Ignore []string

	// Remember makes a session that has more left than the Manager's Lifetime a
	// remembered one, for what it has left. Without it such a session ends after
	// Lifetime.
	Remember bool
}

// Old is another library's sessions. SCS and Gorilla are.
type Old interface {
	cookie() string              // its name
	spelled(value string) string // the same for all spellings of a value

	// read returns the session whose cookie r brings, or nil if the library has not
	// made that cookie. The error is a mistake, or the old store has failed.
	read(r *http.Request) (*oldSession, error)

	deletion(r *http.Request) *http.Cookie // what deletes the cookie
}

// An oldSession is a session of the other library.
type oldSession struct {
	isGone  bool // its cookie is the library's, but its store does not have it; nothing else is set
	values  map[string]any
	odd     []string  // the names of values, with their types, that are not strings
	created time.Time // when the user logged in; zero: not known
	ends    time.Time
	end     func() error // in its store
}

// A Takeover is what Handler needs. It is safe for concurrent use.
type Takeover struct {
	m        *session.Manager
	o        Options
	count    atomic.Int64
	mistakes mistakes
}

// New returns a Takeover of old sessions into those of m, which must use cookies. It
// reports every mistake at once.
func New(m *session.Manager, opts *Options) (*Takeover, error) {
	if opts == nil {
		opts = &Options{}
	}
	var errs []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("migrate: "+format, args...))
		}
	}
	rule(m != nil, "New: the Manager is nil")
	rule(opts.Old != nil, "Options.Old: is required: SCS or Gorilla")
	rule(opts.Store != nil, "Options.Store: is required, and must be the Manager's")
	rule(opts.User != "" || opts.UserFunc != nil || len(opts.Values) > 0, "Options.User: is required, or UserFunc, or there must be Values")
	rule(opts.User == "" || opts.UserFunc == nil, "Options.UserFunc: must be nil if there is a User")
	names := map[string]bool{opts.User: true}
	for _, v := range opts.Values {
		rule(v.name != "" && v.take != nil, "Options.Values: must be made by As or Convert, of a name")
		rule(v.name == "" || !names[v.name], "Options.Values: %q is there twice, or is the user", v.name)
		names[v.name] = true
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Takeover{m: m, o: *opts}, nil
}

// Count returns how many sessions this process has taken over. When no process takes
// any for as long as old sessions live, the Takeover can go.
func (t *Takeover) Count() int64 { return t.count.Load() }

// Handler wraps next, directly inside the Manager's Handler: before anything has used
// the session. A request that brings a session of the Manager's already keeps that, and
// the old cookie goes; but an anonymous one gives way to an old one that is a user's, and
// its values stay behind. A request without the old cookie costs a look at the Cookie
// header, and one with an old cookie that was made up no call of Options.Store. If a store
// fails the answer is 503: no user is mistaken for a visitor. Anything else that keeps a session
// from being taken over is logged, once, and the session counts as none.
//
// A request of another site from which browsers keep the Manager's cookie back by its
// SameSite, and not the old one, has no session, and its response touches neither cookie:
// the browser may have one of the Manager's, and the old one may be an attacker's.
func (t *Takeover) Handler(next http.Handler) http.Handler {
	name := t.o.Old.cookie()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hasCookie(r.Header, name) {
			next.ServeHTTP(w, r)
			return
		}
		out := &response{header: w.Header(), until: time.Now().Add(inTime)}
		var err error
		out.cookies, err = t.take(r)
		if errors.As(err, new(mistake)) {
			t.mistakes.log(r, err)
		} else if err != nil {
			slog.ErrorContext(r.Context(), "migrate: a session cannot be taken over now", "err", err)
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(out.writer.Wrap(w, out), r)
		_ = out.writer.Begin() // of a handler that wrote nothing
	})
}

// hasCookie reports whether a request brings a cookie of this name.
func hasCookie(h http.Header, name string) bool {
	for _, line := range h["Cookie"] {
		for line != "" {
			var pair string
			pair, line, _ = strings.Cut(line, ";")
			if is, _, ok := strings.Cut(pair, "="); ok && strings.Trim(is, " \t") == name {
				return true
			}
		}
	}
	return false
}
