package expressjs

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Options say what the Express app is configured with, so that Go writes what it
// would write.
type Options struct {
	// Prefix is connect-redis's prefix. "": "sess:". Go's own keys begin with
	// "go-session:", where the Express app's clear and all find none of them; so a
	// prefix that these begin with is an error, and an app with the prefix "", whose
	// clear would delete them, cannot be shared. NewPostgresStore ignores it.
	Prefix string

	// Table is connect-pg-simple's tableName, perhaps with its schemaName and a dot
	// before it. "": "session". Go's own table has the suffix "_go". NewRedisStore
	// ignores it.
	Table string

	// TTL is the store's ttl, of sessions whose cookie has no maxAge: how long they
	// live without a use. session.Options.IdleTimeout is the same for uses at Go: if both
	// are set and differ, session.New returns an error. 0: 24 hours, as in connect-redis and
	// connect-pg-simple.
	TTL time.Duration

	// Cookie is the cookie option of express-session. New sessions get it; for those
	// that are there, the record decides, as in Express. What is zero here is taken from
	// session.Options.Cookie, and the other way round; of what is set in both, a
	// difference is an error of session.New.
	Cookie Cookie

	// Passport is UserMember "passport.user", for apps whose serializeUser makes text or
	// a number. If it makes an object, set UserMember "passport.user.id".
	Passport bool

	// UserMember is the member of req.session that names the user, by text or a number:
	// "userId", or with dots a member of an object, "user.id" or "passport.user.id". Login
	// writes that member, and leaves the object's others; Session.User reads it. A Key of
	// the member that changes whom it names fails the request. A user who is not UTF-8
	// fails the Login.
	//
	// At most one of Passport and UserMember is set. With neither, Session.User is whom Go
	// has logged in, until Express writes the session: then it is "", because Express may
	// have logged the user out or another one in. A user who logged in at Express has no
	// Session.User, and only a Key tells who that is.
	UserMember string

	// NumericUser writes users as numbers, for apps whose ids are numbers. A user who is
	// no integer of at most 2^53-1, which JavaScript does not round, fails the Login.
	NumericUser bool

	// AwaitWrite is for Express routes that log in and redirect without a
	// req.session.save before the redirect. Express answers before it has stored the
	// session, and the next request may arrive at Go earlier. If the record of a signed id
	// does not exist, Load tries once more after this time. AwaitWrite helps only
	// visitors without an earlier session: the record of an earlier session exists, and Go
	// uses it as it was before the login. An awaited req.session.save helps both.
	// AwaitWrite delays each request with the cookie of an ended session; 50 ms is enough.
	// 0: one try.
	AwaitWrite time.Duration

	isTTLSet bool // TTL is set by the program, not a default

	agreed *atomic.Pointer[Cookie] // what Agree made of Cookie; nil inside: no Manager uses the store yet
}

// Cookie is express-session's cookie option. httpOnly is always true.
type Cookie struct {
	// MaxAge is the idle timeout of a new session, and of its cookie, which is persistent
	// then. 0: none; the session lives for TTL, and its cookie until the browser is closed.
	MaxAge time.Duration

	Path        string // "": "/"
	Domain      string
	SameSite    string // "lax", "strict" or "none". "": "lax"
	Insecure    bool   // no Secure attribute: Express's cookie.secure is false
	Partitioned bool
	Priority    string // "", "low", "medium" or "high"
}

const ownPrefix = "go-session:"

// resolve returns o with the defaults in place, or every mistake at once.
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
	rule(!strings.HasPrefix(ownPrefix, o.Prefix), "Prefix: must not be one that Go's own keys begin with, %q", ownPrefix)
	rule(o.TTL >= time.Second, "TTL: must be at least a second, or 0 for 24 hours")
	rule(o.AwaitWrite >= 0, "AwaitWrite: must not be negative")
	rule(!o.Passport || o.UserMember == "", "UserMember: must be empty with Passport")
	for i, name := range o.userPath() {
		rule(name != "" && utf8.ValidString(name), "UserMember: must be a name, or names with a dot between them")
		rule(i > 0 || !reserved[name], "UserMember: %q is a property of every Express session, or its cookie", name)
		rule(i > 0 || name != "session", "UserMember: the names that begin \"session.\" are package session's own")
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

// window is how long a session of this cookie lives after a use.
func (o *Options) window(c *cookie) time.Duration {
	if ms, ok := c.maxAge(); ok {
		return duration(ms)
	}
	return o.TTL
}

// windowOf is window of the cookie in a record.
func (o *Options) windowOf(raw []byte) time.Duration {
	list, _ := members(raw)
	return o.window(o.cookieOf(find(list, "cookie")))
}

// longest bounds lifetimes: a time.Duration reaches no farther than 292 years, and some
// apps say 9999.
const longest = 200 * 365 * 24 * time.Hour

// duration is so many milliseconds, but at most longest.
func duration(ms int64) time.Duration {
	return time.Duration(min(ms, longest.Milliseconds())) * time.Millisecond
}
