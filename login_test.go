package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// once returns a hook that calls f before the first call of a method.
func once(spy *spyStore, method string, f func(ctx context.Context)) func(context.Context, string, string) error {
	return func(ctx context.Context, call, _ string) error {
		if call == method {
			spy.hook(nil)
			f(ctx)
		}
		return nil
	}
}

// TestLogoutAfterAnIndeterminateSave calls Logout after a Save with an unknown outcome. Either
// the old cookie is invalid afterwards, whatever the outcome of the Save, or the user gets an
// error.
func TestLogoutAfterAnIndeterminateSave(t *testing.T) {
	for _, applied := range []bool{true, false} {
		for _, late := range []bool{true, false} {
			for _, again := range []bool{true, false} { // whether the write of the Logout also has an unknown outcome
				t.Run(fmt.Sprint("applied=", applied, " late=", late, " again=", again), func(t *testing.T) {
					spy := newSpy()
					m := newManager(t, session.Options{Store: spy})
					sent := open(t, m, "alice")
					unsure := func(on bool) {
						spy.hook(nil)
						spy.after = nil
						switch {
						case on && applied:
							spy.after = lost("Save")
						case on:
							spy.hook(failing("Save", session.ErrIndeterminate))
						}
					}
					resp := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						write(s)
						unsure(true)
						if err := s.Save(r.Context()); !errors.Is(err, session.ErrIndeterminate) {
							t.Error("Save:", err)
						}
						unsure(again)
						if late {
							fmt.Fprint(w, "first byte")
						}
						s.Logout()
					}})).replay(sent).get("/")
					unsure(false)
					got := opens(t, m, sent)
					if got != closed && (!again || !late && resp.StatusCode == 200) {
						t.Errorf("the status is %s, and the cookie still opens %q", resp.Status, got)
					}
				})
			}
		}
	}
}

// TestLogoutOfTwoLiveSessions checks that of two live sessions in one request neither is used,
// because it is not known which is the user's, and that a Logout ends both.
func TestLogoutOfTwoLiveSessions(t *testing.T) {
	m := newManager(t, session.Options{})
	h := m.Handler(reception)
	name, alice := logIn(t, h, "alice")
	_, again := logIn(t, h, "alice")
	_, bob := logIn(t, h, "bob")
	_, elsewhere := logIn(t, h, "alice")
	resp := present(h, "/logout", name+"="+alice+"; "+name+"="+bob, name+"="+again)
	if c := issued(t, resp); c.MaxAge >= 0 {
		t.Errorf("the cookie was not deleted: %v", resp.Header)
	}
	for _, value := range []string{alice, again, bob} {
		expectUser(t, h, "", name+"="+value)
	}
	expectUser(t, h, "alice", name+"="+elsewhere)
}

// revokeSuccessor returns a hook that revokes the new session of a login before its swap, and
// changes the old one.
func revokeSuccessor(t *testing.T, spy *spyStore, m *session.Manager, b *browser) func(context.Context, string, string) error {
	return once(spy, "Save", func(ctx context.Context) {
		all, err := m.List(ctx, "alice")
		if err != nil || len(all) != 1 {
			t.Errorf("%d are listed (%v) before the swap", len(all), err)
		}
		for _, s := range all {
			m.Revoke(ctx, "alice", s.ID)
		}
		b.get("/set")
	})
}

// TestSuccessorIsRevokedBeforeItsTokenIsOut covers an operator who ends the new session of a
// login before its token is sent, while the old session changes. This ends both, because they
// are the same session.
func TestSuccessorIsRevokedBeforeItsTokenIsOut(t *testing.T) {
	spy := newSpy()
	var told events
	m := newManager(t, session.Options{Store: spy, OnEvent: told.on})
	b := newBrowser(t, m.Handler(clockRoutes))
	b.get("/set")
	held := b.cookie()
	spy.hook(revokeSuccessor(t, spy, m, b))
	if resp := b.get("/login"); setsCookie(resp) || told.count(session.EventDropped) != 1 {
		t.Errorf("the response sets a cookie, or no event was dropped: %v, events %v", resp.Header, told.all)
	}
	if got := body(b.replay(held).get("/look")); got != "" {
		t.Errorf("the old cookie opens %q", got)
	}
	if all, err := m.List(t.Context(), "alice"); len(all) != 0 || err != nil {
		t.Errorf("%d are left (%v)", len(all), err)
	}
}

