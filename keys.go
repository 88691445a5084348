package session

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/token"
)

// A record knows which keys open its session. The current key, which was issued
// last, stands at the beginning of Data, so that checking it is one comparison.
// The other members exist only after a renewal:
//
//	{"session.key":"…"                the hash of the current key
//	,"session.renewed":1732639200000  when the current key was issued, if not with the session; or
//	,"session.unseen":1732639200000   likewise, and the key has not been presented yet
//	,"session.first":"…"              the key of the last explicit renewal, if that is not the current key
//	,"session.tidy":1732639260000     from when on a save removes something of the next two
//	,"session.older":{"…":{…}}        keys with full access beside the current one: see olderKey
//	,"session.past":{"… …":{…}}       keys that an explicit renewal replaced, and the session as it was before that
//
// A key is presented when a request arrives with it. An automatic renewal
// (Options.RenewAfter) leaves the keys before it in "older". An explicit renewal
// (Renew, Remember, Login of the same user) moves them to "past", where they show
// the session as it was, except keys of other Logins that have not been presented.
const (
	keyMember     = `"session.key"`
	renewedMember = `"session.renewed"`
	unseenMember  = `"session.unseen"`
	firstMember   = `"session.first"`
	tidyMember    = `"session.tidy"`
	olderMember   = `"session.older"`
	pastMember    = `"session.past"`

	keyBegin = `{` + keyMember + `:"`
	keyEnd   = len(keyBegin) + token.RefLength + len(`"`)
)

const (
	// overlap is how long a key keeps full access after a newer key was first
	// presented: requests that were sent with the older one are still in flight.
	// OWASP's session cheat sheet, "Renewal Timeout", calls it a safety interval.
	overlap = 10 * time.Second

	// arrival is how long an issued key that was not presented keeps full access
	// at least: the response that carries it may be slow.
	arrival = time.Minute

	// clockSkew is how long a save keeps what has ended. A process whose clock is
	// ahead by less than that ends a key early for itself only.
	clockSkew = time.Minute

	// betweenKeys is the shortest time between two keys that are issued while
	// several have not been presented.
	betweenKeys = time.Second

	maxIssued    = 16 // keys that were issued and not presented, the current key included
	maxRecent    = 64 // likewise, with those issued less than arrival ago: one each betweenKeys
	maxPresented = 16 // older keys that were presented and keep full access
	maxPast      = 3  // explicit renewals, each with the values of before it
)

// An olderKey has full access beside the current key.
type olderKey struct {
	key     string
	issued  int64 // Unix milliseconds; 0: the key was presented
	isLogin bool  // a Login issued the key
	until   int64 // Unix milliseconds; 0: until a newer key is presented
	isFinal bool  // the key was presented, and then an older one, which got another: this one gets none
}

// isLive reports whether the key has access at this time.
func (k olderKey) isLive(now time.Time) bool { return k.until == 0 || now.UnixMilli() < k.until }

// awaits reports whether the key was issued, has not been presented, and no newer
// one has been either.
func (k olderKey) awaits() bool { return k.issued != 0 && k.until == 0 }

// end limits the access of a key, now that a newer one was presented.
func (k *olderKey) end(now time.Time) {
	if k.until != 0 {
		return
	}
	k.until = now.Add(overlap).UnixMilli()
	if k.issued != 0 {
		k.until = max(k.until, k.issued+arrival.Milliseconds())
	}
}

// values returns where the members of Data begin that are not the current key.
func values(data []byte) int {
	if len(data) > keyEnd && string(data[:len(keyBegin)]) == keyBegin {
		return keyEnd
	}
	return 0
}

// opensNewest reports whether key is the current key of the record with this
// Data. The record of a token without a key has none either.
func opensNewest(data []byte, key string) bool {
	if key == "" {
		return values(data) == 0
	}
	return len(data) > keyEnd && string(data[:len(keyBegin)]) == keyBegin && string(data[len(keyBegin):keyEnd-1]) == key
}

// hasAccess reports whether key opens the session without restriction.
func hasAccess(data []byte, key string, now time.Time) bool {
	if opensNewest(data, key) {
		return true
	}
	raw := object.Find(ownMember(data, olderMember), `"`+key+`"`)
	return raw != nil && parseOlder(key, raw).isLive(now)
}

