package body

import (
	"slices"
	"time"

	"github.com/coatcheck/session/internal/object"
)

// demote makes the current key the first of the older ones.
func (k *keys) demote() {
	o := olderKey{key: object.Unquote(k.current)}
	if k.isAwaited {
		o = olderKey{key: o.key, issued: k.issued, isLogin: k.explicit == ""}
	}
	k.older = slices.Insert(k.older, 0, o)
}

// RenewAutomatically makes key the current one, for a request that has arrived with
// presented. The newer keys that were presented too become final: presented has overtaken
// them, because their responses reached the client before that of presented did.
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

// bound removes the oldest of too many older keys. Recent keys that were not presented
// count apart, so that an attacker who asks for many keys in a row does not remove the one
// that the user has just got.
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

// RenewExplicitly makes key the current one. For grace, requests with the keys that had
// access see the session as it was: see [Frozen]; created is Record.Created of before. If
// the renewal is a Login, the keys of Logins that were not presented keep their access,
// because the responses may arrive in any order.
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
