package session_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// deployments run a test over one store on a fake clock. Deploy replaces the process by one
// with other options.
func deployments(t *testing.T, rs routes, f func(t *testing.T, b *browser, deploy func(idle, lifetime time.Duration))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := &strictStore{Store: session.NewMemoryStore(nil), t: t}
		var h http.Handler
		deploy := func(idle, lifetime time.Duration) {
			h = newManager(t, session.Options{Store: store, IdleTimeout: idle, Lifetime: lifetime}).Handler(rs)
		}
		f(t, newBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) })), deploy)
	})
}

// A strictStore fails the test if a record breaks the rule of Record.Expires.
type strictStore struct {
	session.Store
	t *testing.T
}

func (s *strictStore) Create(ctx context.Context, r *session.Record) error {
	s.check(r)
	return s.Store.Create(ctx, r)
}

func (s *strictStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	s.check(r)
	return s.Store.Save(ctx, r, old)
}

func (s *strictStore) check(r *session.Record) {
	if r.Expires.After(r.Deadline) {
		s.t.Errorf("the record expires %v after its deadline", r.Expires.Sub(r.Deadline))
	}
}

// A session that is used does not end by an idle timeout of before the deployment of a
// longer one, although a twentieth of the new one is longer than the old one.
func TestLongerIdleTimeout(t *testing.T) {
	deployments(t, clockRoutes, func(t *testing.T, b *browser, deploy func(idle, lifetime time.Duration)) {
		deploy(20*minute, 7*day)
		b.get("/login")
		deploy(12*time.Hour, 7*day)
		time.Sleep(10 * minute)
		for i := range 4 {
			if got := body(b.get("/look")); got != "alice" {
				t.Fatalf("use %d: %q, want alice", i, got)
			}
			time.Sleep(11 * time.Hour)
		}
	})
}

// A request that lasts over the idle end of before the deployment of a longer idle timeout
// is a use.
func TestLongerIdleTimeoutInRequest(t *testing.T) {
	rs := routes{
		"/login": clockRoutes["/login"],
		"/look":  clockRoutes["/look"],
		"/long": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			time.Sleep(5 * minute)
		},
	}
	deployments(t, rs, func(t *testing.T, b *browser, deploy func(idle, lifetime time.Duration)) {
		deploy(20*minute, 7*day)
		b.get("/login")
		deploy(12*time.Hour, 7*day)
		time.Sleep(18 * minute)
		b.get("/long")
		if got := body(b.get("/look")); got != "alice" {
			t.Errorf("%q, want alice", got)
		}
	})
}

// A Login after the deployment of a shorter lifetime ends by that, and not by the idle end
// of before.
func TestShorterLifetime(t *testing.T) {
	deployments(t, clockRoutes, func(t *testing.T, b *browser, deploy func(idle, lifetime time.Duration)) {
		deploy(12*time.Hour, day)
		b.get("/login")
		time.Sleep(minute)
		deploy(20*minute, time.Hour)
		b.get("/login")
		time.Sleep(time.Hour - time.Millisecond)
		if got := body(b.get("/look")); got != "alice" {
			t.Errorf("before the end of the lifetime: %q, want alice", got)
		}
		time.Sleep(time.Millisecond)
		if got := body(b.get("/look")); got != "" {
			t.Errorf("after the end of the lifetime: %q", got)
		}
	})
}
