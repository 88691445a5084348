package expressjs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/mistake"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A PostgresStore is a [session.Store] over the table of connect-pg-simple. It replaces a row only
// if the row has not changed since Go read it.
//
// A table of its own contains what only Go stores of a session, and the tombstones: see
// [PostgresStore.Schema]. A load is one round trip, and so is a save of a session that this process
// has loaded.
//
// [PostgresStore.Rights] returns the rights that the role needs. Call [PostgresStore.Sweep] every
// 15 minutes: nothing else deletes the rows of Go's own table whose sessions have ended.
//
// The column expire has no time zone: every connection writes it in its own zone. The connections
// of Go must have the same TimeZone as those of Node. Otherwise sessions live hours too short or
// too long. The command doctor compares the zones.
type PostgresStore struct {
	pool *pgxpool.Pool
	records
	table *strings.Replacer // replaces @session, @own and @user in a statement by quoted names
	ready atomic.Bool
}

var _ session.Store = (*PostgresStore)(nil)

// NewPostgresStore returns a Store on a pool, which the caller has to close. A nil opts means all
// defaults. The error joins every mistake in opts. NewPostgresStore sends no statement: the first
// call of a method creates Go's own table if it does not exist.
func NewPostgresStore(pool *pgxpool.Pool, opts *Options) (*PostgresStore, error) {
	if opts == nil {
		opts = &Options{}
	}
	o, err := opts.resolve()
	if pool == nil {
		err = errors.Join(errors.New("expressjs: NewPostgresStore: the pool is nil"), err)
	}
	if err != nil {
		return nil, err
	}
	names := pgx.Identifier(strings.SplitN(o.Table, ".", 2))
	mine := append(pgx.Identifier(nil), names...)
	last := len(mine) - 1
	mine[last] += "_go"
	return &PostgresStore{pool: pool, records: records{o: o}, table: strings.NewReplacer(
		"@session", names.Sanitize(), "@own", mine.Sanitize(), "@user", pgx.Identifier{mine[last] + "_usr"}.Sanitize(),
	)}, nil
}

// Load implements session.Store.
func (s *PostgresStore) Load(ctx context.Context, id string) (*session.Record, error) {
	return s.load(ctx, s, id)
}

// Create implements session.Store.
func (s *PostgresStore) Create(ctx context.Context, r *session.Record) error {
	return s.create(ctx, s, r)
}

// Save implements session.Store.
func (s *PostgresStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	return s.save(ctx, s, r, old)
}

// Delete implements session.Store.
func (s *PostgresStore) Delete(ctx context.Context, id string) error {
	if !isText(id) {
		return ctx.Err()
	}
	err := s.prepare(ctx)
	if err == nil {
		err = s.exec(ctx, `WITH o AS (DELETE FROM @own WHERE sid = $1) DELETE FROM @session WHERE sid = $1`, id)
	}
	if err != nil {
		return fmt.Errorf("expressjs: delete: %w", stated(err))
	}
	return nil
}

// forget implements place.
func (s *PostgresStore) forget(ctx context.Context, id string, until time.Time) error {
	return stated(s.exec(ctx, `WITH o AS (UPDATE @own SET until = greatest(until, $2) WHERE sid = $1) DELETE FROM @session WHERE sid = $1`, id, until.UnixMilli()))
}

// exec executes a statement, and repeats it if PostgreSQL rolls it back.
func (s *PostgresStore) exec(ctx context.Context, statement string, args ...any) error {
	return retry(ctx, func() error {
		_, err := s.pool.Exec(ctx, s.table.Replace(statement), args...)
		return err
	})
}

// state selects a session: its record as s and what only Go stores as o. The epoch of expire is the
// argument of to_timestamp at Node if the time zones are the same.
const state = `s.sess::text, round(extract(epoch FROM s.expire::timestamptz) * 1000)::bigint,
	o.version, o.sum, o.usr, o.created, o.seen, o.deadline, o.expires, o.tombstone, o.exact`

// scan reads the columns of state.
func scan(row pgx.Row, before ...any) (*snapshot, error) {
	var raw *string
	var expire, version, created, seen, deadline, expires *int64
	var sum, user, tombstone, exact []byte
	all := append(before, &raw, &expire, &version, &sum, &user, &created, &seen, &deadline, &expires, &tombstone, &exact)
	if err := row.Scan(all...); err != nil {
		return nil, err
	}
	found := &snapshot{}
	if raw != nil && expire != nil {
		found.raw, found.expires = []byte(*raw), time.UnixMilli(*expire)
	}
	if version != nil {
		found.own = &own{version: uint64(*version), sum: string(sum), user: string(user),
			created: time.UnixMilli(*created), seen: time.UnixMilli(*seen), deadline: time.UnixMilli(*deadline), expires: time.UnixMilli(*expires),
			tombstone: tombstone, exact: exact, isExact: exact != nil}
	}
	return found, nil
}

