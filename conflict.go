package session

import (
	"context"
	"errors"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// resolve asks the store what became of a renewal's Save whose outcome is
// unknown. If the renewal's key has access, the Save was applied: if it is not the
// newest, another Login has come since. If the record cannot be loaded now, a Reload
// finds out.
func (k commit) resolve(d draft, err error) error {
	k.mu.Lock()
	k.stored.maybe = &d
	k.mu.Unlock()
	rec, failed := k.outcome(d.rec.ID)
	if failed == nil && rec != nil && body.HasAccess(rec.Data, d.ref.Key, time.Now()) {
		return nil
	}
	return err
}

// outcome loads a record after a Save of unknown outcome. The load has a deadline of
// its own, for the store's silence may have used up the commit's.
func (k commit) outcome(id string) (*Record, error) {
	c := storectx.New(k.ctx, k.m.timeout)
	defer c.Release()
	return k.m.load(c, id)
}

// becomes lets the session go on with what its record is now, nil if there is none.
// mu is held.
func (k commit) becomes(rec *Record) {
	if is, next := statusOf(rec); is != live {
		k.lose(is)
		k.stored.next = next
		if rec != nil {
			k.stored.why = reasonOf(rec)
		}
		return
	}
	st, now := &k.stored, time.Now()
	if isTaken(rec, st.rec.User) {
		k.lose(replaced)
		return
	}
	renewed := body.ExplicitKey(rec.Data) != body.ExplicitKey(st.rec.Data) && !body.HasAccess(rec.Data, st.held.Key, now)
	if k.source != nil && st.frozen == nil && renewed {
		st.frozen = st.rec // an explicit renewal: what this request sees stays as it was
		was, _ := body.FrozenFor(rec.Data, st.held.Key, now)
		st.frozenUntil = was.Until
	}
	st.isOvertaken = st.isOvertaken || st.due.Present && body.IsOvertaken(st.rec.Data, rec.Data, st.held.Key)
	st.rec = rec
	st.due = k.upkeep(st, now)
}

// isTaken reports whether another program has given the session of this user to another
// one, or to none. It leaves the id as it is; a Login of ours begins another session.
func isTaken(rec *Record, user string) bool { return user != "" && rec.User != user }

// hasMoved tells whether a Save was refused because the record is another one now.
func hasMoved(err error) bool {
	return !errors.Is(err, ErrIndeterminate) && (errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound))
}

// pause waits before the next try, longer and more at random with each: before
// the second for d at most, from the eighth on for 128 times that.
func pause(ctx context.Context, d time.Duration, try int) error {
	if try == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(random(d << min(try, 7)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	resumed(ctx)
	return ctx.Err()
}

// betweenSaves is d of a pause after a conflict.
const betweenSaves = 250 * time.Microsecond
