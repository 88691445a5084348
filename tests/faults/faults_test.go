package faults_test

import (
	"context"
	"database/sql"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/coatcheck/session/sqlstore"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
)

// TestRedis checks that every history of clients of Redis under faults has an explanation.
func TestRedis(t *testing.T) {
	series(t, func(t *testing.T) system { return startSystemRedis(t, nil) }, false)
}

// TestRedisImpatient uses a client that may abandon a try before the store's deadline. The
// abandoned command then arrives late, after the next try.
func TestRedisImpatient(t *testing.T) {
	series(t, func(t *testing.T) system {
		return startSystemRedis(t, func(o *redis.Options) { o.ReadTimeout = 50 * time.Millisecond })
	}, false)
}

// TestRedisGrouped uses clients with one connection, so that concurrent calls of a store are
// grouped in pipelines.
func TestRedisGrouped(t *testing.T) {
	series(t, func(t *testing.T) system {
		return startSystemRedis(t, func(o *redis.Options) { o.PoolSize = 1 })
	}, false)
}

// TestPostgreSQL checks the same for PostgreSQL.
func TestPostgreSQL(t *testing.T) {
	series(t, startSystemPostgres, false)
}

// TestPostgreSQLAgain checks the same for ids that are used again, which a Manager never does.
func TestPostgreSQLAgain(t *testing.T) {
	series(t, startSystemPostgres, true)
}

// series makes FAULT_RUNS runs of FAULT_SECONDS each and reports every run. FAULT_SEED is the
// seed of the first run.
func series(t *testing.T, start func(t *testing.T) system, again bool) {
	runs, seconds := number(t, "FAULT_RUNS", 1), number(t, "FAULT_SECONDS", 5)
	seed := number(t, "FAULT_SEED", int(time.Now().UnixMilli()%1_000_000))
	var report strings.Builder
	report.WriteString(header)
	for i := range runs {
		t.Run("", func(t *testing.T) {
			r := &run{seed: uint64(seed + i), again: again, haunted: true, troubles: network, length: time.Duration(seconds) * time.Second}
			t.Logf("FAULT_SEED=%d", r.seed)
			r.do(t, start(t))
			report.WriteString(r.row())
			check(t, r)
		})
	}
	t.Log(report.String())
}

var network = []trouble{drop, drop, delay, cut, cut, hole, forget}

func check(t *testing.T, r *run) {
	if r.startError != nil {
		t.Error(r.startError)
	}
	for _, v := range r.verdict.violations {
		t.Errorf("seed %d: %s", r.seed, v)
	}
	for _, v := range r.broken {
		t.Errorf("seed %d: %s", r.seed, v)
	}
	if len(r.kills) == 0 || r.hits == 0 {
		t.Errorf("seed %d: %d kills, %d frames hit: the run proves nothing", r.seed, len(r.kills), r.hits)
	}
}

func number(t *testing.T, name string, otherwise int) int {
	if os.Getenv(name) == "" {
		return otherwise
	}
	n, err := strconv.Atoi(os.Getenv(name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// startRedis starts a Redis that has written to disk what it acknowledges.
func startRedis(t testing.TB) *servers.Server {
	return servers.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
}

func startSystemRedis(t *testing.T, adapt func(o *redis.Options)) system {
	return system{startRedis(t), func(t testing.TB, addr string) session.Store {
		store, err := redisstore.New(redisClient(t, addr, adapt), nil)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}}
}

// redisClient returns a client with default options, including retries, that adapt may change.
func redisClient(t testing.TB, addr string, adapt func(o *redis.Options)) *redis.Client {
	o := &redis.Options{Addr: addr, ContextTimeoutEnabled: true}
	if adapt != nil {
		adapt(o)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func startSystemPostgres(t *testing.T) system {
	s := servers.Postgres(t)
	store := openPostgres(t, s.Addr)
	if err := store.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return system{s, func(t testing.TB, addr string) session.Store {
		return openPostgres(t, addr)
	}}
}

func openPostgres(t testing.TB, addr string) *sqlstore.Store {
	db, err := sql.Open("pgx", servers.PostgresURL(addr))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(10)
	db.SetMaxIdleConns(10)
	t.Cleanup(func() { db.Close() })
	store, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// TestMain disables the log of the client, because the tests cause faults that it logs.
func TestMain(m *testing.M) {
	redis.SetLogger(silence{})
	os.Exit(m.Run())
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}
