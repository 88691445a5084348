package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/coatcheck/session"
)

// A written is what is known about a write.
type written struct {
	rows    int64
	unknown bool // a try was lost that may have been applied
}

// write executes a statement that changes one row at most, and that may be carried out
// twice. It takes a connection of its own first: what fails until then, a full pool or a
// database that is not there, is known not to have been applied.
func (s *Store) write(ctx context.Context, call, query string, args ...any) (w written, err error) {
	for t := (tries{}); ; {
		var conn *sql.Conn
		if conn, err = s.db.Conn(ctx); err == nil {
			w.rows, err = execute(ctx, conn, query, args)
			conn.Close()
			if err == nil {
				return w, nil
			}
			// ErrBadConn is the driver's word that nothing was sent.
			w.unknown = w.unknown || !errors.Is(err, driver.ErrBadConn) && !refused(err)
		}
		if !s.again(ctx, &t, err) {
			return w, w.failed(call, err)
		}
	}
}

func execute(ctx context.Context, conn *sql.Conn, query string, args []any) (int64, error) {
	res, err := conn.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// failed returns what to answer if a call ends with err after the write.
func (w written) failed(call string, err error) error {
	if err != nil && w.unknown {
		err = fmt.Errorf("%w: %w", session.ErrIndeterminate, err)
	}
	return clean(call, err)
}
