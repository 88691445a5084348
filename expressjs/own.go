package expressjs

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/coatcheck/session"
)

// own is what only Go knows of a session. It holds as far as the record is the one
// that Go wrote, or, if Express has written it since, but for version and exact.
type own struct {
	version   uint64
	sum       string // of the record that Go wrote
	user      string
	created   time.Time
	seen      time.Time
	deadline  time.Time
	expires   time.Time
	tombstone []byte // Data, once Go has ended the session
	exact     []byte // Data, if it cannot be had from the record
	isExact   bool
	data      []byte    // Data of the record that Go is about to write; nil: the record has all of it
	until     time.Time // how long the store keeps this; a load does not read it
}

// isOver reports whether Go has ended the session, or its absolute end has passed. A
// record that is there all the same was written by a request of Express that had loaded
// the session before, or by Express going on after the absolute end.
func (w *own) isOver(now time.Time) bool {
	return w != nil && (w.tombstone != nil || !now.Before(w.deadline))
}

// last returns when a session ends at the latest, as far as Go knows: its absolute end,
// or its idle end if Express made it, for then it has no other.
func last(deadline, expires time.Time) time.Time {
	if deadline.Equal(forever) {
		return expires
	}
	return deadline
}

// afterEnd is how much longer Go remembers an ended session than Express could go on
// with it by itself: a request of Express may run for minutes, and clocks differ.
const afterEnd = time.Hour

// untilEnded returns how long Go remembers that a session has ended: a request of Express
// that had loaded the session before brings the record back when it ends, and the record
// then lives for window. Each time that Go finds the record back the time is counted again.
func untilEnded(deadline, now time.Time, window time.Duration) time.Time {
	until := now.Add(window)
	if !deadline.Equal(forever) && deadline.After(until) {
		until = deadline
	}
	return until.Add(afterEnd)
}

// untilLive returns how long Go remembers a live session: as long as its record, unless
// a user has logged in at Go. What only Go knows of an anonymous session, or of one that
// Express made, is worth nothing without the record. The absolute end of a login must be
// known for as long as Express can have prolonged the record past it.
func (w *own) untilLive(window time.Duration) time.Time {
	if w.user == "" || w.deadline.Equal(forever) {
		return w.expires
	}
	return untilEnded(w.deadline, w.deadline, window)
}

// day is how exactly a user's list has to know when a session ends: it keeps it far
// longer.
const day = 24 * time.Hour

// lists tells whether Go wrote this session as this user's, with an end of the same day.
func (w *own) lists(r *session.Record) bool {
	return w != nil && w.user == r.User && last(w.deadline, w.expires).Truncate(day).Equal(last(r.Deadline, r.Expires).Truncate(day))
}

// In Redis it is one string, which scripts know by its offsets: the version, created,
// seen, deadline, expires (Unix milliseconds), each 8 bytes, the most significant
// first; a byte that says what the rest is; 16 bytes of sum; the length of the user in
// 4 bytes, the user, the rest.
const (
	versionEnd = 8
	kindAt     = 40
	sumAt      = 41
	userAt     = 61

	isRecord     = 0
	isTombstoned = 1
	isExactData  = 2
)

func (w *own) pack() string {
	b := make([]byte, 0, userAt+len(w.user)+len(w.tombstone)+len(w.exact))
	b = binary.BigEndian.AppendUint64(b, w.version)
	for _, t := range []time.Time{w.created, w.seen, w.deadline, w.expires} {
		b = binary.BigEndian.AppendUint64(b, uint64(t.UnixMilli()))
	}
	kind, rest := byte(isRecord), []byte(nil)
	switch {
	case w.tombstone != nil:
		kind, rest = isTombstoned, w.tombstone
	case w.isExact:
		kind, rest = isExactData, w.exact
	}
	b = append(b, kind)
	b = append(b, (w.sum + "                ")[:userAt-4-sumAt]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(w.user)))
	return string(append(append(b, w.user...), rest...))
}

func unpack(s string) (*own, error) {
	if len(s) < userAt {
		return nil, errOwn
	}
	number := func(at int) uint64 { return binary.BigEndian.Uint64([]byte(s[at : at+8])) }
	at := func(i int) time.Time { return time.UnixMilli(int64(number(8 * i))) }
	w := &own{version: number(0), created: at(1), seen: at(2), deadline: at(3), expires: at(4), sum: s[sumAt : userAt-4]}
	rest := s[userAt:]
	n := binary.BigEndian.Uint32([]byte(s[userAt-4 : userAt]))
	if uint64(n) > uint64(len(rest)) {
		return nil, errOwn
	}
	w.user, rest = rest[:n], rest[n:]
	switch s[kindAt] {
	case isRecord:
	case isTombstoned:
		w.tombstone = []byte(rest)
	case isExactData:
		w.exact, w.isExact = []byte(rest), true
	default:
		return nil, errOwn
	}
	return w, nil
}

var errOwn = errors.New("what Go knows of the session is damaged")
