package body

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/coatcheck/session/internal/object"
)

// Ending is the content of a tombstone. A tombstone is the record that replaces that of a
// session when the session ends, so that in-flight requests learn of the end. It has no user,
// no keys and no values:
//
//	{"session.ended":"logout","session.at":1732639200000}
//	{"session.ended":"login","session.at":1732639200000,"session.next":"…"}
type Ending struct {
	Reason Reason
	At     time.Time // time of the end in whole milliseconds; zero: not known
	Next   string    // id of the session that a Login created in its place; "": none
}

// Reason is the reason why a session ended.
type Reason string

const (
	ReasonLogout Reason = "logout"
	ReasonRevoke Reason = "revoked"
	ReasonLogin  Reason = "login"
)

// Tombstone returns the Record.Data of a tombstone.
func (e Ending) Tombstone() []byte {
	members := []object.Member{
		{Name: []byte(endedMember), Raw: object.Quote(string(e.Reason))},
		{Name: []byte(endMember), Raw: object.Number(e.At.UnixMilli())},
	}
	if e.Next != "" {
		raw, _ := json.Marshal(e.Next) // a string always encodes
		members = object.Set(members, nextMember, raw)
	}
	return object.Write(members)
}

// IsTombstone reports whether data is a tombstone.
func IsTombstone(data []byte) bool { return bytes.HasPrefix(data, []byte("{"+endedMember)) }

// EndingOf decodes the tombstone data. ok is false if data is not a tombstone.
func EndingOf(data []byte) (e Ending, ok bool) {
	if !IsTombstone(data) {
		return Ending{}, false
	}
	e.Reason = Reason(text(object.Find(data, endedMember)))
	if ms, ok := object.Int(object.Find(data, endMember)); ok {
		e.At = time.UnixMilli(ms)
	}
	e.Next = text(object.Find(data, nextMember))
	return e, true
}

// text decodes a JSON string. It returns "" for anything else.
func text(raw []byte) (s string) {
	_ = json.Unmarshal(raw, &s)
	return s
}
