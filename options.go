package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/shared"
	"github.com/coatcheck/session/internal/token"
)

// Options configure a Manager. The zero value is safe: sessions in memory,
// a random secret, 24 hours, one hour idle, a Secure cookie with the
// __Host-Http- prefix. New copies them.
type Options struct {
	// Store keeps the sessions. Nil: a new MemoryStore of its default size.
	Store Store

	// Secrets sign the cookies: at least 32 random bytes each, at most 4. The
	// first signs, all verify. To rotate, deploy the new one last everywhere,
	// then move it to the front, and drop the old one when Lifetime, or the
	// longest Remember, has passed. Nil: a random one, allowed only while Store
	// is nil, for both die with the process.
	Secrets [][]byte

	// Lifetime is the absolute end, counted from creation or Login
	// (OWASP ASVS 5, 7.3.2; NIST SP 800-63B-4, 2.2.3). Session.Remember sets another
	// one, Session.EndBy an earlier one. A session keeps the Lifetime of the process that
	// created it or logged it in last. 0: 24 hours.
	Lifetime time.Duration

	// IdleTimeout ends a session that nobody used for this long, give or take
	// 1/20 (OWASP ASVS 5, 7.3.1; NIST SP 800-63B-4, 2.2.3). If a
	// deployment makes it longer, that holds for a session from its next use on. If it
	// makes it shorter, a session keeps the idle end that it has until a use moves that
	// on: no write moves it back. 0: 1 hour, or Lifetime if
	// that is shorter. With a store of package expressjs a session whose cookie has a
	// maxAge has that in its place, and 0 is the store's TTL.
	IdleTimeout time.Duration

	// StoreTimeout limits a load, and all the store calls of one commit
	// together. 0: 5 seconds.
	StoreTimeout time.Duration

	// MaxDataSize limits the encoded values and flashes of one session, in bytes. A
	// commit over it that makes the session larger fails (ErrTooLarge, 500). At a
	// Login as the first user, the values of the anonymous session are dropped if
	// they do not fit (EventDropped). With Tokens, what another program has stored beyond
	// it does not count. For RenewGrace after a Renew, Remember or Login
	// of the same user the record also holds the values as they were, of the last
	// three of them: up to four times this size. 0: 64 KiB.
	MaxDataSize int

	// MaxPerUser limits a user's sessions: after each Login the least recently
	// used others beyond it end (OWASP ASVS 5, 7.1.2). Of logins at the same
	// time the newest by their processes' clocks stay. 0: no limit.
	MaxPerUser int

	// RenewAfter, if set, is at least a minute: a request that uses a logged-in
	// session whose token is older gets another one, so that a stolen cookie is
	// good for about that long (OWASP Session Management Cheat Sheet, "Renewal
	// Timeout"; NIST SP 800-63B-4, 5.1, permits it). It signs no user out: the
	// previous token keeps full access until ten seconds after the new one was
	// first presented, and one whose response was slow for a minute after it was
	// issued. The clocks of
	// the processes may differ by some seconds: one that is ahead ends a previous
	// token early, for its own requests. Beyond a minute it does so for all. 0:
	// never.
	RenewAfter time.Duration

	// RenewGrace is for how long after an explicit renewal (Renew, Remember, or a
	// Login of the user who is logged in) the previous token shows the session as
	// it was just before, to requests that are in flight. 0: 10 seconds; at most a
	// minute. Negative: none, which is OWASP ASVS 5, 7.2.4 to the letter: a request
	// that loads its session afterwards with the previous token gets ErrReplaced,
	// and only one that had loaded it keeps it. Must be 0 with Tokens.
	RenewGrace time.Duration

	// WatchEvery is how often Session.Done asks the store for a session that
	// another process, or another Manager, may have ended. 0: 5 seconds.
	WatchEvery time.Duration

	// Bearer is for native apps, command lines and other clients that keep a
	// token themselves: no cookie is read or set. The token comes in
	// "Authorization: Bearer …" (RFC 6750, 2.1), and where a response has a new
	// one, its header Session-Token has it; empty, it says that the session has
	// ended. Cookie must be zero. A token of the one kind is none of the other,
	// whatever the secrets.
	Bearer bool

	// Tokens, if set, is another kind of token than ours, for sharing sessions with
	// another program: Cookie.Name is then the name that this program uses, of
	// several cookies of that name the first counts, Secrets are not used, and
	// RenewAfter and RenewGrace must be 0. See TokenFormat for what else is different.
	// Nil: ours.
	Tokens TokenFormat

	Cookie CookieOptions

	// Logger gets all log lines of the Manager; docs/operations.md lists them. Nil:
	// slog.Default, looked up for each line.
	Logger *slog.Logger

	// ErrorHandler answers a request whose session could not be loaded or
	// saved. The handler's own response has not begun; its Set-Cookie and
	// content headers are gone, and the answer is never cached. errors.Is(err,
	// ErrStore) tells a failing store from a mistake of the program. Nil: log
	// to Logger and answer 503 or, for a mistake, 500.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// OnEvent is told what happens to sessions, after the fact and outside
	// locks, by the goroutine of the request (or, of a failure while it asks
	// for Session.Done, by the Manager's): return soon. Nil: nothing.
	OnEvent func(ctx context.Context, e Event)
}

