package body

import (
	"time"

	"github.com/coatcheck/session/internal/object"
)

// Maintenance is the work on the keys of a session that is due regardless of what the handler
// does.
type Maintenance struct {
	Present bool // record that the key was first presented
	Renew   bool // replace the key, if a cookie can be set
	Tidy    bool // remove keys or frozen sessions that ended more than clockSkew ago
}

// IsDue reports whether any work is due, apart from Renew, which needs a cookie.
func (m Maintenance) IsDue() bool { return m.Present || m.Tidy }

// MaintenanceFor returns the maintenance that is due when a request arrives with this key,
// which must have full access to data. created is Record.Created. renewAfter is the age at
// which the current key is renewed automatically, 0 for never.
func MaintenanceFor(data []byte, key string, created time.Time, renewAfter time.Duration, now time.Time) (due Maintenance) {
	issued, isCurrent := created, IsCurrent(data, key)
	if hasReserved(data) {
		for name, raw := range reservedMembers(data) {
			switch name {
			case unseenMember, renewedMember:
				if n, ok := object.Int(raw); ok {
					issued = time.UnixMilli(n)
				}
				due.Present = isCurrent && name == unseenMember
			case tidyMember:
				n, ok := object.Int(raw)
				due.Tidy = ok && now.UnixMilli() >= n
			}
		}
	}
	age := now.Sub(issued)
	if isCurrent {
		due.Renew = renewAfter > 0 && age >= renewAfter
		return due
	}
	var room [8]object.Member
	members := room[:0]
	for name, raw := range reservedMembers(data) {
		members = append(members, object.Member{Name: []byte(name), Raw: raw})
	}
	k, _ := keysOf(members, now)
	older := k.find(key)
	if older == nil || !older.isLive(now) {
		return due
	}
	isLogin := older.isLogin
	due.Present = older.issued != 0
	k.Present(key, now)
	switch {
	case older.isFinal, older.until != 0:
	case due.Present && isLogin:
		due.Renew = true // at once: the client has lost the key of the newer Login
	case k.awaiting() >= 2:
		due.Renew = age > betweenKeys
	default:
		due.Renew = age > overlap
	}
	return due
}

// IsOvertaken reports whether a key older than this one was presented between before and after,
// which are data of one session. The client has then replaced the cookie of this key by that of
// the older key, and a request with this key must neither end the older key nor get a newer
// one.
func IsOvertaken(before, after []byte, key string) bool {
	olderBefore, olderAfter := reservedMember(before, olderMember), reservedMember(after, olderMember)
	isOlder := IsCurrent(before, key)
	for s := object.Scan(olderBefore); s.Next(); {
		o := parseOlder(object.Unquote(s.Name), s.Raw)
		now := object.Find(olderAfter, string(s.Name))
		if isOlder && o.issued != 0 && now != nil && parseOlder(o.key, now).issued == 0 {
			return true
		}
		isOlder = isOlder || o.key == key
	}
	return false
}

// Present records that a request has arrived with this key. The keys that were issued before it
// end soon. The key itself keeps full access until a newer key is presented.
func (k *keys) Present(key string, now time.Time) {
	before := k.Mark(key)
	for i := range before {
		before[i].end(now)
	}
}

// Mark records that a request has arrived with this key, and ends no key. It returns the keys
// that were issued before it, or nil if the key had been presented before.
func (k *keys) Mark(key string) (before []olderKey) {
	if object.Unquote(k.current) == key {
		k.isAwaited = false
		return k.older
	}
	i := k.index(key)
	if i < 0 || k.older[i].issued == 0 {
		return nil
	}
	k.older[i].issued, k.older[i].until = 0, 0
	return k.older[i+1:]
}
