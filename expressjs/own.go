package expressjs

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/coatcheck/session"
)

// own is the part of a session that only Go stores. If Express has written the record since,
// version and exact are out of date and the other fields still hold.
type own struct {
	version   uint64
	sum       string // digest of the record that Go wrote
	user      string
	created   time.Time
	seen      time.Time
	deadline  time.Time
	expires   time.Time
	tombstone []byte // Data of the tombstone; nil: Go has not ended the session
	exact     []byte // Data that cannot be computed from the record, if isExact
	isExact   bool
	data      []byte    // Data of the record that Go is about to write; nil: the record contains all of it
	until     time.Time // end of the time in which the store keeps this; not set by a load
}

// isEnded reports whether Go has ended the session, or its absolute end has passed. If there still
// is a record, it was written by a request of Express that had loaded the session before, or by
// Express after the absolute end.
func (w *own) isEnded(now time.Time) bool {
	return w != nil && (w.tombstone != nil || !now.Before(w.deadline))
}

// last returns the latest end of a session that Go knows: its absolute end, or the idle end of a
// session that Express made, which has no absolute end.
func last(deadline, expires time.Time) time.Time {
	if deadline.Equal(forever) {
		return expires
	}
	return deadline
}

// afterEnd is how much longer Go remembers an ended session than Express could use its record: a
// request of Express may run for minutes, and clocks differ.
const afterEnd = time.Hour

// untilEnded returns until when Go remembers that a session has ended. A request of Express that
// had loaded the session before writes the record again, and that record lives for window. Each
// time that Go finds such a record, the time starts again.
func untilEnded(deadline, now time.Time, window time.Duration) time.Time {
	until := now.Add(window)
	if !deadline.Equal(forever) && deadline.After(until) {
		until = deadline
	}
	return until.Add(afterEnd)
}

// untilLive returns until when Go remembers a live session: as long as its record, unless a user
// has logged in at Go. What only Go stores of an anonymous session, or of one that Express made, is
// useless without the record. The absolute end of a login must be remembered for as long as Express
// can prolong the record past it.
func (w *own) untilLive(window time.Duration) time.Time {
	if w.user == "" || w.deadline.Equal(forever) {
		return w.expires
	}
	return untilEnded(w.deadline, w.deadline, window)
}

// day is the precision with which the list of a user records the end of a session. The list keeps
// sessions much longer than that.
const day = 24 * time.Hour

// lists reports whether Go has stored this session for the user of r, with an end on the same day.
func (w *own) lists(r *session.Record) bool {
	return w != nil && w.user == r.User && last(w.deadline, w.expires).Truncate(day).Equal(last(r.Deadline, r.Expires).Truncate(day))
}

// In Redis an own is one string, whose offsets the scripts use: version, created, seen, deadline
// and expires (Unix milliseconds), 8 bytes each, big endian; a byte for the kind of the rest; 16
// bytes of sum; the length of the user in 4 bytes, the user, and the rest.
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

var errOwn = errors.New("the data that only Go stores of the session is damaged")
