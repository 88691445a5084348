package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Schema returns the statements that create the table and its index, for programs that do not
// use Migrate. They change nothing if both exist.
func (s *Store) Schema() []string { return append([]string(nil), s.q.schema...) }

// Migrate applies Schema, unless the table and its index exist. Any number of processes may
// call it concurrently, each when it starts. It needs the right to create tables only if
// something is missing; if the application's role has no such right, apply Schema with a role
// that has it.
//
// Migrate returns an error if the table lacks one of the columns. The table then belongs to
// another program, and Options.Table must be another name.
func (s *Store) Migrate(ctx context.Context) error {
	migrated, err := s.isMigrated(ctx)
	if err == nil && !migrated {
		if err = s.retry(ctx, func() error { return s.applySchema(ctx) }); err == nil {
			// Another program may have created a table of this name meanwhile.
			_, err = s.isMigrated(ctx)
		}
	}
	return clean("migrate", err)
}

// isMigrated reports whether the table and its index exist. It returns an error if the table
// belongs to another program.
func (s *Store) isMigrated(ctx context.Context) (ok bool, err error) {
	var found []string
	err = s.retry(ctx, func() error {
		rows, err := s.db.QueryContext(ctx, s.q.look)
		if err != nil {
			return err
		}
		defer rows.Close()
		found, err = rows.Columns()
		return errors.Join(err, rows.Err())
	})
	switch {
	case noSuchTable(err):
		return false, nil
	case err != nil:
		return false, err
	}
	var lacking []string
	for _, column := range strings.Split(columns, ", ") {
		if !slices.ContainsFunc(found, func(name string) bool { return strings.EqualFold(name, column) }) {
			lacking = append(lacking, column)
		}
	}
	if len(lacking) > 0 {
		return false, fmt.Errorf("the table %q belongs to another program: its columns are %s, and it lacks %s; set Options.Table to a name that no other program uses",
			s.table, strings.Join(found, ", "), strings.Join(lacking, ", "))
	}
	if s.q.index == "" {
		return true, nil
	}
	var indexes int
	err = s.retry(ctx, func() error { return s.db.QueryRowContext(ctx, s.q.index).Scan(&indexes) })
	return indexes > 0, err
}

func (s *Store) applySchema(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	statements := s.q.schema
	if s.d.lock != "" {
		// Two concurrent CREATE … IF NOT EXISTS can both find nothing, and one then fails.
		statements = append([]string{s.d.lock}, statements...)
	}
	for _, q := range statements {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// noSuchTable reports whether err is the database's reply that the table does not exist.
func noSuchTable(err error) bool {
	switch sqlState(err) {
	case "42P01", "42S02": // PostgreSQL, MySQL
		return true
	}
	return err != nil && strings.Contains(err.Error(), "no such table") // SQLite
}

const (
	sweepRows  = 1000 // rows read by one statement, so that none locks for long
	sweepPages = 128  // pages of 8 KiB read by one statement, so that none locks for long
)

// SweepEvery calls Sweep every d until ctx ends, and logs errors to [slog.Default]. The first
// sweep comes after a random part of d, so that processes that start together do not sweep
// together. Start SweepEvery as a goroutine; an interval of minutes is short enough. It panics
// if d is not positive.
func (s *Store) SweepEvery(ctx context.Context, d time.Duration) {
	if d <= 0 {
		panic("sqlstore: SweepEvery: the interval is not positive")
	}
	timer := time.NewTimer(rand.N(d))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if n, err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			slog.ErrorContext(ctx, "sqlstore: expired sessions were not deleted; the next sweep tries again", "err", err, "deleted", n, "next", d)
		}
		timer.Reset(d)
	}
}

// Sweep deletes expired records and returns their number, also if it ends early with an error.
// It works in small batches that lock nothing for long, and never deletes a session that was
// extended meanwhile. Any number of processes may sweep concurrently. Sweep reads the whole
// table, because there is no index on the expiry: an interval of minutes is short enough.
// Expired records that are not yet deleted are ignored; they only use space.
func (s *Store) Sweep(ctx context.Context) (deleted int, err error) {
	if s.d.byPage {
		return s.sweepByPage(ctx)
	}
	return s.sweepByID(ctx)
}

// sweepByPage deletes expired records in the physical order of the table.
func (s *Store) sweepByPage(ctx context.Context) (deleted int, err error) {
	var pages int64
	err = s.retry(ctx, func() error { return s.db.QueryRowContext(ctx, s.q.pages).Scan(&pages) })
	if err != nil {
		return 0, clean("sweep", err)
	}
	for first := int64(0); first < pages; first += sweepPages {
		n, err := s.deleteRows(ctx, s.q.sweepPages, tid(first), tid(first+sweepPages), now())
		if deleted += n; err != nil {
			return deleted, clean("sweep", err)
		}
	}
	return deleted, nil
}

// sweepByID deletes expired records in the order of their ids. It selects them without a lock,
// and deletes those that are still expired.
func (s *Store) sweepByID(ctx context.Context) (deleted int, err error) {
	last := []byte{}
	for {
		var expired []any
		var next []byte
		err = s.retry(ctx, func() error {
			expired, next, err = s.expired(ctx, last)
			return err
		})
		if err != nil {
			return deleted, clean("sweep", err)
		}
		if len(expired) > 0 {
			q := s.q.sweepDelete + "(?" + strings.Repeat(", ?", len(expired)-1) + ")"
			n, err := s.deleteRows(ctx, q, append([]any{now()}, expired...)...)
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

// expired returns the ids of the expired records among the sweepRows records after last, and
// the id of the last record that it read, or nil at the end of the table.
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

// deleteRows executes a statement that deletes expired rows, and returns how many it deleted.
// The database may roll back one of two concurrent sweeps, which is retried. If the connection
// is lost, rows that the lost try deleted are not counted.
func (s *Store) deleteRows(ctx context.Context, query string, args ...any) (int, error) {
	var n int64
	err := s.retry(ctx, func() error {
		res, err := s.db.ExecContext(ctx, query, args...)
		if err == nil {
			n, err = res.RowsAffected()
		}
		return err
	})
	return int(n), err
}

func tid(page int64) string { return fmt.Sprintf("(%d,0)", page) }
