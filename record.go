package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// next returns the record that base, or nothing, becomes by what is pending.
func (s *Session) next(base *Record, id string) (*Record, error) {
	t, now := &s.todo, milliseconds(time.Now())
	changes, rec := t.changes, &Record{Created: now, Deadline: now.Add(s.k.lifetime)}
	var data []byte
	switch {
	case t.user != "":
		*rec = Record{User: t.user, Created: t.at, Deadline: t.at.Add(s.k.lifetime)}
		if base != nil && !t.forget {
			data = base.Data
		}
		changes = append([]change{{name: remembered}}, changes...) // an earlier Remember ends
	case base != nil:
		*rec = *base
		data = base.Data
	}
	if s.source != nil {
		rec.LastSeen = later(rec.LastSeen, now)
		rec.Expires = later(rec.Expires, earlier(now.Add(s.k.idle), rec.Deadline))
	}
	if t.remember || t.user != "" && !s.until.IsZero() {
		rec.Deadline, rec.Expires = s.until, s.until
		changes = append(slices.Clip(changes), change{name: remembered, raw: []byte("true")})
	}
	merged, size, err := merge(data, changes)
	if errors.Is(err, errData) {
		return nil, storeError("load", err)
	}
	if err == nil && size > s.k.maxData {
		err = fmt.Errorf("session: Options.MaxDataSize: the values take %d bytes, the limit is %d", size, s.k.maxData)
	}
	rec.ID, rec.Data, rec.Version = id, merged, newVersion()
	return rec, err
}

// expired tells whether one of the two clocks has run out.
func (r *Record) expired(now time.Time) bool {
	return !now.Before(r.Expires) || !now.Before(r.Deadline)
}

// life returns for how long a cookie sent now is good, 0 for as long as the
// browser is open. s.mu is held.
func (s *Session) life() time.Duration {
	if s.rec == nil || !s.k.persistent && find(s.rec.Data, remembered) == nil {
		return 0
	}
	return time.Until(s.rec.Deadline)
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