// TestEditWhileTheTokenIsReplaced edits all sessions of a user while one of them is being
// created or renewed. The user stays logged in, and the session has the value.
func TestEditWhileTheTokenIsReplaced(t *testing.T) {
	for _, path := range []string{"/renew", "/login"} { // a renewal, and the login of a visitor
		for _, moves := range []bool{false, true} { // whether the old record changes too
			t.Run(fmt.Sprint(path, " moves=", moves), func(t *testing.T) {
				spy := newSpy()
				m := newManager(t, session.Options{Store: spy})
				b := newBrowser(t, m.Handler(clockRoutes))
				if b.get("/set"); path == "/renew" {
					b.get("/login")
				}
				old := b.request("/set")
				spy.hook(once(spy, "Save", func(ctx context.Context) {
					all, err := m.List(ctx, "alice")
					if err != nil || len(all) != 1 {
						t.Errorf("%d are listed (%v) before the swap", len(all), err)
					}
					edit := func(to string) {
						if err := m.Edit(ctx, "alice", all[0].ID, func(s *session.Session) { name.Set(s, to) }); err != nil {
							t.Error("Edit:", err)
						}
					}
					edit("edited ")
					if moves {
						b.do(old)
						edit("edited again ")
					}
				}))
				if resp := b.get(path); resp.StatusCode != 200 || !setsCookie(resp) {
					t.Error("no new cookie:", resp.Status)
				}
				want := "edited alice"
				switch {
				case moves && path == "/renew":
					want = "edited again alice"
				case moves: // the login was retried from the visitor's session
					want = "valuealice"
				}
				if got := body(b.get("/look")); got != want {
					t.Errorf("the browser reads %q, want %q", got, want)
				}
				if all, err := m.List(t.Context(), "alice"); len(all) != 1 || err != nil {
					t.Errorf("%d are left (%v), want one", len(all), err)
				}
			})
		}
	}
}

// TestTimedOutCreateLeavesNothing checks that a Create that times out, and may have been
// applied, is undone with a time limit of its own: otherwise a session would stay in the user's
// list whose token no client has.
func TestTimedOutCreateLeavesNothing(t *testing.T) {
	for _, path := range []string{"/first", "/bob"} {
		t.Run(path, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				shop := slowRoutes(nil)
				shop["/first"] = shop["/login"]
				b := newBrowser(t, m.Handler(shop))
				want := 0
				if path != "/first" {
					b.get("/login")
					want = 1
				}
				spy.after = func(ctx context.Context, call, _ string, err error) error {
					if call == "Create" {
						<-ctx.Done()
						return fmt.Errorf("%w: %w", session.ErrIndeterminate, ctx.Err())
					}
					return err
				}
				if resp := b.get(path); resp.StatusCode != 503 {
					t.Error("the status is", resp.Status)
				}
				if all, err := m.List(t.Context(), "alice"); len(all) != want || err != nil {
					t.Errorf("%d sessions are listed (%v), want %d", len(all), err, want)
				}
			})
		})
	}
}

// TestLogoutIsSavedAgain checks that a Logout, unlike changes, may be repeated after an unknown
// outcome: a second Save finds the outcome and returns it.
func TestLogoutIsSavedAgain(t *testing.T) {
	for _, applied := range []bool{true, false} {
		spy := newSpy()
		m := newManager(t, session.Options{Store: spy})
		sent := open(t, m, "alice")
		resp := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Logout()
			if applied {
				spy.after = lost("Save")
			} else {
				spy.hook(failing("Save", session.ErrIndeterminate))
			}
			if err := s.Save(r.Context()); !errors.Is(err, session.ErrIndeterminate) {
				t.Errorf("applied=%v: the first Save: %v", applied, err)
			}
			spy.after = nil
			spy.hook(nil)
			if err := s.Save(r.Context()); err != nil || s.Err() != nil {
				t.Errorf("applied=%v: the second Save: %v, Err: %v", applied, err, s.Err())
			}
		}})).replay(sent).get("/")
		if got := opens(t, m, sent); got != closed || resp.StatusCode != 200 {
			t.Errorf("applied=%v: the status is %s, and the cookie opens %q", applied, resp.Status, got)
		}
	}
}

