package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/redis/go-redis/v9"
)

// Create implements [session.Store]. It costs one round trip for an anonymous session and two
// for a user's: the index of the user is written before the session, so that the index contains
// every live session.
func (s *Store) Create(ctx context.Context, r *session.Record) error {
	now := time.Now()
	wait := s.await(r.User != "")
	if r.User != "" && now.Before(r.Expires) {
		ofIndex := resendAlways
		if _, ok := s.client.(*redis.ClusterClient); ok {
			ofIndex |= wait // elsewhere the later write, of the session, waits for both
		}
		if err := s.index(ctx, ofIndex, r, now); err != nil {
			return fmt.Errorf("redisstore: create: the user's index: %w", err)
		}
	}
	reply, unknown, err := s.run(ctx, resendIfClosed|wait, createScript, s.key(r.ID), encode(r), now.UnixMilli(), life(r.Expires, now))
	_, err = answer("create", reply, unknown, err)
	return err
}

// Save implements [session.Store]. It costs one round trip; three if it moves the Deadline of a
// user's session, because the index is written first; two if it clears the user, because the
// session is removed from the index afterwards.
//
// While memory is full (maxmemory with noeviction) a record can still be replaced by a smaller
// one, so that a logout does not fail for lack of memory.
func (s *Store) Save(ctx context.Context, r *session.Record, old uint64) error {
	now := time.Now()
	indexed := 0
	if r.User == "" {
		indexed = 1 // an anonymous session is in no index
	}
	args := func() []any {
		return []any{encode(r), now.UnixMilli(), version(old), indexed}
	}
	wait := s.await(body.IsTombstone(r.Data))
	reply, unknown, err := s.run(ctx, resendAlways|wait, saveScript, s.key(r.ID), args()...)
	if err == nil && reply == int64(replyIndexFirst) {
		// The stored record still has the old version: no try of this save was applied.
		if err := s.index(ctx, resendAlways, r, now); err != nil {
			return fmt.Errorf("redisstore: save: the user's index: %w", err)
		}
		indexed = 1
		reply, unknown, err = s.run(ctx, resendAlways|wait, saveScript, s.key(r.ID), args()...)
	}
	if redis.HasErrorPrefix(err, "OOM") {
		full := err
		var still bool
		reply, still, err = s.run(ctx, resendAlways|wait, shrinkScript, s.key(r.ID), append(args(), tombstoneRoom)...)
		unknown = unknown || still
		if err == nil && reply == int64(replyGrows) {
			reply, err = nil, full
		}
	}
	user, err := answer("save", reply, unknown, err)
	if err == nil && user != "" {
		s.forget(ctx, user, r.ID)
	}
	return err
}

// Touch implements [session.Store]. It costs one round trip and needs no memory.
func (s *Store) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	reply, unknown, err := s.run(ctx, resendAlways, touchScript, s.key(id),
		newClock(id, seenClock, seen), newClock(id, endClock, expires), time.Now().UnixMilli())
	if err == nil {
		unknown = false // the reply is correct even if an earlier try did the touch
	}
	_, err = answer("touch", reply, unknown, err)
	return err
}

// Delete implements [session.Store]. It costs one round trip, and for a user's session a second
// one for the index. It needs no memory.
func (s *Store) Delete(ctx context.Context, id string) error {
	var reply any
	var unknown bool
	var err error
	if wait := s.await(true); wait != 0 {
		reply, unknown, err = s.run(ctx, resendAlways|wait, deleteScript, s.key(id))
	} else {
		reply, unknown, err = s.send(ctx, resendAlways, "getdel", s.key(id))
	}
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

// answer converts the reply of a script to the result of a write. user is the previous user if
// a save has cleared it.
func answer(call string, reply any, unknown bool, err error) (user string, _ error) {
	switch {
	case err != nil && unknown:
		return "", fmt.Errorf("redisstore: %s: %w: %w", call, session.ErrIndeterminate, err)
	case err != nil:
		return "", fmt.Errorf("redisstore: %s: %w", call, err)
	case reply == int64(replyDone):
		return "", nil
	}
	if user, ok := reply.(string); ok {
		return user, nil
	}
	// A try whose reply was lost may have been applied, and its record may have been replaced
	// since. The current state therefore cannot show that it was not applied.
	if unknown {
		return "", fmt.Errorf("redisstore: %s: %w: a reply was lost, and the record has been replaced since", call, session.ErrIndeterminate)
	}
	switch reply {
	case int64(replyConflict):
		return "", session.ErrConflict
	case int64(replyMissing):
		return "", session.ErrNotFound
	case int64(replyExists):
		return "", session.ErrExists
	case int64(replyCorrupt):
		return "", fmt.Errorf("redisstore: %s: %w", call, errCorrupt)
	}
	return "", fmt.Errorf("redisstore: %s: %w: the server answered %v", call, session.ErrIndeterminate, reply)
}

// life returns the time from now to t in milliseconds, the unit of PX. saveScript has the same
// limit.
func life(t, now time.Time) int64 {
	const longest = 1 << 50 // 35 000 years: prevents an overflow when Redis adds its own clock

	return min(t.UnixMilli()-now.UnixMilli(), longest)
}
