package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
)

// stored is the record of a session and its end.
type stored struct {
	record string
	ends   time.Time // zero: never
	zone   string    // TimeZone of the database connection; "" for Redis
}

// redis loads the record from Redis. If there is no record to examine, redis prints why and
// returns nil.
func (e *examination) redis(ctx context.Context, address, id string) (*stored, error) {
	o, err := redis.ParseURL(address)
	if err != nil {
		return nil, errors.New("-redis: not a URL such as redis://localhost:6379")
	}
	redis.SetLogger(silence{})
	client := redis.NewClient(o)
	defer client.Close()
	if may, err := e.redisRights(ctx, client, o.Username); err != nil || !may {
		return nil, err
	}
	record, err := client.Get(ctx, e.app.prefix+id).Result()
	if err == redis.Nil {
		if isThere, err := e.elsewhere(ctx, client, id); err != nil || !isThere {
			return nil, err
		}
		record, err = client.Get(ctx, e.app.prefix+id).Result()
	}
	if err != nil && strings.HasPrefix(err.Error(), "WRONGTYPE") {
		e.problem("the key %s%s is not a string, as connect-redis writes: another program uses the prefix", e.app.prefix, short(id))
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	now := time.Now()
	life, err := client.PTTL(ctx, e.app.prefix+id).Result()
	if err != nil {
		return nil, err
	}
	e.ok("the record exists, under the prefix %q, with %d bytes", e.app.prefix, len(record))
	if e.app.prefix == "" {
		e.problem(`the prefix "" cannot be shared: the app's store.clear() would delete Go's own keys. Give connect-redis another prefix, and rename the existing keys, or all users are logged out`)
	}
	found := &stored{record: record}
	if life >= 0 {
		found.ends = now.Add(life)
	}
	return found, nil
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// elsewhere looks for the record under other prefixes. If there is one, elsewhere sets e.app.prefix
// and returns true.
func (e *examination) elsewhere(ctx context.Context, client *redis.Client, id string) (isThere bool, _ error) {
	const kindAt, isTombstone = 40, "\x01"
	if kind, err := client.GetRange(ctx, "go-session:s:{"+e.app.prefix+id+"}", kindAt, kindAt).Result(); err != nil {
		return false, err
	} else if kind == isTombstone {
		e.note("there is no record to examine: Go has ended this session. Log in again and use the new cookie")
		return false, nil
	}
	pattern := "*" + strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`).Replace(id)
	var cursor uint64
	for range 1000 {
		keys, next, err := client.Scan(ctx, cursor, pattern, 1000).Result()
		if err != nil && strings.HasPrefix(err.Error(), "NOPERM") {
			e.problem("there is no record of this id under the prefix %q, and this Redis user may not SCAN for others: if connect-redis has a prefix, such as shop:, run this again with -prefix shop:", e.app.prefix)
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, key := range keys {
			if !strings.HasPrefix(key, "go-session:") {
				prefix := strings.TrimSuffix(key, id)
				e.problem("the record is under the prefix %q, not %q: set it in expressjs.Options.Prefix, and for this command by -prefix %s. The following lines are about that record", prefix, e.app.prefix, argument(prefix))
				e.app.prefix = prefix
				return true, nil
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	e.problem("there is no record of this id, under any prefix: the session has ended or expired (log in again and use the new cookie), or the Express app uses another Redis or another database of it")
	return false, nil
}

// argument returns text quoted for a shell.
func argument(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:._-/") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// postgres loads the record from PostgreSQL, as redis does.
func (e *examination) postgres(ctx context.Context, address, id string) (*stored, error) {
	pool, err := pgxpool.New(ctx, address)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	var found stored
	if err := pool.QueryRow(ctx, "SHOW TimeZone").Scan(&found.zone); err != nil {
		return nil, err
	}
	if may, err := e.postgresRights(ctx, pool); err != nil || !may {
		return nil, err
	}
	var ms int64
	name := pgx.Identifier(strings.SplitN(e.app.table, ".", 2)).Sanitize()
	err = pool.QueryRow(ctx, "SELECT sess::text, round(extract(epoch FROM expire::timestamptz) * 1000)::bigint FROM "+name+" WHERE sid = $1", id).Scan(&found.record, &ms)
	if errors.Is(err, pgx.ErrNoRows) {
		e.problem("there is no row of this id in %s: the session has ended or expired (log in again and use the new cookie), or the Express app has another database, schemaName or tableName (-table %s)", e.app.table, "app.session")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found.ends = time.UnixMilli(ms)
	e.ok("the row is there, in %s, with %d bytes", e.app.table, len(found.record))
	return &found, nil
}
