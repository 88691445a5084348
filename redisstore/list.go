package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// A user's index is a sorted set of session ids, scored by Deadline. It contains every live
// session of the user: the entry is written before the record, and is removed only when the
// session has ended for good or is past its Deadline. The absence of the record is no reason to
// remove an entry, because Create may be between its two steps.

// grace is the time that an entry is kept after its Deadline, because the clocks of several
// machines differ.
const grace = time.Minute

func (s *Store) indexKey(user string) string { return s.prefix + "u:" + user }

// index adds the session to the index of its user, or moves its entry to r.Deadline.
func (s *Store) index(ctx context.Context, p policy, r *session.Record, now time.Time) error {
	_, unknown, err := s.run(ctx, p, indexScript, s.indexKey(r.User),
		r.ID, r.Deadline.UnixMilli(), now.Add(-grace).UnixMilli(), life(r.Deadline.Add(grace), now))
	if err != nil && unknown && p&awaitReplicas != 0 {
		return fmt.Errorf("%w: %w", session.ErrIndeterminate, err)
	}
	return err
}

// forget removes an ended session from the index of its user. An id is never created again, so
// a late removal is harmless. If the removal fails, List skips the entry.
func (s *Store) forget(ctx context.Context, user, id string) {
	_, _, _ = s.send(ctx, resendAlways, "zrem", s.indexKey(user), id)
}

// List implements [session.Store]. It costs one round trip for the index and one for each
// hundred of its entries, on each node of a Cluster. A corrupt record among them is an error,
// because skipping the record could hide a session from a revocation.
func (s *Store) List(ctx context.Context, user string) ([]*session.Record, error) {
	if err := ctx.Err(); err != nil || user == "" {
		return nil, err
	}
	reply, _, err := s.send(ctx, resendAlways, "zrange", s.indexKey(user), 0, -1)
	if err != nil {
		return nil, fmt.Errorf("redisstore: list: %w", err)
	}
	entries, _ := reply.([]any)
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		if id, ok := e.(string); ok {
			ids = append(ids, id)
		}
	}
	var records []*session.Record
	for rest := ids; len(rest) > 0; {
		n := min(len(rest), 100)
		if records, err = s.loadAll(ctx, records, user, rest[:n]); err != nil {
			return nil, fmt.Errorf("redisstore: list: %w", err)
		}
		rest = rest[n:]
	}
	if len(records) < len(ids) {
		s.tidy(ctx, user)
	}
	return records, nil
}

// loadAll appends to records the live sessions of the user among ids.
func (s *Store) loadAll(ctx context.Context, records []*session.Record, user string, ids []string) ([]*session.Record, error) {
	pipe := s.client.Pipeline()
	replies := make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		replies[i] = pipe.Get(ctx, s.key(id))
	}
	_, _ = pipe.Exec(ctx) // each reply has its own error
	now := time.Now()
	for i, id := range ids {
		stored, err := replies[i].Result()
		if err == redis.Nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		r, err := decode(id, stored)
		if err != nil {
			return nil, err
		}
		if r.User == user && now.Before(r.Expires) {
			records = append(records, r)
		}
	}
	return records, nil
}

// tidy removes the entries that are past their Deadline, and no other.
func (s *Store) tidy(ctx context.Context, user string) {
	before := fmt.Sprintf("(%d", time.Now().Add(-grace).UnixMilli())
	_, _, _ = s.send(ctx, resendAlways, "zremrangebyscore", s.indexKey(user), "-inf", before)
}
