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

// Customer 42 and employee 42 log in at the same time, the latter on two devices. The
// limit for customers is one session.
func TestRecipeVisitorsAndStaff(t *testing.T) {
	defer func(m *session.Manager) { visitors = m }(visitors)
	visitors = newManager(t, session.Options{
		Store: store, Secrets: [][]byte{secret}, MaxPerUser: 1,
		Cookie: session.CookieOptions{Name: "__Host-visitor"},
	})
	h := nested()
	bs := []*sessiontest.Browser{sessiontest.NewBrowser(t, h), sessiontest.NewBrowser(t, h)}
	atOnce(3, func(i int) {
		if i == 2 {
			bs[0].Session(visitors, func(s *session.Session) { s.Login("42") })
		} else {
			bs[i].Session(staff, func(s *session.Session) { s.Login(employee("42")) })
		}
	})
	listed := func(m *session.Manager, user string, want int) {
		t.Helper()
		if all, err := m.List(t.Context(), user); len(all) != want || err != nil {
			t.Errorf("%s has %d sessions, want %d: %v", user, len(all), want, err)
		}
	}
	listed(visitors, "42", 1)
	listed(staff, employee("42"), 2)
	if err := visitors.RevokeAll(t.Context(), "42"); err != nil {
		t.Error(err)
	}
	for _, b := range bs {
		if got := body(b.Get("/")); got != `visitor "", employee "staff:42"` {
			t.Error(got)
		}
	}
	if err := staff.RevokeAll(t.Context(), employee("42")); err != nil {
		t.Error(err)
	}
	bs[0].Session(visitors, func(s *session.Session) { s.Login("42") })
	if got := body(bs[0].Get("/")); got != `visitor "42", employee ""` {
		t.Error(got)
	}
}
