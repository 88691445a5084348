package session_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// TestRevokeIsOfTheUser checks that Revoke ends only sessions of the given user, because the id
// comes from a form and an attacker can send any.
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
	for range 2 { // the second call returns nil too
		if err := m.Revoke(t.Context(), "bob", id); err != nil || log.count(session.EventRevoked) != 1 {
			t.Errorf("Revoke: %v, events %v", err, log.all)
		}
	}
	if got := body(bob.get("/look")) + body(alice.get("/look")); got != "alice" {
		t.Errorf("in as %q", got)
	}
}

// TestNoUser checks that an empty user is an error.
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

// TestListTrustsNoStore checks that List drops sessions of other users and ended sessions, even
// if a store returns them.
func TestListTrustsNoStore(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	record := func(id, user string, ends time.Duration, data string) *session.Record {
		return &session.Record{ID: id, User: user, Data: []byte(data), Created: now, LastSeen: now, Deadline: now.Add(ends), Expires: now.Add(ends), Version: 1}
	}
	m := newManager(t, session.Options{Store: listStore{newSpy(), []*session.Record{
		record("good", "alice", time.Hour, "{}"),
		record("another's", "bob", time.Hour, "{}"),
		record("nobody's", "", time.Hour, "{}"),
		record("over", "alice", -time.Hour, "{}"),
		record("ended", "alice", time.Hour, `{"session.ended":"logout"}`),
	}}})
	list, err := m.List(t.Context(), "alice")
	if err != nil || len(list) != 1 || list[0].ID != "good" {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

// listStore lists the same records for every user.
type listStore struct {
	session.Store
	records []*session.Record
}

func (s listStore) List(context.Context, string) ([]*session.Record, error) {
	return slices.Clone(s.records), nil
}

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
			got = append(got, s.ID)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("listed %v (%v), want %v", got, err, want)
		}
	})
}

// TestLoginOfALongName: promise 7. A user name that no store can keep is a mistake of the
// program, not a failure of the store.
func TestLoginOfALongName(t *testing.T) {
	var log events
	visit, spy, _ := newVisitor(t, session.Options{OnEvent: log.on})
	for user, want := range map[string]int{
		strings.Repeat("x", 1024): http.StatusOK,
		strings.Repeat("x", 1025): http.StatusInternalServerError,
		strings.Repeat("é", 513):  http.StatusInternalServerError,
	} {
		spy.forget()
		resp := visit(func(s *session.Session) {
			s.Login(user)
			if err := s.Err(); (err != nil) != (want != 200) || errors.Is(err, session.ErrStore) {
				t.Errorf("%d bytes: %v", len(user), err)
			}
			if want == 200 == (s.User() != user) {
				t.Errorf("%d bytes: User is %q", len(user), s.User())
			}
		})
		if stored := spy.count("Create")+spy.count("Save") > 0; resp.StatusCode != want || stored != (want == 200) {
			t.Errorf("%d bytes: %s, stored %v", len(user), resp.Status, stored)
		}
	}
	if n := log.count(session.EventStoreFailed); n > 0 {
		t.Errorf("%d EventStoreFailed", n)
	}
}
