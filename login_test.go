package session_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// cartRoutes are a shop with a cart for visitors who are not logged in.
var cartRoutes = routes{
	"/cart": func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "three books") },
	"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login(r.URL.RawQuery)
		visits.Update(s, func(n int) int { return n + 1 })
	},
	"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprintf(w, "%s %s %d", s.User(), name.Get(s), visits.Get(s))
	},
	"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
}

// TestLoginFormSentTwice: promise 3. If the login form is sent several times, the browser keeps
// the last response only. In every interleaving the last Login takes over the values of the
// previous one and ends it. As another user it begins without values, and ends nothing.
func TestLoginFormSentTwice(t *testing.T) {
	for _, user := range []string{"alice", "bob"} {
		t.Run("one after the other, "+user, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(cartRoutes))
				b.get("/cart")
				first, second, third := b.replay(b.cookie()), b.replay(b.cookie()), b.replay(b.cookie())
				first.get("/login?alice")
				time.Sleep(20 * time.Second)
				second.get("/login?" + user)
				time.Sleep(20 * time.Second)
				third.get("/login?" + user)
				want, alices := "alice three books 3", 1
				if user != "alice" {
					want = "bob  1"
				}
				if got := body(third.get("/look")); got != want {
					t.Errorf("the last: %q, want %q", got, want)
				}
				if all, err := spy.Store.List(t.Context(), "alice"); len(all) != alices || err != nil {
					t.Errorf("alice has %d sessions, %v", len(all), err)
				}
				if got := body(first.get("/look")); (got == "alice three books 1") != (user != "alice") {
					t.Errorf("the first: %q", got)
				}
			})
		})
		t.Run("at once, "+user, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				plays := 0
				for s := new(script); plays == 0 || s.next(); plays++ {
					spy := newSpy()
					m := newManager(t, session.Options{Store: spy})
					b := newBrowser(t, m.Handler(cartRoutes))
					b.get("/cart")
					visit := func(b *browser, path string) func(context.Context) {
						r := b.request(path)
						return func(ctx context.Context) { b.do(r.WithContext(ctx)) }
					}
					first, second := b.replay(b.cookie()), b.replay(b.cookie())
					steps := perform(spy, s, [2]func(context.Context){visit(first, "/login?alice"), visit(second, "/login?"+user)})
					looks := []string{body(first.get("/look")), body(second.get("/look"))}
					both := fmt.Sprint(looks)
					all, err := spy.Store.List(t.Context(), "alice")
					switch user {
					case "alice":
						if strings.Count(both, "alice three books 2") != 1 || len(all) != 1 || err != nil {
							t.Errorf("%q, %d sessions", looks, len(all))
						}
					default: // the first Login to commit takes the cart, and no other user does
						if both != "[alice three books 1 bob  1]" && both != "[alice  1 bob three books 1]" || len(all) != 1 {
							t.Errorf("%q, %d sessions of alice", looks, len(all))
						}
					}
					if t.Failed() {
						t.Fatalf("in this order: %q", steps)
					}
				}
				t.Log(plays, "orders")
			})
		})
	}
}

// TestLoginFormSentAgainLater checks that a Login with the replaced token more than a minute
// later begins without values.
func TestLoginFormSentAgainLater(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(cartRoutes))
		b.get("/cart")
		first, second := b.replay(b.cookie()), b.replay(b.cookie())
		first.get("/login?alice")
		time.Sleep(minute)
		second.get("/login?alice")
		if got := body(second.get("/look")); got != "alice  1" {
			t.Errorf("the second: %q", got)
		}
		if got := body(first.get("/look")); got != "alice three books 1" {
			t.Errorf("the first: %q", got)
		}
	})
}