// TestMistakeStandsWhenALogoutIsSavedAgain checks that a value that cannot be encoded fails the
// request even if the Logout before it needed two tries: the old session ends, and no new one
// is created.
func TestMistakeStandsWhenALogoutIsSavedAgain(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	sent := open(t, m, "alice")
	spy.forget()
	newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Logout()
		write(s)
		session.NewKey[chan int]("odd").Set(s, nil)
		spy.down.Store(true)
		if err := s.Save(r.Context()); !errors.Is(err, errDown) {
			t.Error("the first Save:", err)
		}
		spy.down.Store(false)
		if err := s.Save(r.Context()); err == nil {
			t.Error("the second Save returns nil")
		}
	}})).replay(sent).get("/")
	if got := opens(t, m, sent); got != closed || spy.count("Create") != 0 {
		t.Errorf("the cookie opens %q, %d new sessions", got, spy.count("Create"))
	}
}

// TestRevokeOfAListedSessionIsTheUsers checks that Revoke with an id of List ends the session
// also if its token has changed since, but not a session of another user in the same browser.
func TestRevokeOfAListedSessionIsTheUsers(t *testing.T) {
	for path, want := range map[string]string{"/login?alice": "", "/renew": "", "/login?bob": "bob"} {
		m := newManager(t, session.Options{})
		b := newBrowser(t, m.Handler(reception))
		b.get("/login?alice")
		all, err := m.List(t.Context(), "alice")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		b.get(path)
		if err := m.Revoke(t.Context(), "alice", all[0].ID); err != nil {
			t.Errorf("after %s: Revoke: %v", path, err)
		}
		if got := body(b.get("/")); got != want {
			t.Errorf("after %s: the browser is logged in as %q, want %q", path, got, want)
		}
	}
}

// TestFirstUseLongAfterTheTokenWasReplaced covers a request, such as an upload, that uses its
// session so late that even the tombstone of its token has expired. The browser has a newer
// cookie, which the response must not change.
func TestFirstUseLongAfterTheTokenWasReplaced(t *testing.T) {
	for _, meanwhile := range []string{"/renew", "/login", "/logout"} {
		for what, f := range map[string]func(s *session.Session){
			"Set":    write,
			"Update": func(s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) },
			"Logout": logOut,
		} {
			t.Run(meanwhile+" "+what, func(t *testing.T) {
				inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
					g := newGate()
					shop := slowRoutes(nil)
					shop["/upload"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						g.pass()
						f(s)
					}
					b := newBrowser(t, m.Handler(shop))
					b.get("/login")
					var held string
					resp := g.during(b, "/upload", func() {
						b.get(meanwhile)
						held = b.cookie()
						time.Sleep(2 * minute)
					})
					if setsCookie(resp) || b.cookie() != held {
						t.Error("the response changes the cookie:", resp.Header)
					}
				})
			})
		}
	}
}

// TestTwoLoginsAndRoomForOne checks that with MaxPerUser 1 two concurrent logins leave exactly
// one session in every interleaving, even if both have the same time.
func TestTwoLoginsAndRoomForOne(t *testing.T) {
	for _, tie := range []bool{false, true} {
		t.Run(fmt.Sprint("tie=", tie), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				plays := 0
				for s := new(script); plays == 0 || s.next(); plays++ {
					logInTwice(t, s, tie)
				}
				t.Log(plays, "orders")
			})
		})
	}
}

// logInTwice runs two logins in the order of the script. With tie, both call Login at the same
// time, before either has reached the store.
func logInTwice(t *testing.T, s *script, tie bool) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, MaxPerUser: 1})
	called := [2]*gate{newGate(), newGate()}
	h := m.Handler(routes{
		"/look": clockRoutes["/look"],
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("alice")
			called[r.Context().Value(actor{}).(int)].pass()
		},
	})
	browsers := [2]*browser{newBrowser(t, h), newBrowser(t, h)}
	var begin, ops [2]func(context.Context)
	for i, g := range called {
		done := make(chan bool)
		begin[i] = func(ctx context.Context) {
			r := browsers[i].request("/login").WithContext(context.WithValue(ctx, actor{}, i))
			go func() {
				browsers[i].do(r)
				close(done)
			}()
			<-g.there
		}
		ops[i] = func(ctx context.Context) {
			if !tie {
				begin[i](ctx)
			}
			close(g.open)
			<-done
		}
	}
	if tie {
		begin[0](t.Context())
		begin[1](t.Context())
	}
	steps := perform(spy, s, ops)
	in := body(browsers[0].get("/look")) + body(browsers[1].get("/look"))
	if all, err := m.List(t.Context(), "alice"); len(all) != 1 || err != nil || in != "alice" {
		t.Errorf("%d sessions are left (%v), the browsers are logged in as %q, in this order: %q", len(all), err, in, steps)
	}
}

