// Oidc logs its users in with an OpenID provider, a small one of its own on another port.
//
//	go run .   # and open http://localhost:8080
package main

import (
	"context"
	"log"
	"net"
	"net/http"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/examples/integrations/oidc/issuer"
	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

func main() {
	is, err := issuer.New("example")
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:8081") // another site than localhost
	if err != nil {
		log.Fatal(err)
	}
	is.URL, is.Redirects = "http://127.0.0.1:8081", []string{"http://localhost:8080/callback"}
	go func() { log.Fatal(http.Serve(l, is)) }()
	h, _, err := setUp(context.Background(), is.URL, "http://localhost:8080", false)
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening on http://localhost:8080")
	log.Fatal(http.ListenAndServe("localhost:8080", h))
}

// setUp asks the provider for its configuration and returns the application.
func setUp(ctx context.Context, issuerURL, own string, formPost bool) (http.Handler, *session.Manager, error) {
	provider, err := oidc.NewProvider(ctx, issuerURL)
	if err != nil {
		return nil, nil, err
	}
	sessions, err := session.New(&session.Options{
		Cookie: session.CookieOptions{Insecure: true}, // only for plain http://localhost
	})
	if err != nil {
		return nil, nil, err
	}
	return newApp(sessions, provider, oauth2.Config{
		ClientID: "example", Endpoint: provider.Endpoint(), RedirectURL: own + "/callback",
		Scopes: []string{oidc.ScopeOpenID, oidc.ScopeOfflineAccess},
	}, formPost), sessions, nil
}
