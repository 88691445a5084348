package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// stored is what there is of a session.
type stored struct {
	record string
	ends   time.Time // zero: never
	zone   string    // of the database's connection; "" for Redis
}

// redis looks for the record in Redis.
func (e *examination) redis(ctx context.Context, address, prefix, id string) (*stored, error) {
	o, err := redis.ParseURL(address)
	if err != nil {
		return nil, errors.New("-redis: not a URL such as redis://localhost:6379")
	}
	client := redis.NewClient(o)
	defer client.Close()
	kind, err := client.Type(ctx, prefix+id).Result()
	if err != nil {
		return nil, err
	}
	switch kind {
	case "string":
	case "none":
		return nil, e.elsewhere(ctx, client, prefix, id)
	default:
		e.problem("the key %s%s is a %s, and connect-redis writes strings: something else uses the prefix", prefix, short(id), kind)
		return nil, nil
	}
	record, err := client.Get(ctx, prefix+id).Result()
	if err != nil {
		return nil, err
	}
	life, err := client.PTTL(ctx, prefix+id).Result()
	if err != nil {
		return nil, err
	}
	e.ok("the record is there, under the prefix %q, with %d bytes", prefix, len(record))
	found := &stored{record: record}
	if life >= 0 {
		found.ends = time.Now().Add(life)
	}
	return found, nil
}

// elsewhere looks whether the record is there under another prefix.
func (e *examination) elsewhere(ctx context.Context, client *redis.Client, prefix, id string) error {
	if kind, err := client.GetRange(ctx, "go-session:s:{"+prefix+id+"}", 40, 40).Result(); err != nil {
		return err
	} else if kind == "\x01" { // a tombstone's
		e.note("there is no record: Go has ended this session in the last minute")
		return nil
	}
	pattern := "*" + strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`).Replace(id)
	var cursor uint64
	for range 1000 {
		keys, next, err := client.Scan(ctx, cursor, pattern, 1000).Result()
		if err != nil {
			return err
		}
		for _, key := range keys {
			if !strings.HasPrefix(key, "go-session:") {
				e.problem("the record is under the prefix %q, not %q: set expressjs.Options.Prefix to it", strings.TrimSuffix(key, id), prefix)
				return nil
			}
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	e.problem("there is no record of this id, under whatever prefix: the session has ended or its time was up (then log in again and take the new cookie), or the Express app uses another Redis, or another of its databases")
	return nil
}

// postgres looks for the record in PostgreSQL.
func (e *examination) postgres(ctx context.Context, address, table, id string) (*stored, error) {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	var found stored
	var ms int64
	if err := conn.QueryRow(ctx, "SHOW TimeZone").Scan(&found.zone); err != nil {
		return nil, err
	}
	name := pgx.Identifier(strings.SplitN(table, ".", 2)).Sanitize()
	err = conn.QueryRow(ctx, "SELECT sess::text, round(extract(epoch FROM expire::timestamptz) * 1000)::bigint FROM "+name+" WHERE sid = $1", id).Scan(&found.record, &ms)
	if errors.Is(err, pgx.ErrNoRows) {
		e.problem("there is no row of this id in %s: the session has ended or its time was up (then log in again and take the new cookie), or the Express app has another database, schemaName or tableName", table)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found.ends = time.UnixMilli(ms)
	e.ok("the row is there, in %s, with %d bytes", table, len(found.record))
	return &found, nil
}
