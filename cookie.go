package session

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/crosssite"
	"github.com/coatcheck/session/internal/token"
)

// cookies carries tokens in the cookie of one Manager.
type cookies struct {
	name        string
	tokens      *token.Verified
	firstCounts bool // of several cookies of the name, only the first counts
	template    http.Cookie
	line        string // the template as a Set-Cookie line
	adapt       func(*http.Request, *http.Cookie)
	device      *devices // nil: Options.DeviceBound is off
	warnings    warnings
}

func newCookies(o *Options, tokens *token.Verified) *cookies {
	c := &cookies{
		name: o.Cookie.Name, tokens: tokens, firstCounts: o.Tokens != nil,
		template: *o.Cookie.template(), adapt: o.Cookie.Adapt, warnings: warnings{to: o.Logger},
	}
	c.line = c.template.String()
	return c
}

// read implements carrier.
func (c *cookies) read(r *http.Request) (found candidates) {
	var plausible [maxCandidates]string
	n := 0
	for value := range c.values(r.Header) {
		found.carried = true
		if c.tokens.Plausible(value) {
			if n == maxCandidates {
				return candidates{carried: true, isCrowd: true}
			}
			plausible[n] = value
			n++
		}
		if c.firstCounts {
			break
		}
	}
	for _, value := range plausible[:n] {
		ref, ok := c.tokens.Verify(value)
		if ok && !slices.Contains(found.refs[:found.n], ref) {
			found.refs[found.n] = ref
			found.n++
		}
	}
	found.withheld = found.n == 0 && c.withheld(r)
	return found
}

// readAll implements carrier.
func (c *cookies) readAll(r *http.Request) (refs []token.Ref) {
	tried := 0
	for value := range c.values(r.Header) {
		if !c.tokens.Plausible(value) {
			continue
		}
		if tried++; tried > maxEnded {
			break
		}
		if ref, ok := c.tokens.Verify(value); ok && !slices.Contains(refs, ref) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// withheld reports whether a browser withholds our cookie from such a request because another
// site made it: the browser may then have a session although the request has no cookie.
func (c *cookies) withheld(r *http.Request) bool {
	return crosssite.Is(r) && crosssite.Withholds(r, c.adapted(r).SameSite)
}

// values yields the values of the cookies of our name, as they stand in the Cookie header.
func (c *cookies) values(h http.Header) func(yield func(string) bool) { return cookieValues(h, c.name) }

// cookieValues yields the values of the cookies of a name, as they stand in the Cookie header.
func cookieValues(h http.Header, wanted string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for name, value := range cookiePairs(h) {
			if name == wanted && !yield(value) {
				return
			}
		}
	}
}

// cookiePairs yields the names and values of all cookies, as they stand in the Cookie header.
func cookiePairs(h http.Header) func(yield func(name, value string) bool) {
	return func(yield func(string, string) bool) {
		pairs := 0
		for _, line := range h["Cookie"] {
			for line != "" {
				if pairs++; pairs > maxPairs {
					return
				}
				var pair string
				pair, line, _ = strings.Cut(line, ";")
				name, value, ok := strings.Cut(pair, "=")
				if ok && !yield(trim(name), trim(value)) {
					return
				}
			}
		}
	}
}

// adapted returns the cookie for a request, without its value. Adapt may set Secure, but
// cannot remove it.
func (c *cookies) adapted(r *http.Request) http.Cookie {
	cookie := c.template
	if c.adapt != nil {
		adapted := cookie
		c.adapt(r, &adapted)
		cookie.Domain, cookie.Path = adapted.Domain, adapted.Path
		cookie.SameSite, cookie.Partitioned = adapted.SameSite, adapted.Partitioned
		cookie.Secure = cookie.Secure || adapted.Secure
	}
	return cookie
}

// apply implements carrier.
func (c *cookies) apply(what cookie, h http.Header, r *http.Request, life time.Duration) error {
	if what.action == cookieKeep {
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
	case what.action == cookieDelete:
		cookie.MaxAge = -1
	case life > 0:
		cookie.MaxAge = int((min(life, maxAge) + time.Second - 1) / time.Second)
	}
	if what.action == cookieSend {
		if what.value != nil {
			value = what.value()
		} else {
			c.values(r.Header)(func(v string) bool { value = v; return false }) // the first one counts
		}
		c.warn(r, &cookie)
	}
	if c.adapt != nil || cookie.MaxAge != 0 {
		line = cookie.String()
	}
	c.remove(h)
	begin := len(c.name) + len("=")
	h["Set-Cookie"] = append(h["Set-Cookie"], line[:begin]+value+line[begin:])
	if c.device != nil {
		c.device.complete(what, h, r, cookie)
	}
	return nil
}

// depends implements carrier.
func (c *cookies) depends() string { return "Cookie" }

// challenge implements carrier. No authentication scheme is registered for cookies.
func (c *cookies) challenge() string { return "" }

// place implements carrier.
func (c *cookies) place() string { return "Cookie " + c.name }

// remove removes all Set-Cookie lines of our name from a response, those of the handler too.
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

// warn logs why a browser will drop the cookie, which looks to a developer like a session that is
// lost with every request, and that an eavesdropper can read the cookie.
func (c *cookies) warn(r *http.Request, cookie *http.Cookie) {
	switch {
	case cookie.Domain != "" && !domainMatches(r.Host, cookie.Domain):
		c.warnings.log(r, "session: cookie sent with a Domain that does not match the host; set Options.Cookie.Domain to the host or a parent domain, or let the proxy pass Host on", "domain", cookie.Domain)
	case cookie.Secure && !isEncrypted(r) && !isLoopback(r.Host):
		c.warnings.log(r, "session: Secure cookie sent on a request without TLS; serve HTTPS, let the proxy set X-Forwarded-Proto, or for development set Options.Cookie.Insecure")
	case !cookie.Secure && saysHTTPS(r) && !isLoopback(r.Host):
		c.warnings.log(r, "session: cookie sent without Secure on a request by TLS; unset Options.Cookie.Insecure, or set Secure in Options.Cookie.Adapt")
	}
}

// domainMatches reports whether a browser keeps a cookie of this Domain from this
// host (RFC 6265bis, 5.1.3 and 5.7). A domain of one label, such as com, is a public suffix, for which
// browsers keep no cookie; longer public suffixes are not known here.
func domainMatches(host, domain string) bool {
	host, domain = hostName(host), strings.ToLower(strings.TrimPrefix(domain, "."))
	return host == domain || strings.Contains(domain, ".") && strings.HasSuffix(host, "."+domain) && net.ParseIP(host) == nil
}
