package session

import (
	"fmt"
	"net/http"
	"time"

	"github.com/coatcheck/session/internal/token"
)

// A carrier takes tokens out of requests, and puts them into responses: in
// cookies, or in headers of their own.
type carrier interface {
	// read verifies the few tokens of ours that a request may carry.
	read(r *http.Request) candidates

	// readAll verifies the tokens of a request that carries too many.
	readAll(r *http.Request) []token.Ref

	// apply does to the client's token what the session asks. A browser keeps it
	// for that long; 0: until it closes.
	apply(what cookie, to http.Header, r *http.Request, life time.Duration) error

	// depends returns the request header that a response depends on.
	depends() string

	// challenge returns the WWW-Authenticate header of a 401, or "" for none.
	challenge() string

	// place names where the tokens travel.
	place() string
}

// candidates are the tokens that a request carried, as far as they verify.
type candidates struct {
	refs     [maxCandidates]token.Ref
	n        int
	carried  bool // a cookie of our name was there, or what could be a token, good or bad
	withheld bool // none verifies, and the browser may have kept one back
	isCrowd  bool // there are too many that could be good
}

// SecretUses returns how many tokens each of Options.Secrets has verified since New,
// in their order. A token is counted when this process sees it for the first time,
// and again if it had to be forgotten among hundreds of thousands. So it tells how far
// a rotation is: when the last secret has verified none for as long as
// Options.Lifetime in any process, nobody needs it any more. With Options.Tokens it
// is nil.
func (m *Manager) SecretUses() []int64 { return m.tokens.Uses() }

// newCarrier returns the carrier that the options ask for, and what makes and
// verifies the tokens that it carries. A token is good for one way only.
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
