package session_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// app is a client that stores its token itself. It sends the token that it has with every
// request, and stores that of a response.
type app struct {
	h     http.Handler
	token string
}

func (a *app) get(path string) *http.Response {
	r := httptest.NewRequest("GET", "https://localhost"+path, nil)
	r.Header.Set("Authorization", strings.TrimSpace("Bearer "+a.token))
	return a.do(r)
}

func (a *app) do(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	a.h.ServeHTTP(w, r)
	resp := w.Result()
	if token, ok := resp.Header["Session-Token"]; ok {
		a.token = token[0]
	}
	return resp
}

// TestBearer follows a session whose token travels in headers. No cookie is set.
func TestBearer(t *testing.T) {
	inBubble(t, session.Options{Bearer: true, RenewAfter: minute}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		a := &app{h: m.Handler(clockRoutes)}
		expect := func(path, want, control string, changes bool) *http.Response {
			t.Helper()
			before := a.token
			resp := a.get(path)
			if got := body(resp); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
			if got := resp.Header.Get("Vary"); got != "Authorization" {
				t.Errorf("%s: Vary is %q", path, got)
			}
			if got := resp.Header.Get("Cache-Control"); got != control {
				t.Errorf("%s: Cache-Control is %q", path, got)
			}
			if _, ok := resp.Header["Session-Token"]; ok != changes || (a.token != before) != changes {
				t.Errorf("%s: Session-Token is %q", path, resp.Header["Session-Token"])
			}
			if resp.Header["Set-Cookie"] != nil {
				t.Errorf("%s: a cookie", path)
			}
			return resp
		}
		expect("/look", "", "", false)
		expect("/set", "", "no-store", true)
		expect("/look", "value", "private", false)
		anonymous := a.token
		expect("/login", "", "no-store", true)
		first := a.token
		expect("/look", "valuealice", "no-store", false)
		time.Sleep(minute)
		expect("/look", "valuealice", "no-store", true) // automatic renewal
		expect("/renew", "", "no-store", true)
		time.Sleep(11 * time.Second)
		expect("/look", "valuealice", "no-store", false)
		for _, old := range []string{anonymous, first} {
			if got := body((&app{h: a.h, token: old}).get("/look")); got != "" {
				t.Errorf("with an old token in as %q", got)
			}
		}
		last := a.token
		expect("/logout", "", "no-store", true)
		if a.token != "" {
			t.Errorf("after the logout the token is %q", a.token)
		}
		if got := body((&app{h: a.h, token: last}).get("/look")); got != "" {
			t.Errorf("after the logout the old token is in as %q", got)
		}
		expect("/look", "", "", false)
	})
}

// TestBearerLeavesOthersAlone checks that other contents of Authorization cause no event and
// open no session.
func TestBearerLeavesOthersAlone(t *testing.T) {
	var log events
	m := newManager(t, session.Options{Bearer: true, OnEvent: log.on})
	a := &app{h: m.Handler(clockRoutes)}
	a.get("/login")
	good := a.token
	for _, c := range []struct {
		name, value, want string
		rejected          int
	}{
		{"canonical", "Bearer " + good, "alice", 0},
		{"lower case", "bearer " + good, "alice", 0},
		{"upper case", "BEARER " + good, "alice", 0},
		{"more spaces", "Bearer   " + good + " ", "alice", 0},
		{"no scheme", good, "", 0},
		{"no space", "Bearer" + good, "", 0},
		{"another scheme", "Digest " + good, "", 0},
		{"a longer scheme", "Bearers " + good, "", 0},
		{"Basic", "Basic YWxpY2U6c2VjcmV0", "", 0},
		{"an unrelated JWT", "Bearer " + strings.Repeat("eyJhbGciOi", 20), "", 0},
		{"nothing", "", "", 0},
		{"the scheme alone", "Bearer", "", 0},
		{"the scheme and a space", "Bearer ", "", 0},
		{"two tokens", "Bearer " + good + " " + good, "", 0},
		{"a parameter", "Bearer " + good + ", x", "", 0},
		{"forged", "Bearer " + forge(good), "", 1},
	} {
		before := log.count(session.EventRejected)
		r := httptest.NewRequest("GET", "https://localhost/look", nil)
		r.Header["Authorization"] = []string{c.value}
		resp := (&app{h: a.h}).do(r)
		if got := body(resp); got != c.want {
			t.Errorf("%s: in as %q, want %q", c.name, got, c.want)
		}
		if got := log.count(session.EventRejected) - before; got != c.rejected {
			t.Errorf("%s: %d events", c.name, got)
		}
		if resp.Header["Session-Token"] != nil {
			t.Errorf("%s: a token", c.name)
		}
	}
	r := httptest.NewRequest("GET", "https://localhost/look", nil)
	r.Header["Authorization"] = []string{"Bearer " + good, "Basic YWxpY2U6c2VjcmV0"}
	if got := body(a.do(r)); got != "" {
		t.Errorf("one of two headers is accepted: %q", got)
	}
}

