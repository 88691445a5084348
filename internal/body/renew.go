package body

import (
	"slices"
	"time"

	"github.com/coatcheck/session/internal/object"
)

// demote makes the current key the newest of the older keys.
func (k *keys) demote() {
	o := olderKey{key: object.Unquote(k.current)}
	if k.isAwaited {
		o = olderKey{key: o.key, issued: k.issued, isLogin: k.explicit == ""}
	}
	k.older = slices.Insert(k.older, 0, o)
}

// RenewAutomatically makes key the current key, for a request that has arrived with the key
// presented. Newer keys that were also presented become final: the client has replaced them by
// presented, because its response arrived last.
func (k *keys) RenewAutomatically(key, presented string, now time.Time) {
	previous := object.Unquote(k.current)
	k.demote()
	for i := range k.index(presented) {
		k.older[i].isFinal = k.older[i].isFinal || k.older[i].issued == 0
	}
	if k.explicit == "" {
		k.explicit = previous
	}
	k.current, k.issued, k.isAwaited = object.Quote(key), now.UnixMilli(), true
	k.bound(now)
}

// bound removes the oldest of the older keys beyond the limits. Keys that were issued recently
// and not presented have a larger limit, so that an attacker who requests many keys in a row
// does not remove the key that the user was just issued.
func (k *keys) bound(now time.Time) {
	issued, presented := 0, 0
	if k.isAwaited {
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

// RenewExplicitly makes key the current key. For grace, requests with the previous keys see the
// session as it was before: see [Frozen]. created is Record.Created before the renewal. If the
// renewal is a Login, keys of earlier Logins that were not presented keep their access, because
// responses can arrive in any order.
func (b *Body) RenewExplicitly(key string, isLogin bool, grace time.Duration, created, now time.Time) {
	k := &b.keys
	k.demote()
	var replaced []string
	k.older = slices.DeleteFunc(k.older, func(o olderKey) bool {
		if isLogin && o.isLogin && o.issued != 0 {
			return false
		}
		if o.isLive(now) {
			replaced = append(replaced, o.key)
		}
		return true
	})
	if len(replaced) > 0 && grace > 0 {
		was := Frozen{Values: object.Write(b.values()), Created: created, Until: now.Add(grace)}
		k.past = slices.Insert(k.past, 0, was.member(replaced))
		k.past = k.past[:min(len(k.past), maxPast)]
	}
	k.current, k.issued, k.isAwaited, k.explicit = object.Quote(key), now.UnixMilli(), isLogin, ""
	k.bound(now)
}
