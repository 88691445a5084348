// Package sqlstore stores sessions in PostgreSQL, MySQL, MariaDB or SQLite, through
// database/sql. Sessions survive a restart, and any number of processes share them. The package
// imports no driver; the README says which data source name each driver needs.
//
//	store, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
//	err = store.Migrate(ctx) // once, when the program starts
//	go store.SweepEvery(ctx, 5*time.Minute)
//
// It passes the tests of package storetest on PostgreSQL, on PostgreSQL behind PgBouncer in
// transaction mode, on MariaDB and on SQLite, with the drivers of the README, and on PostgreSQL
// with lib/pq.
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session"
)

// Options configure a [Store]. The zero value is valid.
type Options struct {
	// Table is the name of the table: at most 48 letters, digits and underscores, optionally
	// after the name of a schema and a dot. "": "sessions".
	Table string
}

// A Store is a [session.Store] in one table. Every call is a single statement in autocommit
// mode; only a write that changed no row needs a second statement, to find the reason. A Store
// keeps no state in the database's connections, so a pooler in transaction mode does not affect
// it. Times are those of the application's clock. The methods may be called concurrently.
//
// A call that the database rolls back because of a concurrent one, as it does at isolation
// levels above read committed, is retried until its context ends.
//
// A call whose connection is lost is tried on another connection, four times in all, so that
// connections that the database closed while they were idle fail no request. If the outcome of
// a write is unknown after that, or because its deadline passed, the write returns
// [session.ErrIndeterminate]. A statement that the database refused, or that never reached it,
// returns an ordinary error. With drivers other than pgx, go-sql-driver/mysql and
// modernc.org/sqlite, and with wrapped drivers, a lost connection turns a conflict into
// session.ErrIndeterminate more often: their driver.ErrBadConn is not taken to mean that
// nothing was sent.
//
// A record carries a checksum: a damaged record is an error, never another user's session. An
// id has at most 128 bytes, a user at most 1024.
type Store struct {
	db    *sql.DB
	d     *dialect
	q     queries
	table string

	load atomic.Pointer[sql.Stmt] // prepared by the first Load if dialect.prepare; closed with db

	dropping chan struct{} // semaphore of the call that runs dropDead
	drops    atomic.Int64  // number of checks by dropDead that have begun
}

// New returns a Store that uses db. New starts nothing and sends nothing to the database: call
// Migrate once before use, or apply Schema yourself, and run SweepEvery to delete expired
// records. New returns an error if the dialect or the name of the table is invalid.
func New(db *sql.DB, d Dialect, opts *Options) (*Store, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.Table == "" {
		o.Table = "sessions"
	}
	switch {
	case db == nil:
		return nil, errors.New("sqlstore: New: db is nil")
	case dialects[d] == nil:
		return nil, fmt.Errorf("sqlstore: New: %q is no dialect: use PostgreSQL, MySQL or SQLite", string(d))
	case !tableName.MatchString(o.Table):
		return nil, errors.New("sqlstore: Options.Table: must be letters, digits and underscores, at most 48, optionally after a schema and a dot")
	}
	return &Store{
		db: db, d: dialects[d], q: dialects[d].queries(o.Table), table: o.Table,
		dropping: make(chan struct{}, 1),
	}, nil
}

var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,47}\.)?[A-Za-z_][A-Za-z0-9_]{0,47}$`)

// Load implements [session.Store].
func (s *Store) Load(ctx context.Context, id string) (r *session.Record, err error) {
	err = s.retry(ctx, func() error {
		row, err := s.loadRow(ctx, id)
		if err != nil {
			return err
		}
		r, err = scan(row)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return nil, session.ErrNotFound
	}
	if err == nil && r.ID != id {
		err = errDamaged
	}
	if err != nil {
		return nil, clean("load", err)
	}
	return r, nil
}

// loadRow executes the statement of Load. It is prepared once for SQLite, whose driver has no
// cache of prepared statements.
func (s *Store) loadRow(ctx context.Context, id string) (*sql.Row, error) {
	if !s.d.prepare {
		return s.db.QueryRowContext(ctx, s.q.load, []byte(id), now()), nil
	}
	stmt := s.load.Load()
	if stmt == nil {
		// New cannot prepare it: the table may be created after New.
		made, err := s.db.PrepareContext(ctx, s.q.load)
		if err != nil {
			return nil, err
		}
		if stmt = made; !s.load.CompareAndSwap(nil, made) {
			made.Close()
			stmt = s.load.Load()
		}
	}
	return stmt.QueryRowContext(ctx, []byte(id), now()), nil
}

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, r *session.Record) error {
	if err := s.d.fits(r); err != nil {
		return err
	}
	w, err := s.write(ctx, "create", s.q.create, append(s.row(r), s.d.createTail(now())...)...)
	if err == nil && w.rows == 0 && s.q.reclaim != "" {
		wasUnknown := w.unknown
		w, err = s.write(ctx, "create", s.q.reclaim, append(s.row(r)[1:], []byte(r.ID), now())...)
		w.unknown = w.unknown || wasUnknown
	}
	if w.rows > 0 || err != nil {
		return err
	}
	err = s.why(ctx, "create", w, r, session.ErrExists)
	switch {
	case err != session.ErrNotFound:
		return err
	case r.Expires.UnixMilli() <= now():
		return nil // r has already expired, so an absent record is correct
	}
	return s.Create(ctx, r) // the record in the way has expired since
}

// Save implements [session.Store].
func (s *Store) Save(ctx context.Context, r *session.Record, old uint64) error {
	if err := s.d.fits(r); err != nil {
		return err
	}
	w, err := s.write(ctx, "save", s.q.save, s.saveArgs(r, old)...)
	if w.rows > 0 || err != nil {
		return err
	}
	return s.why(ctx, "save", w, r, session.ErrConflict)
}

// why returns the result of a write of r that changed no row: nil if r itself is stored, other
// if another record is stored, or ErrNotFound. The last try was then not applied, so an error
// here is not ErrIndeterminate, unless the connection of an earlier try was lost: that try may
// have been applied, and its record may have been changed or deleted since.
func (s *Store) why(ctx context.Context, call string, w written, r *session.Record, other error) error {
	version, err := s.version(ctx, r.ID)
	switch {
	case err == nil && version == r.Version:
		return nil
	case err != nil && err != session.ErrNotFound:
		return w.failed(call, err)
	case w.unknown:
		return w.failed(call, errOverwritten)
	case err != nil:
		return err
	}
	return other
}

var errOverwritten = errors.New("the connection was lost, and the record has been replaced since")

// version returns the version of a live record.
func (s *Store) version(ctx context.Context, id string) (uint64, error) {
	var version int64
	err := s.retry(ctx, func() error {
		return s.db.QueryRowContext(ctx, s.q.version, []byte(id), now()).Scan(&version)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return 0, session.ErrNotFound
	}
	return uint64(version), err
}

// Touch implements [session.Store].
func (s *Store) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	last, end := seen.UnixMilli(), expires.UnixMilli()
	w, err := s.write(ctx, "touch", s.q.touch, last, end, last, end, []byte(id), now())
	if w.rows > 0 || err != nil {
		return err
	}
	// MySQL does not count a row whose values stay the same.
	_, err = s.version(ctx, id)
	if err == session.ErrNotFound {
		return err
	}
	return w.failed("touch", err)
}

// Delete implements [session.Store].
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.write(ctx, "delete", s.q.delete, []byte(id))
	return err
}

// List implements [session.Store]. A damaged record is an error, because RevokeAll must not
// miss it.
func (s *Store) List(ctx context.Context, user string) (records []*session.Record, err error) {
	if user == "" {
		return nil, nil
	}
	err = s.retry(ctx, func() error {
		records, err = s.list(ctx, user)
		return err
	})
	return records, clean("list", err)
}

func (s *Store) list(ctx context.Context, user string) (records []*session.Record, err error) {
	rows, err := s.db.QueryContext(ctx, s.q.list, []byte(user), now())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, rows.Err()
}

func now() int64 { return time.Now().UnixMilli() }
