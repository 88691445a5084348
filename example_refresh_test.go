package session_test

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/coatcheck/session"
)

// These stand for what golang.org/x/oauth2 has: a Token that is stored as JSON, and
// a Config that makes a TokenSource of it. Use those.
type (
	oauthToken struct {
		AccessToken  string    `json:"access_token"`
		RefreshToken string    `json:"refresh_token"`
		Expiry       time.Time `json:"expiry"`
	}
	tokenSource interface{ Token() (*oauthToken, error) }
	oauthConfig interface {
		TokenSource(context.Context, *oauthToken) tokenSource
	}
)

// Valid tells whether the access token is good for some seconds at least.
func (t *oauthToken) Valid() bool {
	return t != nil && t.AccessToken != "" && time.Until(t.Expiry) > 10*time.Second
}

var oauthTokens = session.NewKey[*oauthToken]("oauth")

// An access token has run out, its refresh token is good for one use, and twenty
// requests notice at once: one of them uses it, the others get what it got. Where
// the issuer says no, the user signs in again; where it cannot be asked, nothing
// is lost, and the next request tries.
func ExampleKey_Refresh() {
	var config oauthConfig // *oauth2.Config
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		token, err := oauthTokens.Refresh(r.Context(), s, (*oauthToken).Valid,
			func(ctx context.Context, t *oauthToken) (*oauthToken, error) {
				return config.TokenSource(ctx, t).Token() // asks the issuer, for t is not valid
			})
		switch {
		case errors.Is(err, session.ErrEnded): // signed out meanwhile
			http.Error(w, "Please log in.", http.StatusUnauthorized)
		case err != nil:
			http.Error(w, "Try again.", http.StatusBadGateway)
		default:
			callAPI(w, r, token.AccessToken)
		}
	}
}

func callAPI(http.ResponseWriter, *http.Request, string) {}
