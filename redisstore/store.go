// Package redisstore stores sessions in Redis 7.0 or later, or Valkey 7.2 or later: in one
// server, in one behind Sentinel, or in a Cluster.
//
// A session is one string, so a load is one GET. Every write is one script that compares the
// version before it replaces the record. The write contains its own new version, so that a
// write that is sent again after a lost reply recognizes that it was already applied. A sorted
// set per user holds the ids of the user's sessions.
//
// Redis must keep what it has acknowledged. If it loses a write, a session that was logged out
// can be live again: see [Store.Check], and [Options].WaitReplicas for failovers.
package redisstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// Options configure a [Store].
type Options struct {
	// Prefix is prepended to all keys: the key of a session is Prefix + "s:" + its id, and that
	// of a user's index is Prefix + "u:" + the user. At most 64 letters, digits and "-._:/";
	// braces are refused because they would put all keys of a Cluster on one node. "":
	// "session:".
	Prefix string

	// WaitReplicas is the number of replicas that must acknowledge a Create of a user's session,
	// a Save of the tombstone of an ended session, and a Delete, so that a failover does not undo
	// them. If fewer acknowledge the write within the deadline of the call or the client's
	// ReadTimeout, the call returns [session.ErrIndeterminate]: with too few replicas every login
	// and logout is answered with 503. Other writes do not wait. The README says what it does not
	// promise. It needs a *redis.Client or a *redis.ClusterClient. 0: no write waits.
	WaitReplicas int
}

// A Store is a [session.Store] in Redis. It needs no sweeping, because Redis removes expired
// sessions.
//
// With a *redis.Client, of one server or behind Sentinel, up to eight commands are sent at once,
// each on its own connection; further ones are sent together, in pipelines. A pipeline has a
// goroutine, which ends at the latest deadline of its callers. The client's hooks see its commands
// in a pipeline, without the values of the callers' contexts.
//
// If the connection fails, a write is tried four times in all. If its outcome is still unknown,
// the write returns [session.ErrIndeterminate]. The client's own retries are never used for
// writes, because they cannot distinguish a write that was applied from a conflict.
type Store struct {
	client   redis.UniversalClient
	group    *group // nil: commands are not grouped
	prefix   string
	replicas int // Options.WaitReplicas
}

var _ session.Store = (*Store)(nil)

// New returns a Store that uses client, which the caller closes. A nil opts means all defaults.
// New sends nothing to the server, and reports every mistake at once.
//
// The client must have ContextTimeoutEnabled, without which a hung server holds a request past
// its deadline. It must not read from replicas, which lag. New checks these rules for a
// *redis.Client, *redis.ClusterClient and *redis.Ring. It accepts other types, and
// FailoverOptions.ReplicaOnly, without a check: the caller must ensure the same rules.
func New(client redis.UniversalClient, opts *Options) (*Store, error) {
	s := &Store{client: client, prefix: "session:"}
	errs := clientRules(client)
	if opts != nil {
		s.prefix, s.replicas = cmp.Or(opts.Prefix, s.prefix), opts.WaitReplicas
	}
	if !isPrefix(s.prefix) {
		errs = append(errs, errors.New(`redisstore: Options.Prefix: must be at most 64 letters, digits and "-._:/"`))
	}
	if s.replicas < 0 {
		errs = append(errs, errors.New("redisstore: Options.WaitReplicas: must not be negative"))
	}
	if s.replicas > 0 && !canWait(client) {
		errs = append(errs, errors.New("redisstore: Options.WaitReplicas: needs a *redis.Client or *redis.ClusterClient"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if c, ok := client.(*redis.Client); ok {
		s.group = newGroup(c)
	}
	return s, nil
}

// clientRules returns the rules that the client violates.
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
			rule(!o.ReadOnly || o.RouteByLatency || o.RouteRandomly, replicas, "ReadOnly") // RouteByLatency and RouteRandomly imply ReadOnly
			rule(!o.RouteByLatency, replicas, "RouteByLatency")
			rule(!o.RouteRandomly, replicas, "RouteRandomly")
		}
	case *redis.Ring:
		if rule(c != nil, none); c != nil {
			heedsDeadlines(c.Options().ContextTimeoutEnabled, "RingOptions")
		}
	case *redis.AutoPipeliner:
		rule(false, "the client is an AutoPipeliner, which ignores deadlines, so a hung server holds requests: pass the client from which it was made")
	}
	return errs
}

func isPrefix(s string) bool {
	return len(s) <= 64 && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._:/", r))
	}) < 0
}

func (s *Store) key(id string) string { return s.prefix + "s:" + id }

// Load implements [session.Store]. It costs one round trip.
func (s *Store) Load(ctx context.Context, id string) (*session.Record, error) {
	reply, _, err := s.send(ctx, resendAlways, "get", s.key(id))
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