const hour = time.Hour

// call is one call in a handler.
type call = func(s *session.Session)

func endBy(d time.Duration) call {
	return func(s *session.Session) { s.EndBy(time.Now().Add(d)) }
}

func loginAs(user string) call { return func(s *session.Session) { s.Login(user) } }

func rememberFor(d time.Duration) call { return func(s *session.Session) { s.Remember(d) } }

// deadline returns the time until the absolute end of the user's only session.
func deadline(t *testing.T, store session.Store, user string) time.Duration {
	t.Helper()
	all, err := store.List(t.Context(), user)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d sessions of %q, %v", len(all), user, err)
	}
	if all[0].Expires.After(all[0].Deadline) {
		t.Errorf("expires at %v, after its deadline %v", all[0].Expires, all[0].Deadline)
	}
	return time.Until(all[0].Deadline)
}

// TestEndBy checks that EndBy limits the absolute end, whatever sets that end, before or after,
// until the next Login. The earliest time counts.
func TestEndBy(t *testing.T) {
	const lifetime = 2 * hour
	renew := func(s *session.Session) { s.Renew() }
	clearAll := func(s *session.Session) { s.Clear() }
	type request []call
	for _, c := range []struct {
		what     string
		requests []request // sent a minute apart
		user     string
		ends     time.Duration // end, relative to the first request
	}{
		{"alone", []request{{loginAs("alice"), endBy(hour)}}, "alice", hour},
		{"in a later request", []request{{loginAs("alice")}, {endBy(hour)}}, "alice", hour + minute},
		{"sooner than the idle end", []request{{loginAs("alice"), endBy(5 * minute)}}, "alice", 5 * minute},
		{"later than Lifetime", []request{{loginAs("alice"), endBy(5 * hour)}}, "alice", lifetime},
		{"later than Lifetime, then Remember", []request{{loginAs("alice"), endBy(5 * hour)}, {rememberFor(30 * day)}}, "alice", 5 * hour},
		{"before Remember", []request{{loginAs("alice"), endBy(hour), rememberFor(30 * day)}}, "alice", hour},
		{"after Remember", []request{{loginAs("alice"), rememberFor(30 * day), endBy(hour)}}, "alice", hour},
		{"a request before Remember", []request{{loginAs("alice"), endBy(hour)}, {rememberFor(30 * day)}}, "alice", hour},
		{"a request after Remember", []request{{loginAs("alice"), rememberFor(30 * day)}, {endBy(hour)}}, "alice", hour + minute},
		{"later than Remember", []request{{loginAs("alice"), rememberFor(30 * minute), endBy(hour)}}, "alice", 30 * minute},
		{"twice, the first is earlier", []request{{loginAs("alice"), endBy(hour), endBy(90 * minute)}}, "alice", hour},
		{"twice, the second is earlier", []request{{loginAs("alice"), endBy(90 * minute), endBy(hour)}}, "alice", hour},
		{"in two requests, the first is earlier", []request{{loginAs("alice"), endBy(hour)}, {endBy(90 * minute)}}, "alice", hour},
		{"in two requests, the second is earlier", []request{{loginAs("alice"), endBy(90 * minute)}, {endBy(hour)}}, "alice", hour + minute},
		{"Renew", []request{{loginAs("alice"), endBy(hour)}, {renew}}, "alice", hour},
		{"Clear", []request{{loginAs("alice"), endBy(hour)}, {clearAll}}, "alice", hour},
		{"Clear, then Remember", []request{{loginAs("alice"), endBy(hour)}, {clearAll}, {rememberFor(30 * day)}}, "alice", hour},
		{"values", []request{{loginAs("alice"), endBy(hour)}, {write}}, "alice", hour},
		{"before the Login", []request{{endBy(hour), loginAs("alice")}}, "alice", lifetime},
		{"of the anonymous session before the Login", []request{{write, endBy(hour)}, {loginAs("alice")}}, "alice", lifetime + minute},
		{"a Login of the same user", []request{{loginAs("alice"), endBy(hour)}, {loginAs("alice")}}, "alice", lifetime + minute},
		{"a Login of the same user, and again", []request{{loginAs("alice"), endBy(hour)}, {loginAs("alice"), endBy(hour)}}, "alice", hour + minute},
		{"a Login of the same user who is remembered", []request{{loginAs("alice"), rememberFor(30 * day), endBy(hour)}, {loginAs("alice")}}, "alice", 30 * day},
		{"remembered later, a Login of the same user", []request{{loginAs("alice"), endBy(hour)}, {rememberFor(30 * day)}, {loginAs("alice")}}, "alice", 30*day + minute},
		{"a Login of another user", []request{{loginAs("alice"), endBy(hour)}, {loginAs("bob")}}, "bob", lifetime + minute},
		{"a Logout before", []request{{loginAs("alice"), endBy(hour)}, {logOut, loginAs("alice")}}, "alice", lifetime + minute},
		{"of the session after a Logout", []request{{loginAs("alice")}, {logOut, loginAs("bob"), endBy(hour)}}, "bob", hour + minute},
	} {
		for _, own := range []bool{true, false} { // tokens of this package, or of another program
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				if !own {
					m = keyless(t, session.Options{Store: spy, Lifetime: lifetime, IdleTimeout: 20 * minute})
				}
				d := &desk{t: t, spy: spy, m: m}
				b := d.visitor()
				for i, calls := range c.requests {
					if i > 0 {
						time.Sleep(minute)
					}
					d.do(b, func(s *session.Session) {
						for _, f := range calls {
							f(s)
						}
					})
				}
				want := c.ends - time.Duration(len(c.requests)-1)*minute
				if got := deadline(t, spy.Store, c.user); got != want {
					t.Fatalf("%s, own tokens %v: ends in %v, want %v", c.what, own, got, want)
				}
				// The session is used until its end, and ends then.
				remembered := false
				for left := want; ; {
					d.do(b, func(s *session.Session) {
						if remembered = s.Remembered(); s.User() != c.user || len(s.Names()) > 1 {
							t.Fatalf("%s, own tokens %v: %v before the end logged in as %q", c.what, own, left, s.User())
						}
					})
					step := 15 * minute
					if remembered {
						step = 7 * day
					}
					if left <= step {
						time.Sleep(left - time.Millisecond)
						break
					}
					time.Sleep(step)
					left -= step
				}
				d.do(b, func(s *session.Session) {
					if s.User() != c.user {
						t.Errorf("%s, own tokens %v: ended a millisecond early", c.what, own)
					}
				})
				time.Sleep(time.Millisecond)
				d.do(b, func(s *session.Session) {
					if s.User() != "" || !remembered && !s.Ended() { // the cookie of Remember expires in the browser
						t.Errorf("%s, own tokens %v: outlives its end as %q", c.what, own, s.User())
					}
				})
			})
		}
	}
}