// CookieOptions shape the cookie. It is always HttpOnly. With a store of package expressjs,
// what is zero here is taken from expressjs.Options.Cookie, and the other way round.
type CookieOptions struct {
	// Name is "__Host-Http-session" by default, "__Secure-session" with a Domain or
	// a Path other than "/", and "session" if Insecure. Browsers enforce the prefixes:
	// with __Host- the cookie comes from this host alone, so that a sibling domain
	// cannot plant a session (RFC 6265bis, 4.1.3.2). With __Host-Http- it comes from a
	// Set-Cookie header with HttpOnly besides, so that a script in the page cannot
	// plant one either (draft-ietf-httpbis-layered-cookies, 4.1.3.4; Chromium since
	// 140). A browser that does not know __Host-Http- applies __Host-, with which the
	// name begins.
	Name string

	// Domain, if set, sends the cookie to all its subdomains too.
	Domain string

	// Path is "/" by default. It is no boundary for security (RFC 6265bis, 8.5).
	Path string

	// SameSite is Lax by default (RFC 6265bis, 5.6.7).
	SameSite http.SameSite

	// Persistent makes the cookie survive the closing of the browser. Its
	// Max-Age is the time to the absolute end, at most 400 days, sent with the
	// token and never refreshed: the record decides. With Options.Tokens it is the
	// time to Session.Expires, and refreshed while the session is used: see
	// TokenFormat. With a store of package expressjs the record's maxAge says
	// whether its cookie is persistent, and this has no effect.
	Persistent bool

	// Partitioned gives the cookie its own jar per top-level site (CHIPS).
	Partitioned bool

	// Insecure leaves out the Secure attribute: for development, and for
	// networks without TLS. WebKit refuses a Secure cookie on http://localhost.
	Insecure bool

	// Adapt may change Domain, Path, SameSite and Partitioned for one request, and
	// where Insecure is set it may set Secure: a program that serves http:// in a
	// network and https:// behind a proxy. c.Value is empty and other changes are
	// ignored. Adapt is called alike for setting and for deleting the cookie, and
	// must answer alike.
	//
	// It does not part tenants: a token of one host is valid at every other host of
	// the same Manager, and so is the name of a user. Name users with their tenant
	// ("bank/admin") and compare that with the host's, or use a Manager for each.
	Adapt func(r *http.Request, c *http.Cookie)
}

const (
	minSecret     = 32
	maxSecrets    = 4
	minRenewAfter = time.Minute
	maxRenewGrace = time.Minute
	maxAge        = 400 * 24 * time.Hour // RFC 6265bis, 5.5
)

