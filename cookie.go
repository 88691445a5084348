package session

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session/internal/token"
)

// cookies carries tokens in the cookie of one Manager.
type cookies struct {
	name        string
	tokens      *token.Verified
	firstCounts bool // of several cookies of the name, and no other
	template    http.Cookie
	line        string // of the template
	adapt       func(*http.Request, *http.Cookie)
	warned      atomic.Bool
}

func newCookies(o *CookieOptions, tokens *token.Verified) *cookies {
	c := &cookies{name: o.Name, tokens: tokens, template: *o.template(), adapt: o.Adapt}
	c.line = c.template.String()
	return c
}

// maxCandidates is how many cookies of our name are verified in one request.
const maxCandidates = 4

// read implements carrier: it verifies the first few cookies of our name that may
// be good. All others cost nothing.
func (c *cookies) read(r *http.Request) (found candidates) {
	tried := 0
	for value := range c.values(r.Header) {
		if found.carried && c.firstCounts {
			break
		}
		found.carried = true
		if !c.tokens.Plausible(value) || tried == maxCandidates {
			continue
		}
		tried++
		ref, ok := c.tokens.Verify(value)
		for _, twin := range found.refs[:found.n] {
			ok = ok && twin != ref
		}
		if ok {
			found.refs[found.n] = ref
			found.n++
		}
	}
	found.withheld = !found.carried && c.withheld(r)
	return found
}

// withheld tells whether a browser keeps our cookie back from such a request,
// because another site makes it (RFC 6265bis, 5.7.1 and 5.7.2): then a session
// that seems to be a first visit may not be one.
func (c *cookies) withheld(r *http.Request) bool {
	if r.Header.Get("Sec-Fetch-Site") != "cross-site" {
		return false
	}
	switch c.adapted(r).SameSite {
	case http.SameSiteStrictMode:
		return true
	case http.SameSiteLaxMode:
		safe := r.Method == http.MethodGet || r.Method == http.MethodHead
		return !safe || r.Header.Get("Sec-Fetch-Dest") != "document"
	}
	return false
}

// values yields the values of our cookie, as the Cookie header has them.
func (c *cookies) values(h http.Header) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, line := range h["Cookie"] {
			for line != "" {
				var pair string
				pair, line, _ = strings.Cut(line, ";")
				name, value, ok := strings.Cut(pair, "=")
				if ok && trim(name) == c.name && !yield(trim(value)) {
					return
				}
			}
		}
	}
}

// trim takes spaces and tabs off both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// adapted returns the cookie for a request, without its value.
func (c *cookies) adapted(r *http.Request) http.Cookie {
	cookie := c.template
	if c.adapt != nil {
		adapted := cookie
		c.adapt(r, &adapted)
		cookie.Domain, cookie.Path = adapted.Domain, adapted.Path
		cookie.SameSite, cookie.Partitioned = adapted.SameSite, adapted.Partitioned
	}
	return cookie
}

// apply implements carrier. A cookie with a life of zero lasts until the browser
// closes.
func (c *cookies) apply(what cookie, h http.Header, r *http.Request, life time.Duration) error {
	if what.do == leave {
		return nil
	}
	cookie, line := c.adapted(r), c.line
	if c.adapt != nil {
		if err := errors.Join(cookieRules(&cookie)...); err != nil {
			return fmt.Errorf("session: Options.Cookie.Adapt: %w", err)
		}
	}
	value := ""
	switch {
	case what.do == remove:
		cookie.MaxAge = -1
	case life > 0:
		cookie.MaxAge = int((min(life, maxAge) + time.Second - 1) / time.Second)
	}
	if what.do == carry {
		value = what.value()
		c.warn(r)
	}
	if c.adapt != nil || cookie.MaxAge != 0 {
		line = cookie.String()
	}
	c.remove(h)
	begin := len(c.name) + len("=")
	h["Set-Cookie"] = append(h["Set-Cookie"], line[:begin]+value+line[begin:])
	return nil
}

// depends implements carrier.
func (c *cookies) depends() string { return "Cookie" }

// remove takes cookies of our name, whoever set them, out of a response.
func (c *cookies) remove(h http.Header) {
	lines := h["Set-Cookie"]
	kept := lines[:0:0]
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, "="); strings.TrimSpace(name) != c.name {
			kept = append(kept, line)
		}
	}
	if len(kept) < len(lines) {
		h["Set-Cookie"] = kept
	}
}

// warn logs, once, what will look to the developer like a session that is
// forgotten on every request, or to an eavesdropper like a present.
func (c *cookies) warn(r *http.Request) {
	switch {
	case c.warned.Load():
	case !c.template.Secure:
		if !loopback(r.Host) && c.warned.CompareAndSwap(false, true) {
			slog.WarnContext(r.Context(), "session: the cookie leaves without Secure on a host that is not this machine, for everybody on the way to read: unset Options.Cookie.Insecure (logged once)", "host", r.Host)
		}
	case !encrypted(r):
		if !loopback(r.Host) && c.warned.CompareAndSwap(false, true) {
			slog.WarnContext(r.Context(), "session: a Secure cookie leaves on a request without TLS, and the browser will not send it back: serve HTTPS, let the proxy that does set X-Forwarded-Proto, or for development set Options.Cookie.Insecure (logged once)", "host", r.Host)
		}
	}
}

// encrypted tells whether a request came by TLS, or from a proxy that says anything
// of the kind.
func encrypted(r *http.Request) bool {
	return r.TLS != nil || r.Header.Get("Forwarded") != "" || r.Header.Get("X-Forwarded-Proto") != ""
}

func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host).IsLoopback()
}
