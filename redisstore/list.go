package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// A user's index is a sorted set of session ids, scored by Deadline. Every live
// session of the user is in it: an entry is written before its session, and
// removed when the session is known to be gone for good, or past its Deadline.
// An entry without a record is no reason: the record may be on its way, from a
// Create between its two steps.

// grace is for how long past its Deadline an entry stays, because the clocks of
// several machines differ.
const grace = time.Minute

func (s *Store) indexKey(user string) string { return s.prefix + "u:" + user }

// index enters a session into its user's index, or moves it there.
func (s *Store) index(ctx context.Context, r *session.Record, now time.Time) error {
	_, _, err := s.run(ctx, always, indexScript, s.indexKey(r.User),
		r.ID, r.Deadline.UnixMilli(), now.Add(-grace).UnixMilli(), life(r.Deadline.Add(grace), now))
	return err
}

// forget removes a session that is gone from its user's index. An id never
// comes back, so it may come late; and if it fails, List skips the entry.
func (s *Store) forget(ctx context.Context, user, id string) {
	_, _, _ = s.send(ctx, always, "zrem", s.indexKey(user), id)
}

// List implements session.Store. It is one round trip for the index and one
// for each hundred of its entries, on each node of a Cluster. A corrupt record
// among them is an error: to skip it might hide a session from a revocation.
func (s *Store) List(ctx context.Context, user string) ([]*session.Record, error) {
	if err := ctx.Err(); err != nil || user == "" {
		return nil, err
	}
	reply, _, err := s.send(ctx, always, "zrange", s.indexKey(user), 0, -1)
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

// loadAll appends the live records among these ids that are the user's.
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

// tidy removes the entries that are past their Deadline, and these only.
func (s *Store) tidy(ctx context.Context, user string) {
	before := fmt.Sprintf("(%d", time.Now().Add(-grace).UnixMilli())
	_, _, _ = s.send(ctx, always, "zremrangebyscore", s.indexKey(user), "-inf", before)
}
