package redisstore

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"

	"github.com/coatcheck/session"
)

// A stored record is a header of fixed size, which the scripts read, followed by user and data,
// which only Go reads. The scripts rewrite two of the clocks in the header. Integers are
// big-endian, times are Unix milliseconds.
//
//	 0   1  format
//	 1   8  version
//	 9  12  seen      a clock: the time, and a checksum of id and time
//	21  12  expires   a clock
//	33  12  deadline  a clock, interchangeable with expires
//	45  16  SHA-256, truncated, of the id and all but seen, expires and itself
//	61   8  created
//	69   4  length of the user
//	73      user, data
//
// A checksum detects a damaged record, and a record that was stored under the key of another
// session. Each clock has its own checksum because Touch changes it without reading the rest.
const (
	format     = 1
	atVersion  = 1
	atSeen     = 9
	atExpires  = 21
	atDeadline = 33
	atSum      = 45
	atCreated  = 61
	atLength   = 69
	atUser     = 73
)

var errCorrupt = errors.New("the stored record is corrupt")

// The kinds of a clock are part of its checksum, so that one cannot be mistaken for the other.
const (
	seenClock = 's'
	endClock  = 'e'
)

func encode(r *session.Record) []byte {
	b := make([]byte, atUser, atUser+len(r.User)+len(r.Data))
	b[0] = format
	binary.BigEndian.PutUint64(b[atVersion:], r.Version)
	putClock(b[atSeen:], r.ID, seenClock, r.LastSeen)
	putClock(b[atExpires:], r.ID, endClock, r.Expires)
	putClock(b[atDeadline:], r.ID, endClock, r.Deadline)
	binary.BigEndian.PutUint64(b[atCreated:], uint64(r.Created.UnixMilli()))
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(r.User)))
	b = append(append(b, r.User...), r.Data...)
	sum := checksum(r.ID, b)
	copy(b[atSum:], sum[:])
	return b
}

// decode returns the record stored under id, or errCorrupt.
func decode(id, stored string) (*session.Record, error) {
	b := []byte(stored)
	if len(b) < atUser || b[0] != format || [atCreated - atSum]byte(b[atSum:atCreated]) != checksum(id, b) {
		return nil, errCorrupt
	}
	seen, ok1 := clock(b[atSeen:], id, seenClock)
	expires, ok2 := clock(b[atExpires:], id, endClock)
	deadline, ok3 := clock(b[atDeadline:], id, endClock)
	length := uint64(binary.BigEndian.Uint32(b[atLength:]))
	if !ok1 || !ok2 || !ok3 || length > uint64(len(b)-atUser) {
		return nil, errCorrupt
	}
	data := atUser + int(length)
	return &session.Record{
		ID:       id,
		User:     string(b[atUser:data]),
		Data:     b[data:],
		Created:  time.UnixMilli(int64(binary.BigEndian.Uint64(b[atCreated:]))),
		LastSeen: seen,
		Deadline: deadline,
		Expires:  expires,
		Version:  binary.BigEndian.Uint64(b[atVersion:]),
	}, nil
}

func putClock(b []byte, id string, kind byte, t time.Time) {
	binary.BigEndian.PutUint64(b, uint64(t.UnixMilli()))
	binary.BigEndian.PutUint32(b[8:], clockSum(b[:8], id, kind))
}

// clock returns the time of a clock, and whether its checksum is correct.
func clock(b []byte, id string, kind byte) (time.Time, bool) {
	t := time.UnixMilli(int64(binary.BigEndian.Uint64(b)))
	return t, binary.BigEndian.Uint32(b[8:]) == clockSum(b[:8], id, kind)
}

// newClock returns the encoded clock that Touch sends.
func newClock(id string, kind byte, t time.Time) []byte {
	b := make([]byte, 12)
	putClock(b, id, kind, t)
	return b
}

func clockSum(ms []byte, id string, kind byte) uint32 {
	return crc32.Update(crc32.Update(crc32.Checksum([]byte{kind}, castagnoli), castagnoli, []byte(id)), castagnoli, ms)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(id string, b []byte) (sum [atCreated - atSum]byte) {
	h := sha256.New()
	h.Write([]byte(id))
	h.Write([]byte{0}) // separates the id from the rest: no id contains a zero byte
	h.Write(b[:atSeen])
	h.Write(b[atDeadline:atSum])
	h.Write(b[atCreated:])
	copy(sum[:], h.Sum(nil))
	return sum
}

func version(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }
