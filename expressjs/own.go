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
}

// isOver tells whether Go has ended the session, so that Express is not to have it
// either: a request of Express that was under way when it ended has brought it back,
// or Express goes on with it after its absolute end.
func (w *own) isOver(now time.Time) bool {
	return w != nil && (w.tombstone != nil || !now.Before(w.deadline))
}

// last is the last that Go knows of when a session ends: its absolute end, or its idle
// end where Express made it, and it has no other.
func last(deadline, expires time.Time) time.Time {
	if deadline.Equal(forever) {
		return expires
	}
	return deadline
}

// beyond is for how long what Go knows of a session outlives that, for Express may go
// on with it.
const beyond = 30 * 24 * time.Hour

// until is for how long this is to be kept.
func (w *own) until() time.Time {
	if w.tombstone != nil {
		return w.deadline
	}
	return last(w.deadline, w.expires).Add(beyond)
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
