package expressjs_test

import (
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/storetest"
	"github.com/jackc/pgx/v5/pgxpool"
)

// TestClosedConnections checks that no call fails if PostgreSQL has closed the idle connections,
// for example in a restart.
func TestClosedConnections(t *testing.T) {
	store, pool := postgresStore(t, expressjs.Options{UserMember: "userId"})
	admin := openPool(t, pool.Config().ConnString())
	now := time.Now().Truncate(time.Millisecond)
	r := &session.Record{ID: "kept", User: "ann", Data: []byte(`{"a":1}`), Created: now, LastSeen: now, Deadline: now.Add(2 * time.Hour), Expires: now.Add(time.Hour), Version: 1}
	if err := store.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"create": func() error { n := *r; n.ID = "other"; return store.Create(t.Context(), &n) },
		"sweep":  func() error { _, err := store.Sweep(t.Context()); return err },
		"load":   func() error { _, err := store.Load(t.Context(), "kept"); return err },
		"list":   func() error { _, err := store.List(t.Context(), "ann"); return err },
		"touch":  func() error { return store.Touch(t.Context(), "kept", now, now.Add(time.Hour)) },
		"save":   func() error { n := *r; n.Version = 1; return store.Save(t.Context(), &n, 1) },
		"delete": func() error { return store.Delete(t.Context(), "zzz") },
	} {
		if _, err := admin.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()`); err != nil {
			t.Fatal(err)
		}
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRaisedIsolation checks that a store works on a database with a higher default isolation
// level, which rolls statements of concurrent writers back.
func TestRaisedIsolation(t *testing.T) {
	for _, level := range []string{"repeatable read", "serializable"} {
		t.Run(strings.ReplaceAll(level, " ", "-"), func(t *testing.T) {
			t.Parallel()
			_, plain := postgresStore(t, expressjs.Options{})
			c := plain.Config()
			c.ConnConfig.RuntimeParams["default_transaction_isolation"] = level
			pool, err := pgxpool.NewWithConfig(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(pool.Close)
			store, err := expressjs.NewPostgresStore(pool, nil)
			if err != nil {
				t.Fatal(err)
			}
			storetest.Run(t, func(t *testing.T) session.Store { return store })
			storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
		})
	}
}
