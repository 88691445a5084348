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

var expiredRoutes = routes{
	"/expired": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.Expired()) },
	"/login":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
	"/bob":     func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("bob") },
	"/renew":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
	"/logout":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
	"/set":     func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "value") },
}

// "Your session has ended, please log in again" is said to those for whom it is
// true, and to nobody else.
func TestExpired(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(b *browser, m *session.Manager) (cookie string) // what the last request brings
		want bool
	}{
		{"first visit", func(b *browser, m *session.Manager) string { return "" }, false},
		{"somebody else's cookie", func(b *browser, m *session.Manager) string { return "theme=dark" }, false},
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
				b.get("/expired")
			}
			return b.cookie()
		}, true},
		{"a copy of the cookie after the logout", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/logout")
			return was
		}, true},
		{"likewise, when the tombstone is gone too", func(b *browser, m *session.Manager) string {
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
		{"two, of which one is over", func(b *browser, m *session.Manager) string {
			b.get("/login")
			over := b.cookie()
			b.get("/bob")
			return over + "; " + b.cookie()
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(expiredRoutes))
				r := newBrowser(t, b.h).request("/expired")
				r.Header.Set("Cookie", c.do(b, m))
				if got := body(b.do(r)); got != fmt.Sprint(c.want) {
					t.Errorf("Expired is %s", got)
				}
			})
		})
	}
}

// A store that fails says nothing about the session.
func TestExpiredInAnOutage(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	var during, after bool
	b := newBrowser(t, m.Handler(routes{
		"/login": expiredRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			during = s.Expired()
			spy.down.Store(false)
			err := s.Reload(r.Context())
			if after = s.Expired(); (err == session.ErrEnded) != after || !after && err != nil {
				t.Error(err)
			}
		},
	}))
	b.get("/login")
	spy.down.Store(true)
	b.get("/")
	if during || after {
		t.Errorf("Expired is %v while the store fails and %v afterwards", during, after)
	}
	if err := m.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	spy.down.Store(true)
	b.get("/")
	if during || !after {
		t.Errorf("over: Expired is %v while the store fails and %v afterwards", during, after)
	}
}

// Within one request the answer changes with a Login, and with nothing else: a
// page may ask before its first byte and after it, whatever it changes.
func TestExpiredInOneRequest(t *testing.T) {
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
				if !s.Expired() {
					t.Errorf("%s: not expired", step)
				}
				steps[step](w, s)
				if got := s.Expired(); got == strings.HasPrefix(step, "Login") {
					t.Errorf("%s: Expired is %v", step, got)
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

// A session that ends while a request has it has expired for it when it looks
// again, unless it ended it itself.
func TestExpiredMeanwhile(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{
		"/login": expiredRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if s.Expired() {
				t.Error("expired")
			}
			if err := m.Revoke(r.Context(), s.User(), s.ID()); err != nil {
				t.Error(err)
			}
			if err := s.Reload(r.Context()); err != session.ErrEnded || !s.Expired() {
				t.Error("revoked, and not expired", err)
			}
		},
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Logout()
			if err := s.Save(r.Context()); err != nil || s.Expired() {
				t.Error("its own logout: expired", err)
			}
		},
	}))
	b.get("/login")
	b.get("/")
	b.get("/login")
	b.get("/logout")
}
