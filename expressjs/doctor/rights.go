package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/coatcheck/session/expressjs"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
)

// probes returns, for each rule of RedisStore.Rights, a call of the command that changes nothing
// because its key does not exist.
var probes = map[string]func(key string) []any{
	"+eval":             func(key string) []any { return []any{"EVAL", "return 1", 1, key} },
	"+evalsha":          func(key string) []any { return []any{"EVALSHA", strings.Repeat("0", 40), 1, key} },
	"+get":              func(key string) []any { return []any{"GET", key} },
	"+getrange":         func(key string) []any { return []any{"GETRANGE", key, 0, 1} },
	"+mget":             func(key string) []any { return []any{"MGET", key} },
	"+set":              func(key string) []any { return []any{"SET", key, "", "XX"} },
	"+setrange":         func(key string) []any { return []any{"SETRANGE", key, 0, ""} },
	"+del":              func(key string) []any { return []any{"DEL", key} },
	"+pexpire":          func(key string) []any { return []any{"PEXPIRE", key, 1} },
	"+pttl":             func(key string) []any { return []any{"PTTL", key} },
	"+zadd":             func(key string) []any { return []any{"ZADD", key, "XX", 0, ""} },
	"+zrange":           func(key string) []any { return []any{"ZRANGE", key, 0, 0} },
	"+zscore":           func(key string) []any { return []any{"ZSCORE", key, ""} },
	"+zremrangebyscore": func(key string) []any { return []any{"ZREMRANGEBYSCORE", key, 0, 0} },
}

// redisRights checks the rights of the Redis user, and reports whether the user may read records.
func (e *examination) redisRights(ctx context.Context, client *redis.Client, user string) (mayRead bool, _ error) {
	store, err := expressjs.NewRedisStore(client, &expressjs.Options{Prefix: e.app.prefix})
	if err != nil {
		return true, nil // e.advise reports the prefix
	}
	rights := strings.Fields(store.Rights())
	lacking := map[string][]string{}   // commands by prefix of the keys
	missing := "doctor-" + rand.Text() // no key has this random suffix
	mayRead = true
	for _, right := range rights {
		probe, ok := probes[right]
		if !ok {
			continue // a pattern of keys, which the probes check
		}
		for _, place := range []string{e.app.prefix, "go-session:"} {
			err := client.Do(ctx, probe(place+missing)...).Err()
			switch {
			case err == nil, err == redis.Nil, strings.HasPrefix(err.Error(), "NOSCRIPT"):
			case strings.HasPrefix(err.Error(), "NOPERM"):
				lacking[place] = append(lacking[place], strings.TrimPrefix(right, "+"))
				mayRead = mayRead && (place != e.app.prefix || right != "+get" && right != "+pttl")
			default:
				return false, fmt.Errorf("%s: %w", strings.TrimPrefix(right, "+"), err)
			}
		}
	}
	if user == "" {
		user = "default"
	}
	if len(lacking) > 0 {
		var all []string
		for _, place := range []string{e.app.prefix, "go-session:"} {
			if commands := lacking[place]; len(commands) > 0 {
				all = append(all, fmt.Sprintf("%s on %s*", strings.Join(commands, ", "), place))
			}
		}
		e.problem("this Redis user may not %s: Go would answer each request with 503. Set the rights: ACL SETUSER %s %s", strings.Join(all, ", nor "), user, store.Rights())
		return mayRead, nil
	}
	e.ok("this Redis user has the rights that Go needs: %s", store.Rights())
	e.checked = append(e.checked, "the rights of this Redis user")
	return true, nil
}

// postgresRights checks the rights of the role, and reports whether the role may read records.
func (e *examination) postgresRights(ctx context.Context, pool *pgxpool.Pool) (mayRead bool, _ error) {
	store, err := expressjs.NewPostgresStore(pool, &expressjs.Options{Table: e.app.table})
	if err != nil {
		return true, nil // e.advise reports the error
	}
	schema, name, isQualified := strings.Cut(e.app.table, ".")
	theirs, ours := pgx.Identifier{e.app.table}, pgx.Identifier{e.app.table + "_go"}
	if isQualified {
		theirs, ours = pgx.Identifier{schema, name}, pgx.Identifier{schema, name + "_go"}
	}
	var role, lacking string
	var isThere, isOursThere, mayMake bool
	err = pool.QueryRow(ctx, `SELECT current_user, to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL,
		coalesce(has_schema_privilege(to_regnamespace(quote_ident(CASE WHEN $3 = '' THEN current_schema()::text ELSE $3 END)), 'CREATE'), false),
		coalesce((SELECT string_agg(p || ' on ' || t, ', ') FROM unnest(ARRAY[$1, $2]) t, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p
			WHERE to_regclass(t) IS NOT NULL AND NOT has_table_privilege(to_regclass(t), p)), '')`,
		theirs.Sanitize(), ours.Sanitize(), map[bool]string{true: schema}[isQualified]).Scan(&role, &isThere, &isOursThere, &mayMake, &lacking)
	if err != nil {
		return false, err
	}
	rights := strings.ReplaceAll(strings.TrimSpace(store.Rights(role)), "\n", " ")
	switch {
	case !isThere:
		e.problem("there is no table %s for this role: if connect-pg-simple has a tableName or schemaName, run this again with -table app.session", e.app.table)
		return false, nil
	case lacking != "":
		e.problem("this role may not %s: Go would answer each request with 503. Set the rights: %s", lacking, rights)
		return !strings.Contains(lacking, "SELECT on "+theirs.Sanitize()), nil
	case !isOursThere && !mayMake:
		e.problem("Go's own table %s does not exist, and this role may not create it. Execute as the owner of the schema: %s %s", ours.Sanitize(), strings.Join(strings.Fields(store.Schema()), " "), rights)
		return true, nil
	}
	e.ok("this role has the rights that Go needs: %s", rights)
	e.checked = append(e.checked, "the rights of this role")
	return true, nil
}
