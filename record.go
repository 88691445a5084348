package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coatcheck/session/internal/body"
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

// maxAhead is by how much the clock of another process may be ahead of the clock of this one. A
// record with a later time was written before the clocks were set back.
const maxAhead = 5 * time.Second

// isTaken reports whether another program has given the session of this user to another
// one, or to none. It leaves the id as it is; a Login of ours begins another session.
func isTaken(rec *Record, user string) bool { return user != "" && rec.User != user }

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