// TestBearerAndCookie checks that a token of a header is not valid in a cookie, nor the other
// way round, with the same secrets.
func TestBearerAndCookie(t *testing.T) {
	store := session.NewMemoryStore(nil)
	secrets := [][]byte{[]byte(strings.Repeat("secret", 6))}
	apps := newManager(t, session.Options{Store: store, Secrets: secrets, Bearer: true})
	for _, name := range []string{"", "Session-Token", "Authorization"} {
		browsers := newManager(t, session.Options{Store: store, Secrets: secrets, Cookie: session.CookieOptions{Name: name}})
		a, b := &app{h: apps.Handler(clockRoutes)}, newBrowser(t, browsers.Handler(clockRoutes))
		a.get("/login")
		resp := b.get("/login")
		cookie, value, _ := strings.Cut(strings.SplitN(resp.Header.Get("Set-Cookie"), ";", 2)[0], "=")
		if got := body((&app{h: a.h, token: value}).get("/look")); got != "" {
			t.Errorf("a cookie's value as a token: %q", got)
		}
		r := newBrowser(t, b.h).request("/look")
		r.Header.Set("Cookie", cookie+"="+a.token)
		if got := body(b.do(r)); got != "" {
			t.Errorf("a token as a cookie's value: %q", got)
		}
		r = b.request("/look")
		r.Header.Set("Cookie", cookie+"="+value)
		if got := body((&app{h: a.h}).do(r)); got != "" {
			t.Errorf("the app's Manager reads a cookie: %q", got)
		}
		for _, m := range []*session.Manager{apps, browsers} { // one page of devices for both
			list, err := m.List(t.Context(), "alice")
			if err != nil || len(list) != 2 {
				t.Fatalf("%d devices, %v", len(list), err)
			}
		}
		if err := browsers.RevokeAll(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if got := body(a.get("/look")); got != "" {
			t.Errorf("revoked by the other Manager: %q", got)
		}
	}
}

// TestBearerUntouchedAndFailing checks that a request that does not use its session costs
// nothing, and that an error response contains no token.
func TestBearerUntouchedAndFailing(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, Bearer: true})
	a := &app{h: m.Handler(clockRoutes)}
	a.get("/login")
	before := spy.count("")
	if resp := a.get("/unused"); len(resp.Header) > 0 || spy.count("") != before {
		t.Errorf("header %v, %d calls", resp.Header, spy.count("")-before)
	}
	for _, path := range []string{"/look", "/renew", "/login", "/logout", "/set"} {
		spy.down.Store(true)
		resp := a.get(path)
		spy.down.Store(false)
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header["Session-Token"] != nil || resp.Header.Get("Vary") != "Authorization" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	if got := body(a.get("/look")); got != "alice" {
		t.Errorf("after the outage: %q", got)
	}
	// A Session-Token that a handler sets itself is not sent with an error either.
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Session-Token", "x")
		fmt.Fprint(w, session.From(r.Context()).User())
	}))
	spy.down.Store(true)
	if resp := (&app{h: h, token: a.token}).get("/"); resp.Header["Session-Token"] != nil {
		t.Error("the error has a token")
	}
}

// TestBearerKnowsNoSites checks that the rules about requests from other sites do not apply to
// Bearer, because SameSite is about cookies.
func TestBearerKnowsNoSites(t *testing.T) {
	m := newManager(t, session.Options{Bearer: true})
	r := httptest.NewRequest("POST", "https://localhost/set", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if a := (&app{h: m.Handler(clockRoutes)}); a.do(r) == nil || a.token == "" {
		t.Error("no session")
	}
}
