// Package migrate moves the sessions of another library to [session.Manager], so that no user has
// to log in again after the change of the library. Each old session is taken over once, at the
// first request that carries its cookie.
//
//	take, err := migrate.New(sessions, &migrate.Options{
//		Old:    migrate.SCS(old), // as it was configured
//		Store:  store,            // the one of sessions
//		User:   "user",
//		Values: []migrate.Value{migrate.As("cart", cart), migrate.As("visits", visits)},
//	})
//	handler := sessions.Handler(take.Handler(mux))
//
// The two cookies must have different names: scs, and a Manager with Cookie.Insecure, both use
// "session" by default.
//
// Deploy the new version to all processes at once, because an old version does not recognize
// sessions that were taken over. Watch [Takeover.Count], and remove the package when the longest
// old session has expired.
//
// Until an old session is taken over, only the old library knows it: RevokeAll, RevokeOthers and
// MaxPerUser of the Manager do not end it. Options.Allow is called before a takeover, and must
// refuse the users for whom these methods were called. For MaxPerUser, a takeover counts as a login
// at the time of the takeover.
//
// The first request that claims a session in the Store takes the session over; other requests with
// the same old cookie, in any process, wait and use the same new session. The claim is a record
// whose id is a hash of the old cookie. The record stays until the old session would have ended, so
// that no cookie is taken over twice, even if the old session is stored in the cookie alone. (But
// see [Gorilla]: such a session may have several cookies.) The record contains the new token,
// sealed with the old cookie, which is not in the Store.
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

// Options configure which sessions and values are taken over.
type Options struct {
	// Old is the source of the sessions, made by [SCS] or [Gorilla].
	Old Old

	// Store is the Store of the Manager.
	Store session.Store

	// User is the name of the old value that identifies the user: text, an integer, or an array of
	// bytes with a String method, such as a UUID. A zero value means that no user is logged in. If
	// several values decide that, or the value is a struct, use UserFunc. Without User and UserFunc
	// only values are taken over.
	User string

	// UserFunc, in place of User, returns the user of a session with these old values, and false if
	// no user is logged in. It should check what the old application checked: many applications
	// keep the user in a session after the logout and set another value to false. If UserFunc
	// panics, the session is not taken over and the panic is logged.
	UserFunc func(old map[string]any) (user string, ok bool)

	// Allow is called before the session of a user is taken over. If it returns false, the session
	// ends, and the user has to log in again. RevokeAll, RevokeOthers and MaxPerUser do not reach a
	// session before its takeover: Allow must return false for an account that was disabled, or
	// whose password was changed after created, the time of the login (zero if it is unknown, as
	// with gorilla/sessions). Allow is called again after the new session is stored, to detect a
	// change in the meantime, and by each of several concurrent requests. A nil Allow permits all.
	Allow func(user string, created time.Time) bool

	// Values are the values to take over, made by [As] and [Convert]. Other values of an old
	// session are reported.
	Values []Value

	// Ignore lists the names of old values that are left out without a report.
	Ignore []string

	// Remember makes the new session a remembered one if the old session had more time left than
	// the Lifetime of the Manager. Otherwise such a session ends after Lifetime.
	Remember bool
}

// Old is the sessions of another library. [SCS] and [Gorilla] return one.
type Old interface {
	cookie() string              // name of the old cookie
	spelled(value string) string // canonical form of a cookie value, the same for all its encodings

	// read returns the session of the old cookie in r, or nil if the library has not made that
	// cookie. The error is a mistake, or a failure of the old store.
	read(r *http.Request) (*oldSession, error)

	deletion(r *http.Request) *http.Cookie // cookie that deletes the old one
}

// An oldSession is a session of the other library.
type oldSession struct {
	isMissing bool // the library made the cookie, but its store has no such session; the other fields are unset
	values    map[string]any
	odd       []string  // names that are not strings, with their types
	created   time.Time // time of the login; zero: unknown
	ends      time.Time
	end       func() error // ends the session in the old store
}

// A Takeover takes old sessions over. Its [Takeover.Handler] must be inside the Handler of the
// Manager. It is safe for concurrent use.
type Takeover struct {
	m        *session.Manager
	o        Options
	count    atomic.Int64
	mistakes mistakes
}

// New returns a Takeover of old sessions into those of m, which must use cookies. The error joins
// every mistake in opts ([errors.Join]).
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
	rule(opts.Old != nil, "Options.Old: is required: use SCS or Gorilla")
	rule(opts.Store != nil, "Options.Store: is required, and must be the Manager's")
	rule(opts.User != "" || opts.UserFunc != nil || len(opts.Values) > 0, "Options.User: is required, unless UserFunc or Values is set")
	rule(opts.User == "" || opts.UserFunc == nil, "Options.UserFunc: must be nil if User is set")
	names := map[string]bool{opts.User: true}
	for _, v := range opts.Values {
		rule(v.name != "" && v.take != nil, "Options.Values: must be made by As or Convert, with a name")
		rule(v.name == "" || !names[v.name], "Options.Values: %q is listed twice, or is Options.User", v.name)
		names[v.name] = true
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &Takeover{m: m, o: *opts}, nil
}

// Count returns how many sessions this process has taken over. If no process has taken one over for
// the lifetime of an old session, the Takeover can be removed.
func (t *Takeover) Count() int64 { return t.count.Load() }

// Handler returns a handler that takes over the session of a request and calls next. It must be
// directly inside the Handler of the Manager, before the session is used. A request that already
// has a session of the Manager keeps it, and the old cookie is deleted; but an anonymous session is
// replaced by the old session of a user, and the values of the anonymous session are lost. A
// request without the old cookie costs a scan of the Cookie header. A forged old cookie costs no
// call of Options.Store. If a store fails, the response is 503: no logged-in user is treated as
// anonymous. Every other reason for not taking over a session is logged once, and next runs without
// that session.
//
// A cross-site request may lack the cookie of the Manager because of its SameSite attribute and
// still carry the old cookie. Such a request has no session, and its response changes neither
// cookie: the browser may have a session of the Manager, and the old cookie may be an attacker's.
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
			slog.ErrorContext(r.Context(), "migrate: a session cannot be taken over now; check the store and migrate.Options", "err", err)
			w.Header().Set("Cache-Control", "no-store")
			http.Error(w, http.StatusText(http.StatusServiceUnavailable), http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(out.writer.Wrap(w, out), r)
		_ = out.writer.Begin() // sends the cookies of a handler that has written nothing
	})
}

// hasCookie reports whether the Cookie header contains this name.
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
