package expressjs_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/storetest"
	"github.com/jackc/pgx/v5/pgxpool"
)

// simpleTable creates the table of connect-pg-simple 10, as its table.sql does.
const simpleTable = `
CREATE TABLE "session" ("sid" varchar NOT NULL COLLATE "default", "sess" json NOT NULL, "expire" timestamp(6) NOT NULL);
ALTER TABLE "session" ADD CONSTRAINT "session_pkey" PRIMARY KEY ("sid") NOT DEFERRABLE INITIALLY IMMEDIATE;
CREATE INDEX "IDX_session_expire" ON "session" ("expire");`

var (
	postgres  servers.Shared // one server for all tests; each test has its own database
	databases atomic.Int64
)

// postgresStore returns a store in a database of its own, and a pool of that database.
func postgresStore(t testing.TB, o expressjs.Options) (*expressjs.PostgresStore, *pgxpool.Pool) {
	t.Helper()
	server := postgres.Get(t, func(t testing.TB) *servers.Server { return servers.Postgres(t, "-c", "fsync=off") })
	url, name := servers.PostgresURL(server.Addr), fmt.Sprint("test", databases.Add(1))
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

// TestOddIDs checks ids and users that PostgreSQL cannot store: no row has them, and they cause no
// failure of the store.
func TestOddIDs(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		now := time.Now().Truncate(time.Millisecond)
		for _, id := range []string{"\x00", "a\x00", "\xff", "a\xc3", strings.Repeat("x", 1<<20), "{}", "a{b}c", "*", "'; drop table session; --", " "} {
			r := &session.Record{ID: id, Data: []byte("{}"), Created: now, LastSeen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour), Version: 2}
			_, load := s.store.Load(t.Context(), id)
			save := s.store.Save(t.Context(), r, 1)
			touch := s.store.Touch(t.Context(), id, now, now.Add(time.Hour))
			if load != session.ErrNotFound || save != session.ErrNotFound || touch != session.ErrNotFound {
				t.Errorf("%.20q: Load %v, Save %v, Touch %v", id, load, save, touch)
			}
			if err := errors.Join(s.store.Delete(t.Context(), id), m.Revoke(t.Context(), "ann", id), m.RevokeAll(t.Context(), id)); err != nil {
				t.Errorf("%.20q: %v", id, err)
			}
			if len(id) > 128 {
				continue
			}
			if resp := in(t, m, id, func(s *session.Session) { s.User() }); resp.StatusCode != 200 {
				t.Errorf("%.20q: %s", id, resp.Status)
			}
		}
	})
}
