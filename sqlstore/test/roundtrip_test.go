package sqlstore_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
)

// TestRoundTrips counts the round trips of requests.
func TestRoundTrips(t *testing.T) {
	db, trace := traced(t)
	table := newTable()
	store := openStore(t, db, sqlstore.PostgreSQL, table)
	aside := openStore(t, openPostgres(t), sqlstore.PostgreSQL, table)
	var id string
	site := newSite(t, store, session.Options{IdleTimeout: time.Hour}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/set":
			count.Update(session.From(r.Context()), func(n int) int { return n + 1 })
			id = session.From(r.Context()).ID()
		case "/look":
			fmt.Fprint(w, count.Get(session.From(r.Context())))
			id = session.From(r.Context()).ID()
		case "/login":
			session.From(r.Context()).Login("alice")
		case "/renew":
			session.From(r.Context()).Renew()
		case "/remember":
			session.From(r.Context()).Remember(time.Hour)
		case "/logout":
			session.From(r.Context()).Logout()
		}
	})
	b := site.browser()
	trips := func(path string, want int) {
		t.Helper()
		trace.take()
		b.expect(path, http.StatusOK)
		if queries, _ := trace.take(); len(queries) != want {
			t.Errorf("GET %s: %d round trips, want %d: %v", path, len(queries), want, queries)
		}
	}
	trips("/", 0)
	trips("/look", 0) // the browser has no cookie
	trips("/set", 1)  // creates a session
	trips("/", 0)
	trips("/look", 1)
	trips("/set", 2)
	trips("/login", 3) // loads, creates the new record, and puts a tombstone over the old one
	trips("/look", 1)
	trips("/renew", 2) // each renewal is one Save after the load
	trips("/login", 2)
	trips("/look", 2) // loads, and records that the token of the Login was first presented
	trips("/look", 1)
	for range 3 {
		// A little more than 1/20 of the idle timeout passes without a request.
		r, err := aside.Load(t.Context(), id)
		must(t, err)
		older := next(r)
		older.Data, older.LastSeen, older.Expires = r.Data, r.LastSeen.Add(-3*time.Minute-time.Second), r.Expires.Add(-3*time.Minute-time.Second)
		must(t, aside.Delete(t.Context(), id)) // because a Save moves no clock back
		must(t, aside.Create(t.Context(), older))
		trips("/", 0)
		trips("/look", 2)
		for range 10 {
			trips("/look", 1)
		}
	}
	trips("/remember", 2)
	trips("/logout", 2)
}
