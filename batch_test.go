package session_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/batch"
	"github.com/coatcheck/session/sessiontest"
)

// batched runs f in a request of the browser, with what package gorillastore uses of its session.
func batched(t *testing.T, o session.Options, steps ...func(w http.ResponseWriter, s *session.Session, b batch.Session)) {
	t.Helper()
	m, step := session.Must(session.New(&o)), 0
	browser := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := r.Context().Value(batch.Key{Manager: m}).(batch.Session)
		if !ok || r.Context().Value(batch.Key{}) != nil {
			t.Fatal("the context does not have the session of its Manager only")
		}
		steps[step](w, m.From(r.Context()), b)
	})))
	for step = range steps {
		if resp := browser.Get("/"); resp.StatusCode != http.StatusOK {
			t.Errorf("step %d: status %d", step, resp.StatusCode)
		}
	}
}

// batchedValues returns the values of the session.
func batchedValues(t *testing.T, b batch.Session) string {
	t.Helper()
	var values []string
	_, err := b.Read(func(name string, raw []byte) { values = append(values, name+"="+string(raw)) })
	if err != nil {
		t.Error(err)
	}
	return strings.Join(values, " ")
}

var ofRequest context.Context // nil

func set(name, raw string) batch.Commit {
	return batch.Commit{Changes: []batch.Change{{Name: name, Raw: []byte(raw)}}}
}

// A commit that fails takes back its own changes, and leaves those that were pending.
func TestBatchIsTakenBack(t *testing.T) {
	key, inner := session.NewKey[int]("key"), sessiontest.NewStore(nil)
	o := session.Options{Store: inner, Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, MaxDataSize: 1000}
	batched(t, o,
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			if _, err := b.Commit(ofRequest, set("a", "1")); err != nil {
				t.Error(err)
			}
		},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			key.Set(s, 1)
			c := set("large", `"`+strings.Repeat("x", 2000)+`"`)
			c.Login, c.Renew = "alice", true
			if _, err := b.Commit(ofRequest, c); !errors.Is(err, session.ErrTooLarge) {
				t.Errorf("Commit returned %v", err)
			}
			inner.Fail(errors.New("down"))
			if _, err := b.Commit(ofRequest, set("b", "1")); !errors.Is(err, session.ErrStore) {
				t.Errorf("Commit returned %v", err)
			}
			inner.Fail(nil)
			if s.User() != "" {
				t.Error("the Login is still pending")
			}
			key.Set(s, 2)
		},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			if got := batchedValues(t, b); got != "a=1 key=2" {
				t.Errorf("got %s", got)
			}
		},
	)
}

// A Logout that fails stays pending, and nothing of before it does.
func TestBatchLogoutThatFails(t *testing.T) {
	key, inner := session.NewKey[int]("key"), sessiontest.NewStore(nil)
	o := session.Options{Store: inner, Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}}
	batched(t, o,
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			s.Login("alice")
			key.Set(s, 1)
		},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			key.Set(s, 2)
			inner.Fail(errors.New("down"))
			c := set("a", "1")
			c.Logout = true
			if _, err := b.Commit(ofRequest, c); !errors.Is(err, session.ErrStore) {
				t.Errorf("Commit returned %v", err)
			}
			inner.Fail(nil)
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
		},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			if got := batchedValues(t, b); s.User() != "" || got != "" {
				t.Errorf("%q is logged in, with %s", s.User(), got)
			}
		},
	)
}

// A value that cannot be stored fails later commits, but not a Logout.
func TestBatchAfterARefusedCall(t *testing.T) {
	bad := session.NewKey[func()]("bad")
	batched(t, session.Options{},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) { s.Login("alice") },
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			bad.Set(s, func() {})
			if _, err := b.Commit(ofRequest, set("a", "1")); err == nil || err != s.Err() {
				t.Errorf("Commit returned %v", err)
			}
			if _, err := b.Commit(ofRequest, batch.Commit{Logout: true}); err != nil {
				t.Error(err)
			}
		},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			if s.User() != "" {
				t.Error("the user is logged in")
			}
		},
	)
}

// A Login or Renew after the first byte stores nothing of its commit.
func TestBatchAfterTheFirstByte(t *testing.T) {
	var before string
	batched(t, session.Options{},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			if _, err := b.Commit(ofRequest, set("a", "1")); err != nil {
				t.Error(err)
			}
			before = s.ID()
		},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			w.WriteHeader(http.StatusOK)
			for call, c := range map[string]batch.Commit{"Login": {Login: "alice"}, "Renew": {Renew: true}} {
				c.Changes = set("a", "2").Changes
				if _, err := b.Commit(ofRequest, c); err == nil || !strings.Contains(err.Error(), call) {
					t.Errorf("Commit returned %v", err)
				}
			}
			if _, err := b.Commit(ofRequest, set("b", "1")); err != nil {
				t.Error(err)
			}
		},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			if got := batchedValues(t, b); got != "a=1 b=1" || s.ID() != before {
				t.Errorf("got %s", got)
			}
		},
	)
}

// What is pending shows in Read, and a Commit stores it.
func TestBatchAndPendingChanges(t *testing.T) {
	key := session.NewKey[int]("key")
	batched(t, session.Options{},
		func(w http.ResponseWriter, s *session.Session, b batch.Session) {
			key.Set(s, 1)
			if got := batchedValues(t, b); got != "key=1" {
				t.Errorf("got %s", got)
			}
			state, err := b.Commit(ofRequest, batch.Commit{Changes: []batch.Change{
				{Name: "sum", Raw: []byte("0"), Merge: func(in []byte) ([]byte, error) { return append(in, '1'), nil }},
				{Name: "key", Merge: func(in []byte) ([]byte, error) { return nil, nil }},
			}})
			if err != nil || state.ID == "" || state.ID != s.ID() {
				t.Errorf("Commit returned %v, %v", state, err)
			}
			if got := batchedValues(t, b); got != "sum=1" {
				t.Errorf("got %s", got)
			}
		},
	)
}