// resolve returns o with the defaults in place, or every mistake at once.
func (o Options) resolve() (Options, error) {
	var errs []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("session: Options."+format, args...))
		}
	}
	fallback := func(name string, d *time.Duration, def time.Duration) {
		rule(*d == 0 || *d >= time.Millisecond, "%s: must be at least a millisecond, or 0 for the default", name)
		if *d = d.Truncate(time.Millisecond); *d == 0 {
			*d = def
		}
	}
	rule(len(o.Secrets) > 0 || o.Store == nil || o.Tokens != nil, "Secrets: are required with a Store, or its sessions would end with this process")
	rule(len(o.Secrets) <= maxSecrets, "Secrets: at most %d, have %d", maxSecrets, len(o.Secrets))
	for i, s := range o.Secrets {
		rule(len(s) >= minSecret, "Secrets[%d]: must be at least %d random bytes, is %d", i, minSecret, len(s))
		rule(len(s) < minSecret || !slices.Equal(s[1:], s[:len(s)-1]), "Secrets[%d]: must be random bytes, and all of it are equal: was the buffer filled?", i)
	}
	if len(o.Secrets) == 0 {
		o.Secrets = [][]byte{make([]byte, minSecret)}
		rand.Read(o.Secrets[0])
	}
	if o.Store == nil {
		o.Store = NewMemoryStore(nil)
	}
	fallback("Lifetime", &o.Lifetime, 24*time.Hour)
	idle := time.Hour
	other, isShared := sharedStore(o.Store)
	if isShared {
		lives := other.Lifetimes()
		idle = lives.TTL
		rule(lives.MaxAge <= o.Lifetime, "Lifetime: must be at least the maxAge of the store's cookies, %v", lives.MaxAge)
		rule(o.IdleTimeout == 0 || o.IdleTimeout >= lives.MaxAge, "IdleTimeout: must not be shorter than the maxAge of the store's cookies, %v, or 0", lives.MaxAge)
	}
	fallback("IdleTimeout", &o.IdleTimeout, min(idle, o.Lifetime))
	fallback("StoreTimeout", &o.StoreTimeout, 5*time.Second)
	fallback("WatchEvery", &o.WatchEvery, 5*time.Second)
	rule(o.IdleTimeout <= o.Lifetime, "IdleTimeout: must not be longer than Lifetime")
	rule(o.MaxDataSize >= 0, "MaxDataSize: must not be negative")
	if o.MaxDataSize == 0 {
		o.MaxDataSize = 64 << 10
	}
	if o.Logger == nil {
		o.Logger = defaultLogger
	}
	if o.ErrorHandler == nil {
		o.ErrorHandler = answerError(o.Logger)
	}
	rule(o.RenewAfter == 0 || o.RenewAfter >= minRenewAfter, "RenewAfter: must be at least a minute, or 0 for never")
	rule(o.RenewAfter == 0 || o.Tokens == nil, "RenewAfter: must be 0 with Tokens, which have no key of their own to renew")
	rule(o.RenewGrace <= maxRenewGrace, "RenewGrace: must be at most a minute, 0 for 10 seconds, or negative for none")
	rule(o.RenewGrace <= 0 || o.RenewGrace >= time.Millisecond, "RenewGrace: must be at least a millisecond, 0 for 10 seconds, or negative for none")
	rule(o.RenewGrace == 0 || o.Tokens == nil, "RenewGrace: must be 0 with Tokens, which have no key of their own to renew")
	switch {
	case o.RenewGrace < 0:
		o.RenewGrace = -1
	case o.RenewGrace == 0:
		o.RenewGrace = 10 * time.Second
	default:
		o.RenewGrace = o.RenewGrace.Truncate(time.Millisecond)
	}
	rule(o.MaxPerUser >= 0, "MaxPerUser: must not be negative")
	c := &o.Cookie
	if o.Bearer {
		rule(reflect.ValueOf(*c).IsZero(), "Cookie: must be zero with Bearer, which sets none")
		return o, errors.Join(errs...)
	}
	if isShared {
		agreed, err := other.Agree(shared.Cookie{Domain: c.Domain, Path: c.Path, SameSite: c.SameSite, Insecure: c.Insecure, Partitioned: c.Partitioned})
		c.Domain, c.Path, c.SameSite, c.Insecure, c.Partitioned = agreed.Domain, agreed.Path, agreed.SameSite, agreed.Insecure, agreed.Partitioned
		errs = append(errs, err)
	}
	if c.Name == "" {
		switch {
		case c.Insecure:
			c.Name = "session"
		case c.Domain != "" || c.Path != "" && c.Path != "/":
			c.Name = "__Secure-session"
		default:
			c.Name = "__Host-Http-session"
		}
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.SameSite == 0 || c.SameSite == http.SameSiteDefaultMode {
		c.SameSite = http.SameSiteLaxMode
	}
	rule(httpToken(c.Name), "Cookie.Name: must be letters, digits and !#$%%&'*+-.^_`|~ (RFC 6265, 4.1.1)")
	rule(len(c.Name) <= 4096-token.MaxLength, "Cookie.Name: must leave room for the value, together at most 4096 bytes (RFC 6265bis, 5.6)")
	errs = append(errs, cookieRules(c.template())...)
	return o, errors.Join(errs...)
}

