// Package body is the format of a session's Record.Data: one JSON object, whose
// members are the program's values and these reserved ones.
//
//	member           value                      meaning                                        written by            removed
//	session.key      hash of a key              the current key: the one that was issued last  every new session     never
//	session.renewed  Unix milliseconds          when the current key was issued                a renewal             by a Login of the same user
//	session.unseen   Unix milliseconds          the same; the current key was never presented  a renewal             when the current key is presented
//	session.first    hash of a key              the key of the last explicit renewal           an automatic renewal  by an explicit renewal
//	session.tidy     Unix milliseconds          when older or past has something to remove     a renewal             when nothing is left to remove
//	session.older    {hash: olderKey}           other keys with full access                    a renewal             [clockSkew] after each key's end
//	session.past     {hashes: Frozen}           the session before explicit renewals           an explicit renewal   [clockSkew] after each end
//	session.remember Unix milliseconds          the absolute end that Remember set             Remember              by a Login as another user
//	session.endby    Unix milliseconds          the absolute end is at this time at the latest EndBy                 by a Login
//	session.idle     milliseconds               the session's own idle timeout                 a store of another    by that program
//	                                                                                           program's records
//	session.leases   {value: Lease}             which request refreshes a value                Key.Refresh           when the refresh has ended
//	session.device   Device                     the key of the browser to which it is bound        a registration        by a Login as another user
//	session.flashes  [flash]                    messages for the next page                     AddFlash              by Flashes, Clear
//	session.ended    reason                     the record is a tombstone: see [Ending]        every ending          with the record
//	session.at       Unix milliseconds          when the session ended                         every ending          with the record
//	session.next     id                         the session that replaced this one             Login                 with the record
//
// Values, flashes and past count against a record's size as the store sees it; only
// values and flashes count against Options.MaxDataSize.
//
// The current key is the first member, so that checking it is one comparison. The
// other reserved members follow, and then the values, small ones first: reading a
// small value never steps over a large one.
//
// Names are compared as they stand in the JSON, quotes included. Package object reads
// and writes the members in place.
package body

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/token"
)

const (
	// Reserved is the prefix of the names of reserved members, in JSON.
	Reserved = `"session.`

	Flashes     = `"session.flashes"`
	Leases      = `"session.leases"`
	IdleTimeout = `"session.idle"`

	keyMember        = `"session.key"`
	renewedMember    = `"session.renewed"`
	unseenMember     = `"session.unseen"`
	firstMember      = `"session.first"`
	tidyMember       = `"session.tidy"`
	olderMember      = `"session.older"`
	pastMember       = `"session.past"`
	rememberedMember = `"session.remember"`
	endByMember      = `"session.endby"`
	deviceMember     = `"session.device"`
	endedMember      = `"session.ended"`
	endMember        = `"session.at"`
	nextMember       = `"session.next"`
)

const (
	keyBegin = `{` + keyMember + `:"`
	keyEnd   = len(keyBegin) + token.RefLength + len(`"`)
)

var (
	keyName      = []byte(keyMember)
	nextReserved = []byte(`,` + Reserved) // the beginning of a reserved member that is not the first
)

// Body is a parsed Record.Data. The zero Body has no key and no members.
type Body struct {
	members []object.Member // all members but those of keys
	keys
}

// Parse returns the body of data, without the keys and frozen sessions that ended more
// than [clockSkew] before now. The members are appended to room. An error means that
// data is not a JSON object.
func Parse(room []object.Member, data []byte, now time.Time) (Body, error) {
	members, err := object.Append(room, data)
	if err != nil {
		return Body{}, err
	}
	k, members := keysOf(members, now)
	return Body{members, k}, nil
}

// Bytes returns the Record.Data of b.
func (b *Body) Bytes() []byte {
	var room [16]object.Member
	members := append(b.appendTo(room[:0]), b.members...)
	slices.SortStableFunc(members, func(a, b object.Member) int { return weight(a) - weight(b) })
	return object.Write(members)
}

// Get returns the raw value of a member that does not belong to keys, or nil.
func (b *Body) Get(name string) []byte { return object.Get(b.members, name) }

// Set replaces the raw value of a member that does not belong to keys. Nil removes the member.
func (b *Body) Set(name string, raw []byte) { b.members = object.Set(b.members, name, raw) }

// Begin makes b the body of a new session with this key, or "" for a token without a key. b
// keeps its values and flashes.
func (b *Body) Begin(key string) {
	b.Set(rememberedMember, nil)
	b.Set(endByMember, nil)
	b.Set(deviceMember, nil)
	b.Set(Leases, nil)
	b.Set(IdleTimeout, nil)
	b.keys = keys{}
	if key != "" {
		b.current = object.Quote(key)
	}
}

// Remember stores the absolute end that Session.Remember sets.
func (b *Body) Remember(end time.Time) { b.Set(rememberedMember, object.Number(end.UnixMilli())) }

// Remembered returns the absolute end that Session.Remember has set, or the zero time.
func (b *Body) Remembered() time.Time { return instant(b.Get(rememberedMember)) }

