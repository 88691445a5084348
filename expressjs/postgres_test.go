package expressjs_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testserver"
	"github.com/coatcheck/session/storetest"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The table of connect-pg-simple 10, as its table.sql makes it.
const simpleTable = `
CREATE TABLE "session" ("sid" varchar NOT NULL COLLATE "default", "sess" json NOT NULL, "expire" timestamp(6) NOT NULL);
ALTER TABLE "session" ADD CONSTRAINT "session_pkey" PRIMARY KEY ("sid") NOT DEFERRABLE INITIALLY IMMEDIATE;
CREATE INDEX "IDX_session_expire" ON "session" ("expire");`

var (
	postgres  testserver.Shared // of all tests, each with a database of its own
	databases atomic.Int64
)

// postgresStore returns a store in a database of its own, and a pool of it.
func postgresStore(t testing.TB, o expressjs.Options) (*expressjs.PostgresStore, *pgxpool.Pool) {
	t.Helper()
	url, name := postgres.Address(t, testserver.Postgres), fmt.Sprint("test", databases.Add(1))
	admin := openPool(t, url)
	if _, err := admin.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	admin.Close()
	pool := openPool(t, strings.Replace(url, "/postgres?", "/"+name+"?", 1))
	if _, err := pool.Exec(t.Context(), simpleTable); err != nil {
		t.Fatal(err)
	}
	store, err := expressjs.NewPostgresStore(pool, &o)
	if err != nil {
		t.Fatal(err)
	}
	return store, pool
}

func openPool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestPostgresStore(t *testing.T) {
	store, _ := postgresStore(t, expressjs.Options{})
	storetest.Run(t, func(t *testing.T) session.Store { return store })
}

func TestPostgresStoreManagers(t *testing.T) {
	store, _ := postgresStore(t, expressjs.Options{})
	storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
}
