package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"

	"github.com/coatcheck/session"
)

// written is the result of a write.
type written struct {
	rows    int64 // number of rows that the last try changed
	unknown bool  // whether an earlier or the last try failed with an unknown outcome
}

// write executes a statement that changes at most one row, and whose repetition does no harm.
// It reserves a connection first: an error before that, such as a full pool or an unreachable
// database, is known not to have applied the statement.
func (s *Store) write(ctx context.Context, call, query string, args ...any) (w written, err error) {
	for t := (tries{}); ; {
		var conn *sql.Conn
		if conn, err = s.db.Conn(ctx); err == nil {
			w.rows, err = execute(ctx, conn, query, args)
			conn.Close()
			if err == nil {
				return w, nil
			}
			w.unknown = w.unknown || !s.isUnsent(err) && !refused(err)
		}
		if !s.shouldRetry(ctx, &t, err) {
			return w, w.failed(call, err)
		}
	}
}

// badConnDrivers are the types of the drivers that return driver.ErrBadConn only if the
// database cannot have executed the statement, as database/sql demands. TestLostReply checks
// this for those that use a network. Other drivers may return driver.ErrBadConn after sending:
// lib/pq does so for an EOF and for the error with which PostgreSQL ends a connection.
var badConnDrivers = map[string]bool{
	"github.com/jackc/pgx/v5/stdlib.Driver":      true,
	"github.com/go-sql-driver/mysql.MySQLDriver": true,
	"modernc.org/sqlite.Driver":                  true,
}

// keepsBadConnRule reports whether d is one of badConnDrivers. It returns false for a driver
// that wraps one of them, because the wrapper may change errors.
func keepsBadConnRule(d driver.Driver) bool {
	t := reflect.TypeOf(d)
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t != nil && badConnDrivers[t.PkgPath()+"."+t.Name()]
}

// isUnsent reports whether err says that the statement was not executed.
func (s *Store) isUnsent(err error) bool {
	return errors.Is(err, driver.ErrBadConn) && keepsBadConnRule(s.db.Driver())
}

// execute executes one statement once. On a *sql.Conn, unlike on a *sql.DB, database/sql
// does not repeat a statement that failed with driver.ErrBadConn: a hidden second try of a
// write that was applied would change no row, and look like a conflict.
func execute(ctx context.Context, conn *sql.Conn, query string, args []any) (int64, error) {
	res, err := conn.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// failed returns the error of a call that ends with err after the write.
func (w written) failed(call string, err error) error {
	if err != nil && w.unknown {
		err = fmt.Errorf("%w: %w", session.ErrIndeterminate, err)
	}
	return clean(call, err)
}
