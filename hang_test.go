package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// returns runs f and returns the value with which f panicked. It fails the test if f does not
// return, for example because a panic has left a mutex locked.
func returns(t *testing.T, f func()) (panicked any) {
	t.Helper()
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		f()
	}()
	select {
	case panicked = <-done:
	case <-time.After(time.Minute):
		t.Fatal("f does not return")
	}
	return panicked
}

// first contains methods that load the session on first use.
var first = map[string]func(s *session.Session){
	"User":     func(s *session.Session) { s.User() },
	"Names":    func(s *session.Session) { s.Names() },
	"Err":      func(s *session.Session) { s.Err() },
	"Set":      func(s *session.Session) { name.Set(s, "after") },
	"Update":   func(s *session.Session) { name.Update(s, func(string) string { return "after" }) },
	"AddFlash": func(s *session.Session) { s.AddFlash("", "after") },
	"Take":     func(s *session.Session) { name.Take(context.Background(), s) },
	"UpdateNow": func(s *session.Session) {
		name.UpdateNow(context.Background(), s, func(string) string { return "after" })
	},
	"Login":     func(s *session.Session) { s.Login("alice") },
	`Login("")`: func(s *session.Session) { s.Login("") },
	"Logout":    func(s *session.Session) { s.Logout() },
	"Save":      func(s *session.Session) { s.Save(context.Background()) },
	"Reload":    func(s *session.Session) { s.Reload(context.Background()) },
}

// TestPanicOfTheStoreGoesOn checks that a panic of the store ends the request, as any panic
// does, and that neither this request nor a later one waits for a mutex.
func TestPanicOfTheStoreGoesOn(t *testing.T) {
	for use, f := range first {
		t.Run(use, func(t *testing.T) {
			t.Parallel()
			spy := newSpy()
			shop := slowRoutes(nil)
			shop["/first"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) { f(s) }
			b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(shop))
			b.get("/login")
			spy.hook(panicking("Load"))
			if p := returns(t, func() { b.get("/first") }); p != "a bug of the store" {
				t.Errorf("the panic became %v", p)
			}
			spy.hook(nil)
			if p := returns(t, func() {
				if got := body(b.get("/user")); got != "alice before" {
					t.Errorf("a later request is in as %q", got)
				}
			}); p != nil {
				t.Errorf("a later request panics: %v", p)
			}
		})
	}
}

// TestRecoveredPanicOfTheStore checks that a handler that recovers from a panic of the store
// has a session that is not loaded, and never one that looks logged out.
func TestRecoveredPanicOfTheStore(t *testing.T) {
	for use, f := range first {
		t.Run(use, func(t *testing.T) {
			t.Parallel()
			spy := newSpy()
			shop := slowRoutes(nil)
			shop["/first"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				func() {
					defer func() { recover() }()
					f(s)
				}()
				spy.hook(nil)
				// Reload loads once; the other methods load again.
				if s.User() != "alice" && (s.Err() == nil || use != "Reload") {
					t.Errorf("in as %q, Err is %v", s.User(), s.Err())
				}
			}
			b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(shop))
			b.get("/login")
			spy.hook(panicking("Load"))
			if p := returns(t, func() { b.get("/first") }); p != nil {
				t.Errorf("the request panics again: %v", p)
			}
		})
	}
}

// TestRecoveredPanicInAReload does the same for a session that the request has created, so that
// no cookie of the request leads to it.
func TestRecoveredPanicInAReload(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	check := func(what string, s *session.Session) {
		spy.hook(panicking("Load"))
		if p := returns(t, func() { s.Reload(context.Background()) }); p != "a bug of the store" {
			t.Errorf("%s: the panic became %v", what, p)
		}
		spy.hook(nil)
		if p := returns(t, func() {
			if s.User() != "alice" && s.Err() == nil {
				t.Errorf("%s: in as %q, and Err is nil", what, s.User())
			}
			if err := s.Reload(context.Background()); err != nil || s.User() != "alice" {
				t.Errorf("%s: the next Reload: %v, in as %q", what, err, s.User())
			}
		}); p != nil {
			t.Errorf("%s: the request panics again: %v", what, p)
		}
	}
	newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login("alice")
		s.Save(r.Context())
		check("just logged in", s)
	}})).get("/")
}

// panicking returns a hook that panics in one method of the store.
func panicking(method string) func(context.Context, string, string) error {
	return func(_ context.Context, call, _ string) error {
		if call == method {
			panic("a bug of the store")
		}
		return nil
	}
}

// TestStoreFailsAfterASavedLogin checks that if the store fails after an explicit Save of a
// login, the errors are the handler's to handle: the response is the handler's, with the cookie
// of the stored session.
func TestStoreFailsAfterASavedLogin(t *testing.T) {
	spy := newSpy()
	shop := slowRoutes(nil)
	shop["/try"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login("alice")
		if err := s.Save(r.Context()); err != nil {
			t.Error("Save:", err)
		}
		spy.down.Store(true)
		if err := s.Reload(r.Context()); !errors.Is(err, errDown) {
			t.Error("Reload of a store that is down:", err)
		}
		if err := s.Save(r.Context()); !errors.Is(err, errDown) {
			t.Error("Save after it:", err)
		}
		fmt.Fprint(w, "try later")
	}
	b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(shop))
	if p := returns(t, func() {
		if resp := b.get("/try"); resp.StatusCode != 200 || body(resp) != "try later" {
			t.Error("the response became", resp.Status)
		}
	}); p != nil {
		t.Error("panic:", p)
	}
	spy.down.Store(false)
	if got := body(b.get("/user")); got != "alice " {
		t.Errorf("afterwards in as %q", got)
	}
}
