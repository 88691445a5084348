package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// Create implements session.Store. It is one round trip, or two with a user:
// the user's index is written before the session, so that every live session
// is in it.
func (s *Store) Create(ctx context.Context, r *session.Record) error {
	now := time.Now()
	if r.User != "" && now.Before(r.Expires) {
		if err := s.index(ctx, r, now); err != nil {
			return fmt.Errorf("redisstore: create: the user's index: %w", err)
		}
	}
	reply, unknown, err := s.run(ctx, ifHungUp, createScript, s.key(r.ID), encode(r), now.UnixMilli(), life(r.Expires, now))
	_, err = answer("create", reply, unknown, err)
	return err
}

// Save implements session.Store. It is one round trip; three if it moves the
// Deadline of a user's session, for the index goes first; two if it clears the
// user, whose index forgets the session afterwards.
//
// While memory is full (maxmemory with noeviction) a record may still be
// replaced by a smaller one: a logout never fails for want of memory.
func (s *Store) Save(ctx context.Context, r *session.Record, old uint64) error {
	now := time.Now()
	indexed := 0
	if r.User == "" {
		indexed = 1 // there is no index to write
	}
	args := func() []any {
		return []any{encode(r), now.UnixMilli(), version(old), indexed}
	}
	reply, unknown, err := s.run(ctx, always, saveScript, s.key(r.ID), args()...)
	if err == nil && reply == int64(indexFirst) {
		// The record has the old version still: no try of ours was applied.
		if err := s.index(ctx, r, now); err != nil {
			return fmt.Errorf("redisstore: save: the user's index: %w", err)
		}
		indexed = 1
		reply, unknown, err = s.run(ctx, always, saveScript, s.key(r.ID), args()...)
	}
	if redis.HasErrorPrefix(err, "OOM") {
		full := err
		var still bool
		reply, still, err = s.run(ctx, always, shrinkScript, s.key(r.ID), append(args(), tombstoneRoom)...)
		unknown = unknown || still
		if err == nil && reply == int64(grows) {
			reply, err = nil, full
		}
	}
	user, err := answer("save", reply, unknown, err)
	if err == nil && user != "" {
		s.forget(ctx, user, r.ID)
	}
	return err
}

// Touch implements session.Store. It is one round trip and needs no memory.
func (s *Store) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	reply, unknown, err := s.run(ctx, always, touchScript, s.key(id),
		newClock(id, seenClock, seen), newClock(id, endClock, expires), time.Now().UnixMilli())
	if err == nil {
		unknown = false // what it answers is right, whether or not it was that try that did it
	}
	_, err = answer("touch", reply, unknown, err)
	return err
}

// Delete implements session.Store. It is one round trip, and for a user's
// session a second one for the index. It needs no memory.
func (s *Store) Delete(ctx context.Context, id string) error {
	reply, unknown, err := s.send(ctx, always, "getdel", s.key(id))
	if err != nil {
		_, err = answer("delete", nil, unknown, err)
		return err
	}
	if stored, ok := reply.(string); ok {
		if r, err := decode(id, stored); err == nil && r.User != "" {
			s.forget(ctx, r.User, id)
		}
	}
	return nil
}

// answer is what a script's reply means to the caller of a write, and the user
// whom a save has cleared.
func answer(call string, reply any, unknown bool, err error) (user string, _ error) {
	switch {
	case err != nil && unknown:
		return "", fmt.Errorf("redisstore: %s: %w: %w", call, session.ErrIndeterminate, err)
	case err != nil:
		return "", fmt.Errorf("redisstore: %s: %w", call, err)
	case reply == int64(done):
		return "", nil
	}
	if user, ok := reply.(string); ok {
		return user, nil
	}
	// A try whose reply was lost may have been applied, and what it wrote may
	// be gone again: nothing that is so now says that it was not.
	if unknown {
		return "", fmt.Errorf("redisstore: %s: %w: a reply was lost, and the record is another one now", call, session.ErrIndeterminate)
	}
	switch reply {
	case int64(conflict):
		return "", session.ErrConflict
	case int64(missing):
		return "", session.ErrNotFound
	case int64(exists):
		return "", session.ErrExists
	case int64(corrupt):
		return "", fmt.Errorf("redisstore: %s: %w", call, errCorrupt)
	}
	return "", fmt.Errorf("redisstore: %s: %w: the server answered %v", call, session.ErrIndeterminate, reply)
}

// life is what is left until t, in milliseconds, as Redis takes it. saveScript has
// the same limit.
func life(t, now time.Time) int64 {
	const longest = 1 << 50 // 35 000 years: Redis adds it to its own clock
	return min(t.UnixMilli()-now.UnixMilli(), longest)
}