// ownMembers yields the members of our own that stand before the values.
func ownMembers(data []byte) func(yield func(name string, raw []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for s := object.ScanAfter(data, values(data)); s.Next() && bytes.HasPrefix(s.Name, []byte(reserved)); {
			if !yield(string(s.Name), s.Raw) {
				return
			}
		}
	}
}

// hasOwnMembers reports whether a record has members of our own beside the current
// key, as few records have.
func hasOwnMembers(data []byte) bool { return bytes.HasPrefix(data[values(data):], ownNext) }

// ownMember returns one of them, or nil.
func ownMember(data []byte, wanted string) []byte {
	if hasOwnMembers(data) {
		for name, raw := range ownMembers(data) {
			if name == wanted {
				return raw
			}
		}
	}
	return nil
}

// firstKey returns the key of the last explicit renewal: all renewals between it
// and the current key were automatic.
func firstKey(data []byte) string {
	if raw := ownMember(data, firstMember); raw != nil {
		return unquote(raw)
	}
	at := values(data)
	return unquote(data[min(at, len(keyBegin)-1):at])
}

// asItWas returns the session as it was just before the explicit renewal that
// replaced this key, and until when it is shown; nil if that time is over.
func asItWas(r *Record, key string, now time.Time) (*Record, time.Time) {
	for s := object.Scan(object.FindAfter(r.Data, values(r.Data), pastMember)); s.Next(); {
		if !strings.Contains(string(s.Name), key) {
			continue
		}
		until, ok1 := digits(object.Find(s.Raw, `"until"`))
		created, ok2 := digits(object.Find(s.Raw, `"created"`))
		if !ok1 || !ok2 || now.UnixMilli() >= until {
			break
		}
		then := *r
		then.Created, then.Data = time.UnixMilli(created), object.Find(s.Raw, `"values"`)
		return &then, time.UnixMilli(until)
	}
	return nil, time.Time{}
}

// upkeepOf returns the maintenance that a record needs, now that a request has
// arrived with this key. after is the age at which a key is renewed, 0 for never.
func upkeepOf(r *Record, key string, after time.Duration, now time.Time) (due upkeep) {
	issued, isCurrent := r.Created, opensNewest(r.Data, key)
	if hasOwnMembers(r.Data) {
		for name, raw := range ownMembers(r.Data) {
			n, ok := digits(raw)
			switch name {
			case unseenMember, renewedMember:
				if ok {
					issued = time.UnixMilli(n)
				}
				due.seen = isCurrent && name == unseenMember
			case tidyMember:
				due.tidy = ok && now.UnixMilli() >= n
			}
		}
	}
	age := now.Sub(issued)
	if isCurrent {
		due.renew = after > 0 && r.User != "" && age >= after
		return due
	}
	var room [8]object.Member
	members := room[:0]
	for name, raw := range ownMembers(r.Data) {
		members = append(members, object.Member{Name: []byte(name), Raw: raw})
	}
	k, _ := keysOf(members, now)
	older := k.find(key)
	if older == nil || !older.isLive(now) {
		return due
	}
	isLogin := older.isLogin
	due.seen = older.issued != 0
	k.present(key, now)
	switch {
	case older.isFinal, older.until != 0:
	case due.seen && isLogin:
		due.renew = true // at once: the client has lost the key of the newer Login
	case k.awaiting() >= 2:
		due.renew = age > betweenKeys
	default:
		due.renew = age > overlap
	}
	return due
}

// keys are what the members of a record's Data say of its keys.
type keys struct {
	newest []byte // the current key as it stands in Data, quotes included
	made   int64  // Unix milliseconds; 0: with the session
	unseen bool   // the current key was not presented
	first  string // "": the current key
	older  []olderKey
	past   []object.Member
}

// isOvertaken reports whether a key older than this one was presented between two
// states of a record. A request that brought the key before that does not end the older
// key, which the client has now.
func isOvertaken(before, after *Record, key string) bool {
	was, is := ownMember(before.Data, olderMember), ownMember(after.Data, olderMember)
	isOlder := opensNewest(before.Data, key)
	for s := object.Scan(was); s.Next(); {
		o := parseOlder(unquote(s.Name), s.Raw)
		if isOlder && o.issued != 0 {
			now := object.Find(is, string(s.Name))
			if now != nil && parseOlder(o.key, now).issued == 0 {
				return true
			}
		}
		isOlder = isOlder || o.key == key
	}
	return false
}

