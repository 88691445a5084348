package expressjs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
)

// redisCommands are the commands that a RedisStore and its scripts send, as rules of an ACL.
// The commands that go-redis sends when it connects need no rule: AUTH is always allowed, and
// go-redis continues without the others.
const redisCommands = "+eval +evalsha +get +getrange +mget +set +setrange +del +pexpire +pttl +zadd +zrange +zscore +zremrangebyscore"

// Rights returns the rules for ACL SETUSER that allow the Redis user of the Go service all that
// the store needs, and nothing else. A client of a Cluster also needs +cluster|slots, and a
// client of another database than 0 also needs +select.
func (s *RedisStore) Rights() string {
	return "~" + globEscape(s.o.Prefix) + "* ~" + ownPrefix + "* " + redisCommands
}

// globEscape returns the pattern of Redis that only text matches.
func globEscape(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(text)
}

// Rights returns the statements that allow a role of PostgreSQL all that the store needs. They
// can be executed when Go's own table exists: see [PostgresStore.Schema].
func (s *PostgresStore) Rights(role string) string {
	to := " TO " + pgx.Identifier{role}.Sanitize() + ";\n"
	all := s.table.Replace("GRANT SELECT, INSERT, UPDATE, DELETE ON @session, @own") + to
	if schema, _, ok := strings.Cut(s.o.Table, "."); ok {
		all = "GRANT USAGE ON SCHEMA " + pgx.Identifier{schema}.Sanitize() + to + all
	}
	return all
}

// explain names, in an error about a missing right, the method that lists all rights.
func explain(err error) error {
	var reply redis.Error
	var answer *pgconn.PgError
	const insufficientPrivilege = "42501"
	switch {
	case errors.As(err, &reply) && (strings.HasPrefix(reply.Error(), "NOPERM") || strings.Contains(reply.Error(), "The user executing the script can't")):
		return fmt.Errorf("%w (a right of the Redis user is missing: RedisStore.Rights lists all)", err)
	case errors.As(err, &answer) && answer.Code == insufficientPrivilege:
		return fmt.Errorf("%w (a right of the role is missing: PostgresStore.Rights lists all)", err)
	}
	return err
}
