package session

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/token"
)

// A record knows by which keys its session may be had. The newest stands at the
// beginning of Data, so that checking it is one comparison:
//
//	{"session.key":"…"                    the hash of the newest key
//	,"session.renewed":1732639200000      when that was made, if not with the session; or
//	,"session.unseen":1732639200000       when that was made, if by age, and it has not come yet
//	,"session.first":"…"                  since when nobody asked for a renewal, if not since the newest
//	,"session.good":{"…":0}               older ones, good until then; 0: until the newest has come
//	,"session.past":{"…":{"until":…,"created":…,"values":{…}}}
//
// A key is in "past" for a while after a renewal that was asked for, with the
// session as it was then: whoever has it sees no more than he did. The
// members after the first are there only where there was a renewal.
const (
	keyMember     = `"session.key"`
	renewedMember = `"session.renewed"`
	unseenMember  = `"session.unseen"`
	firstMember   = `"session.first"`
	goodMember    = `"session.good"`
	pastMember    = `"session.past"`

	keyBegin = `{` + keyMember + `:"`
	keyEnd   = len(keyBegin) + token.RefLength + len(`"`)
)

// overlap is for how long a key is good, in one way or the other, after it was
// replaced: OWASP's "safety interval" of a renewal.
const overlap = 10 * time.Second

// mostKeys is how many older keys a record knows, and how many renewals that
// were asked for. Of more within the overlap the oldest are forgotten.
const mostKeys = 3

// values returns where the members of Data begin that are not the newest key.
func values(data []byte) int {
	if len(data) > keyEnd && string(data[:len(keyBegin)]) == keyBegin {
		return keyEnd
	}
	return 0
}

// opensNewest tells whether key is the newest of the record with this Data. The
// record of a token without a key has none either.
func opensNewest(data []byte, key string) bool {
	if key == "" {
		return values(data) == 0
	}
	return len(data) > keyEnd && string(data[:len(keyBegin)]) == keyBegin && string(data[len(keyBegin):keyEnd-1]) == key
}

// made returns when the newest key of a record was made, and whether it is
// still to come for the first time.
func made(r *Record) (at time.Time, unseen bool) {
	pos := values(r.Data)
	s := object.ScanAfter(r.Data, pos)
	if !bytes.HasPrefix(r.Data[pos:], ownNext) || !s.Next() {
		return r.Created, false // as most records are
	}
	ms, ok := digits(s.Raw)
	unseen = string(s.Name) == unseenMember
	if !ok || !unseen && string(s.Name) != renewedMember {
		return r.Created, false
	}
	return time.UnixMilli(ms), unseen
}

// firstKey returns the key since which nobody asked for a renewal of the record:
// between it and the newest all was by age.
func firstKey(data []byte) string {
	at := values(data)
	if raw := object.FindAfter(data, at, firstMember); raw != nil {
		return unquote(raw)
	}
	return unquote(data[min(at, len(keyBegin)-1):at])
}

// isGood tells whether a key that is not the newest may do all that it could.
func isGood(data []byte, key string, now time.Time) bool {
	until, ok := digits(object.Find(object.FindAfter(data, values(data), goodMember), `"`+key+`"`))
	return ok && (until == 0 || now.UnixMilli() < until)
}

// asItWas returns the session as it was just before a renewal that replaced
// this key and is not long ago, or nil.
func asItWas(r *Record, key string, now time.Time) *Record {
	for s := object.Scan(object.FindAfter(r.Data, values(r.Data), pastMember)); s.Next(); {
		if !strings.Contains(string(s.Name), key) {
			continue
		}
		until, ok1 := digits(object.Find(s.Raw, `"until"`))
		created, ok2 := digits(object.Find(s.Raw, `"created"`))
		if !ok1 || !ok2 || now.UnixMilli() >= until {
			return nil
		}
		then := *r
		then.Created, then.Data = time.UnixMilli(created), object.Find(s.Raw, `"values"`)
		return &then
	}
	return nil
}