// EndBy stores t as the latest absolute end, unless an earlier time is stored. A zero t has no
// effect.
func (b *Body) EndBy(t time.Time) {
	if old := b.Limit(); !t.IsZero() && (old.IsZero() || t.Before(old)) {
		b.Set(endByMember, object.Number(t.UnixMilli()))
	}
}

// Limit returns the time that EndBy has stored, or the zero time.
func (b *Body) Limit() time.Time { return instant(b.Get(endByMember)) }

// RemoveLimit removes the time that EndBy has stored.
func (b *Body) RemoveLimit() { b.Set(endByMember, nil) }

// instant decodes a member in Unix milliseconds. It returns the zero time for anything else.
func instant(raw []byte) time.Time {
	if ms, ok := object.Int(raw); ok {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

// SetIdle sets the session's own idle timeout.
func (b *Body) SetIdle(d time.Duration) { b.Set(IdleTimeout, object.Number(d.Milliseconds())) }

// Size returns the number of bytes of b that count against Options.MaxDataSize: those of values
// and flashes.
func (b *Body) Size() (size int) {
	for _, m := range b.members {
		if !isMetadata(m.Name) {
			size += m.Size()
		}
	}
	return size
}

// Apply applies changes to b.
func (b *Body) Apply(changes Changes) (err error) {
	b.members, err = changes.apply(b.members)
	return err
}

// values returns the members that are values or flashes.
func (b *Body) values() []object.Member {
	return slices.DeleteFunc(slices.Clone(b.members), func(m object.Member) bool { return isMetadata(m.Name) })
}

// IsForeign reports whether the record of a token without a key may contain a member of this
// name, which has no quotes. It may contain values, and the reserved members that do not depend
// on keys.
func IsForeign(name string) bool {
	switch quoted := `"` + name + `"`; quoted {
	case Flashes, Leases, rememberedMember, endByMember:
		return true
	default:
		return !strings.HasPrefix(quoted, Reserved)
	}
}

// HasKey reports whether data begins with a current key.
func HasKey(data []byte) bool { return afterKey(data) > 0 }

// IsCurrent reports whether key is the current key. "" is the key of a token without a key, and
// is current in a record without a key.
func IsCurrent(data []byte, key string) bool {
	if key == "" {
		return !HasKey(data)
	}
	return HasKey(data) && string(data[len(keyBegin):keyEnd-1]) == key
}

// Value returns the raw value of one member that is not the current key, or nil.
func Value(data []byte, name string) []byte { return object.FindAfter(data, afterKey(data), name) }

// IsRemembered reports whether Remember has set the absolute end.
func IsRemembered(data []byte) bool { return Value(data, rememberedMember) != nil }

// IdleOf returns the session's own idle timeout. It returns 0 if the session has none.
func IdleOf(data []byte) time.Duration {
	ms, _ := object.Int(Value(data, IdleTimeout))
	return time.Duration(ms) * time.Millisecond
}

// afterKey returns the position after the current key, or 0 if data does not begin with a
// current key.
func afterKey(data []byte) int {
	if len(data) > keyEnd && string(data[:len(keyBegin)]) == keyBegin {
		return keyEnd
	}
	return 0
}

// hasReserved reports whether data has reserved members beside the current key.
func hasReserved(data []byte) bool { return bytes.HasPrefix(data[afterKey(data):], nextReserved) }

// reservedMembers yields the reserved members beside the current key.
func reservedMembers(data []byte) func(yield func(name string, raw []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for s := object.ScanAfter(data, afterKey(data)); s.Next() && bytes.HasPrefix(s.Name, []byte(Reserved)); {
			if !yield(string(s.Name), s.Raw) {
				return
			}
		}
	}
}

// reservedMember returns the raw value of a reserved member beside the current key, or nil.
func reservedMember(data []byte, wanted string) []byte {
	if hasReserved(data) {
		for name, raw := range reservedMembers(data) {
			if name == wanted {
				return raw
			}
		}
	}
	return nil
}

// weight is the sort key of the members of Data: first the current key and the members that
// belong to keys, then the other reserved members, then the values and past, ordered by length.
// reservedMembers and [IsCurrent] rely on this order.
func weight(m object.Member) int {
	switch {
	case !bytes.HasPrefix(m.Name, []byte(Reserved)), string(m.Name) == pastMember:
		return len(m.Raw)
	case isOfKeys(m.Name):
		return -1
	}
	return 0
}

// isMetadata reports whether a member is neither a value nor the flashes.
func isMetadata(name []byte) bool {
	switch string(name) {
	case rememberedMember, endByMember, deviceMember, Leases, IdleTimeout:
		return true
	}
	return isOfKeys(name)
}

// isOfKeys reports whether a member belongs to keys.
func isOfKeys(name []byte) bool {
	switch string(name) {
	case keyMember, renewedMember, unseenMember, firstMember, tidyMember, olderMember, pastMember:
		return true
	}
	return false
}
