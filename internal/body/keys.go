package body

import (
	"slices"
	"time"

	"github.com/coatcheck/session/internal/object"
)

const (
	// overlap is how long a key keeps full access after a newer key was first
	// presented: requests that were sent with the older one are still in flight.
	// OWASP's session cheat sheet, "Renewal Timeout", calls it a safety interval.
	overlap = 10 * time.Second

	// arrival is how long an issued key that was not presented keeps full access
	// at least: the response that carries it may be slow.
	arrival = time.Minute

	// clockSkew is how long an entry of a key stays after its end. A process whose
	// clock is ahead by less than that ends a key early for its own requests only.
	clockSkew = time.Minute

	// betweenKeys is the shortest time between two keys that are issued while
	// several have not been presented.
	betweenKeys = time.Second

	maxIssued    = 16 // keys that were not presented, including the current key: bounds the size of a record
	maxRecent    = 64 // keys that were not presented, including those issued less than arrival ago: one per betweenKeys, and some more
	maxPresented = 16 // older keys that were presented: bounds the size of a record
	maxPast      = 3  // frozen sessions: each has up to Options.MaxDataSize bytes
)

// olderKey is a key that has full access beside the current key. The older keys of a session
// are ordered, newest first.
type olderKey struct {
	key     string
	issued  int64 // when the key was issued, in Unix milliseconds; 0: the key was presented
	isLogin bool  // a Login issued the key
	until   int64 // when the access ends, in Unix milliseconds; 0: not before a newer key is presented
	isFinal bool  // no request with the key gets a newer key, because the client has replaced the key by an older one
}

// isLive reports whether the key has access at now.
func (k olderKey) isLive(now time.Time) bool { return k.until == 0 || now.UnixMilli() < k.until }

// awaits reports whether neither the key nor a newer key was presented.
func (k olderKey) awaits() bool { return k.issued != 0 && k.until == 0 }

// end limits the access of the key, because a newer one is presented.
func (k *olderKey) end(now time.Time) {
	if k.until != 0 {
		return
	}
	k.until = now.Add(overlap).UnixMilli()
	if k.issued != 0 {
		k.until = max(k.until, k.issued+arrival.Milliseconds())
	}
}

// HasAccess reports whether a request with this key sees the current session: key is the
// current key, or an older key that has not ended.
func HasAccess(data []byte, key string, now time.Time) bool {
	if IsCurrent(data, key) {
		return true
	}
	raw := object.Find(reservedMember(data, olderMember), `"`+key+`"`)
	return raw != nil && parseOlder(key, raw).isLive(now)
}

// ExplicitKey returns the key of the last explicit renewal, or the first key of the session:
// all renewals since were automatic.
func ExplicitKey(data []byte) string {
	if raw := reservedMember(data, firstMember); raw != nil {
		return object.Unquote(raw)
	}
	at := afterKey(data)
	return object.Unquote(data[min(at, len(keyBegin)-1):at])
}

// keys are the keys of a session. A key is presented when a request arrives with it. An
// automatic renewal (Options.RenewAfter) moves the current key to older. An explicit renewal
// moves the current key and older to past: see [Frozen].
type keys struct {
	current   []byte // the current key in JSON, quotes included; nil: the token has no key
	issued    int64  // time of issue of the current key in Unix milliseconds; 0: it was issued with the session
	isAwaited bool   // whether the current key comes from a renewal and was not presented
	explicit  string // key of the last explicit renewal; "": the current key
	older     []olderKey
	past      []object.Member
}

// keysOf separates the keys from the other members. It omits keys and frozen sessions that
// ended more than clockSkew before now.
func keysOf(members []object.Member, now time.Time) (k keys, others []object.Member) {
	others = members[:0]
	hasEnded := func(until int64) bool { return until != 0 && now.UnixMilli() >= until+clockSkew.Milliseconds() }
	for _, m := range members {
		switch string(m.Name) {
		case keyMember:
			k.current = m.Raw
		case renewedMember, unseenMember:
			k.issued, _ = object.Int(m.Raw)
			k.isAwaited = string(m.Name) == unseenMember
		case firstMember:
			k.explicit = object.Unquote(m.Raw)
		case tidyMember: // appendTo computes it again from firstEnd
		case olderMember:
			for s := object.Scan(m.Raw); s.Next(); {
				if older := parseOlder(object.Unquote(s.Name), s.Raw); !hasEnded(older.until) {
					k.older = append(k.older, older)
				}
			}
		case pastMember:
			for s := object.Scan(m.Raw); s.Next(); {
				if f, ok := parseFrozen(s.Raw); ok && !hasEnded(f.Until.UnixMilli()) {
					k.past = append(k.past, object.Member{Name: s.Name, Raw: s.Raw})
				}
			}
		default:
			others = append(others, m)
		}
	}
	return k, others
}

// index returns the index of an older key, or -1.
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

// awaiting returns the number of keys that were not presented and are newer than all that were.
func (k *keys) awaiting() (n int) {
	if k.isAwaited {
		n++
	}
	for _, o := range k.older {
		if o.awaits() {
			n++
		}
	}
	return n
}

// appendTo appends the members that encode k.
func (k *keys) appendTo(members []object.Member) []object.Member {
	add := func(name string, raw []byte) {
		members = append(members, object.Member{Name: []byte(name), Raw: raw})
	}
	if k.current != nil {
		members = append(members, object.Member{Name: keyName, Raw: k.current})
	}
	switch {
	case k.isAwaited:
		add(unseenMember, object.Number(k.issued))
	case k.issued != 0:
		add(renewedMember, object.Number(k.issued))
	}
	if k.explicit != "" {
		add(firstMember, object.Quote(k.explicit))
	}
	if end := k.firstEnd(); end != 0 {
		add(tidyMember, object.Number(end+clockSkew.Milliseconds()))
	}
	if len(k.older) > 0 {
		older := make([]object.Member, len(k.older))
		for i, o := range k.older {
			older[i] = object.Member{Name: object.Quote(o.key), Raw: o.raw()}
		}
		add(olderMember, object.Write(older))
	}
	if len(k.past) > 0 {
		add(pastMember, object.Write(k.past))
	}
	return members
}

// firstEnd returns the earliest end of the older keys and frozen sessions, in Unix
// milliseconds; 0 if none ends.
func (k *keys) firstEnd() (end int64) {
	consider := func(until int64) {
		if until != 0 && (end == 0 || until < end) {
			end = until
		}
	}
	for _, o := range k.older {
		consider(o.until)
	}
	for _, m := range k.past {
		f, _ := parseFrozen(m.Raw)
		consider(f.Until.UnixMilli())
	}
	return end
}

// raw returns the value of the key's member in session.older.
func (k olderKey) raw() []byte {
	var members []object.Member
	add := func(name string, raw []byte) {
		members = append(members, object.Member{Name: []byte(name), Raw: raw})
	}
	if k.issued != 0 {
		add(`"issued"`, object.Number(k.issued))
	}
	if k.until != 0 {
		add(`"until"`, object.Number(k.until))
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
	k.issued, _ = object.Int(object.Find(raw, `"issued"`))
	k.until, _ = object.Int(object.Find(raw, `"until"`))
	k.isLogin = object.Find(raw, `"login"`) != nil
	k.isFinal = object.Find(raw, `"final"`) != nil
	return k
}
