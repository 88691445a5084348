// Package issuer is a small OpenID provider for the example and its tests. It logs in any user
// without a password, issues refresh tokens that are valid for one use, and revokes everything
// when one is used twice.
package issuer

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Issuer is an http.Handler. URL and Redirects must be set before the first request.
type Issuer struct {
	URL       string
	ClientID  string
	Redirects []string      // the client's redirect URIs; others are refused
	ExpiresIn time.Duration // lifetime of access tokens

	key    *rsa.PrivateKey
	signer jose.Signer
	mux    *http.ServeMux

	mu        sync.Mutex
	codes     map[string]grant
	refresh   map[string]grant // the valid refresh tokens
	used      map[string]bool
	Refreshes int // number of uses of refresh tokens
	Revoked   bool
}

// grant is what a user has granted to the client.
type grant struct{ sub, sid, nonce, challenge string }

// New returns an Issuer for one client.
func New(clientID string) (*Issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		return nil, err
	}
	is := &Issuer{ClientID: clientID, ExpiresIn: time.Hour, key: key, signer: signer, mux: http.NewServeMux(), codes: map[string]grant{}, refresh: map[string]grant{}, used: map[string]bool{}}
	is.mux.HandleFunc("GET /.well-known/openid-configuration", is.configuration)
	is.mux.HandleFunc("GET /keys", is.keys)
	is.mux.HandleFunc("GET /authorize", is.ask)
	is.mux.HandleFunc("POST /authorize", is.agree)
	is.mux.HandleFunc("POST /token", is.token)
	return is, nil
}

func (is *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) { is.mux.ServeHTTP(w, r) }

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func (is *Issuer) configuration(w http.ResponseWriter, r *http.Request) {
	answer(w, map[string]any{
		"issuer": is.URL, "authorization_endpoint": is.URL + "/authorize", "token_endpoint": is.URL + "/token", "jwks_uri": is.URL + "/keys",
		"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"}, "code_challenge_methods_supported": []string{"S256"},
		"backchannel_logout_supported": true, "backchannel_logout_session_supported": true,
	})
}

func (is *Issuer) keys(w http.ResponseWriter, r *http.Request) {
	answer(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &is.key.PublicKey, KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
}

var page = template.Must(template.New("").Parse(`<!DOCTYPE html><title>Issuer</title>
<form method="post">Log in as <input name="sub" value="alice"> <button>Log in</button></form>`))

// ask shows the login form.
func (is *Issuer) ask(w http.ResponseWriter, r *http.Request) { page.Execute(w, nil) }

// agree redirects the user to the client with a code, in the response mode that the client
// requested.
func (is *Issuer) agree(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if !slices.Contains(is.Redirects, q.Get("redirect_uri")) { // RFC 9700, 2.1
		http.Error(w, "The redirect_uri is not the client's.", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	is.mu.Lock()
	is.codes[code] = grant{r.PostFormValue("sub"), rand.Text(), q.Get("nonce"), q.Get("code_challenge")}
	is.mu.Unlock()
	back := url.Values{"code": {code}, "state": {q.Get("state")}}
	if q.Get("response_mode") == "form_post" {
		fmt.Fprintf(w, `<!DOCTYPE html><form method="post" action="%s">`, template.HTMLEscapeString(q.Get("redirect_uri")))
		for name := range back {
			fmt.Fprintf(w, `<input type="hidden" name="%s" value="%s">`, name, template.HTMLEscapeString(back.Get(name)))
		}
		fmt.Fprint(w, `<button>Go on</button></form>`)
		return
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusSeeOther)
}

// token exchanges a code, or a refresh token.
func (is *Issuer) token(w http.ResponseWriter, r *http.Request) {
	is.mu.Lock()
	defer is.mu.Unlock()
	var g grant
	var ok bool
	switch r.PostFormValue("grant_type") {
	case "authorization_code":
		code := r.PostFormValue("code")
		g, ok = is.codes[code]
		delete(is.codes, code)
		sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
		ok = ok && base64.RawURLEncoding.EncodeToString(sum[:]) == g.challenge
	case "refresh_token":
		is.Refreshes++
		old := r.PostFormValue("refresh_token")
		g, ok = is.refresh[old]
		delete(is.refresh, old)
		if is.used[old] { // a second use, perhaps of a stolen token (RFC 9700, 4.14.2)
			is.Revoked = true
			clear(is.refresh)
		}
		is.used[old] = true
	}
	if !ok {
		w.WriteHeader(http.StatusBadRequest)
		answer(w, map[string]string{"error": "invalid_grant"})
		return
	}
	next := rand.Text()
	is.refresh[next] = g
	id := is.Sign(map[string]any{"sub": g.sub, "sid": g.sid, "nonce": g.nonce})
	answer(w, map[string]any{"access_token": "access to " + g.sub + " " + rand.Text(), "token_type": "Bearer", "expires_in": int(is.ExpiresIn.Seconds()), "refresh_token": next, "id_token": id})
}

// Sign returns a token of this issuer for its client, with these claims.
func (is *Issuer) Sign(claims map[string]any) string {
	all := map[string]any{"iss": is.URL, "aud": is.ClientID, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "jti": rand.Text()}
	for name, v := range claims {
		all[name] = v
	}
	text, err := jwt.Signed(is.signer).Claims(all).Serialize()
	if err != nil {
		panic(err)
	}
	return text
}

// LogoutToken returns the token that an issuer posts to its clients when a user logs out there,
// for one session, or for all if sid is empty (OpenID Connect Back-Channel Logout, 2.4).
func (is *Issuer) LogoutToken(sub, sid string) string {
	claims := map[string]any{"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
	if sub != "" {
		claims["sub"] = sub
	}
	if sid != "" {
		claims["sid"] = sid
	}
	return is.Sign(claims)
}
