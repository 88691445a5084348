package session

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// verified remembers the values that securecookie has verified, and the ids of
// their records. Verifying costs more than everything else a request does.
//
// It is safe to believe it: an entry is made only after securecookie verified
// that very value under the secrets of this Manager, which never change; the
// whole value is compared, not a hash of it; and the table is gone with the
// Manager. It holds good values only, so that nobody can fill it with forged
// ones, and a fixed number of them, so that nobody with a script can fill the
// memory either: who is pushed out is verified again. Its places are chosen by
// a keyed hash of the whole value, so that a guess that is wrong in one
// character is compared with no value, or in one of 65 536 cases with somebody
// else's, and the time that takes tells nothing.
//
// The table doubles when it has an entry for every place, up to its last size.
// The one that it replaces is still looked into, and what is found there moves:
// no request ever waits for a whole table to be copied.
type verified struct {
	seed   maphash.Seed
	tables atomic.Pointer[tables]
	n      atomic.Int64 // entries of the newer table
	grow   sync.Mutex
}

type tables struct{ now, before []place }

const (
	ways      = 3       // entries that share a place
	firstSize = 1 << 6  // places
	lastSize  = 1 << 17 // places: 393 216 entries of about 200 bytes
)

// A place is one line of the processor's cache. Entries are a value and its id
// in one string, the newest first, each with 16 bits of the hash, so that none
// but the right one is looked at.
type place struct {
	mu   sync.Mutex
	tags [ways]uint16
	both [ways]string
}

func (v *verified) init() {
	v.seed = maphash.MakeSeed()
	v.tables.Store(&tables{now: make([]place, firstSize)})
}

func (v *verified) get(value string) (id string, ok bool) {
	hash := maphash.String(v.seed, value)
	t := v.tables.Load()
	if id, ok = idOf(lookIn(t.now, hash), value); !ok && t.before != nil {
		both := lookIn(t.before, hash)
		if id, ok = idOf(both, value); ok {
			v.insert(hash, both)
		}
	}
	return id, ok
}

func idOf(both, value string) (id string, ok bool) {
	id, ok = strings.CutPrefix(both, value)
	return id, ok && len(id) == idLength // lest one value be the beginning of another
}

func lookIn(table []place, hash uint64) string {
	p := &table[hash%uint64(len(table))]
	tag := uint16(hash >> 48)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.both {
		if p.tags[i] == tag {
			return p.both[i]
		}
	}
	return ""
}

func (v *verified) put(value, id string) {
	v.insert(maphash.String(v.seed, value), value+id)
}

// insert puts an entry first in its place, in place of one with its tag, or
// else of the last.
func (v *verified) insert(hash uint64, both string) {
	table := v.tables.Load().now
	p := &table[hash%uint64(len(table))]
	tag := uint16(hash >> 48)
	p.mu.Lock()
	at := 0
	for at < ways-1 && p.both[at] != "" && p.tags[at] != tag {
		at++
	}
	added := p.both[at] == ""
	copy(p.both[1:], p.both[:at])
	copy(p.tags[1:], p.tags[:at])
	p.both[0], p.tags[0] = both, tag
	p.mu.Unlock()
	if added && v.n.Add(1) > int64(len(table)) && len(table) < lastSize && v.grow.TryLock() {
		if len(v.tables.Load().now) == len(table) {
			v.n.Store(0)
			v.tables.Store(&tables{now: make([]place, 2*len(table)), before: table})
		}
		v.grow.Unlock()
	}
}