// TestEndByBeginsNoSession checks that EndBy alone creates no session. It applies to the
// session that another change creates, also later in the request. The cookie lasts as long.
func TestEndByBeginsNoSession(t *testing.T) {
	atDesk(t, session.Options{Cookie: session.CookieOptions{Persistent: true}}, func(d *desk) {
		b := d.visitor()
		if d.do(b, endBy(hour)) || d.do(b, endBy(-hour)) || d.spy.count("Create") > 0 {
			t.Error("EndBy alone creates a session")
		}
		d.do(b, func(s *session.Session) {
			endBy(hour)(s)
			if err := s.Save(t.Context()); err != nil || !s.IsNew() {
				t.Errorf("Save: %v", err)
			}
			name.Set(s, "x")
			if err := s.Save(t.Context()); err != nil || time.Until(s.Expires()) > hour {
				t.Errorf("Save: %v, expires %v", err, s.Expires())
			}
			endBy(10 * minute)(s) // needs no cookie
		})
		d.do(b, func(s *session.Session) {
			if got := time.Until(s.Expires()); got != 10*minute {
				t.Errorf("the session ends in %v", got)
			}
		})
		d.f = func(s *session.Session) { s.Login("alice"); s.Remember(30 * day); endBy(hour)(s) }
		if got := b.get("/").Cookies(); len(got) != 1 || got[0].MaxAge != 3600 {
			t.Errorf("cookies %v", got)
		}
	})
}

