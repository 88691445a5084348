package session

import (
	"net/http"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/token"
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
			b.warnings.log(r, "session: token sent on a request without TLS, which everyone on the way can read; serve HTTPS, or let the proxy that does set X-Forwarded-Proto")
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
