package session

import (
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/token"
)

// A carrier reads tokens from requests and writes them into responses, in a cookie or in
// headers.
type carrier interface {
	// read returns the tokens of a request that verify.
	read(r *http.Request) candidates

	// readAll is read for a request that carries too many tokens: see maxEnded.
	readAll(r *http.Request) []token.Ref

	// apply writes what the session does to the client's token into the header. life is how
	// long a browser keeps the cookie; 0: until the browser is closed.
	apply(what cookie, to http.Header, r *http.Request, life time.Duration) error

	// depends returns the name of the request header that a response varies with.
	depends() string

	// challenge returns the WWW-Authenticate header of a 401, or "" for none.
	challenge() string

	// place names the header or cookie that carries the tokens, for log lines.
	place() string
}

// candidates are the tokens of a request.
type candidates struct {
	refs     [maxCandidates]token.Ref
	n        int
	carried  bool // the request has a cookie of our name, or a bearer token, whether or not it verifies
	withheld bool // no token verifies, and the browser may have withheld the cookie
	isCrowd  bool // there are more than maxCandidates plausible tokens
}

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

const (
	// maxCandidates is how many plausible cookies of our name a request may carry. It bounds
	// the HMAC work of each request.
	maxCandidates = 4

	// maxEnded is how many plausible cookies a Login or Logout verifies if there are more
	// than maxCandidates, to end the sessions that they open.
	maxEnded = 64

	// maxPairs is how many pairs of the Cookie header are read. net/http has the same limit.
	maxPairs = 3000
)

// bearer carries tokens in headers, for clients that store them themselves.
type bearer struct {
	tokens   *token.Verified
	warnings warnings
}

// tokenHeader is the response header with a new token. It is empty if the session has
// ended.
const tokenHeader = "Session-Token"

// read implements carrier. The scheme is case-insensitive (RFC 9110, 11.1). Other schemes of
// Authorization are ignored.
func (b *bearer) read(r *http.Request) (found candidates) {
	const scheme = "Bearer "
	values := r.Header["Authorization"]
	if len(values) != 1 || len(values[0]) < len(scheme) || !strings.EqualFold(values[0][:len(scheme)], scheme) {
		return found
	}
	value := trim(values[0][len(scheme):])
	if found.carried = b.tokens.Plausible(value); !found.carried {
		return found
	}
	if ref, ok := b.tokens.Verify(value); ok {
		found.refs[0], found.n = ref, 1
	}
	return found
}

// apply implements carrier.
func (b *bearer) apply(what cookie, to http.Header, r *http.Request, _ time.Duration) error {
	switch {
	case what.action == cookieSend && what.value != nil: // otherwise the client has the token already
		to[tokenHeader] = []string{what.value()}
		if !isEncrypted(r) && !isLoopback(r.Host) {
			b.warnings.log(r, "session: token sent on a request without TLS; serve HTTPS, or let the proxy set X-Forwarded-Proto")
		}
	case what.action == cookieDelete:
		to[tokenHeader] = []string{""}
	}
	return nil
}

// readAll implements carrier.
func (b *bearer) readAll(r *http.Request) []token.Ref {
	found := b.read(r)
	return found.refs[:found.n]
}

// challenge implements carrier.
func (b *bearer) challenge() string { return "Bearer" }

// place implements carrier.
func (b *bearer) place() string { return "Authorization" }

// depends implements carrier.
func (b *bearer) depends() string { return "Authorization" }

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

func isLoopback(host string) bool {
	host = hostName(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host).IsLoopback()
}

// hostName returns a host without its port, in lower case.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// trim removes spaces and tabs from both ends of s.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}
