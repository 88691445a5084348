package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

var (
	name   = session.NewKey[string]("name")
	visits = session.NewKey[int]("visits")
)

// TestLife follows a session as a browser sees it: no session, values, a login, a new token, a
// logout, and no access with an old cookie.
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
		t.Fatal("a session that was only read set a cookie")
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
	expect(b.replay(loggedIn), "/look", "3alice") // in the grace, the session before the renewal
	expect(b, "/look", "4alice")
	b.get("/logout")
	if b.cookie() != "" {
		t.Fatal("the cookie was not deleted by the logout")
	}
	expect(b.replay(renewed), "/look", "0")
}

// TestConcurrentUse calls the methods of a Session at random in eight goroutines, while the
// response is written and the token is renewed. It checks that every request ends; the race
// detector does the rest.
func TestConcurrentUse(t *testing.T) {
	methods := []func(ctx context.Context, s *session.Session){
		func(ctx context.Context, s *session.Session) { s.ID(); s.User(); s.IsNew() },
		func(ctx context.Context, s *session.Session) { s.Created(); s.LastSeen(); s.Expires() },
		func(ctx context.Context, s *session.Session) { s.AuthTime(); s.Ended(); s.Remembered(); s.Err() },
		func(ctx context.Context, s *session.Session) { s.Names(); name.Get(s); visits.Get(s) },
		func(ctx context.Context, s *session.Session) { name.Set(s, "value") },
		func(ctx context.Context, s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) },
		func(ctx context.Context, s *session.Session) { name.Pop(s); visits.Delete(s) },
		func(ctx context.Context, s *session.Session) { s.AddFlash("", "hello"); s.Flashes() },
		func(ctx context.Context, s *session.Session) { s.Clear() },
		func(ctx context.Context, s *session.Session) { s.Login("alice") },
		func(ctx context.Context, s *session.Session) { s.Renew() },
		func(ctx context.Context, s *session.Session) { s.Remember(time.Hour) },
		func(ctx context.Context, s *session.Session) { s.MarkPassive() },
		func(ctx context.Context, s *session.Session) { s.Done() },
		func(ctx context.Context, s *session.Session) { s.Save(ctx) },
		func(ctx context.Context, s *session.Session) { s.Reload(ctx) },
		func(ctx context.Context, s *session.Session) { visits.Take(ctx, s) },
		func(ctx context.Context, s *session.Session) {
			visits.Refresh(ctx, s, func(n int) bool { return n > 3 }, func(_ context.Context, n int) (int, error) { return n + 1, nil })
		},
		func(ctx context.Context, s *session.Session) { s.Logout() },
	}
	for range 40 {
		b := newBrowser(t, newManager(t, session.Options{}).Handler(routes{
			"/login": clockRoutes["/login"],
			"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				var all sync.WaitGroup
				for range 8 {
					all.Go(func() {
						for range 6 {
							i := rand.N(len(methods))
							if i == len(methods)-1 && rand.N(4) > 0 { // seldom, because most methods have no effect after a Logout
								continue
							}
							methods[i](r.Context(), s)
						}
					})
				}
				fmt.Fprint(w, "hello")
				all.Wait()
			},
		}))
		b.get("/login")
		for range 3 {
			b.get("/")
		}
	}
}

// TestDoneBesideTheFirstByte calls Done concurrently with the first byte of the response, after
// Save was the first use.
func TestDoneBesideTheFirstByte(t *testing.T) {
	spy := newSpy()
	spy.hook(func(context.Context, string, string) error {
		for range 100 {
			runtime.Gosched()
		}
		return nil
	})
	b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(routes{
		"/login": clockRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			name.Set(s, "value")
			var all sync.WaitGroup
			all.Go(func() {
				for range 100 {
					s.Done()
				}
			})
			fmt.Fprint(w, "hello")
			all.Wait()
		},
	}))
	b.get("/login")
	for range 20 {
		b.get("/")
	}
}
