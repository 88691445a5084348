// Stores is examples/server with stores that survive a restart. In addition to the variables of
// that server, it reads
//
//	STORE  memory (the default)
//	       sqlite:PATH
//	       redis://127.0.0.1:6379/0
//	       postgres://user:password@127.0.0.1/database
//	       mysql://user:password@tcp(127.0.0.1)/database
//
// All but memory need a SESSION_SECRET.
package main

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/examples/internal/site"
	"github.com/coatcheck/session/redisstore"
	"github.com/coatcheck/session/sqlstore"
	"github.com/redis/go-redis/v9"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)

func main() { site.Main(open) }

// open opens the store with this name, the value of STORE. Errors contain the kind of the
// store, never the address, which may contain a password.
func open(ctx context.Context, name string) (session.Store, error) {
	kind, rest, _ := strings.Cut(name, ":")
	switch kind {
	case "redis", "rediss":
		return openRedis(ctx, name)
	case "postgres", "postgresql":
		return openSQL(ctx, "pgx", name, sqlstore.PostgreSQL)
	case "mysql":
		dsn := strings.TrimPrefix(rest, "//")
		if !strings.Contains(dsn, "?") {
			dsn += "?interpolateParams=true" // one round trip per statement
		}
		return openSQL(ctx, "mysql", dsn, sqlstore.MySQL)
	case "sqlite":
		// SQLite would create a file that other users of the machine can read.
		f, err := os.OpenFile(rest, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		f.Close()
		return openSQL(ctx, "sqlite", "file:"+rest+"?_txlock=immediate&_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)", sqlstore.SQLite)
	}
	return nil, errors.New("must be memory, sqlite:PATH, redis://…, postgres://… or mysql://…")
}

func openRedis(ctx context.Context, address string) (session.Store, error) {
	opts, err := redis.ParseURL(address)
	if err != nil {
		return nil, errors.New("the address of Redis is invalid")
	}
	opts.ContextTimeoutEnabled = true
	store, err := redisstore.New(redis.NewClient(opts), nil)
	if err != nil {
		return nil, err
	}
	if err := store.Check(ctx); err != nil {
		slog.Warn("Redis can lose sessions", "why", err)
	}
	return store, nil
}

func openSQL(ctx context.Context, driver, dsn string, dialect sqlstore.Dialect) (session.Store, error) {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20)
	if dialect == sqlstore.SQLite {
		db.SetMaxOpenConns(1) // requests queue in Go, where their deadline is respected
	}
	store, err := sqlstore.New(db, dialect, nil)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil {
		return nil, err
	}
	go store.SweepEvery(ctx, 10*time.Minute)
	return store, nil
}