// look implements place.
func (s *PostgresStore) look(ctx context.Context, id string) (*snapshot, error) {
	if !isText(id) {
		return &snapshot{}, nil
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	var found *snapshot
	err := retry(ctx, func() (err error) {
		found, err = scan(s.pool.QueryRow(ctx, s.table.Replace(`SELECT `+state+` FROM (SELECT $1::varchar AS sid) k
			LEFT JOIN @session s ON s.sid = k.sid LEFT JOIN @own o ON o.sid = k.sid`), id))
		return err
	})
	return found, explain(err)
}

// swap implements place. It locks the rows first, so that of two writes with equal records the
// second one sees the version of the first.
func (s *PostgresStore) swap(ctx context.Context, id string, found *snapshot, record []byte, w *own, now time.Time) (bool, error) {
	if found.raw == nil && record == nil {
		return false, nil // nothing can replace a tombstone
	}
	var version *int64
	if found.own != nil {
		v := int64(found.own.version)
		version = &v
	}
	until := w.until
	if record != nil {
		until = w.expires // Sweep keeps the row while the record exists
	}
	var exact []byte
	if w.isExact {
		exact = append([]byte{}, w.exact...)
	}
	args := []any{id, version, string(found.raw), string(record), s.o.windowOf(found.raw).Milliseconds(), seconds(now),
		int64(w.version), []byte(w.sum), []byte(w.user), w.created.UnixMilli(), w.seen.UnixMilli(),
		w.deadline.UnixMilli(), w.expires.UnixMilli(), w.tombstone, exact, until.UnixMilli(), w.data, listKey(w.user)}
	var isSwapped bool
	err := retry(ctx, func() (err error) {
		isSwapped, err = s.swapRows(ctx, id, s.table.Replace(swapBegin+changes[found.raw != nil][record != nil]+swapEnd), args)
		return err
	})
	var answer *pgconn.PgError
	if errors.As(err, &answer) && strings.HasPrefix(answer.Code, dataException) {
		return false, mistake.New("expressjs: the session has a value that a column of type jsonb cannot store, such as text with U+0000: %s", answer.Message)
	}
	return isSwapped, stated(err)
}

// swapRows locks the rows of a session and executes the statement, in one transaction.
func (s *PostgresStore) swapRows(ctx context.Context, id, statement string, args []any) (isSwapped bool, err error) {
	var batch pgx.Batch // one implicit transaction
	batch.Queue(s.table.Replace(`SELECT 1 FROM @session WHERE sid = $1 FOR UPDATE`), id)
	batch.Queue(s.table.Replace(`SELECT 1 FROM @own WHERE sid = $1 FOR UPDATE`), id)
	batch.Queue(statement, args...)
	results := s.pool.SendBatch(ctx, &batch)
	var tag pgconn.CommandTag
	for range batch.Len() {
		if tag, err = results.Exec(); err != nil {
			break
		}
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag.RowsAffected() == 1, err
}

// dataException is the class of PostgreSQL errors about values that it cannot store.
const dataException = "22"

// changes are the statements of a swap on the table of Express, by whether there is a record
// before, and whether there is one after. All take the same parameters.
var changes = map[bool]map[bool]string{
	true: {
		true:  `UPDATE @session s SET sess = a.record::json, expire = to_timestamp(a.expires / 1000.0) FROM a WHERE s.sid = a.sid AND s.sess::text = a.found RETURNING s.sess::text AS stored`,
		false: `DELETE FROM @session s USING a WHERE s.sid = a.sid AND s.sess::text = a.found RETURNING a.record AS stored`,
	},
	false: {
		true: `INSERT INTO @session AS s (sid, sess, expire) SELECT sid, record::json, to_timestamp(expires / 1000.0) FROM a
			ON CONFLICT (sid) DO UPDATE SET sess = EXCLUDED.sess, expire = EXCLUDED.expire WHERE s.expire < (SELECT to_timestamp(now) FROM a) RETURNING s.sess::text AS stored`,
	},
}

// PostgreSQL normalizes a record in a column of type jsonb. In this case the statement computes the
// sum of the normalized text, and stores Data in Go's own table, as for a record that does not
// contain all of Data.
//
// LastSeen and Expires only move forward, starting from what a Load would return (see
// records.record), and Expires not past the Deadline. An ended session stays in the list of its
// user: List deletes the record if Express writes it again.
const (
	swapBegin = `WITH x AS (
			SELECT o.seen, o.deadline, o.expires, e.expire, abs(e.expire - o.expires) < 1000 AS ours
			FROM (SELECT sid, round(extract(epoch FROM expire::timestamptz) * 1000)::bigint AS expire FROM @session WHERE sid = $1::varchar AND $3::text <> '') e
			LEFT JOIN @own o ON o.sid = e.sid
		), was AS (
			SELECT greatest(seen, CASE WHEN ours OR expire - $5::bigint > $6::float8 * 1000 THEN NULL ELSE expire - $5::bigint END) AS seen,
				least(deadline, CASE WHEN ours THEN expires ELSE expire END) AS expires FROM x
		), a AS (
			SELECT $1::varchar AS sid, $3::text AS found, $4::text AS record, $6::float8 AS now,
				greatest($11::bigint, (SELECT seen FROM was)) AS seen, least($12::bigint, greatest($13::bigint, (SELECT expires FROM was))) AS expires
			WHERE (SELECT version FROM @own WHERE sid = $1::varchar) IS NOT DISTINCT FROM $2::bigint
		), w AS (`
	swapEnd = `)
		INSERT INTO @own AS o (sid, version, sum, usr, listed, created, seen, deadline, expires, tombstone, exact, until)
		SELECT $1::varchar, $7::bigint, CASE WHEN w.stored = a.record THEN $8::bytea ELSE substring(sha256(convert_to(w.stored, 'UTF8')) FOR 16) END, $9::bytea, $18::bytea, $10::bigint,
			a.seen, $12::bigint, a.expires, $14::bytea, CASE WHEN w.stored = a.record THEN $15::bytea ELSE $17::bytea END, $16::bigint + a.expires - $13::bigint FROM a, w
		ON CONFLICT (sid) DO UPDATE SET version = EXCLUDED.version, sum = EXCLUDED.sum, usr = EXCLUDED.usr, listed = coalesce(nullif(EXCLUDED.listed, ''::bytea), o.listed), created = EXCLUDED.created, seen = EXCLUDED.seen,
			deadline = EXCLUDED.deadline, expires = EXCLUDED.expires, tombstone = EXCLUDED.tombstone, exact = EXCLUDED.exact, until = EXCLUDED.until`
)

// seconds converts a time for to_timestamp. pgx would write a time.Time in the zone of this
// process.
func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// Touch implements session.Store.
func (s *PostgresStore) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	if !isText(id) {
		return session.ErrNotFound
	}
	if err := s.prepare(ctx); err != nil {
		return fmt.Errorf("expressjs: touch: %w", err)
	}
	var raw string
	err := retry(ctx, func() error {
		return s.pool.QueryRow(ctx, s.table.Replace(`WITH a AS (
			SELECT $1::varchar AS sid, least($2::bigint, (SELECT deadline FROM @own WHERE sid = $1::varchar)) AS expires
			WHERE NOT EXISTS (SELECT FROM @own WHERE sid = $1::varchar AND (tombstone IS NOT NULL OR deadline <= $4::float8 * 1000))
		), s AS (
			UPDATE @session s SET expire = greatest(s.expire, to_timestamp(a.expires / 1000.0)::timestamp)
			FROM a WHERE s.sid = a.sid AND s.expire > to_timestamp($4::float8) RETURNING s.sess::text
		), o AS (
			UPDATE @own o SET seen = greatest(o.seen, $3::bigint), expires = greatest(o.expires, a.expires), until = greatest(o.until, a.expires) FROM a WHERE o.sid = a.sid AND EXISTS (SELECT FROM s)
		) SELECT sess FROM s`), id, expires.UnixMilli(), seen.UnixMilli(), seconds(time.Now())).Scan(&raw)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return s.untouched(ctx, s, id)
	case err == nil:
		err = s.touched(ctx, s, id, []byte(raw), expires)
	}
	if err != nil {
		return fmt.Errorf("expressjs: touch: %w", stated(err))
	}
	return nil
}

// isText reports whether PostgreSQL can store an id, which may be chosen by an attacker. No row has
// any other id.
func isText(id string) bool { return utf8.ValidString(id) && strings.IndexByte(id, 0) < 0 }

// stated marks the error of a write that PostgreSQL may have executed as session.ErrIndeterminate.
func stated(err error) error {
	var answer *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case err == nil, errors.As(err, &answer), errors.As(err, &connect), pgconn.SafeToRetry(err), errors.Is(err, session.ErrIndeterminate):
		return explain(err)
	}
	return fmt.Errorf("%w: %w", session.ErrIndeterminate, err)
}
