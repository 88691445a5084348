package session

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
)

// warnings are log lines about how requests arrive. Each is logged once for a host, and only for
// some hosts, because clients choose the Host header.
type warnings struct {
	to     *slog.Logger
	mu     sync.Mutex
	logged map[string]bool
}

// maxWarnings is the highest number of lines, of all hosts.
const maxWarnings = 8

// log logs a line with the host of the request, once.
func (w *warnings) log(r *http.Request, line string, args ...any) {
	w.mu.Lock()
	key := line + r.Host
	isNew := !w.logged[key] && len(w.logged) < maxWarnings
	if isNew {
		if w.logged == nil {
			w.logged = map[string]bool{}
		}
		w.logged[strings.Clone(key)] = true
	}
	w.mu.Unlock()
	if isNew {
		w.to.WarnContext(r.Context(), line, append([]any{"host", r.Host}, args...)...)
	}
}

// warn logs why a browser will drop the cookie, which looks to a developer like a session that is
// lost with every request, and that an eavesdropper can read the cookie.
func (c *cookies) warn(r *http.Request, cookie *http.Cookie) {
	switch {
	case cookie.Domain != "" && !domainMatches(r.Host, cookie.Domain):
		c.warnings.log(r, "session: cookie sent with a Domain that is not the host's, so that browsers drop it; set Options.Cookie.Domain to the host or a parent of it, or let the proxy pass Host on", "domain", cookie.Domain)
	case cookie.Secure && !isEncrypted(r) && !isLoopback(r.Host):
		c.warnings.log(r, "session: Secure cookie sent on a request without TLS, so that browsers do not send it back; serve HTTPS, let the proxy that does set X-Forwarded-Proto, or for development set Options.Cookie.Insecure")
	case !cookie.Secure && saysHTTPS(r) && !isLoopback(r.Host):
		c.warnings.log(r, "session: cookie sent without Secure on a request by TLS; unset Options.Cookie.Insecure, or set Secure in Options.Cookie.Adapt")
	}
}

// warnNested logs that another Manager around this one uses the same cookie or header, so that
// each replaces the token of the other.
func (m *Manager) warnNested(s *Session) {
	for outer, _ := s.ctx.Value(innermost{}).(*Session); outer != nil; outer, _ = outer.ctx.Value(innermost{}).(*Session) {
		if place := m.carrier.place(); outer.m.carrier.place() == place && m.nested.CompareAndSwap(false, true) {
			m.log.WarnContext(s.ctx, "session: two nested Managers take each other's token; give the outer and the inner Manager different Options.Cookie.Name (logged once)", "outer", place, "inner", place)
		}
	}
}

// warnWithheld logs that a request from another site could not begin a session.
func (m *Manager) warnWithheld(ctx context.Context) {
	if m.dropped.CompareAndSwap(false, true) {
		m.log.WarnContext(ctx, "session: values of a request from another site dropped, because SameSite kept the cookie back; redirect to a page of this site and set them there; behind a proxy, pass Host on (logged once)")
	}
}

// isEncrypted reports whether the request arrived by TLS, or through a proxy that states the
// protocol.
func isEncrypted(r *http.Request) bool {
	return r.TLS != nil || len(r.Header["Forwarded"]) > 0 || len(r.Header["X-Forwarded-Proto"]) > 0
}

// saysHTTPS reports whether the request arrived by TLS, here or at the first of several proxies
// (RFC 7239, 5.4, which permits quotes).
func saysHTTPS(r *http.Request) bool {
	proto, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	forwarded, _, _ := strings.Cut(r.Header.Get("Forwarded"), ",")
	return r.TLS != nil || strings.EqualFold(trim(proto), "https") ||
		strings.Contains(strings.ToLower(strings.ReplaceAll(forwarded, `"`, "")), "proto=https")
}

// hostName returns a host without its port, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// domainMatches reports whether a browser keeps a cookie of this Domain from this
// host (RFC 6265bis, 5.1.3 and 5.7).
func domainMatches(host, domain string) bool {
	host, domain = hostName(host), strings.ToLower(strings.TrimPrefix(domain, "."))
	return host == domain || strings.HasSuffix(host, "."+domain) && net.ParseIP(host) == nil
}

func isLoopback(host string) bool {
	host = hostName(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host).IsLoopback()
}
