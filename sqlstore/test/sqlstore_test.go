package sqlstore_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
	"github.com/coatcheck/session/storetest"
)

// databases are the databases on which the store is tested.
var databases = []struct {
	name    string
	dialect sqlstore.Dialect
	open    func(t testing.TB) *sql.DB
}{
	{"PostgreSQL", sqlstore.PostgreSQL, openPostgres},
	{"PgBouncer", sqlstore.PostgreSQL, openPgBouncer},
	{"MariaDB", sqlstore.MySQL, openMariaDB},
	{"SQLite", sqlstore.SQLite, func(t testing.TB) *sql.DB {
		return openSQLite(t, filepath.Join(t.TempDir(), "sessions.db"), "")
	}},
}

// onEach runs a test on every database.
func onEach(t *testing.T, f func(t *testing.T, db *sql.DB, d sqlstore.Dialect)) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) { f(t, d.open(t), d.dialect) })
	}
}

var tables atomic.Int64

// newTable returns a name that no other test uses.
func newTable() string { return fmt.Sprint("sessions_", tables.Add(1)) }

// openStore returns a store with the given table, which it creates.
func openStore(t testing.TB, db *sql.DB, d sqlstore.Dialect, table string) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.New(db, d, &sqlstore.Options{Table: table})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

// newStore returns a store with a table of its own.
func newStore(t testing.TB, db *sql.DB, d sqlstore.Dialect) *sqlstore.Store {
	t.Helper()
	return openStore(t, db, d, newTable())
}

// record returns a record that lives for d.
func record(user string, d time.Duration) *session.Record {
	now := time.Now().Truncate(time.Millisecond)
	return &session.Record{
		ID: rand.Text(), User: user, Data: []byte(`{"name":"value"}`),
		Created: now, LastSeen: now, Deadline: now.Add(2 * time.Hour), Expires: now.Add(d), Version: 1 << 40,
	}
}

// next returns the record that a save replaces r by.
func next(r *session.Record) *session.Record {
	n := *r
	n.Version++
	n.Data = []byte(`{"name":"` + rand.Text() + `"}`)
	return &n
}

// must fails the test if err is not nil.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestContract(t *testing.T) {
	contract := func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		storetest.Run(t, func(t *testing.T) session.Store { return newStore(t, db, d) })
	}
	onEach(t, contract)
	t.Run(libPQ.name, func(t *testing.T) { contract(t, libPQ.open(t), libPQ.dialect) })
}

func TestManagers(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		storetest.RunManagers(t, func(t *testing.T) session.Store { return newStore(t, db, d) })
	})
}

// TestMigrateAtOnce checks that ten processes can migrate concurrently, and then once more.
func TestMigrateAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		s, err := sqlstore.New(db, d, &sqlstore.Options{Table: newTable()})
		must(t, err)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := s.Migrate(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		must(t, s.Migrate(context.Background()))
		must(t, s.Create(context.Background(), record("", time.Hour)))
	})
}

// TestTableNames uses a table in a schema, and names that also occur in the statements.
func TestTableNames(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		schema := map[sqlstore.Dialect]string{sqlstore.PostgreSQL: "public.", sqlstore.MySQL: "mysql.", sqlstore.SQLite: "main."}[d]
		for _, table := range []string{schema + newTable(), "IDS_" + newTable(), "TABLE_" + newTable()} {
			s := openStore(t, db, d, table)
			r, short := record("alice", time.Hour), record("alice", -time.Second)
			must(t, s.Create(t.Context(), r))
			must(t, s.Create(t.Context(), short))
			must(t, s.Create(t.Context(), short)) // replaces the expired record of the same id
			must(t, s.Save(t.Context(), next(r), r.Version))
			must(t, s.Touch(t.Context(), r.ID, r.LastSeen, r.Expires.Add(time.Minute)))
			if rs, err := s.List(t.Context(), "alice"); err != nil || len(rs) != 1 {
				t.Errorf("%s: List returned %d records, %v", table, len(rs), err)
			}
			if n, err := s.Sweep(t.Context()); err != nil || n != 1 {
				t.Errorf("%s: Sweep returned %d, %v", table, n, err)
			}
			must(t, s.Delete(t.Context(), r.ID))
		}
	})
}
