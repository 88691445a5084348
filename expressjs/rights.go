package expressjs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"
)

// redisCommands are what a RedisStore sends, and what its scripts call, as an ACL names
// them. A client sends commands of its own besides, when it connects: AUTH, which needs no
// right, and others without which go-redis goes on.
const redisCommands = "+eval +evalsha +get +getrange +mget +set +setrange +del +pexpire +pttl +zadd +zrange +zscore +zremrangebyscore"

// Rights returns what Go's Redis user must be allowed, as rules for ACL SETUSER: all that
// the store needs, and nothing else. A client of a Cluster also needs +cluster|slots and
// +command, and one of another database than 0 +select.
func (s *RedisStore) Rights() string {
	return "~" + globEscape(s.o.Prefix) + "* ~" + ownPrefix + "* " + redisCommands
}

// globEscape returns a pattern that only this text matches.
func globEscape(text string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(text)
}

// Rights returns the statements that allow a role of PostgreSQL what the store needs, once
// Go's own table is there: see [PostgresStore.Schema].
func (s *PostgresStore) Rights(role string) string {
	to := " TO " + pgx.Identifier{role}.Sanitize() + ";\n"
	all := s.table.Replace("GRANT SELECT, INSERT, UPDATE, DELETE ON @session, @own") + to
	if schema, _, ok := strings.Cut(s.o.Table, "."); ok {
		all = "GRANT USAGE ON SCHEMA " + pgx.Identifier{schema}.Sanitize() + to + all
	}
	return all
}

// explain adds to an error that says that a right is missing where all of them are listed.
func explain(err error) error {
	var reply redis.Error
	var answer *pgconn.PgError
	const insufficientPrivilege = "42501"
	switch {
	case errors.As(err, &reply) && (strings.HasPrefix(reply.Error(), "NOPERM") || strings.Contains(reply.Error(), "The user executing the script can't")):
		return fmt.Errorf("%w (the Redis user lacks a right: RedisStore.Rights lists all)", err)
	case errors.As(err, &answer) && answer.Code == insufficientPrivilege:
		return fmt.Errorf("%w (the role lacks a right: PostgresStore.Rights lists all)", err)
	}
	return err
}
