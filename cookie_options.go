package session

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
)

// CookieOptions are the attributes of the cookie, which is always HttpOnly. With a store of
// package expressjs, a field that is zero here is taken from expressjs.Options.Cookie, and the
// other way round.
type CookieOptions struct {
	// Name is "__Host-Http-session" by default, "__Secure-session" with a Domain or
	// a Path other than "/", and "session" if Insecure. Browsers enforce the prefixes. A
	// cookie with __Host- can be set by this host only, so a sibling domain cannot plant a
	// session (RFC 6265bis, 4.1.3.2). A cookie with __Host-Http- can in addition be set by a
	// Set-Cookie header only, so a script in the page cannot plant a session
	// (draft-ietf-httpbis-layered-cookies, 4.1.3.4; Chromium since 140). A browser that does
	// not know __Host-Http- applies the rules of __Host-.
	Name string

	// Domain, if set, is the domain to which the cookie is sent, with all its subdomains.
	// "": the host that set the cookie, only.
	Domain string

	// Path is "/" by default. It is no security boundary (RFC 6265bis, 8.5).
	Path string

	// SameSite is Lax by default (RFC 6265bis, 5.6.7).
	SameSite http.SameSite

	// Persistent makes the cookie survive the closing of the browser. Max-Age is then the
	// time to the absolute end, at most 400 days. It is sent with the token and not
	// refreshed: the record decides when the session ends. With Options.Tokens, Max-Age is
	// the time to Session.Expires and is refreshed while the session is used: see
	// [TokenFormat]. With a store of package expressjs the maxAge of the record decides
	// whether its cookie is persistent, and Persistent has no effect.
	Persistent bool

	// Partitioned makes browsers keep a separate cookie for each top-level site (CHIPS).
	Partitioned bool

	// Insecure omits the Secure attribute, for development and for networks without TLS.
	// WebKit refuses a Secure cookie on http://localhost.
	Insecure bool

	// Adapt may change Domain, Path, SameSite and Partitioned for one request. If Insecure is
	// set, it may set Secure, for a program that serves http:// in a network and https://
	// behind a proxy. c.Value is empty, and other changes are ignored. Adapt is called both to
	// set and to delete the cookie, and must return the same attributes for both.
	//
	// Adapt does not separate tenants: a token of one host is valid at every other host of the
	// same Manager, and so is the name of a user. Include the tenant in the name of the user
	// ("bank/admin") and compare it with that of the host, or use a Manager for each tenant.
	Adapt func(r *http.Request, c *http.Cookie)
}

// template returns the cookie before Adapt, without a value.
func (c *CookieOptions) template() *http.Cookie {
	return &http.Cookie{
		Name: c.Name, Domain: c.Domain, Path: c.Path, SameSite: c.SameSite,
		Partitioned: c.Partitioned, Secure: !c.Insecure, HttpOnly: true,
	}
}

// Format implements fmt.Formatter. Of Adapt it prints only the type.
func (o CookieOptions) Format(f fmt.State, _ rune) { fmt.Fprint(f, "session.CookieOptions", attrs(o)) }

// LogValue implements slog.LogValuer.
func (o CookieOptions) LogValue() slog.Value { return slog.GroupValue(attrs(o)...) }

// cookieRules returns the rules of browsers that the attributes of c violate: a browser
// drops such a cookie silently. They apply to the options and after Adapt.
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
	number := false // whether the last label is a number: browsers read such a host as an address
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

// attrs returns the exported fields of a struct that are not zero.
func attrs(of any) (all []slog.Attr) {
	v := reflect.ValueOf(of)
	for i := range v.NumField() {
		name, field := v.Type().Field(i).Name, v.Field(i)
		switch {
		case field.IsZero(), !v.Type().Field(i).IsExported():
		case name == "Secrets":
			all = append(all, slog.Int(name, field.Len()))
		case field.Kind() == reflect.Func, field.Kind() == reflect.Interface, field.Kind() == reflect.Pointer:
			all = append(all, slog.String(name, fmt.Sprintf("%T", field.Interface())))
		default:
			all = append(all, slog.Any(name, field.Interface()))
		}
	}
	return all
}
