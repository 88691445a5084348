package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/coatcheck/session/internal/shared"
	"github.com/coatcheck/session/internal/token"
)

// Options configure a [Manager]. The zero value is safe: sessions are kept in memory and end
// after 24 hours, or one hour without use; the secret is random; the cookie is Secure and has
// the __Host-Http- prefix. [New] copies the options.
type Options struct {
	// Store keeps the sessions. Nil: a new [MemoryStore] of its default size.
	Store Store

	// Secrets sign the cookies: at most 4 secrets of at least 32 random bytes each. The
	// first signs, all verify. To rotate, add the new secret last in every process, then
	// move it to the front, and remove the old one when Lifetime, or the longest Remember,
	// has passed. Nil: one random secret, which is allowed only while Store is nil, because
	// a secret that ends with the process is of no use to sessions that do not.
	Secrets [][]byte

	// Lifetime is the time from creation or Login to the absolute end of a session (OWASP
	// ASVS 5, 7.3.2; NIST SP 800-63B-4, 2.2.3). [Session.Remember] sets another end,
	// [Session.EndBy] an earlier one. A session keeps the Lifetime of the process that
	// created it or logged it in last. 0: 24 hours.
	Lifetime time.Duration

	// IdleTimeout ends a session that was not used for this long, with a tolerance of 1/20
	// (OWASP ASVS 5, 7.3.1; NIST SP 800-63B-4, 2.2.3). A deployment that makes it longer
	// applies to a session from its next use on. After a deployment that makes it shorter, a
	// session keeps the idle end that it has until a use moves it forward: no write moves it
	// back. 0: 1 hour, or Lifetime if that is shorter. With a store of package expressjs, the
	// maxAge of a session's cookie takes its place, and 0 is the TTL of the store.
	IdleTimeout time.Duration

	// StoreTimeout limits the time of a load, and of all store calls of one commit
	// together. 0: 5 seconds.
	StoreTimeout time.Duration

	// MaxDataSize limits the encoded values and flashes of one session, in bytes. A
	// commit that exceeds it and makes the session larger fails ([ErrTooLarge], 500). At a
	// Login from an anonymous session, the values of that session are dropped if they do not
	// fit (EventDropped). With Tokens, a size that another program has stored is accepted.
	// For RenewGrace after an explicit renewal the record also holds the values from before
	// it, for at most three renewals: up to four times this size. 0: 64 KiB.
	MaxDataSize int

	// MaxPerUser limits the number of a user's sessions: after each Login the least recently
	// used other sessions beyond it end (OWASP ASVS 5, 7.1.2). Of concurrent logins the
	// newest by the clocks of their processes stay. 0: no limit.
	MaxPerUser int

	// RenewAfter is the age at which the token of a logged-in session is replaced while the
	// session is used (automatic renewal), so that a stolen cookie is valid for about that
	// long (OWASP Session Management Cheat Sheet, "Renewal Timeout"; NIST SP 800-63B-4, 5.1,
	// permits it). A renewal signs no user out: the previous token keeps full access until
	// ten seconds after the new one was first presented, and a token whose response was slow
	// keeps it for a minute after it was issued. The clocks of the processes may differ by
	// some seconds: a process that is ahead ends a previous token early, for its own requests
	// only. If it is ahead by more than a minute, it does so for all. At least a minute; 0:
	// never.
	RenewAfter time.Duration

	// RenewGrace is the time after an explicit renewal (Renew, Remember, or a Login of the
	// user who is logged in) during which in-flight requests with the previous token see the
	// session as it was just before. 0: 10 seconds; at most a minute. Negative: none, which is
	// OWASP ASVS 5, 7.2.4 to the letter: a request that loads its session after the renewal
	// with the previous token gets [ErrReplaced], and a request that had loaded it keeps it.
	// Must be 0 with Tokens.
	RenewGrace time.Duration

	// WatchEvery is the interval at which the store is asked whether another Manager or
	// process has ended a session on whose [Session.Done] a request waits. 0: 5 seconds.
	WatchEvery time.Duration

	// Bearer is for native apps, command-line tools and other clients that store a token
	// themselves: no cookie is read or set. The token is read from "Authorization: Bearer …"
	// (RFC 6750, 2.1). A new token is sent in the response header Session-Token; an empty
	// Session-Token means that the session has ended. Cookie must be zero. A token of a
	// cookie is not valid as a bearer token, nor the other way round, even with the same
	// Secrets.
	Bearer bool

	// Tokens is the format of another program's tokens, for sharing sessions with that
	// program. Cookie.Name is then the name that the other program uses. Of several cookies of
	// that name the first counts. Secrets are not used, and RenewAfter and RenewGrace must be
	// 0. [TokenFormat] says what else is different. Nil: the format of this package.
	Tokens TokenFormat

	// DeviceBound binds a session to the browser that logged in, where the browser can (Device
	// Bound Session Credentials, W3C; Chrome on Windows since version 146). Such a browser keeps a
	// private key, in hardware if there is any, and proves from time to time that it has the key.
	// A copy of the session cookie is then worth nothing, and a copy of all cookies is worth
	// nothing after DeviceBound. A request without a recent proof has no session
	// ([ErrUnproven]). Other browsers get one more response header at a Login, and nothing else
	// changes for them. 0: off; at least 5 minutes, because browsers limit the number of their
	// proofs; 10 minutes is a good value.
	//
	// [Manager.Handler] answers the proofs at DevicePath. The cookie must be Secure, without
	// Domain and Partitioned; if Cookie.Adapt sets one of these, the session is not bound (logged
	// once). Bearer and Tokens exclude DeviceBound. docs/device-bound-sessions.md says what the
	// option protects from, and how to deploy it.
	DeviceBound time.Duration

	// DevicePath is the path to which browsers send their proofs, as a browser sees it: with the
	// prefix that a proxy or http.StripPrefix removes. Another Manager of the same host needs
	// another path. "": "/.session/device/" and the name of the cookie.
	DevicePath string

	Cookie CookieOptions

	// Logger gets all log lines of the Manager; docs/operations.md lists them. Nil:
	// [slog.Default], which is called for each line.
	Logger *slog.Logger

	// ErrorHandler answers a request whose session could not be loaded or saved, in place of
	// the handler's own response, which has not begun. Headers that the handler has set,
	// Set-Cookie among them, are removed, and the answer is never cached. errors.Is(err,
	// [ErrStore]) distinguishes a failing store from a mistake of the program. Nil: log err to
	// Logger, and answer 503 with Retry-After or, for a mistake of the program, 500.
	ErrorHandler func(w http.ResponseWriter, r *http.Request, err error)

	// OnEvent is called for each [Event], after the fact and outside locks. The goroutine of
	// the request calls it, and waits for it; for a store that fails while Session.Done is
	// watched, a goroutine of the Manager does. Nil: events are dropped.
	OnEvent func(ctx context.Context, e Event)
}