// keys are what a record's Data says of them, while a Save makes another.
type keys struct {
	newest []byte // as it stands in Data, quotes included
	made   int64  // Unix milliseconds; 0: with the session
	unseen bool
	first  string // "": newest
	good   []goodKey
	past   []object.Member
}

type goodKey struct {
	key   string
	until int64 // Unix milliseconds; 0: until the newest has come
}

// keysOf takes the keys out of the members of Data, without those whose time is
// over, and returns the other members.
func keysOf(members []object.Member, now time.Time) (k keys, others []object.Member) {
	others = members[:0]
	for _, m := range members {
		switch string(m.Name) {
		case keyMember:
			k.newest = m.Raw
		case renewedMember, unseenMember:
			k.made, _ = digits(m.Raw)
			k.unseen = string(m.Name) == unseenMember
		case firstMember:
			k.first = unquote(m.Raw)
		case goodMember:
			for s := object.Scan(m.Raw); s.Next(); {
				if until, ok := digits(s.Raw); ok && (until == 0 || now.UnixMilli() < until) {
					k.good = append(k.good, goodKey{unquote(s.Name), until})
				}
			}
		case pastMember:
			for s := object.Scan(m.Raw); s.Next(); {
				if until, ok := digits(object.Find(s.Raw, `"until"`)); ok && now.UnixMilli() < until {
					k.past = append(k.past, object.Member{Name: s.Name, Raw: s.Raw})
				}
			}
		default:
			others = append(others, m)
		}
	}
	return k, others
}

// seen notes that the newest key has come: those before it end soon.
func (k *keys) seen(now time.Time) {
	for i := range k.good {
		if k.good[i].until == 0 {
			k.good[i].until = now.Add(overlap).UnixMilli()
		}
	}
	k.unseen = false
}

// renewByAge makes key the newest. The one that asked, held, stays good until
// it has come, and so does the one that was the newest, if that has not come
// itself: the response that brings it may only be slow.
func (k *keys) renewByAge(key, held string, now time.Time) {
	good, newest := []goodKey{{key: held}}, unquote(k.newest)
	if newest != held {
		good = append(good, goodKey{key: newest})
	}
	for _, g := range k.good {
		if g.key != held {
			good = append(good, g)
		}
	}
	if k.first == "" {
		k.first = newest
	}
	k.good = good[:min(len(good), mostKeys)]
	k.newest, k.made, k.unseen = quote(key), now.UnixMilli(), true
}

// renewAsked makes key the newest. Those that were good until now are for a
// while good for the session as it was: when it was created, and its values.
func (k *keys) renewAsked(key string, created, now time.Time, values []object.Member) {
	names := `"` + unquote(k.newest)
	for _, g := range k.good {
		names += " " + g.key
	}
	was := object.Member{Name: []byte(names + `"`), Raw: object.Write([]object.Member{
		{Name: []byte(`"until"`), Raw: number(now.Add(overlap).UnixMilli())},
		{Name: []byte(`"created"`), Raw: number(created.UnixMilli())},
		{Name: []byte(`"values"`), Raw: object.Write(values)},
	})}
	k.past = append([]object.Member{was}, k.past[:min(len(k.past), mostKeys-1)]...)
	k.newest, k.made, k.unseen, k.first, k.good = quote(key), now.UnixMilli(), false, "", nil
}

// appendTo appends the members that say all this, in the order that made relies on.
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
	if len(k.good) > 0 {
		good := make([]object.Member, len(k.good))
		for i, g := range k.good {
			good[i] = object.Member{Name: quote(g.key), Raw: number(g.until)}
		}
		add(goodMember, object.Write(good))
	}
	if len(k.past) > 0 {
		add(pastMember, object.Write(k.past))
	}
	return members
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

// isKeyMember tells whether a member is one of those above, which are nobody's
// values and do not count against Options.MaxDataSize.
func isKeyMember(name []byte) bool {
	switch string(name) {
	case keyMember, renewedMember, unseenMember, firstMember, goodMember, pastMember:
		return true
	}
	return false
}
