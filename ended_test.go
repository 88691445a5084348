package session_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

var endedRoutes = routes{
	"/ended":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.Ended()) },
	"/login":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
	"/bob":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("bob") },
	"/renew":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
	"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
	"/set":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "value") },
}

// TestEnded checks that Ended returns true exactly for users whose session has ended.
func TestEnded(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(b *browser, m *session.Manager) (cookie string) // the Cookie header of the last request
		want bool
	}{
		{"first visit", func(b *browser, m *session.Manager) string { return "" }, false},
		{"an unrelated cookie", func(b *browser, m *session.Manager) string { return "theme=dark" }, false},
		{"forged", func(b *browser, m *session.Manager) string {
			b.get("/login")
			return forge(b.cookie())
		}, false},
		{"too short", func(b *browser, m *session.Manager) string {
			b.get("/login")
			return b.cookie()[:100]
		}, false},
		{"logged in", func(b *browser, m *session.Manager) string {
			b.get("/login")
			return b.cookie()
		}, false},
		{"anonymous", func(b *browser, m *session.Manager) string {
			b.get("/set")
			return b.cookie()
		}, false},
		{"idle for too long", func(b *browser, m *session.Manager) string {
			b.get("/login")
			time.Sleep(21 * minute)
			return b.cookie()
		}, true},
		{"too old", func(b *browser, m *session.Manager) string {
			b.get("/login")
			for range 12 {
				time.Sleep(10 * minute)
				b.get("/ended")
			}
			return b.cookie()
		}, true},
		{"a copy of the cookie after the logout", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/logout")
			return was
		}, true},
		{"the same, after the tombstone has expired", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/logout")
			time.Sleep(2 * minute)
			return was
		}, true},
		{"the browser itself after its logout", func(b *browser, m *session.Manager) string {
			b.get("/login")
			b.get("/logout")
			return b.cookie()
		}, false},
		{"revoked", func(b *browser, m *session.Manager) string {
			b.get("/login")
			if err := m.RevokeAll(b.t.Context(), "alice"); err != nil {
				b.t.Fatal(err)
			}
			return b.cookie()
		}, true},
		{"given to another user", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/bob")
			return was
		}, true},
		{"the session lives, by a newer token", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/renew")
			time.Sleep(minute)
			return was
		}, false},
		{"two cookies, one of an ended session", func(b *browser, m *session.Manager) string {
			b.get("/login")
			over := b.cookie()
			b.get("/bob")
			return over + "; " + b.cookie()
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(endedRoutes))
				r := newBrowser(t, b.h).request("/ended")
				r.Header.Set("Cookie", c.do(b, m))
				if got := body(b.do(r)); got != fmt.Sprint(c.want) {
					t.Errorf("Ended is %s", got)
				}
			})
		})
	}
}

// TestEndedInAnOutage checks that a failing store does not make a session look ended.
func TestEndedInAnOutage(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	var during, after bool
	b := newBrowser(t, m.Handler(routes{
		"/login": endedRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			during = s.Ended()
			spy.down.Store(false)
			err := s.Reload(r.Context())
			if after = s.Ended(); (err == session.ErrEnded) != after || !after && err != nil {
				t.Error(err)
			}
		},
	}))
	b.get("/login")
	spy.down.Store(true)
	b.get("/")
	if during || after {
		t.Errorf("Ended is %v while the store fails and %v afterwards", during, after)
	}
	if err := m.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	spy.down.Store(true)
	b.get("/")
	if during || !after {
		t.Errorf("ended: Ended is %v while the store fails and %v afterwards", during, after)
	}
}

// TestEndedInOneRequest checks that within one request Ended changes with a Login only, before
// and after the first byte, whatever the request changes.
func TestEndedInOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		steps := map[string]func(w http.ResponseWriter, s *session.Session){
			"nothing":         func(w http.ResponseWriter, s *session.Session) {},
			"Set":             func(w http.ResponseWriter, s *session.Session) { name.Set(s, "value") },
			"Set and Save":    func(w http.ResponseWriter, s *session.Session) { name.Set(s, "value"); s.Save(t.Context()) },
			"Set and Write":   func(w http.ResponseWriter, s *session.Session) { name.Set(s, "value"); w.Write([]byte("x")) },
			"Logout":          func(w http.ResponseWriter, s *session.Session) { s.Logout() },
			"Reload":          func(w http.ResponseWriter, s *session.Session) { s.Reload(t.Context()) },
			"Login":           func(w http.ResponseWriter, s *session.Session) { s.Login("alice") },
			"Login and Save":  func(w http.ResponseWriter, s *session.Session) { s.Login("alice"); s.Save(t.Context()) },
			"Login and Write": func(w http.ResponseWriter, s *session.Session) { s.Login("alice"); w.Write([]byte("x")) },
		}
		b := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			switch step := r.FormValue("step"); step {
			case "":
				s.Login("alice")
			default:
				if !s.Ended() {
					t.Errorf("%s: not ended", step)
				}
				steps[step](w, s)
				if got := s.Ended(); got == strings.HasPrefix(step, "Login") {
					t.Errorf("%s: Ended is %v", step, got)
				}
			}
		})))
		for step := range steps {
			b.get("/")
			was := b.cookie()
			time.Sleep(2 * time.Hour)
			r := newBrowser(t, b.h).request("/?step=" + strings.ReplaceAll(step, " ", "+"))
			r.Header.Set("Cookie", was)
			b.do(r)
		}
	})
}

// TestEndedMeanwhile checks that a session that ends during a request has ended for the request
// after a Reload, unless the request itself ended it.
func TestEndedMeanwhile(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{
		"/login": endedRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if s.Ended() {
				t.Error("ended")
			}
			if err := m.Revoke(r.Context(), s.User(), s.ID()); err != nil {
				t.Error(err)
			}
			if err := s.Reload(r.Context()); err != session.ErrEnded || !s.Ended() {
				t.Error("revoked, and not ended", err)
			}
		},
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Logout()
			if err := s.Save(r.Context()); err != nil || s.Ended() {
				t.Error("its own logout: ended", err)
			}
		},
	}))
	b.get("/login")
	b.get("/")
	b.get("/login")
	b.get("/logout")
}
