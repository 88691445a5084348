package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/redisstore"
	"github.com/coatcheck/session/sqlstore"
	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
	_ "modernc.org/sqlite"
)

// A target is the store that a command works on. Either redis or sql is set.
type target struct {
	session.Store
	name  string // for people: its URL without an account
	redis *redisTarget
	sql   *sqlTarget
}

type redisTarget struct {
	store  *redisstore.Store
	client redis.UniversalClient
	prefix string // of all keys
}

type sqlTarget struct {
	store   *sqlstore.Store
	db      *sql.DB
	dialect sqlstore.Dialect
	table   string
}

// close closes the connections.
func (t *target) close() {
	if t.redis != nil {
		_ = t.redis.client.Close()
	} else {
		_ = t.sql.db.Close()
	}
}

// hint says what to do if nothing was found where sessions were looked for.
func (t *target) hint() string {
	if t.redis != nil {
		return fmt.Sprintf("Looked in %s, with the prefix %q: -prefix names another one", t.name, t.redis.prefix)
	}
	return fmt.Sprintf("Looked in %s, in the table %q: -table names another one", t.name, t.sql.table)
}

// onStore returns the run function of a command that needs a store.
func onStore(run func(p *program, ctx context.Context, t *target, args []string) (int, error)) func(*program, context.Context, []string) (int, error) {
	return func(p *program, ctx context.Context, args []string) (int, error) {
		t, err := p.open(ctx)
		if err != nil {
			return exitStore, err
		}
		if t == nil {
			return exitUsage, usagef("no store: give its URL by -store, or in the environment variable %s (another name: -store-env)", p.storeEnv)
		}
		defer t.close()
		status, err := run(p, ctx, t, args)
		return status, p.explain(t, err)
	}
}

// open connects to the store. It returns nil if the flags and the environment name none.
func (p *program) open(ctx context.Context) (*target, error) {
	text, err := p.storeURL()
	if err != nil || text == "" {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok {
		return nil, usagef("the URL of the store must begin with redis:, rediss:, postgres:, mysql: or sqlite:")
	}
	var t *target
	switch scheme {
	case "redis", "rediss":
		t, err = p.openRedis(ctx, text)
	case "postgres", "postgresql":
		t, err = p.openPostgres(text)
	case "mysql", "mariadb":
		t, err = p.openMySQL(text)
	case "sqlite":
		t, err = p.openSQLite(rest)
	default:
		return nil, usagef("the URL of the store must begin with redis:, rediss:, postgres:, mysql: or sqlite:")
	}
	if err != nil {
		return nil, err
	}
	t.name = nameOf(scheme, rest)
	if t.sql != nil {
		err = t.sql.db.PingContext(ctx)
	} else {
		err = t.redis.client.Ping(ctx).Err()
		if isReply(err) {
			err = nil // the account may not PING: the command tells whether it may do what it must
		}
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("%s cannot be reached: %w", t.name, err)
	}
	return t, nil
}

// nameOf returns the URL of a store without its account, parameters and password.
func nameOf(scheme, rest string) string {
	if u, err := url.Parse(scheme + ":" + rest); err == nil && scheme != "sqlite" {
		return scheme + "://" + u.Host + u.Path
	}
	return scheme + ":" + plain(rest)
}

// openRedis returns the store in one server, in one behind Sentinel if the URL has a master_name,
// or in a Cluster.
func (p *program) openRedis(ctx context.Context, text string) (*target, error) {
	redis.SetLogger(silence{})
	u, err := url.Parse(text)
	if err != nil {
		return nil, usagef("the URL of the store is none such as redis://localhost:6379: special characters of a password must be escaped (%%40 for @)")
	}
	var client redis.UniversalClient
	switch query := u.Query(); {
	case query.Has("master_name"):
		o, err := redis.ParseFailoverURL(text)
		if err != nil {
			return nil, usageError(err.Error())
		}
		o.ContextTimeoutEnabled = true
		client = redis.NewFailoverClient(o)
	case query.Has("addr"):
		if client, err = newCluster(text); err != nil {
			return nil, err
		}
	default:
		o, err := redis.ParseURL(text)
		if err != nil {
			return nil, usageError(err.Error())
		}
		o.ContextTimeoutEnabled = true
		single := redis.NewClient(o)
		client = single
		if info, err := single.Info(ctx, "cluster").Result(); err == nil && strings.Contains(info, "cluster_enabled:1") {
			single.Close()
			if client, err = newCluster(text); err != nil {
				return nil, err
			}
		}
	}
	prefix := p.prefix
	if prefix == "" {
		prefix = "session:"
	}
	store, err := redisstore.New(client, &redisstore.Options{Prefix: prefix})
	if err != nil {
		client.Close()
		return nil, usageError(err.Error())
	}
	return &target{Store: store, redis: &redisTarget{store, client, prefix}}, nil
}

func newCluster(text string) (redis.UniversalClient, error) {
	o, err := redis.ParseClusterURL(text)
	if err != nil {
		return nil, usageError(err.Error())
	}
	o.ContextTimeoutEnabled = true
	return redis.NewClusterClient(o), nil
}

// isReply reports whether err is an error reply of Redis, as opposed to a failed connection.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// sqlTarget returns the store in a database.
func (p *program) sqlTarget(db *sql.DB, d sqlstore.Dialect) (*target, error) {
	table := p.table
	if table == "" {
		table = "sessions"
	}
	db.SetMaxOpenConns(1) // a command does one thing after the other
	store, err := sqlstore.New(db, d, &sqlstore.Options{Table: table})
	if err != nil {
		db.Close()
		return nil, usageError(err.Error())
	}
	return &target{Store: store, sql: &sqlTarget{store, db, d, table}}, nil
}

func (p *program) openPostgres(text string) (*target, error) {
	c, err := pgx.ParseConfig(text)
	if err != nil {
		return nil, usageError(err.Error())
	}
	return p.sqlTarget(stdlib.OpenDB(*c), sqlstore.PostgreSQL)
}

// openMySQL opens a URL whose query has the parameters of the driver.
func (p *program) openMySQL(text string) (*target, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil, usagef("the URL of the store is none such as mysql://app@localhost:3306/app: special characters of a password must be escaped (%%40 for @)")
	}
	c, err := mysql.ParseDSN("/?" + u.RawQuery)
	if err != nil {
		return nil, usageError(err.Error())
	}
	c.User = u.User.Username()
	c.Passwd, _ = u.User.Password()
	c.Net, c.Addr, c.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
	if u.Port() == "" {
		c.Addr += ":3306"
	}
	c.InterpolateParams, c.Logger = true, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, usageError(err.Error())
	}
	return p.sqlTarget(sql.OpenDB(connector), sqlstore.MySQL)
}