// TestLateEndBy checks that EndBy works after the first byte, and after the handler with Save,
// and that a zero time fails the request.
func TestLateEndBy(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.visitor()
		d.do(b, loginAs("alice"))
		var left *session.Session
		page := func(f call) http.Handler {
			return d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, session.From(r.Context()).User())
				w.(http.Flusher).Flush()
				left = session.From(r.Context())
				f(left)
			}))
		}
		b.h = page(endBy(hour))
		if got := body(b.get("/")); got != "alice" || deadline(t, d.spy, "alice") != hour {
			t.Errorf("%q, ends in %v", got, deadline(t, d.spy, "alice"))
		}
		b.h = page(read)
		b.get("/")
		endBy(30 * minute)(left)
		if err := left.Save(t.Context()); err != nil || deadline(t, d.spy, "alice") != 30*minute {
			t.Errorf("after the handler: %v, ends in %v", err, deadline(t, d.spy, "alice"))
		}
		endBy(20 * minute)(left) // without a Save
		time.Sleep(2 * second)
		if n := d.log.count(session.EventDropped); n != 1 || deadline(t, d.spy, "alice") != 30*minute-2*second {
			t.Errorf("%d times EventDropped, ends in %v", n, deadline(t, d.spy, "alice"))
		}
		b.h = page(func(s *session.Session) { s.EndBy(time.Time{}) })
		b.get("/")
		if err := left.Err(); err == nil || !strings.Contains(err.Error(), "EndBy") || d.log.count(session.EventDropped) != 2 {
			t.Errorf("a zero time: %v", err)
		}
		b.h = page(func(s *session.Session) { s.Login("bob"); endBy(minute)(s) }) // EndBy of bob's session, which is not created
		b.get("/")
		if got := deadline(t, d.spy, "alice"); got != 30*minute-2*second {
			t.Errorf("the session ends in %v", got)
		}
		b.h = page(endBy(-minute))
		b.get("/")
		if all, err := d.spy.List(t.Context(), "alice"); len(all) > 0 || err != nil || d.log.count(session.EventLoggedOut) != 1 {
			t.Errorf("a past time after the first byte: %v, %v", all, err)
		}
	})
	visit, spy, _ := newVisitor(t, session.Options{})
	if resp := visit(func(s *session.Session) { name.Set(s, "x"); s.EndBy(time.Time{}) }); resp.StatusCode != 500 || spy.count("") > 0 {
		t.Errorf("a zero time: %s", resp.Status)
	}
}

// TestEndByOfALoginThatIsTakenBack checks that if the Login of another user came too late for
// its cookie, an EndBy after it does not apply to the session that stays.
func TestEndByOfALoginThatIsTakenBack(t *testing.T) {
	for user, want := range map[string]time.Duration{"alice": hour, "bob": 2 * hour} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			d.f = func(s *session.Session) { s.Login(user); endBy(hour)(s) }
			w := struct {
				*httptest.ResponseRecorder
				http.Hijacker
			}{httptest.NewRecorder(), &fileTaker{}}
			d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				d.f(session.From(r.Context()))
				if _, _, err := w.(http.Hijacker).Hijack(); err == nil {
					t.Error("Hijack succeeded")
				}
			})).ServeHTTP(w, b.request("/"))
			if got := deadline(t, d.spy, "alice"); got != want {
				t.Errorf("a Login as %s: ends in %v, want %v", user, got, want)
			}
		})
	}
}

