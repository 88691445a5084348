package session_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/coatcheck/session"
)

var (
	name   = session.NewKey[string]("name")
	visits = session.NewKey[int]("visits")
)

// The life of a session as a browser sees it: nothing, values, a login, a new
// token, a logout, and no way back with an old cookie.
func TestLife(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{
		"/visit": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
			fmt.Fprint(w, visits.Get(s), s.User())
		},
		"/login":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/renew":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
		"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, visits.Get(s), s.User())
		},
	}))
	expect := func(b *browser, path, want string) {
		t.Helper()
		if got := body(b.get(path)); got != want {
			t.Fatalf("GET %s: %q, want %q", path, got, want)
		}
	}
	expect(b, "/look", "0")
	if b.cookie() != "" {
		t.Fatal("a session that was only looked at got a cookie")
	}
	expect(b, "/visit", "1")
	anonymous := b.cookie()
	expect(b, "/visit", "2")
	b.get("/login")
	loggedIn := b.cookie()
	expect(b, "/visit", "3alice")
	b.get("/renew")
	renewed := b.cookie()
	expect(b, "/visit", "4alice")
	expect(b.replay(anonymous), "/look", "0")
	expect(b.replay(loggedIn), "/look", "3alice") // for ten seconds, as it was
	expect(b, "/look", "4alice")
	b.get("/logout")
	if b.cookie() != "" {
		t.Fatal("the cookie outlived the logout")
	}
	expect(b.replay(renewed), "/look", "0")
}