// openSQLite opens a file, which must exist. It sets no pragma that changes the file.
func (p *program) openSQLite(path string) (*target, error) {
	path = strings.TrimPrefix(path, "//")
	if _, err := os.Stat(path); err != nil {
		return nil, usagef("%v: the path is that of the file that the application has made at its first start", err)
	}
	file := url.URL{Path: filepath.ToSlash(path)}
	db, err := sql.Open("sqlite", "file:"+file.EscapedPath()+"?mode=rw&_txlock=immediate&_pragma=busy_timeout(1000)&_pragma=synchronous(FULL)")
	if err != nil {
		return nil, usageError(err.Error())
	}
	return p.sqlTarget(db, sqlstore.SQLite)
}

// explain adds to an error of the store what to do.
func (p *program) explain(t *target, err error) error {
	if err == nil || errors.Is(err, errRefused) {
		return err
	}
	text := err.Error()
	switch {
	case t.sql != nil && isNoTable(err):
		return fmt.Errorf("there is no table %q in this database: -table names another one, and the URL another database (%w)", t.sql.table, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer within %v, which -timeout prolongs: the store hangs, or has much to do (%w)", p.timeout, err)
	case strings.Contains(text, "NOPERM"):
		return fmt.Errorf("the account lacks a right: README.md of sessionctl lists what it needs (%w)", err)
	case strings.Contains(text, "MOVED "):
		return fmt.Errorf("this is a Cluster, whose account may not INFO: add a second node to the URL, ?addr=HOST:PORT (%w)", err)
	}
	return err
}

// isNoTable reports whether err is the database's reply that the table does not exist.
func isNoTable(err error) bool {
	var postgres *pgconn.PgError
	var my *mysql.MySQLError
	return errors.As(err, &postgres) && postgres.Code == "42P01" || errors.As(err, &my) && my.Number == 1146 ||
		err != nil && strings.Contains(err.Error(), "no such table") // SQLite
}