// TestEndByInThePast checks that a time that has passed at the commit ends the session: the
// tombstone is stored, the cookie deleted, Done closed, and no other change of the request is
// stored.
func TestEndByInThePast(t *testing.T) {
	errOf := func(_ any, _ bool, err error) error { return err }
	for _, c := range []struct {
		what    string
		do      call
		commit  func(s *session.Session) error // commits; nil: the commit is at the first byte
		err     error                          // error of commit, and of Err afterwards
		deletes bool
		dropped int
	}{
		{"alone", endBy(-minute), nil, nil, true, 0},
		{"now", endBy(0), nil, nil, true, 0},
		{"Save", endBy(-minute), func(s *session.Session) error { return s.Save(t.Context()) }, nil, true, 0},
		{"Save, later", func(s *session.Session) { endBy(second)(s); time.Sleep(second) }, func(s *session.Session) error { return s.Save(t.Context()) }, nil, true, 0},
		{"values", func(s *session.Session) { write(s); endBy(-minute)(s); s.AddFlash("", "x") }, nil, nil, true, 0},
		{"Renew and Remember", func(s *session.Session) { s.Renew(); endBy(-minute)(s); s.Remember(day) }, nil, nil, true, 0},
		{"a Login of the same user", func(s *session.Session) { s.Login("alice"); endBy(-minute)(s) }, nil, nil, true, 0},
		{"a Login of another user", func(s *session.Session) { s.Login("bob"); endBy(-minute)(s) }, nil, nil, true, 0},
		{"UpdateNow", endBy(-minute), func(s *session.Session) error {
			return errOf(nil, true, func() error { _, err := name.UpdateNow(t.Context(), s, strings.ToUpper); return err }())
		}, session.ErrEnded, true, 0},
		{"Take", endBy(-minute), func(s *session.Session) error { return errOf(name.Take(t.Context(), s)) }, session.ErrEnded, true, 0},
		{"Refresh", endBy(-minute), func(s *session.Session) error {
			_, err := name.Refresh(t.Context(), s, func(string) bool { return false }, func(context.Context, string) (string, error) { return "new", nil })
			return err
		}, session.ErrEnded, true, 0},
	} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			other := b.replay(b.cookie())
			d.do(other, func(waits *session.Session) {
				done := waits.Done()
				d.f = func(s *session.Session) {
					c.do(s)
					if s.User() == "" {
						t.Errorf("%s: ends before the commit", c.what)
					}
					if c.commit == nil {
						return
					}
					if err := c.commit(s); err != c.err {
						t.Errorf("%s: %v, want %v", c.what, err, c.err)
					}
					if err := s.Save(t.Context()); c.err == nil && err != session.ErrEnded || c.err == nil && s.User() != "" {
						t.Errorf("%s: a second Save: %v, logged in as %q", c.what, err, s.User())
					}
				}
				resp := b.get("/")
				if got := resp.Header.Get("Set-Cookie"); resp.StatusCode != 200 || strings.Contains(got, "Max-Age=0") != c.deletes {
					t.Errorf("%s: %s, sets %q", c.what, resp.Status, got)
				}
				select {
				case <-done:
				default:
					t.Errorf("%s: Done is open", c.what)
				}
				name.Set(waits, "x")
				if err := waits.Save(t.Context()); err != session.ErrEnded {
					t.Errorf("%s: a concurrent request's Save: %v", c.what, err)
				}
			})
			for _, user := range []string{"alice", "bob"} {
				if all, err := d.spy.Store.List(t.Context(), user); len(all) > 0 || err != nil {
					t.Errorf("%s: %d sessions of %s are left, %v", c.what, len(all), user, err)
				}
			}
			d.do(other, func(s *session.Session) {
				if s.User() != "" || !s.Ended() || s.Err() != nil {
					t.Errorf("%s: the next request is logged in as %q, %v", c.what, s.User(), s.Err())
				}
			})
			if n := d.log.count(session.EventLoggedOut); n != 1 || d.log.last(session.EventLoggedOut).User != "alice" {
				t.Errorf("%s: %d times EventLoggedOut", c.what, n)
			}
		})
	}
}

// TestLoginThatEndsInThePast checks that a Login whose end has already passed creates no
// session, and returns an error.
func TestLoginThatEndsInThePast(t *testing.T) {
	for what, c := range map[string]struct {
		before  call
		saveErr error
	}{
		"the first session":         {nil, session.ErrEnded},
		"from an anonymous session": {write, nil},
		"after a Logout":            {func(s *session.Session) { s.Login("bob") }, session.ErrEnded},
	} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.visitor()
			if c.before != nil {
				d.do(b, c.before)
			}
			creates := d.spy.count("Create")
			var s *session.Session
			if d.do(b, func(of *session.Session) {
				if s = of; what == "after a Logout" {
					s.Logout()
				}
				s.Login("alice")
				name.Set(s, "x")
				endBy(-minute)(s)
				if err := s.Save(t.Context()); err != c.saveErr {
					t.Errorf("%s: Save: %v", what, err)
				}
				s.Login("alice")
				endBy(-minute)(s)
			}) != (c.before != nil) {
				t.Errorf("%s: sets a cookie", what)
			}
			if s.Err() != session.ErrEnded || s.User() != "" || d.spy.count("Create") != creates || d.log.count(session.EventDropped) == 0 {
				t.Errorf("%s: Err: %v, logged in as %q, %d times Create, %v", what, s.Err(), s.User(), d.spy.count("Create"), d.log.all)
			}
			if d.do(b, func(s *session.Session) {
				if s.User() != "" || name.Get(s) != "" {
					t.Errorf("%s: logged in as %q", what, s.User())
				}
			}) {
				t.Errorf("%s: the browser still had a cookie", what)
			}
		})
	}
}

