package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
	"github.com/coatcheck/session/sqlstore"
)

// The functions in this file are recipes that docs/recipes prints.

// online returns the users who were seen since a time, and when each was seen last.
func online(ctx context.Context, db *sql.DB, since time.Time) (map[string]time.Time, error) {
	rows, err := db.QueryContext(ctx, `SELECT username, MAX(seen) FROM sessions
		WHERE length(username) > 0 AND expires > $1 AND seen >= $2 GROUP BY username`,
		time.Now().UnixMilli(), since.UnixMilli())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	seen := map[string]time.Time{}
	for rows.Next() {
		var user []byte
		var at int64
		if err := rows.Scan(&user, &at); err != nil {
			return nil, err
		}
		seen[string(user)] = time.UnixMilli(at)
	}
	return seen, rows.Err()
}

// TestRecipeWhoIsOnline lists the users while others log in and out concurrently.
func TestRecipeWhoIsOnline(t *testing.T) {
	const n = 10
	for _, d := range databases {
		if d.dialect == sqlstore.MySQL { // MySQL has ? in place of $1
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			db := d.open(t)
			_, err := db.Exec(`DROP TABLE IF EXISTS sessions`)
			must(t, err)
			t.Cleanup(func() { db.Exec(`DROP TABLE IF EXISTS sessions`) })
			store := openStore(t, db, d.dialect, "sessions")
			m, err := session.New(&session.Options{Store: store, Secrets: [][]byte{[]byte(strings.Repeat("secret", 6))}})
			must(t, err)
			var all sync.WaitGroup
			for i := range n {
				all.Go(func() {
					b := sessiontest.NewBrowser(t, m.Handler(http.NotFoundHandler()))
					b.Session(m, func(s *session.Session) { s.Login(fmt.Sprint("user", i)) })
					if i%2 == 0 {
						b.Session(m, func(s *session.Session) { s.Logout() })
					}
					if _, err := online(t.Context(), db, time.Now()); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			old, over, anonymous := record("old", time.Hour), record("over", time.Hour), record("", time.Hour)
			old.LastSeen = old.LastSeen.Add(-30 * time.Minute)
			over.Expires = over.LastSeen.Add(-time.Millisecond)
			for _, r := range []*session.Record{old, over, anonymous} {
				must(t, store.Create(t.Context(), r))
			}
			seen, err := online(t.Context(), db, time.Now().Add(-10*time.Minute))
			must(t, err)
			got := slices.Sorted(maps.Keys(seen))
			if want := []string{"user1", "user3", "user5", "user7", "user9"}; !slices.Equal(got, want) {
				t.Errorf("online are %q, want %q", got, want)
			}
		})
	}
}

var paid = session.NewKey[bool]("paid")

// pay uses its session before it begins a transaction, and answers after the transaction: the
// session needs a connection of its own, and is saved just before the first byte.
func pay(db *sql.DB) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		user := s.User() // loads the session
		if errors.Is(s.Err(), session.ErrStore) {
			return
		}
		if err := transfer(r.Context(), db, user); err != nil { // begins and commits
			http.Error(w, "That did not work.", http.StatusInternalServerError)
			return
		}
		paid.Set(s, true)
		fmt.Fprintf(w, "Thank you, %s.", user) // saves the session
	}
}

// transfer moves money in a transaction.
func transfer(ctx context.Context, db *sql.DB, user string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, `SELECT 1`); err != nil {
		return err
	}
	return tx.Commit()
}

// TestRecipeTransactions runs as many concurrent transactions as the pool has connections.
func TestRecipeTransactions(t *testing.T) {
	const connections, requests = 8, 40
	serve := func(db *sql.DB, store session.Store, timeout time.Duration, h http.HandlerFunc, n, want int) {
		t.Helper()
		m, err := session.New(&session.Options{Store: store, Secrets: [][]byte{[]byte(strings.Repeat("secret", 6))}, StoreTimeout: timeout})
		must(t, err)
		b := sessiontest.NewBrowser(t, m.Handler(h))
		b.Session(m, func(s *session.Session) { s.Login("ann") })
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				if got := b.Get("/").StatusCode; got != want {
					t.Errorf("status %d, want %d", got, want)
				}
			})
		}
		all.Wait()
	}
	pool := func() *sql.DB {
		db := openPostgres(t)
		db.SetMaxOpenConns(connections)
		return db
	}
	// A transaction that begins before the session is used: each request holds a connection and waits for another.
	wrong := func(db *sql.DB) http.HandlerFunc {
		var begun, asked sync.WaitGroup
		begun.Add(connections)
		asked.Add(connections)
		return func(w http.ResponseWriter, r *http.Request) {
			tx, err := db.BeginTx(r.Context(), nil)
			if err != nil {
				t.Error(err)
			}
			defer tx.Rollback()
			begun.Done()
			begun.Wait()
			session.From(r.Context()).User()
			asked.Done()
			asked.Wait()
		}
	}
	db := pool()
	serve(db, newStore(t, db, sqlstore.PostgreSQL), 200*time.Millisecond, wrong(db), connections, http.StatusServiceUnavailable)
	serve(db, newStore(t, openPostgres(t), sqlstore.PostgreSQL), time.Minute, wrong(db), connections, http.StatusOK) // a pool of its own
	serve(db, newStore(t, db, sqlstore.PostgreSQL), time.Minute, pay(db), requests, http.StatusOK)
}
