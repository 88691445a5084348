package expressjs

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Options describe the configuration of the Express app, so that Go writes the same records.
type Options struct {
	// Prefix is the prefix of connect-redis; "" means "sess:". Go's own keys begin with
	// "go-session:", so that clear and all of the Express app do not find them. A prefix with which
	// these keys begin is an error. An app with the prefix "" cannot be shared, because its clear
	// would delete them. NewPostgresStore ignores Prefix.
	Prefix string

	// Table is the tableName of connect-pg-simple, with its schemaName and a dot before it if there
	// is one; "" means "session". Go's own table has the suffix "_go". NewRedisStore ignores Table.
	Table string

	// TTL is the ttl of the store: how long a session whose cookie has no maxAge lives without a
	// use. session.Options.IdleTimeout is the same for uses at Go: if both are set and differ,
	// session.New returns an error. 0 means 24 hours, the default of connect-redis and
	// connect-pg-simple.
	TTL time.Duration

	// Cookie is the cookie option of express-session, for new sessions. For existing sessions the
	// record decides, as in Express. Zero fields are taken from session.Options.Cookie, and vice
	// versa. If a field is set in both and differs, session.New returns an error.
	Cookie Cookie

	// Passport means UserMember "passport.user", for apps whose serializeUser returns text or a
	// number. If it returns an object, set UserMember to "passport.user.id".
	Passport bool

	// UserMember is the member of req.session that names the user, by text or a number: "userId",
	// or with dots a member of an object, "user.id" or "passport.user.id". Login writes that member
	// and keeps the other members of the object; Session.User reads it. A Key that changes the user
	// in that member fails the request. A user that is not valid UTF-8 fails the Login.
	//
	// At most one of Passport and UserMember may be set. With neither, Session.User is the user
	// that Go has logged in, until Express writes the session: after that it is "", because Express
	// may have logged the user out, or another user in. For a user that Express has logged in,
	// Session.User is "", and only a Key can read the user.
	UserMember string

	// NumericUser writes users as numbers, for apps whose ids are numbers. A user that is not an
	// integer of at most 2^53-1, the largest that JavaScript represents exactly, fails the Login.
	NumericUser bool

	// AwaitWrite is for Express routes that log in and redirect without a req.session.save before
	// the redirect. Express answers before it has stored the session, and the next request may
	// arrive at Go earlier. If the record of a signed id does not exist, Load tries once more after
	// this time. AwaitWrite helps only users without an earlier session: the record of an earlier
	// session exists, and Go uses it as it was before the login. An awaited req.session.save helps
	// in both cases. AwaitWrite delays each request with the cookie of an ended session; 50 ms is
	// enough. 0 means one try.
	AwaitWrite time.Duration

	isTTLSet bool // the program has set TTL

	agreed *atomic.Pointer[Cookie] // the cookie options that Agree has returned; nil inside: no Manager uses the store yet
}

// Cookie is the cookie option of express-session. httpOnly is always true.
type Cookie struct {
	// MaxAge is the idle timeout of a new session and the life of its cookie, which is persistent.
	// 0 means none: the session lives for TTL, and its cookie until the browser is closed.
	MaxAge time.Duration

	Path        string // "": "/"
	Domain      string
	SameSite    string // "lax", "strict" or "none". "": "lax"
	Insecure    bool   // no Secure attribute: cookie.secure of Express is false
	Partitioned bool
	Priority    string // "", "low", "medium" or "high"
}

const ownPrefix = "go-session:"

// resolve returns o with the defaults, or an error that joins every mistake.
func (o Options) resolve() (Options, error) {
	var errs []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("expressjs: Options."+format, args...))
		}
	}
	oneOf := func(s string, all ...string) bool {
		for _, a := range all {
			if s == a {
				return true
			}
		}
		return s == ""
	}
	if o.Prefix == "" {
		o.Prefix = "sess:"
	}
	if o.Table == "" {
		o.Table = "session"
	}
	if o.isTTLSet = o.TTL != 0; !o.isTTLSet {
		o.TTL = 24 * time.Hour
	}
	o.agreed = new(atomic.Pointer[Cookie])
	rule(!strings.HasPrefix(ownPrefix, o.Prefix), "Prefix: must not be a prefix of Go's own keys, %q", ownPrefix)
	rule(o.TTL >= time.Second, "TTL: must be at least a second, or 0 for 24 hours")
	rule(o.AwaitWrite >= 0, "AwaitWrite: must not be negative")
	rule(!o.Passport || o.UserMember == "", "UserMember: must be empty with Passport")
	for i, name := range o.userPath() {
		rule(name != "" && utf8.ValidString(name), "UserMember: must be a name, or several names separated by dots")
		rule(i > 0 || !reserved[name], "UserMember: %q is a property of every Express session, or its cookie", name)
		rule(i > 0 || name != "session", "UserMember: names that begin with \"session.\" are reserved for package session")
	}
	rule(!o.NumericUser || o.Passport || o.UserMember != "", "NumericUser: needs Passport or UserMember")
	c := &o.Cookie
	rule(c.MaxAge >= 0 && c.MaxAge == c.MaxAge.Truncate(time.Millisecond), "Cookie.MaxAge: must be whole milliseconds, or 0 for none")
	rule(c.MaxAge == 0 || c.MaxAge >= time.Second, "Cookie.MaxAge: must be at least a second")
	rule(c.MaxAge <= longest, "Cookie.MaxAge: must be at most 200 years")
	rule(oneOf(c.SameSite, "lax", "strict", "none"), `Cookie.SameSite: must be "lax", "strict" or "none"`)
	rule(oneOf(c.Priority, "low", "medium", "high"), `Cookie.Priority: must be "low", "medium" or "high"`)
	return o, errors.Join(errs...)
}

// window returns how long a session with this cookie lives after a use.
func (o *Options) window(c *cookie) time.Duration {
	if ms, ok := c.maxAge(); ok {
		return duration(ms)
	}
	return o.TTL
}

// windowOf returns the window of the cookie in a record.
func (o *Options) windowOf(raw []byte) time.Duration {
	list, _ := members(raw)
	return o.window(o.cookieOf(find(list, "cookie")))
}

// longest bounds lifetimes: a time.Duration reaches 292 years, and some apps set the year 9999 as
// the end.
const longest = 200 * 365 * 24 * time.Hour

// duration converts milliseconds to a time.Duration of at most longest.
func duration(ms int64) time.Duration {
	return time.Duration(min(ms, longest.Milliseconds())) * time.Millisecond
}