// keysOf takes the keys out of the members of Data, without those that ended some
// time ago, and returns the other members.
func keysOf(members []object.Member, now time.Time) (k keys, others []object.Member) {
	others = members[:0]
	isOver := func(until int64) bool { return until != 0 && now.UnixMilli() >= until+clockSkew.Milliseconds() }
	for _, m := range members {
		switch string(m.Name) {
		case keyMember:
			k.newest = m.Raw
		case renewedMember, unseenMember:
			k.made, _ = digits(m.Raw)
			k.unseen = string(m.Name) == unseenMember
		case firstMember:
			k.first = unquote(m.Raw)
		case tidyMember: // derived
		case olderMember:
			for s := object.Scan(m.Raw); s.Next(); {
				if older := parseOlder(unquote(s.Name), s.Raw); !isOver(older.until) {
					k.older = append(k.older, older)
				}
			}
		case pastMember:
			for s := object.Scan(m.Raw); s.Next(); {
				if until, ok := digits(object.Find(s.Raw, `"until"`)); ok && !isOver(until) {
					k.past = append(k.past, object.Member{Name: s.Name, Raw: s.Raw})
				}
			}
		default:
			others = append(others, m)
		}
	}
	return k, others
}

// index returns where an older key stands, or -1.
func (k *keys) index(key string) int {
	return slices.IndexFunc(k.older, func(o olderKey) bool { return o.key == key })
}

// find returns an older key, or nil.
func (k *keys) find(key string) *olderKey {
	i := k.index(key)
	if i < 0 {
		return nil
	}
	return &k.older[i]
}

// awaiting returns how many keys were issued, have not been presented, and are
// newer than all that have been.
func (k *keys) awaiting() (n int) {
	if k.unseen {
		n++
	}
	for _, o := range k.older {
		if o.awaits() {
			n++
		}
	}
	return n
}

// present notes that a request has arrived with this key: the keys that were
// issued before it end soon. The key itself has full access until a newer one is
// presented, whichever was presented before it.
func (k *keys) present(key string, now time.Time) {
	before := k.mark(key)
	for i := range before {
		before[i].end(now)
	}
}

// notePresented notes in ks that the request's key was presented.
func (st *stored) notePresented(ks *keys, now time.Time) {
	if st.isOvertaken {
		ks.mark(st.held.Key)
	} else {
		ks.present(st.held.Key, now)
	}
}

// mark notes that a request has arrived with this key, and ends none. It returns the keys
// that were issued before it, or nil if that was noted already.
func (k *keys) mark(key string) (before []olderKey) {
	if unquote(k.newest) == key {
		k.unseen = false
		return k.older
	}
	i := k.index(key)
	if i < 0 || k.older[i].issued == 0 {
		return nil
	}
	k.older[i].issued, k.older[i].until = 0, 0
	return k.older[i+1:]
}

// demote moves the current key to the older ones, the first of which it becomes.
func (k *keys) demote() {
	o := olderKey{key: unquote(k.newest)}
	if k.unseen {
		o = olderKey{key: o.key, issued: k.made, isLogin: k.first == ""}
	}
	k.older = slices.Insert(k.older, 0, o)
}

// renewByAge makes key the current one, for a request that has arrived with held. The
// keys that were presented although they are newer than held have been overtaken: their
// responses came before that of held, and the client replaced them.
func (k *keys) renewByAge(key, held string, now time.Time) {
	newest := unquote(k.newest)
	k.demote()
	for i := range k.index(held) {
		k.older[i].isFinal = k.older[i].isFinal || k.older[i].issued == 0
	}
	if k.first == "" {
		k.first = newest
	}
	k.newest, k.made, k.unseen = quote(key), now.UnixMilli(), true
	k.bound(now)
}

// bound drops the oldest of too many older keys. A thief who asks for many keys in a row
// does not push out the one that the owner has just got.
func (k *keys) bound(now time.Time) {
	issued, presented := 0, 0
	if k.unseen {
		issued++
	}
	k.older = slices.DeleteFunc(k.older, func(o olderKey) bool {
		if o.issued != 0 {
			issued++
			isRecent := now.UnixMilli() < o.issued+arrival.Milliseconds()
			return issued > maxRecent || issued > maxIssued && !isRecent
		}
		presented++
		return presented > maxPresented
	})
}

