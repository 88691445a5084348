// Package sqlstore_test tests sqlstore on real databases. It is a module of its own so
// that the users of sqlstore do not have the drivers in their go.sum.
package sqlstore_test

import (
	"database/sql"
	"log/slog"
	"os"
	"testing"

	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"
)

// The servers run until all tests have ended. They are shared because a start takes seconds;
// each test creates tables of its own.
var sharedPostgres, sharedPgBouncer, sharedMariaDB servers.Shared

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	_ = mysql.SetLogger(&mysql.NopLogger{})
	code := m.Run()
	for _, s := range []*servers.Shared{&sharedPgBouncer, &sharedPostgres, &sharedMariaDB} {
		s.End()
	}
	os.Exit(code)
}

// open opens a pool of connections.
func open(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { db.Close() })
	if err := db.Ping(); err != nil {
		t.Fatal(err)
	}
	return db
}

// postgres is a PostgreSQL with its default durability.
func postgres(t testing.TB) *servers.Server {
	return sharedPostgres.Get(t, func(t testing.TB) *servers.Server { return servers.Postgres(t) })
}

func openPostgres(t testing.TB) *sql.DB {
	return open(t, "pgx", servers.PostgresURL(postgres(t).Addr))
}

// openLibPQ connects to the same server with lib/pq.
func openLibPQ(t testing.TB) *sql.DB {
	return open(t, "postgres", servers.PostgresURL(postgres(t).Addr))
}

// openPgBouncer connects to a PgBouncer in transaction mode in front of postgres.
func openPgBouncer(t testing.TB) *sql.DB {
	s := sharedPgBouncer.Get(t, func(tb testing.TB) *servers.Server { return servers.PgBouncer(tb, postgres(t)) })
	return open(t, "pgx", servers.PostgresURL(s.Addr)+"&default_query_exec_mode=exec")
}

// mariadb is a MariaDB with its default durability.
func mariadb(t testing.TB) *servers.Server {
	return sharedMariaDB.Get(t, func(t testing.TB) *servers.Server { return servers.MariaDB(t) })
}

func openMariaDB(t testing.TB) *sql.DB {
	return open(t, "mysql", servers.MariaDBDSN(mariadb(t).Addr))
}

// sqliteDSN returns the data source name of the README. Pragmas are part of it, because the
// pool opens connections at any time.
func sqliteDSN(path string) string {
	return "file:" + path + "?_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
}

// openSQLite opens a database as the README does: it creates the file first, readable by its
// owner only, and uses one connection.
func openSQLite(t testing.TB, path, more string) *sql.DB {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	db, err := sql.Open("sqlite", sqliteDSN(path)+more)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}
