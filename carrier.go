package session

import (
	"fmt"
	"net/http"
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

// SecretUses returns how many tokens each of [Options].Secrets has verified since New, in the
// order of Secrets. A token is counted when this process first verifies it, and again if it
// was evicted meanwhile from a cache of hundreds of thousands. It shows how far a rotation is:
// if the last secret has verified no token in any process for as long as Options.Lifetime, or
// the longest Remember, it can be removed. With Options.Tokens, SecretUses returns nil.
func (m *Manager) SecretUses() []int64 { return m.tokens.Uses() }

// newCarrier returns the carrier for the options, and the format of the tokens that it
// carries. A token of a cookie is not valid as a bearer token, nor the other way round.
func newCarrier(o *Options) (carrier, *token.Verified, error) {
	format, err := newFormat(o)
	if err != nil {
		return nil, nil, fmt.Errorf("session: Options.Secrets%w", err)
	}
	tokens := token.NewVerified(format)
	if o.Bearer {
		return &bearer{tokens: tokens, warnings: warnings{to: o.Logger}}, tokens, nil
	}
	return newCookies(o, tokens), tokens, nil
}

func newFormat(o *Options) (token.Format, error) {
	switch {
	case o.Tokens != nil:
		return foreign{o.Tokens}, nil
	case o.Bearer:
		return token.NewSigner("header", tokenHeader, o.Secrets)
	}
	return token.NewSigner("cookie", o.Cookie.Name, o.Secrets)
}