// TestConcurrentEndBy checks that of concurrent requests the earliest end counts, that no
// change is lost, and that a time that has passed ends only the session that the request had.
func TestConcurrentEndBy(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		d.do(b, func(s *session.Session) {
			endBy(hour)(s)
			name.Set(s, "first")
			d.do(b, func(s *session.Session) { endBy(30 * minute)(s); visits.Set(s, 1) })
			d.do(b, func(s *session.Session) { endBy(90 * minute)(s); visits.Update(s, func(n int) int { return n + 1 }) })
		})
		d.do(b, func(s *session.Session) {
			if name.Get(s) != "first" || visits.Get(s) != 2 || deadline(t, d.spy, "alice") != 30*minute {
				t.Errorf("%q, %d, ends in %v", name.Get(s), visits.Get(s), deadline(t, d.spy, "alice"))
			}
		})
	})
	// A Login as another user was committed first.
	for _, from := range []call{write, loginAs("alice")} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.visitor()
			d.do(b, from)
			old := b.replay(b.cookie())
			d.do(old, func(s *session.Session) {
				s.User()
				d.do(b, loginAs("bob"))
				endBy(-minute)(s)
				if err := s.Save(t.Context()); err != session.ErrReplaced {
					t.Errorf("Save: %v", err)
				}
			})
			d.do(b, func(s *session.Session) {
				if s.User() != "bob" {
					t.Errorf("bob's session has ended")
				}
			})
		})
	}
	// The token was renewed meanwhile, and the older response does not delete the newer
	// cookie.
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		if d.do(old, func(s *session.Session) {
			s.User()
			d.do(b, func(s *session.Session) { s.Renew() })
			endBy(-minute)(s)
		}) {
			t.Error("the older response deletes the newer cookie")
		}
		if all, err := d.spy.List(t.Context(), "alice"); len(all) > 0 || err != nil {
			t.Errorf("%d sessions, %v", len(all), err)
		}
	})
}

// TestEndByInThePastWhileTheStoreFails checks that a store that fails while the session ends is
// a 503.
func TestEndByInThePastWhileTheStoreFails(t *testing.T) {
	for _, err := range []error{errDown, errors.Join(errDown, session.ErrIndeterminate)} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			d.spy.hook(func(_ context.Context, call, _ string) error {
				if call == "Save" {
					return err
				}
				return nil
			})
			d.f = endBy(-minute)
			if resp := b.get("/"); resp.StatusCode != 503 || setsCookie(resp) {
				t.Errorf("%v: %s", err, resp.Status)
			}
			d.spy.hook(nil)
			d.expect(b, "before")
		})
	}
}

// TestLoginsOneAfterTheOther: promise 21. Logins that follow one another with the same old token,
// as those of a client that drops its cookies, cost fewer than 10 store calls each.
func TestLoginsOneAfterTheOther(t *testing.T) {
	const n = 100
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(clockRoutes))
		b.get("/set")
		cookie := b.cookie()
		before := spy.count("")
		for range n {
			b = b.replay(cookie)
			b.get("/login")
		}
		if calls := spy.count("") - before; calls >= 10*n {
			t.Errorf("%d calls of the store for %d logins", calls, n)
		}
		if got := body(b.get("/look")); !strings.HasSuffix(got, "alice") {
			t.Errorf("the last login shows %q", got)
		}
		if listed, err := m.List(t.Context(), "alice"); err != nil || len(listed) != 1 {
			t.Errorf("%d sessions are left: %v", len(listed), err)
		}
	})
}

// TestLoginReplacesASessionThatIsUndone checks that a Login whose tombstone had an unknown outcome
// stays if the session that it replaces is gone: the Login that had made it was undone meanwhile.
func TestLoginReplacesASessionThatIsUndone(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(clockRoutes))
		b.get("/set")
		spy.hookAfter(func(ctx context.Context, call, id string, err error) error {
			if call != "Save" {
				return err
			}
			spy.hookAfter(nil)
			if err := spy.Store.Delete(ctx, id); err != nil {
				t.Error(err)
			}
			return session.ErrIndeterminate
		})
		if resp := b.get("/login"); resp.StatusCode != http.StatusOK {
			t.Errorf("the Login is answered %s", resp.Status)
		}
		if got := body(b.get("/look")); !strings.HasSuffix(got, "alice") {
			t.Errorf("after the Login the user is %q", got)
		}
	})
}