// makeSecret is the fix for a secret that is missing or too short.
const makeSecret = `make one with "openssl rand -base64 32"`

const (
	minSecret     = 32
	maxSecrets    = 4
	minRenewAfter = time.Minute
	maxRenewGrace = time.Minute

	minDeviceBound = 5 * time.Minute      // a browser signs 6 times in 9 minutes at most, and refreshes 2 minutes before the end
	maxAge         = 400 * 24 * time.Hour // RFC 6265bis, 5.5
)

// resolve returns o with its defaults, or an error that joins every mistake.
func (o Options) resolve() (Options, error) {
	var errs []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("session: Options."+format, args...))
		}
	}
	fallback := func(name string, d *time.Duration, def time.Duration) {
		rule(*d == 0 || *d >= time.Millisecond, "%s: must be at least a millisecond, or 0 for the default, is %v: a duration has a unit, as in 3600*time.Second", name, *d)
		if *d = d.Truncate(time.Millisecond); *d == 0 {
			*d = def
		}
	}
	rule(len(o.Secrets) > 0 || o.Store == nil || o.Tokens != nil, "Secrets: are required with a Store, or its sessions would end with this process: "+makeSecret)
	rule(len(o.Secrets) <= maxSecrets, "Secrets: at most %d, have %d", maxSecrets, len(o.Secrets))
	for i, s := range o.Secrets {
		rule(len(s) == 0 || len(s) >= minSecret, "Secrets[%d]: must be at least %d random bytes, is %d: %s", i, minSecret, len(s), makeSecret)
		rule(len(s) > 0, "Secrets[%d]: must be at least %d random bytes, is empty: is the variable set? %s", i, minSecret, makeSecret)
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
		rule(o.IdleTimeout == 0 || !lives.IsTTLSet || o.IdleTimeout == lives.TTL, "IdleTimeout: is %v, and the store's options have a TTL of %v: leave out one of them", o.IdleTimeout, lives.TTL)
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
	rule(o.DeviceBound == 0 || o.DeviceBound >= minDeviceBound, "DeviceBound: must be at least 5 minutes, or 0 for off")
	rule(o.DeviceBound == 0 || !o.Bearer, "DeviceBound: must be 0 with Bearer: only browsers have such keys")
	rule(o.DeviceBound == 0 || o.Tokens == nil, "DeviceBound: must be 0 with Tokens, which another program accepts without a proof")
	rule(o.DevicePath == "" || o.DeviceBound != 0, "DevicePath: needs DeviceBound")
	o.DeviceBound = o.DeviceBound.Truncate(time.Millisecond)
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
	if o.DeviceBound != 0 {
		rule(!c.Insecure, "DeviceBound: forbids Cookie.Insecure: browsers bind sessions over HTTPS only")
		rule(c.Domain == "", "DeviceBound: forbids Cookie.Domain: a session is bound at one origin")
		rule(!c.Partitioned, "DeviceBound: forbids Cookie.Partitioned: browsers do not bind such cookies")
		isDefault := o.DevicePath == "" && c.Name != "." && c.Name != ".."
		rule(isDefault || isDevicePath(o.DevicePath),
			`DevicePath: must begin with "/", and consist of letters, digits and "-._~" between single slashes`)
	}
	return o, errors.Join(errs...)
}

// sharedStore returns the store that keeps another program's records, if store is one or
// wraps one.
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

// Format implements fmt.Formatter. Whatever the verb, it prints no secret: of Secrets
// only the number, and of the Store, Tokens, Logger and functions only the type.
func (o Options) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.Options", attrs(o)) }

// LogValue implements slog.LogValuer. It says what Format prints.
func (o Options) LogValue() slog.Value { return slog.GroupValue(attrs(o)...) }
