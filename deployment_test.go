package session_test

import (
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// deployments runs a test over one store on a fake clock. deploy replaces the process by one
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

// strictStore fails the test if a record expires after its Deadline.
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

// TestLongerIdleTimeout checks that a session in use does not end by the idle timeout from
// before a deployment with a longer one, even if a twentieth of the new timeout is longer than
// the old one.
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

// TestLongerIdleTimeoutInRequest checks that a request that lasts beyond the idle end from
// before the deployment counts as use.
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

// TestShorterLifetime checks that a Login after a deployment with a shorter Lifetime ends by
// that, not by the earlier idle end.
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
