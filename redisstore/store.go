// Package redisstore keeps sessions in Redis 7.0 or later or Valkey 7.2 or
// later: one server, one behind Sentinel, or a Cluster.
//
// A session is one string, so that a load is one GET. Every write is one
// script that compares before it swaps, and names its own version, so that a
// write sent again after a lost reply knows itself. A user's sessions are found
// by a sorted set of the user's own.
//
// What Redis acknowledged it must keep, or a session that was logged out comes
// back: see [Store.Check].
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// Options configure a Store.
type Options struct {
	// Prefix begins the names of all keys: a session's is Prefix + "s:" + its
	// id, a user's index Prefix + "u:" + the user. It is at most 64 letters,
	// digits and "-._:/"; braces would put all keys of a Cluster on one node.
	// "": "session:".
	Prefix string
}

// A Store is a session.Store in Redis. It starts nothing and needs no sweeping:
// Redis forgets expired sessions by itself.
//
// It tries a write again if the connection fails, four times in all, and
// answers session.ErrIndeterminate if it then still cannot say whether the
// write was applied. The client's own retries of a write are never used: they
// cannot tell an applied write from a conflict.
type Store struct {
	client redis.UniversalClient
	prefix string
}

var _ session.Store = (*Store)(nil)

// New returns a Store on a client that stays the caller's to close. A nil opts
// means all defaults. It sends nothing, and reports every mistake at once.
//
// The client must have ContextTimeoutEnabled, without which a hung server
// holds a request past its deadline, and must not read from replicas, which
// lag. New looks into a *redis.Client, *redis.ClusterClient and *redis.Ring.
// It cannot look into anything else, nor see FailoverOptions.ReplicaOnly: such
// a client is accepted, and the same rules are the caller's to keep.
func New(client redis.UniversalClient, opts *Options) (*Store, error) {
	s := &Store{client: client, prefix: "session:"}
	errs := clientRules(client)
	if opts != nil && opts.Prefix != "" {
		s.prefix = opts.Prefix
	}
	if !isPrefix(s.prefix) {
		errs = append(errs, errors.New(`redisstore: Options.Prefix: must be at most 64 letters, digits and "-._:/"`))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return s, nil
}

// clientRules are what sessions demand of a client.
func clientRules(client redis.UniversalClient) (errs []error) {
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("redisstore: "+format, args...))
		}
	}
	heedsDeadlines := func(enabled bool, options string) {
		rule(enabled, "redis.%s.ContextTimeoutEnabled: set it to true, or a hung server holds a request past its deadline", options)
	}
	const none = "the client is nil"
	switch c := client.(type) {
	case nil:
		rule(false, none)
	case *redis.Client:
		if rule(c != nil, none); c != nil {
			heedsDeadlines(c.Options().ContextTimeoutEnabled, "Options")
		}
	case *redis.ClusterClient:
		if rule(c != nil, none); c != nil {
			o := c.Options()
			heedsDeadlines(o.ContextTimeoutEnabled, "ClusterOptions")
			const replicas = "redis.ClusterOptions.%s: set it to false: a replica lags, and shows sessions that have ended"
			rule(!o.ReadOnly || o.RouteByLatency || o.RouteRandomly, replicas, "ReadOnly") // which those two imply
			rule(!o.RouteByLatency, replicas, "RouteByLatency")
			rule(!o.RouteRandomly, replicas, "RouteRandomly")
		}
	case *redis.Ring:
		if rule(c != nil, none); c != nil {
			heedsDeadlines(c.Options().ContextTimeoutEnabled, "RingOptions")
		}
	case *redis.AutoPipeliner:
		rule(false, "the client is an AutoPipeliner, which ignores deadlines, so that a hung server holds requests: pass the client that it was made of")
	}
	return errs
}

func isPrefix(s string) bool {
	return len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._:/", r))
	}) < 0
}

func (s *Store) key(id string) string { return s.prefix + "s:" + id }

// Load implements session.Store. It is one round trip.
func (s *Store) Load(ctx context.Context, id string) (*session.Record, error) {
	reply, _, err := s.send(ctx, always, "get", s.key(id))
	if err != nil {
		return nil, fmt.Errorf("redisstore: load: %w", err)
	}
	stored, ok := reply.(string)
	if !ok {
		return nil, session.ErrNotFound
	}
	r, err := decode(id, stored)
	if err != nil {
		return nil, fmt.Errorf("redisstore: load: %w", err)
	}
	if !time.Now().Before(r.Expires) {
		return nil, session.ErrNotFound
	}
	return r, nil
}
