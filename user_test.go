package session_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// Revoke ends a session of the user's, and nobody else's: the id comes from a
// form, where anybody can write what he likes.
func TestRevokeIsOfTheUser(t *testing.T) {
	spy := newSpy()
	var log events
	m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
	h := m.Handler(clockRoutes)
	alice, bob := newBrowser(t, h), newBrowser(t, h)
	alice.get("/login")
	bob.get("/bob")
	id := body(bob.get("/id"))
	for what, err := range map[string]error{
		"another user's": m.Revoke(t.Context(), "alice", id),
		"of no session":  m.Revoke(t.Context(), "alice", "an id"),
		"an empty id":    m.Revoke(t.Context(), "alice", ""),
	} {
		if err != nil || log.count(session.EventRevoked) != 0 {
			t.Errorf("Revoke %s: %v, events %v", what, err, log.all)
		}
	}
	if got := body(bob.get("/look")); got != "bob" {
		t.Errorf("bob is in as %q", got)
	}
	for range 2 { // nil if it is already gone
		if err := m.Revoke(t.Context(), "bob", id); err != nil || log.count(session.EventRevoked) != 1 {
			t.Errorf("Revoke: %v, events %v", err, log.all)
		}
	}
	if got := body(bob.get("/look")) + body(alice.get("/look")); got != "alice" {
		t.Errorf("in as %q", got)
	}
}

// Whose sessions? Nobody's is no answer.
func TestNoUser(t *testing.T) {
	m := newManager(t, session.Options{})
	if _, err := m.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Error("List:", err)
	}
	if err := m.Revoke(t.Context(), "", "an id"); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Error("Revoke:", err)
	}
	if err := m.RevokeAll(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Error("RevokeAll:", err)
	}
	b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		name.Set(s, "visitor")
		if err := m.RevokeOthers(r.Context(), s); err == nil || !strings.Contains(err.Error(), "anonymous") {
			t.Error("RevokeOthers:", err)
		}
	}}))
	b.get("/")
}

// List has the user's live sessions, the most recently seen first.
func TestListInOrder(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		h := m.Handler(clockRoutes)
		var all []*browser
		var want []string
		for range 4 {
			b := newBrowser(t, h)
			b.get("/login")
			all = append(all, b)
			want = append([]string{body(b.get("/id"))}, want...)
			time.Sleep(2 * minute)
		}
		all[1].get("/look")
		want = append([]string{want[2]}, slices.Delete(slices.Clone(want), 2, 3)...)
		newBrowser(t, h).get("/bob")
		all[3].get("/logout")
		want = slices.Delete(want, 1, 2)
		listed, err := m.List(t.Context(), "alice")
		var got []string
		for _, s := range listed {
			got = append(got, s.ID())
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("listed %v (%v), want %v", got, err, want)
		}
	})
}
