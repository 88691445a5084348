package sqlstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/coatcheck/session"
)

// columns are in the order of row and scan. Times are Unix milliseconds. Ids and users are
// stored as bytes, because comparison of text depends on the collation and some databases
// refuse a NUL in text.
const columns = "id, version, username, data, created, deadline, checksum, seen, expires"

var errDamaged = errors.New("the record is damaged")

// row returns the values of the columns for r.
func (s *Store) row(r *session.Record) []any {
	return []any{
		[]byte(r.ID), int64(r.Version), []byte(r.User), bytesOf(r.Data),
		r.Created.UnixMilli(), r.Deadline.UnixMilli(), checksum(r), r.LastSeen.UnixMilli(), r.Expires.UnixMilli(),
	}
}

// saveArgs returns the arguments of queries.save.
func (s *Store) saveArgs(r *session.Record, old uint64) []any {
	seen, expires, deadline := r.LastSeen.UnixMilli(), r.Expires.UnixMilli(), r.Deadline.UnixMilli()
	return append(s.row(r)[1:7],
		seen, seen, expires, deadline, expires, // for the checksum
		seen, expires, deadline,
		[]byte(r.ID), int64(old), now())
}

// bytesOf returns b, or an empty slice for nil, which the driver would store as NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// scan decodes one row. It returns errDamaged if the checksum does not match.
func scan(row interface{ Scan(...any) error }) (*session.Record, error) {
	var r session.Record
	var id, user []byte
	var version, created, deadline, sum, seen, expires int64
	if err := row.Scan(&id, &version, &user, &r.Data, &created, &deadline, &sum, &seen, &expires); err != nil {
		return nil, err
	}
	r.ID, r.User, r.Version = string(id), string(user), uint64(version)
	r.Created, r.LastSeen = time.UnixMilli(created), time.UnixMilli(seen)
	r.Deadline, r.Expires = time.UnixMilli(deadline), time.UnixMilli(expires)
	if checksum(&r) != sum || r.Expires.After(r.Deadline) {
		return nil, errDamaged
	}
	return &r, nil
}

// checksum covers the whole record. The times that Touch changes are added with factors, so
// that the database can update the checksum itself: see queries.touch.
func checksum(r *session.Record) int64 {
	h := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	var n [8]byte
	for _, field := range [][]byte{[]byte(r.ID), []byte(r.User), r.Data} {
		binary.BigEndian.PutUint64(n[:], uint64(len(field)))
		h.Write(n[:])
		h.Write(field)
	}
	for _, v := range []uint64{r.Version, uint64(r.Created.UnixMilli()), uint64(r.Deadline.UnixMilli())} {
		binary.BigEndian.PutUint64(n[:], v)
		h.Write(n[:])
	}
	return int64(h.Sum32()) + 3*r.LastSeen.UnixMilli() + 5*r.Expires.UnixMilli()
}

// clean wraps an error of the database with the name of the call; nil stays nil.
func clean(call string, err error) error {
	if err == nil {
		return nil
	}
	if noSuchTable(err) {
		return fmt.Errorf("sqlstore: %s: %w: call Store.Migrate, or apply Store.Schema", call, err)
	}
	return fmt.Errorf("sqlstore: %s: %w", call, err)
}
