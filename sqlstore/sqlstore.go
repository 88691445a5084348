// Package sqlstore keeps sessions in PostgreSQL, MySQL, MariaDB or SQLite,
// through database/sql, so that they survive a restart and any number of
// processes share them. It imports no driver: bring the one you use. What each
// wants in its data source name is in the README.
//
//	store, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
//	err = store.Migrate(ctx) // once, at the start
//	go store.SweepEvery(ctx, 5*time.Minute)
//
// It passes the package storetest on PostgreSQL, on PostgreSQL behind PgBouncer
// in transaction mode, on MariaDB and on SQLite, with the README's drivers, and on
// PostgreSQL with lib/pq.
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

// Options configure a Store. The zero value is good.
type Options struct {
	// Table is the table's name: letters, digits and underscores, at most 48,
	// and before it, if you like, a schema and a dot. "": "sessions".
	Table string
}

// A Store is a session.Store in one table. Every call is a single statement in
// autocommit mode; only one that changed no row costs another, to say why. It
// keeps no state in the database's sessions, so that a pooler between them in
// transaction mode does no harm. The clock is the application's. Its methods may
// be called by any number of goroutines at once.
//
// A call that the database rolls back for a concurrent one, as it does at isolation
// levels above read committed, is tried again until its context ends.
//
// A call whose connection is lost is tried again on another one, four times in all, so
// that connections which the database closed while they were idle fail no request. A
// write whose outcome is still unknown then, or because its deadline passed, is
// session.ErrIndeterminate. What the database refused, and what never reached it, is an
// ordinary error. A lost connection makes a conflict session.ErrIndeterminate more often
// with drivers other than pgx, go-sql-driver/mysql and modernc.org/sqlite, and with wrapped
// ones: their driver.ErrBadConn is not taken to mean that nothing was sent.
//
// A record carries a checksum: one that was damaged is an error, never another
// user's session. An id has at most 128 bytes, a user at most 1024.
type Store struct {
	db    *sql.DB
	d     *dialect
	q     queries
	table string

	load atomic.Pointer[sql.Stmt] // if dialect.prepare: nil until the first Load; closed with db

	dropping chan struct{} // held by the call that removes dead connections
	drops    atomic.Int64  // begun so far
}

// New returns a Store over db. It starts nothing and asks the database nothing:
// call Migrate once before use, or apply Schema by your own means, and have
// SweepEvery delete expired records. It returns an error if the dialect or the table's name is
// not a good one.
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
		return nil, errors.New("sqlstore: Options.Table: must be letters, digits and underscores, at most 48, with a schema and a dot before it if need be")
	}
	return &Store{
		db: db, d: dialects[d], q: dialects[d].queries(o.Table), table: o.Table,
		dropping: make(chan struct{}, 1),
	}, nil
}

var tableName = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]{0,47}\.)?[A-Za-z_][A-Za-z0-9_]{0,47}$`)

// Load implements session.Store.
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

// loadRow executes the statement of Load, which is prepared once where each preparation
// costs: the SQLite driver has no cache of its own.
func (s *Store) loadRow(ctx context.Context, id string) (*sql.Row, error) {
	if !s.d.prepare {
		return s.db.QueryRowContext(ctx, s.q.load, []byte(id), now()), nil
	}
	stmt := s.load.Load()
	if stmt == nil {
		// Not in New, which asks the database nothing: the table may come later.
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

// Create implements session.Store.
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
		return nil // it does not exist either way
	}
	return s.Create(ctx, r) // what was there has expired since
}

// Save implements session.Store.
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

// why tells why a write of r changed no row: it was r's already, another one is
// there, or none. Then the last try of it was not applied, so that no failure here is
// ErrIndeterminate, unless an earlier try was lost: that may have been applied, and
// what it wrote be changed or deleted since.
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

var errOverwritten = errors.New("the connection was lost, and the record is another one now")

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

// Touch implements session.Store.
func (s *Store) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	last, end := seen.UnixMilli(), expires.UnixMilli()
	w, err := s.write(ctx, "touch", s.q.touch, last, end, last, end, []byte(id), now())
	if w.rows > 0 || err != nil {
		return err
	}
	// MySQL counts a row that stays as it is as none.
	_, err = s.version(ctx, id)
	if err == session.ErrNotFound {
		return err
	}
	return w.failed("touch", err)
}

// Delete implements session.Store.
func (s *Store) Delete(ctx context.Context, id string) error {
	_, err := s.write(ctx, "delete", s.q.delete, []byte(id))
	return err
}

// List implements session.Store. A damaged record is an error, not skipped: it
// might be one that RevokeAll must end.
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
