package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/mistake"
	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/storectx"
)

// hasExpired reports whether the idle or the absolute end has passed.
func (r *Record) hasExpired(now time.Time) bool {
	return !now.Before(r.Expires) || !now.Before(r.Deadline)
}

// parse is body.Parse. It returns an ErrStore if data is not a JSON object.
func parse(room []object.Member, data []byte, now time.Time) (body.Body, error) {
	b, err := body.Parse(room, data, now)
	if err != nil {
		err = storeError("load", fmt.Errorf("the stored data is %w", err))
	}
	return b, err
}

func newVersion() uint64 {
	for {
		if v := rand.Uint64() >> 1; v != 0 {
			return v
		}
	}
}

func milliseconds(t time.Time) time.Time { return t.Truncate(time.Millisecond) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// tombstoneLife is how long a tombstone is kept, for requests that were in flight when the
// session ended.
const tombstoneLife = time.Minute

// dropAfterEnd is the time after a Logout or Revoke during which a request that arrives with
// the ended token begins no session: a login may be in flight at the same time, and the
// cookie of a new session would overwrite the login's.
const dropAfterEnd = 2 * time.Second

// maxAhead is by how much the clock of another process may be ahead of the clock of this one. A
// record with a later time was written before the clocks were set back.
const maxAhead = 5 * time.Second

// tombstone returns the record that replaces rec when its session ends. next is the id of
// the session that a Login began, or "".
func tombstone(rec *Record, why body.Reason, next string) *Record {
	now := milliseconds(time.Now())
	end := now.Add(tombstoneLife)
	return &Record{
		ID:       rec.ID,
		Data:     body.Ending{Reason: why, At: now, Next: next}.Tombstone(),
		Created:  rec.Created,
		LastSeen: rec.LastSeen,
		Deadline: end,
		Expires:  end,
		Version:  newVersion(),
	}
}

// isLive reports whether rec is the record of a session: neither nil nor a tombstone.
func isLive(rec *Record) bool { return rec != nil && !body.IsTombstone(rec.Data) }

// endOf returns when a tombstone's session ended.
func endOf(rec *Record) time.Time {
	ending, _ := body.EndingOf(rec.Data)
	if ending.At.IsZero() {
		return rec.Expires.Add(-tombstoneLife)
	}
	return ending.At
}

// statusOf returns the status of the session whose record is rec. If rec is nil, the session has
// ended. If rec is a tombstone, statusOf also returns the id of the session that a Login began in
// its place, or "", and the reason.
func statusOf(rec *Record) (s status, successor string, why body.Reason) {
	switch {
	case rec == nil:
		return statusEnded, "", ""
	case !body.IsTombstone(rec.Data):
		return statusLive, "", ""
	}
	ending, _ := body.EndingOf(rec.Data)
	if ending.Next != "" {
		return statusReplaced, ending.Next, ending.Reason
	}
	return statusEnded, "", ending.Reason
}

// setStatus sets the status according to rec, which may be nil, and the successor and the reason
// if rec is a tombstone.
func (st *stored) setStatus(rec *Record) {
	st.status, st.successor, st.reason = statusOf(rec)
}

// isTaken reports whether another program has given the session of this user to another
// one, or to none. It leaves the id as it is; a Login of ours begins another session.
func isTaken(rec *Record, user string) bool { return user != "" && rec.User != user }

// storeError wraps err, the answer of a store, in an ErrStore, unless err is a mistake of the
// program.
func storeError(call string, err error) error {
	if m := (*mistake.Error)(nil); errors.As(err, &m) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrStore, call, err)
}

// loadRecord returns the record with this id, which may be a tombstone. It returns nil if there is
// none, or if the record had expired when the store was called.
func loadRecord(c *storectx.Context, store Store, id string) (*Record, error) {
	rec, err := store.Load(c, id)
	switch {
	case err == nil && (rec == nil || rec.ID != id):
		return nil, storeError("load", errors.New("the store answered with another record"))
	case err == nil && rec.hasExpired(c.Began()), errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, storeError("load", err)
	}
	return rec, nil
}
