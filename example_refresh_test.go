package session_test

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/coatcheck/session"
)

// These types stand for those of golang.org/x/oauth2: a Token that is stored as JSON, and a
// Config that creates a TokenSource for it. Use those in a program.
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

// Valid reports whether the access token is valid for at least some seconds.
func (t *oauthToken) Valid() bool {
	return t != nil && t.AccessToken != "" && time.Until(t.Expiry) > 10*time.Second
}

var oauthTokens = session.NewKey[*oauthToken]("oauth")

// An access token has expired, its refresh token is valid for one use, and twenty concurrent
// requests notice. One of them uses the refresh token, and the others get the result. If the
// issuer refuses, the user logs in again. If the issuer cannot be reached, nothing is lost, and
// the next request tries again.
func ExampleKey_Refresh() {
	var config oauthConfig // *oauth2.Config
	_ = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		token, err := oauthTokens.Refresh(r.Context(), s, (*oauthToken).Valid,
			func(ctx context.Context, t *oauthToken) (*oauthToken, error) {
				return config.TokenSource(ctx, t).Token() // asks the issuer, because t is not valid
			})
		switch {
		case errors.Is(err, session.ErrEnded): // the session has ended meanwhile
			http.Error(w, "Please log in.", http.StatusUnauthorized)
		case err != nil:
			http.Error(w, "Try again.", http.StatusBadGateway)
		default:
			callAPI(w, r, token.AccessToken)
		}
	}
}

func callAPI(http.ResponseWriter, *http.Request, string) {}