// sharedStore returns the store that keeps another program's records, if o.Store is one or
// is around one.
func sharedStore(store Store) (shared.Store, bool) {
	for {
		if s, ok := store.(shared.Store); ok {
			return s, true
		}
		around, ok := store.(interface{ Unwrap() Store })
		if !ok {
			return nil, false
		}
		store = around.Unwrap()
	}
}

// template is the cookie before Adapt and without its value.
func (c *CookieOptions) template() *http.Cookie {
	return &http.Cookie{
		Name: c.Name, Domain: c.Domain, Path: c.Path, SameSite: c.SameSite,
		Partitioned: c.Partitioned, Secure: !c.Insecure, HttpOnly: true,
	}
}

// cookieRules are what a browser demands of the attributes, lest it drop the
// cookie without a word. They hold for the options and after Adapt.
func cookieRules(c *http.Cookie) (errs []error) {
	rule := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New("session: Options.Cookie."+text))
		}
	}
	name := strings.ToLower(c.Name)
	host := strings.HasPrefix(name, "__host-")
	prefixed := host || strings.HasPrefix(name, "__secure-") || strings.HasPrefix(name, "__http-")
	rule(c.Secure || !prefixed, "Name: a __Host- or __Secure- name forbids Insecure (RFC 6265bis, 4.1.3)")
	rule(!host || c.Domain == "", "Domain: must be empty with a __Host- name (RFC 6265bis, 4.1.3.2)")
	rule(!host || c.Path == "/", `Path: must be "/" with a __Host- name (RFC 6265bis, 4.1.3.2)`)
	rule(domain(c.Domain), "Domain: must be a host name, without scheme, port or wildcard")
	rule(strings.HasPrefix(c.Path, "/") && attribute(c.Path), `Path: must begin with "/" and be at most 1024 bytes of ASCII without ";" or control characters`)
	rule(c.SameSite >= http.SameSiteLaxMode && c.SameSite <= http.SameSiteNoneMode, "SameSite: must be Lax, Strict or None")
	rule(c.Secure || c.SameSite != http.SameSiteNoneMode, "SameSite: None forbids Insecure (RFC 6265bis, 5.7)")
	rule(c.Secure || !c.Partitioned, "Partitioned: forbids Insecure")
	return errs
}

func httpToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
	}) < 0
}

func attribute(s string) bool {
	return len(s) <= 1024 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ';' }) < 0
}

func domain(s string) bool {
	if s == "" || !strings.Contains(s, ":") && net.ParseIP(s).To4() != nil {
		return true
	}
	number := false // the last label is one: browsers take the whole for an address
	for label := range strings.SplitSeq(strings.TrimPrefix(s, "."), ".") {
		_, err := strconv.ParseUint(label, 0, 64)
		number = err == nil
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.IndexFunc(label, func(r rune) bool {
				return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-')
			}) >= 0 {
			return false
		}
	}
	return len(s) <= 253 && !number
}
