package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
	"github.com/coatcheck/session/storetest"
)

// databases are what the store is tested on.
var databases = []struct {
	name    string
	dialect sqlstore.Dialect
	open    func(t testing.TB) *sql.DB
}{
	{"PostgreSQL", sqlstore.PostgreSQL, func(t testing.TB) *sql.DB {
		s := postgres(t)
		return s.open("pgx", postgresDSN(s.port, ""))
	}},
	{"PgBouncer", sqlstore.PostgreSQL, func(t testing.TB) *sql.DB {
		s := postgres(t)
		s.open("pgx", postgresDSN(s.port, ""))
		b := pgbouncer(t, s)
		return b.open("pgx", postgresDSN(b.port, "&default_query_exec_mode=exec"))
	}},
	{"MariaDB", sqlstore.MySQL, func(t testing.TB) *sql.DB {
		s := mariadb(t)
		return s.open("mysql", mariadbDSN(s.port))
	}},
	{"SQLite", sqlstore.SQLite, func(t testing.TB) *sql.DB {
		return openSQLite(t, filepath.Join(t.TempDir(), "sessions.db"))
	}},
}

func openSQLite(t testing.TB, path string) *sql.DB {
	db, err := sql.Open("sqlite", sqliteDSN(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

var tables atomic.Int64

// newStore returns a store with a table of its own.
func newStore(t testing.TB, db *sql.DB, d sqlstore.Dialect) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.New(db, d, &sqlstore.Options{Table: fmt.Sprint("sessions_", tables.Add(1))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

// onEach runs a test on every database.
func onEach(t *testing.T, f func(t *testing.T, db *sql.DB, d sqlstore.Dialect)) {
	for _, d := range databases {
		t.Run(d.name, func(t *testing.T) { f(t, d.open(t), d.dialect) })
	}
}

func TestContract(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		storetest.Run(t, func(t *testing.T) session.Store { return newStore(t, db, d) })
	})
}

// Ten processes start at once, and each migrates.
func TestMigrateAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		s, err := sqlstore.New(db, d, nil)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := s.Migrate(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}
