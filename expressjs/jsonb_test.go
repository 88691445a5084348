package expressjs_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/sessiontest"
	"github.com/coatcheck/session/storetest"
)

// jsonbStore returns a store over a table whose column sess is jsonb, as several ORMs create it.
func jsonbStore(t *testing.T, o expressjs.Options) *expressjs.PostgresStore {
	t.Helper()
	o.Table = "sessions"
	store, pool := postgresStore(t, o)
	if _, err := pool.Exec(t.Context(), `CREATE TABLE sessions (sid varchar PRIMARY KEY, sess jsonb NOT NULL, expire timestamptz NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	return store
}

func TestJSONBTable(t *testing.T) {
	store := jsonbStore(t, expressjs.Options{})
	storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
}

// TestJSONBIsWhatGoWrote checks that a record in a column of type jsonb, which PostgreSQL
// normalizes, is recognized as Go's own write until Express writes it.
func TestJSONBIsWhatGoWrote(t *testing.T) {
	store := jsonbStore(t, expressjs.Options{})
	now := time.Now().Truncate(time.Millisecond)
	for _, data := range []string{`{}`, ``, `{"long name":{"z":1,"a":[1, 2]},"b":1.50,"a":1e2,"é":"\u00e9"}`, `{"a":1,"a":2}`} {
		r := &session.Record{ID: rand.Text(), User: "ann", Data: []byte(data), Created: now, LastSeen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Version: 1}
		for range 2 {
			var err error
			if r.Version == 1 {
				err = store.Create(t.Context(), r)
			} else {
				err = store.Save(t.Context(), r, r.Version-1)
			}
			got, err2 := store.Load(t.Context(), r.ID)
			if err != nil || err2 != nil || got.User != "ann" || got.Version != r.Version || string(got.Data) != data {
				t.Errorf("%s: %v, %v, %+v", data, err, err2, got)
			}
			r.Version++
		}
		if list, err := store.List(t.Context(), "ann"); len(list) != 1 || err != nil {
			t.Errorf("%s: %d sessions, %v", data, len(list), err)
		}
		if err := store.Delete(t.Context(), r.ID); err != nil {
			t.Error(err)
		}
	}
}

// TestJSONBUser checks that the member that names the user is in the values, as in a column of type
// json.
func TestJSONBUser(t *testing.T) {
	store := jsonbStore(t, expressjs.Options{UserMember: "userId"})
	m := service(t, store, nil)
	b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if s := session.From(r.Context()); r.URL.Path == "/login" {
			session.NewKey[int]("n").Set(s, 1)
			s.Login("ann")
		} else {
			session.NewKey[int]("a").Set(s, 2)
		}
	})))
	b.Get("https://example.test/login")
	for _, want := range []string{"[n userId]", "[a n userId]"} {
		b.Session(m, func(s *session.Session) {
			if got := fmt.Sprint(s.Names()); got != want || s.User() != "ann" || session.NewKey[string]("userId").Get(s) != "ann" {
				t.Errorf("%s of %q, want %s", got, s.User(), want)
			}
		})
		b.Get("https://example.test/set")
	}
	if list, err := m.List(t.Context(), "ann"); len(list) != 1 || err != nil {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

// TestTextsThatJSONBCannotHold checks that a text that jsonb cannot store, which a user may have
// typed, is a mistake of the program and not a failure of the store.
func TestTextsThatJSONBCannotHold(t *testing.T) {
	store := jsonbStore(t, expressjs.Options{UserMember: "userId"})
	var said error
	var events []session.EventKind
	m := service(t, store, func(o *session.Options) {
		o.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
			said = err
			w.WriteHeader(http.StatusInternalServerError)
		}
		o.OnEvent = func(_ context.Context, e session.Event) { events = append(events, e.Kind) }
	})
	for name, f := range map[string]func(s *session.Session){
		"a value":       func(s *session.Session) { session.NewKey[string]("x").Set(s, "a\x00b") },
		"a name":        func(s *session.Session) { session.NewKey[int]("a\x00b").Set(s, 1) },
		"a flash":       func(s *session.Session) { s.AddFlash("info", "\x00") },
		"a user":        func(s *session.Session) { s.Login("a\x00b") },
		"a huge number": func(s *session.Session) { session.NewKey[jsonNumber]("x").Set(s, jsonNumber{}) },
	} {
		for _, isStored := range []bool{false, true} {
			said, events = nil, nil
			b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if r.URL.Path == "/begin" {
					session.NewKey[int]("n").Set(s, 1)
					return
				}
				f(s)
			})))
			if isStored {
				b.Get("https://example.test/begin")
			}
			events = nil
			b.Get("https://example.test/")
			if said == nil || errors.Is(said, session.ErrStore) {
				t.Errorf("%s, session stored before: %v: %v", name, isStored, said)
			}
			for _, kind := range events {
				if kind == session.EventStoreFailed {
					t.Errorf("%s, session stored before: %v: got EventStoreFailed", name, isStored)
				}
			}
		}
	}
}

// A jsonNumber has more digits than a numeric of PostgreSQL.
type jsonNumber struct{}

func (jsonNumber) MarshalJSON() ([]byte, error) { return []byte("1e200000"), nil }
