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
	// Reserved is how the names of reserved members begin, as they stand in JSON.
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
	nextReserved = []byte(`,` + Reserved) // how a reserved member begins that is not the first
)

// A Body is a Record.Data taken apart. The zero Body has no key and no members.
type Body struct {
	members []object.Member // all but those of keys
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

// Get returns the raw value of a member that has nothing to do with keys, or nil.
func (b *Body) Get(name string) []byte { return object.Get(b.members, name) }

// Set replaces the raw value of such a member. Nil removes it.
func (b *Body) Set(name string, raw []byte) { b.members = object.Set(b.members, name, raw) }

// Begin makes b the body of a new session with this key, "" for a token without one. b
// keeps its values and flashes.
func (b *Body) Begin(key string) {
	b.Set(rememberedMember, nil)
	b.Set(endByMember, nil)
	b.Set(Leases, nil)
	b.Set(IdleTimeout, nil)
	b.keys = keys{}
	if key != "" {
		b.current = object.Quote(key)
	}
}

// Remember notes the absolute end that Remember has set.
func (b *Body) Remember(end time.Time) { b.Set(rememberedMember, object.Number(end.UnixMilli())) }

// Remembered returns the absolute end that Remember has set, zero if it has set none.
func (b *Body) Remembered() time.Time { return instant(b.Get(rememberedMember)) }

// EndBy notes that the absolute end is at t at the latest, unless an earlier EndBy has
// noted an earlier time. A zero t is none.
func (b *Body) EndBy(t time.Time) {
	if was := b.Limit(); !t.IsZero() && (was.IsZero() || t.Before(was)) {
		b.Set(endByMember, object.Number(t.UnixMilli()))
	}
}

// Limit returns the time that EndBy has noted, zero for none.
func (b *Body) Limit() time.Time { return instant(b.Get(endByMember)) }

// RemoveLimit removes the time that EndBy has noted.
func (b *Body) RemoveLimit() { b.Set(endByMember, nil) }

// instant returns the time of a member in Unix milliseconds, zero for anything else.
func instant(raw []byte) time.Time {
	if ms, ok := object.Int(raw); ok {
		return time.UnixMilli(ms)
	}
	return time.Time{}
}

// SetIdle gives the session an idle timeout of its own.
func (b *Body) SetIdle(d time.Duration) { b.Set(IdleTimeout, object.Number(d.Milliseconds())) }

// Size returns how many bytes of b count against Options.MaxDataSize: those of values
// and flashes.
func (b *Body) Size() (size int) {
	for _, m := range b.members {
		if !isMetadata(m.Name) {
			size += m.Size()
		}
	}
	return size
}

// Apply makes changes.
func (b *Body) Apply(changes Changes) (err error) {
	b.members, err = changes.apply(b.members)
	return err
}

// values returns the members that are values or flashes.
func (b *Body) values() []object.Member {
	return slices.DeleteFunc(slices.Clone(b.members), func(m object.Member) bool { return isMetadata(m.Name) })
}

// IsForeign reports whether the record of a token without a key may hold a member of this
// name, which has no quotes: it is a value, or what the session of another program's token
// has as well as ours.
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

// IsCurrent reports whether key is the current key. "" is the key of a token that has
// none, and is current in a record without one.
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

// afterKey returns where the current key ends, 0 if data does not begin with one.
func afterKey(data []byte) int {
	if len(data) > keyEnd && string(data[:len(keyBegin)]) == keyBegin {
		return keyEnd
	}
	return 0
}

// hasReserved reports whether data has reserved members beside the current key.
func hasReserved(data []byte) bool { return bytes.HasPrefix(data[afterKey(data):], nextReserved) }

// reservedMembers yields them.
func reservedMembers(data []byte) func(yield func(name string, raw []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for s := object.ScanAfter(data, afterKey(data)); s.Next() && bytes.HasPrefix(s.Name, []byte(Reserved)); {
			if !yield(string(s.Name), s.Raw) {
				return
			}
		}
	}
}

// reservedMember returns one of them, or nil.
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

// weight orders the members of Data: the current key and what belongs to keys, the
// other reserved members, and the values, with past among them, by their length.
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
	case rememberedMember, endByMember, Leases, IdleTimeout:
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
