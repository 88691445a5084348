package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coatcheck/session"
	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// flow is a sign-in that has begun and not returned from the provider. A browser can have
// several, because of tabs and the back button. They are stored in one value, by state. Each is
// valid for ten minutes and for one callback.
type flow struct {
	Nonce, Verifier string
	Until           time.Time
}

var (
	flows  = session.NewKey[map[string]flow]("flows")
	tokens = session.NewKey[*oauth2.Token]("tokens")
	sid    = session.NewKey[string]("sid") // the id of the provider's own session
)

const mostFlows = 20 // per browser; bounds the size of the session

// app logs its users in with an OpenID provider.
type app struct {
	sessions *session.Manager
	provider *oidc.Provider
	config   oauth2.Config
	formPost bool // whether the provider returns by a form that posts (response_mode=form_post)
}

func newApp(sessions *session.Manager, provider *oidc.Provider, config oauth2.Config, formPost bool) http.Handler {
	a := &app{sessions, provider, config, formPost}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /login", a.login)
	mux.HandleFunc("GET /callback", a.callback)
	mux.HandleFunc("POST /callback", a.posted)
	mux.Handle("GET /api", sessions.RequireUser(http.HandlerFunc(a.api), nil))
	mux.HandleFunc("POST /logout", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Logout() })
	mux.HandleFunc("POST /backchannel-logout", a.backchannel)
	protection := http.NewCrossOriginProtection()
	protection.AddInsecureBypassPattern("POST /callback")           // has a state, which the handler checks
	protection.AddInsecureBypassPattern("POST /backchannel-logout") // has a signed token
	return protection.Handler(sessions.Handler(mux))
}

func (a *app) home(w http.ResponseWriter, r *http.Request) {
	if user := session.From(r.Context()).User(); user != "" {
		fmt.Fprintf(w, "You are %s.", user)
		return
	}
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprint(w, `<!DOCTYPE html><title>Example</title><a href="/login">Log in</a>`)
}

// login redirects the browser to the provider.
func (a *app) login(w http.ResponseWriter, r *http.Request) {
	state, f := rand.Text(), flow{Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Until: time.Now().Add(10 * time.Minute)}
	flows.Update(session.From(r.Context()), func(all map[string]flow) map[string]flow {
		kept := map[string]flow{state: f}
		for s, other := range all {
			if time.Now().Before(other.Until) && len(kept) < mostFlows {
				kept[s] = other
			}
		}
		return kept
	})
	options := []oauth2.AuthCodeOption{oidc.Nonce(f.Nonce), oauth2.S256ChallengeOption(f.Verifier)}
	if a.formPost {
		options = append(options, oauth2.SetAuthURLParam("response_mode", "form_post"))
	}
	http.Redirect(w, r, a.config.AuthCodeURL(state, options...), http.StatusSeeOther)
}

// posted receives the form of the provider. The form comes from another site, so the request
// has no Lax cookie; the redirect to a page of this site has it.
func (a *app) posted(w http.ResponseWriter, r *http.Request) {
	q := url.Values{"code": {r.PostFormValue("code")}, "state": {r.PostFormValue("state")}}
	http.Redirect(w, r, "/callback?"+q.Encode(), http.StatusSeeOther)
}

// take removes the flow of a state from the session and returns it, to one of concurrent
// requests only. It returns the zero flow if there is none.
func take(ctx context.Context, s *session.Session, state string) (f flow, err error) {
	if _, ok := flows.Get(s)[state]; !ok {
		return flow{}, s.Err()
	}
	_, err = flows.UpdateNow(ctx, s, func(all map[string]flow) map[string]flow {
		f = all[state]
		delete(all, state)
		return all
	})
	return f, err
}

// callback logs in the user who returns from the provider.
func (a *app) callback(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	f, err := take(r.Context(), s, r.FormValue("state"))
	switch {
	case errors.Is(err, session.ErrStore): // the code was not sent to the provider
		w.Header().Set("Retry-After", "5")
		http.Error(w, "Please try again in a moment.", http.StatusServiceUnavailable)
		return
	case errors.Is(err, session.ErrReplaced) && a.again(w, r):
		return
	case err != nil || time.Now().After(f.Until):
		http.Redirect(w, r, "/login", http.StatusSeeOther) // the flow was used, is too old, or belongs to another browser
		return
	}
	token, err := a.config.Exchange(r.Context(), r.FormValue("code"), oauth2.VerifierOption(f.Verifier))
	if err != nil {
		http.Error(w, "The sign-in did not work. Please try again.", http.StatusBadGateway)
		return
	}
	text, _ := token.Extra("id_token").(string)
	id, err := a.provider.Verifier(&oidc.Config{ClientID: a.config.ClientID}).Verify(r.Context(), text)
	var claims struct {
		SID string `json:"sid"`
	}
	if err != nil || id.Nonce != f.Nonce || id.Claims(&claims) != nil {
		http.Error(w, "The sign-in did not work. Please try again.", http.StatusBadGateway)
		return
	}
	s.Login(id.Subject)
	tokens.Set(s, token)
	sid.Set(s, claims.SID)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// again redirects the browser to the callback again a little later, at most five times. Another
// tab has just logged in, and its new cookie has not arrived yet; the flow of this tab is in
// the session of that cookie.
func (a *app) again(w http.ResponseWriter, r *http.Request) bool {
	q := r.URL.Query()
	try, _ := strconv.Atoi(q.Get("try"))
	if try < 0 || try >= 5 {
		return false
	}
	select {
	case <-time.After(time.Duration(try) * 100 * time.Millisecond):
	case <-r.Context().Done():
	}
	q.Set("try", strconv.Itoa(try+1))
	http.Redirect(w, r, "/callback?"+q.Encode(), http.StatusSeeOther)
	return true
}

// api uses the access token. Of concurrent requests, one refreshes the token.
func (a *app) api(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	token, err := tokens.Refresh(r.Context(), s, (*oauth2.Token).Valid, func(ctx context.Context, t *oauth2.Token) (*oauth2.Token, error) {
		return a.config.TokenSource(ctx, t).Token()
	})
	if err != nil {
		http.Error(w, "Please try again.", http.StatusBadGateway)
		return
	}
	fmt.Fprint(w, token.AccessToken)
}

// backchannel ends sessions because their users logged out at the provider (OpenID Connect
// Back-Channel Logout, 2.5 to 2.7): all sessions of the user, or those of one session of the
// provider. It costs a List, and a load and a save for each session that ends.
func (a *app) backchannel(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	id, err := a.provider.Verifier(&oidc.Config{ClientID: a.config.ClientID}).Verify(r.Context(), r.PostFormValue("logout_token"))
	var claims struct {
		Subject string                    `json:"sub"`
		SID     string                    `json:"sid"`
		Nonce   *string                   `json:"nonce"`
		Events  map[string]map[string]any `json:"events"`
	}
	if err == nil {
		err = id.Claims(&claims)
	}
	if _, logout := claims.Events["http://schemas.openid.net/event/backchannel-logout"]; err != nil || !logout || claims.Nonce != nil || claims.Subject == "" {
		http.Error(w, "Not a logout token.", http.StatusBadRequest)
		return
	}
	all, err := a.sessions.List(r.Context(), claims.Subject)
	for _, info := range all {
		if at, _ := sid.Of(info); claims.SID == "" || at == claims.SID {
			err = errors.Join(err, a.sessions.Revoke(r.Context(), claims.Subject, info.ID))
		}
	}
	if err != nil {
		http.Error(w, "Try again.", http.StatusServiceUnavailable)
	}
}
