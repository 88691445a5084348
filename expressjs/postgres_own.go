package expressjs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/coatcheck/session"
	"github.com/jackc/pgx/v5"
)

// Schema returns the statements that create Go's own table, for applications whose role may not.
// They may be executed again. Times are Unix milliseconds.
func (s *PostgresStore) Schema() string {
	return s.table.Replace(`CREATE TABLE IF NOT EXISTS @own (
	sid varchar NOT NULL PRIMARY KEY,
	version bigint,
	sum bytea,
	usr bytea,
	listed bytea,
	created bigint,
	seen bigint,
	deadline bigint,
	expires bigint,
	tombstone bytea,
	exact bytea,
	until bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS @user ON @own (listed);
`)
}

// prepare creates Go's own table if it does not exist.
func (s *PostgresStore) prepare(ctx context.Context) error {
	if s.ready.Load() {
		return nil
	}
	var there bool
	err := s.pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", s.table.Replace("@own")).Scan(&there)
	if err == nil && !there {
		// The lock serializes this: if two processes create a table concurrently, one of them
		// fails.
		_, err = s.pool.Exec(ctx, "SELECT pg_advisory_xact_lock(7310033); "+s.Schema(), pgx.QueryExecModeSimpleProtocol)
	}
	if err != nil {
		return fmt.Errorf("expressjs: Go's own table cannot be created (see PostgresStore.Schema): %w", err)
	}
	s.ready.Store(true)
	return nil
}

// listKey returns the key of a user in the index of users' sessions. The key of a long user is a
// hash, because PostgreSQL indexes at most 2704 bytes. Only Express can log in such a user.
func listKey(user string) []byte {
	const longest = 1024 // bytes, the limit of Session.Login
	if len(user) <= longest {
		return []byte(user)
	}
	sum := sha256.Sum256([]byte(user))
	return sum[:]
}

// index implements place. The row contains the user of the session and no other data of it.
func (s *PostgresStore) index(ctx context.Context, user, id string, lasts time.Time) error {
	if user == "" {
		return nil
	}
	return stated(s.exec(ctx, `INSERT INTO @own AS o (sid, listed, until) VALUES ($1, $2, $3)
		ON CONFLICT (sid) DO UPDATE SET listed = EXCLUDED.listed, until = greatest(o.until, EXCLUDED.until)`, id, listKey(user), lasts.UnixMilli()))
}

// List implements session.Store.
func (s *PostgresStore) List(ctx context.Context, user string) ([]*session.Record, error) {
	if user == "" {
		return nil, nil
	}
	records, err := s.list(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("expressjs: list: %w", explain(err))
	}
	return records, nil
}

func (s *PostgresStore) list(ctx context.Context, user string) ([]*session.Record, error) {
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	var ids []string
	var all []*snapshot
	err := retry(ctx, func() (err error) {
		ids, all, err = s.indexed(ctx, user)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.of(ctx, s, user, ids, all)
}

// indexed returns the ids and the snapshots of the sessions in the list of the user.
func (s *PostgresStore) indexed(ctx context.Context, user string) (ids []string, all []*snapshot, _ error) {
	rows, err := s.pool.Query(ctx, s.table.Replace(`SELECT o.sid, `+state+` FROM @own o JOIN @session s ON s.sid = o.sid WHERE o.listed = $1`), listKey(user))
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		found, err := scan(rows, &id)
		if err != nil {
			return nil, nil, err
		}
		ids, all = append(ids, id), append(all, found)
	}
	return ids, all, rows.Err()
}

// Sweep deletes expired sessions, as connect-pg-simple does, and the rows of Go's own table whose
// sessions no longer exist. It returns the number of sessions that it deleted. Call it every 15
// minutes, in one process or in all.
func (s *PostgresStore) Sweep(ctx context.Context) (int, error) {
	if err := s.prepare(ctx); err != nil {
		return 0, fmt.Errorf("expressjs: sweep: %w", err)
	}
	now := time.Now()
	var n int64
	err := retry(ctx, func() error {
		tag, err := s.pool.Exec(ctx, s.table.Replace(`DELETE FROM @session WHERE expire < to_timestamp($1)`), seconds(now))
		n = tag.RowsAffected()
		return err
	})
	if err == nil {
		err = s.exec(ctx, `DELETE FROM @own o WHERE until < $1 AND NOT EXISTS (SELECT FROM @session s WHERE s.sid = o.sid)`, now.UnixMilli())
	}
	if err != nil {
		return 0, fmt.Errorf("expressjs: sweep: %w", explain(err))
	}
	return int(n), nil
}
