package session_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

// Browsers behind HTTP Basic authentication and apps use the same routes at the
// same time, and one list shows the sessions of both.
func TestRecipeAppsAndCommandLines(t *testing.T) {
	const n = 5
	store, told := session.NewMemoryStore(nil), &events{}
	browsers := newManager(t, session.Options{Store: store, OnEvent: told.on})
	apps := newManager(t, session.Options{Store: store, OnEvent: told.on, Bearer: true})
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("ann") })
	mux.Handle("/write/{i}", overlap(2*n, http.HandlerFunc(writing)))
	mux.HandleFunc("/look", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		fmt.Fprint(w, s.User(), len(s.Keys()))
	})
	h := browsersAndApps(browsers, apps, mux)
	b, a := sessiontest.NewBrowser(t, h), &app{h: h}
	get := func(target, authorization string) *http.Response {
		r := httptest.NewRequest("GET", target, nil)
		r.Header.Set("Authorization", authorization)
		return b.Do(r)
	}
	const basic = "Basic c3RhZ2luZzpzdGFnaW5n"
	for _, nothing := range []string{"bearer", "Bearer none", "BEARER  "} {
		resp := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "https://localhost/look", nil)
		r.Header.Set("Authorization", nothing)
		h.ServeHTTP(resp, r)
		if got := resp.Header().Get("Vary"); got != "Authorization" {
			t.Errorf("%q: Vary is %q", nothing, got)
		}
	}
	if told.count(session.EventRejected) > 0 {
		t.Error("an app without a token was rejected")
	}
	if get("/login", basic); body(get("/look", basic)) != "ann0" {
		t.Fatal("the browser is not logged in")
	}
	if a.get("/login"); a.token == "" {
		t.Fatal("the app is not logged in")
	}
	token := a.token
	atOnce(2*n, func(i int) {
		if target := fmt.Sprint("/write/", i); i < n {
			get(target, basic)
		} else {
			(&app{h: h, token: token}).get(target)
		}
	})
	if inBrowser, inApp := body(get("/look", basic)), body(a.get("/look")); inBrowser != "ann5" || inApp != "ann5" {
		t.Errorf("the browser has %q, the app %q", inBrowser, inApp)
	}
	if all, err := browsers.List(t.Context(), "ann"); len(all) != 2 || err != nil {
		t.Errorf("%d sessions are listed: %v", len(all), err)
	}
}
