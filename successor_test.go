package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

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
			t.Errorf("after %s: the browser is in as %q, want %q", path, got, want)
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
		t.Errorf("%d sessions are left (%v), the browsers are in as %q, in this order: %q", len(all), err, in, steps)
	}
}
