package sqlstore

import (
	"context"
	"fmt"
	"strings"
)

// Schema returns the statements that make the table and its index, for those
// who apply them by other means than Migrate. They change nothing where both are
// there already.
func (s *Store) Schema() []string { return append([]string(nil), s.q.schema...) }

// Migrate applies Schema. Any number of processes may do so at once, each at its
// start. It needs the right to create tables; where the application has none,
// apply Schema as somebody who has.
func (s *Store) Migrate(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return clean("migrate", err)
	}
	defer tx.Rollback()
	statements := s.q.schema
	if s.d.lock != "" {
		// Two CREATE … IF NOT EXISTS at once can both find nothing.
		statements = append([]string{s.d.lock}, statements...)
	}
	for _, q := range statements {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return clean("migrate", err)
		}
	}
	return clean("migrate", tx.Commit())
}

const (
	sweepRows  = 1000 // looked at by one statement
	sweepPages = 128  // of 8 KiB
)

// Sweep deletes expired records and returns how many, also if it ends early with
// an error. It works in small batches that lock nothing for long, never deletes
// a session that was extended meanwhile, and any number of processes may sweep
// at once. There is no index on the expiry, so it reads the whole table: every
// few minutes is often enough. Expired records that are still there do no harm
// but take room.
func (s *Store) Sweep(ctx context.Context) (deleted int, err error) {
	if s.d.byPage {
		return s.sweepByPage(ctx)
	}
	return s.sweepByID(ctx)
}

// sweepByPage goes through the table as it lies on disk.
func (s *Store) sweepByPage(ctx context.Context) (deleted int, err error) {
	var pages int64
	if err := s.db.QueryRowContext(ctx, s.q.pages).Scan(&pages); err != nil {
		return 0, clean("sweep", err)
	}
	for first := int64(0); first < pages; first += sweepPages {
		res, err := s.db.ExecContext(ctx, s.q.sweepPages, tid(first), tid(first+sweepPages), now())
		if err != nil {
			return deleted, clean("sweep", err)
		}
		n, err := res.RowsAffected()
		if deleted += int(n); err != nil {
			return deleted, clean("sweep", err)
		}
	}
	return deleted, nil
}

// sweepByID goes through the table in the order of the ids. It looks without a
// lock, and deletes what is still expired then.
func (s *Store) sweepByID(ctx context.Context) (deleted int, err error) {
	last := []byte{}
	for {
		expired, next, err := s.expired(ctx, last)
		if err != nil {
			return deleted, clean("sweep", err)
		}
		if len(expired) > 0 {
			n, err := s.deleteExpired(ctx, expired)
			if deleted += n; err != nil {
				return deleted, clean("sweep", err)
			}
		}
		if next == nil {
			return deleted, nil
		}
		last = next
	}
}

// expired returns the ids of expired records among those after last, and the
// last id it looked at, nil at the end of the table.
func (s *Store) expired(ctx context.Context, last []byte) (ids []any, next []byte, err error) {
	rows, err := s.db.QueryContext(ctx, s.q.sweepIDs, last, sweepRows)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	seen := 0
	for ; rows.Next(); seen++ {
		var id []byte
		var expires int64
		if err := rows.Scan(&id, &expires); err != nil {
			return nil, nil, err
		}
		if next = id; expires <= now() {
			ids = append(ids, id)
		}
	}
	if seen < sweepRows {
		next = nil
	}
	return ids, next, rows.Err()
}

// deleteExpired deletes those of the records that are expired still. MySQL's
// locks on what another sweep deleted meanwhile can end in a deadlock, of which
// it calls off one side.
func (s *Store) deleteExpired(ctx context.Context, ids []any) (int, error) {
	q := s.q.sweepDelete + "(?" + strings.Repeat(", ?", len(ids)-1) + ")"
	for try := 0; ; try++ {
		res, err := s.db.ExecContext(ctx, q, append([]any{now()}, ids...)...)
		if err == nil {
			n, err := res.RowsAffected()
			return int(n), err
		}
		if sqlState(err) != "40001" || try == 9 {
			return 0, err
		}
	}
}

func tid(page int64) string { return fmt.Sprintf("(%d,0)", page) }