// TestReplacedTokenEndsNothing: promise 2. A token that a Login has replaced, planted or
// stolen, ends nothing: a Logout with it leaves the session and the cookie of the user who has
// logged in. A request that had loaded the session before the Login ends its successor.
func TestReplacedTokenEndsNothing(t *testing.T) {
	for _, user := range []string{"", "bob"} { // the user of the session that the token opened
		for what, o := range map[string]session.Options{"": {}, ", foreign": {Tokens: new(plainTokens), Cookie: session.CookieOptions{Name: "__Host-Http-session"}}} {
			t.Run(user+what, func(t *testing.T) {
				inBubble(t, o, func(t *testing.T, spy *spyStore, m *session.Manager) {
					loaded, goOn := make(chan bool), make(chan bool)
					rs := routes{"/slow": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						s.User()
						loaded <- true
						<-goOn
						s.Logout()
					}, "/logout-save": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						s.Logout()
						fmt.Fprint(w, s.Save(r.Context()), s.Err())
					}}
					for path, f := range cartRoutes {
						rs[path] = f
					}
					b := newBrowser(t, m.Handler(rs))
					b.get("/cart")
					if user != "" {
						b.get("/login?" + user)
					}
					planted, slow := b.replay(b.cookie()), b.replay(b.cookie())
					ended := make(chan bool)
					go func() { slow.get("/slow"); close(ended) }()
					<-loaded
					b.get("/login?alice")
					if resp := planted.get("/logout"); setsCookie(resp) {
						t.Errorf("the Logout sets a cookie: %q", resp.Header["Set-Cookie"])
					}
					if got := body(b.get("/look")); !strings.HasPrefix(got, "alice") {
						t.Errorf("after a Logout with the replaced token: %q", got)
					}
					if got := body(planted.get("/logout-save")); got != "<nil> session: the token was replaced" {
						t.Errorf("Save and Err after that Logout: %s", got)
					}
					goOn <- true
					<-ended
					if got := body(b.get("/look")); strings.HasPrefix(got, "alice") {
						t.Error("the Logout of a request that had loaded the session before: still in")
					}
				})
			})
		}
	}
}

// TestFirstRequestAfterAnEnding: promise 2. For two seconds after a Logout or Revoke a request
// that arrives with the token can store nothing, and Err says so. After that it creates a
// session, whether the tombstone still exists or not.
func TestFirstRequestAfterAnEnding(t *testing.T) {
	for _, ending := range []string{"Logout", "Revoke"} {
		for _, wait := range []time.Duration{0, 2 * second, 2*second + time.Millisecond, minute, 15 * minute} {
			t.Run(fmt.Sprint(ending, " ", wait), func(t *testing.T) {
				var log events
				inBubble(t, session.Options{OnEvent: log.on}, func(t *testing.T, spy *spyStore, m *session.Manager) {
					var dropped *session.Session
					b := newBrowser(t, m.Handler(routes{
						"/login":  clockRoutes["/login"],
						"/logout": clockRoutes["/logout"],
						"/look":   clockRoutes["/look"],
						"/set": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
							if !s.Ended() {
								t.Error("the session has not ended")
							}
							name.Set(s, "state")
							dropped = s
						},
					}))
					b.get("/login")
					old := b.replay(b.cookie())
					if ending == "Logout" {
						b.get("/logout")
					} else if err := m.RevokeAll(t.Context(), "alice"); err != nil {
						t.Fatal(err)
					}
					time.Sleep(wait)
					resp := old.get("/set")
					begins := wait > 2*second
					if got := body(old.get("/look")); resp.StatusCode != 200 || setsCookie(resp) != begins || (got == "state") != begins {
						t.Errorf("%s, sets a cookie: %v, then reads %q", resp.Status, setsCookie(resp), got)
					}
					if err := dropped.Err(); (err == nil) != begins || log.count(session.EventDropped) == 0 != begins {
						t.Errorf("Err: %v, %d times EventDropped", err, log.count(session.EventDropped))
					}
				})
			})
		}
	}
}

// TestLogoutDeletesTheCookieOfAnEndedSession: promise 2. The Logout of a request whose session
// has ended deletes the cookie if the client cannot have a newer one.
func TestLogoutDeletesTheCookieOfAnEndedSession(t *testing.T) {
	for ending, end := range map[string]func(m *session.Manager, b *browser){
		"revoked":    func(m *session.Manager, b *browser) { m.RevokeAll(context.Background(), "alice") },
		"logged out": func(m *session.Manager, b *browser) { b.get("/logout"); time.Sleep(3 * second) },
		"idle":       func(*session.Manager, *browser) { time.Sleep(20 * minute) },
		"long ago":   func(*session.Manager, *browser) { time.Sleep(day) },
	} {
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			b := newBrowser(t, m.Handler(routes{
				"/login":  clockRoutes["/login"],
				"/logout": clockRoutes["/logout"],
				"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					if s.Ended() {
						s.Logout()
						s.AddFlash("", "Your session has ended.")
					}
					fmt.Fprint(w, s.Flashes())
				},
			}))
			b.get("/login")
			old := b.replay(b.cookie())
			end(m, b)
			bare := old.replay(old.cookie())
			if resp := bare.get("/logout"); bare.cookie() != "" {
				t.Errorf("%s: %q", ending, resp.Header["Set-Cookie"])
			}
			if got := body(old.get("/")); got != "[{ Your session has ended.}]" {
				t.Errorf("%s: the first page shows %q", ending, got)
			}
			if got := body(old.get("/")); got != "[]" {
				t.Errorf("%s: the second page shows %q", ending, got)
			}
		})
	}
}
