package expressjs_test

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
)

// A clock moves time forward for stored sessions without waiting: it sets back all their stored
// times by d, also those that only Go stores.
type clock func(d time.Duration)

// forever is the absolute end of a session that Express made; a clock does not change it.
const forever = 253402300799999

// redisClock is the clock of a Redis with the prefix of connect-redis.
func redisClock(t *testing.T, client *redis.Client) clock {
	return func(d time.Duration) {
		t.Helper()
		ctx := context.Background()
		keys, err := client.Keys(ctx, "*").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			life, err := client.PTTL(ctx, key).Result()
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case life < 0: // the key has no end, or has just expired
			case life <= d:
				err = client.Del(ctx, key).Err()
			default:
				err = client.PExpire(ctx, key, life-d).Err()
			}
			if err == nil && strings.HasPrefix(key, "go-session:s:") && life > d {
				err = setBack(ctx, client, key, d)
			}
			if err == nil && strings.HasPrefix(key, "go-session:u:") && life > d {
				var all []redis.Z
				all, err = client.ZRangeWithScores(ctx, key, 0, -1).Result()
				for i := range all {
					all[i].Score -= float64(d.Milliseconds())
				}
				if err == nil && len(all) > 0 {
					err = client.ZAdd(ctx, key, all...).Err()
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// setBack sets back the four times that only Go stores of a session: created, seen, the absolute
// end and the idle end.
func setBack(ctx context.Context, client *redis.Client, key string, d time.Duration) error {
	const first, n = 8, 4
	packed, err := client.GetRange(ctx, key, first, first+8*n-1).Bytes()
	if err != nil {
		return err
	}
	var moved []byte
	for at := range slices.Chunk(packed, 8) {
		ms := binary.BigEndian.Uint64(at)
		if ms != forever {
			ms -= uint64(d.Milliseconds())
		}
		moved = binary.BigEndian.AppendUint64(moved, ms)
	}
	return client.SetRange(ctx, key, first, string(moved)).Err()
}

// postgresClock is the clock of a PostgreSQL with the table of connect-pg-simple.
func postgresClock(t *testing.T, pool *pgxpool.Pool) clock {
	return func(d time.Duration) {
		t.Helper()
		for statement, args := range map[string][]any{
			`UPDATE "session" SET expire = expire - $1::bigint * interval '1 millisecond'`: {d.Milliseconds()},
			`UPDATE session_go SET created = created - $1::bigint, seen = seen - $1::bigint, expires = expires - $1::bigint, until = until - $1::bigint,
				deadline = CASE WHEN deadline = $2::bigint THEN deadline ELSE deadline - $1::bigint END`: {d.Milliseconds(), int64(forever)},
		} {
			if _, err := pool.Exec(context.Background(), statement, args...); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// clocked returns a function that starts a server for sessions, and sets pass to its clock.
func clocked(isPostgres bool, pass *clock) func(*testing.T, expressjs.Options) (session.Store, string) {
	return func(t *testing.T, o expressjs.Options) (session.Store, string) {
		if isPostgres {
			store, pool := postgresStore(t, o)
			if _, err := pool.Exec(t.Context(), store.Schema()); err != nil {
				t.Fatal(err)
			}
			*pass = postgresClock(t, pool)
			return store, "POSTGRES=" + pool.Config().ConnString()
		}
		store, client := redisStore(t, o)
		*pass = redisClock(t, client)
		return store, "REDIS=redis://" + client.Options().Addr
	}
}