// renewExplicitly makes key the current one. For grace the keys that had access
// show the session as it was: when it was created, and its values. If the renewal
// is a Login, the keys of Logins that were not presented keep their access: the
// responses may arrive in any order.
func (k *keys) renewExplicitly(key string, isLogin bool, grace time.Duration, created, now time.Time, values []object.Member) {
	k.demote()
	var names []string
	k.older = slices.DeleteFunc(k.older, func(o olderKey) bool {
		if isLogin && o.isLogin && o.issued != 0 {
			return false
		}
		if o.isLive(now) {
			names = append(names, o.key)
		}
		return true
	})
	if len(names) > 0 && grace > 0 {
		was := object.Member{Name: quote(strings.Join(names, " ")), Raw: object.Write([]object.Member{
			{Name: []byte(`"until"`), Raw: number(now.Add(grace).UnixMilli())},
			{Name: []byte(`"created"`), Raw: number(created.UnixMilli())},
			{Name: []byte(`"values"`), Raw: object.Write(values)},
		})}
		k.past = slices.Insert(k.past, 0, was)
		k.past = k.past[:min(len(k.past), maxPast)]
	}
	k.newest, k.made, k.unseen, k.first = quote(key), now.UnixMilli(), isLogin, ""
	k.bound(now)
}

// appendTo appends the members that say all this. ownMembers relies on it that they
// stand before the values (see weight), but for the past.
func (k *keys) appendTo(members []object.Member) []object.Member {
	add := func(name string, raw []byte) {
		members = append(members, object.Member{Name: []byte(name), Raw: raw})
	}
	if k.newest != nil { // nil: the token has none
		members = append(members, object.Member{Name: keyName, Raw: k.newest})
	}
	switch {
	case k.unseen:
		add(unseenMember, number(k.made))
	case k.made != 0:
		add(renewedMember, number(k.made))
	}
	if k.first != "" {
		add(firstMember, quote(k.first))
	}
	if end := k.firstEnd(); end != 0 {
		add(tidyMember, number(end+clockSkew.Milliseconds()))
	}
	if len(k.older) > 0 {
		older := make([]object.Member, len(k.older))
		for i, o := range k.older {
			older[i] = object.Member{Name: quote(o.key), Raw: o.raw()}
		}
		add(olderMember, object.Write(older))
	}
	if len(k.past) > 0 {
		add(pastMember, object.Write(k.past))
	}
	return members
}

// firstEnd returns the earliest end of the older and past keys, 0 if none ends.
func (k *keys) firstEnd() (end int64) {
	note := func(until int64) {
		if until != 0 && (end == 0 || until < end) {
			end = until
		}
	}
	for _, o := range k.older {
		note(o.until)
	}
	for _, m := range k.past {
		until, _ := digits(object.Find(m.Raw, `"until"`))
		note(until)
	}
	return end
}

// raw returns the value of an older key's member.
func (k olderKey) raw() []byte {
	var members []object.Member
	add := func(name string, raw []byte) {
		members = append(members, object.Member{Name: []byte(name), Raw: raw})
	}
	if k.issued != 0 {
		add(`"issued"`, number(k.issued))
	}
	if k.until != 0 {
		add(`"until"`, number(k.until))
	}
	if k.isLogin {
		add(`"login"`, []byte("true"))
	}
	if k.isFinal {
		add(`"final"`, []byte("true"))
	}
	return object.Write(members)
}

func parseOlder(key string, raw []byte) olderKey {
	k := olderKey{key: key}
	k.issued, _ = digits(object.Find(raw, `"issued"`))
	k.until, _ = digits(object.Find(raw, `"until"`))
	k.isLogin = object.Find(raw, `"login"`) != nil
	k.isFinal = object.Find(raw, `"final"`) != nil
	return k
}

var (
	keyName = []byte(keyMember)
	ownNext = []byte(`,` + reserved) // how a member of our own begins that is not the first
)

func quote(s string) []byte {
	b := append(make([]byte, 0, len(s)+2), '"')
	return append(append(b, s...), '"')
}

func unquote(raw []byte) string { return string(bytes.Trim(raw, `"`)) }

func number(n int64) []byte { return strconv.AppendInt(nil, n, 10) }

// isKeyMember reports whether a member is one of those above, which are not values
// and do not count against Options.MaxDataSize.
func isKeyMember(name []byte) bool {
	switch string(name) {
	case keyMember, renewedMember, unseenMember, firstMember, tidyMember, olderMember, pastMember:
		return true
	}
	return false
}
