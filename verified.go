package session

import (
	"hash/maphash"
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
// character is compared with somebody else's value, or none, and the time that
// takes tells nothing.
//
// Values are looked up without a lock. The table grows when it is half full, up
// to its last size: 100 000 browsers in a table of 16 384 would find little.
type verified struct {
	seed  maphash.Seed
	table atomic.Pointer[[]place]

	mu sync.Mutex // for put
	n  int        // entries
}

const (
	ways      = 4       // entries that share a place
	firstSize = 1 << 6  // places
	lastSize  = 1 << 16 // places: 262 144 entries of about 200 bytes
)

type place [ways]atomic.Pointer[entry]

// An entry is value and id in one string.
type entry struct {
	both string
	cut  int
}

func (v *verified) init() {
	v.seed = maphash.MakeSeed()
	table := make([]place, firstSize)
	v.table.Store(&table)
}

func (v *verified) place(table []place, value string) *place {
	return &table[maphash.String(v.seed, value)%uint64(len(table))]
}

func (v *verified) get(value string) (id string, ok bool) {
	p := v.place(*v.table.Load(), value)
	for i := range p {
		if e := p[i].Load(); e != nil && e.both[:e.cut] == value {
			return e.both[e.cut:], true
		}
	}
	return "", false
}

func (v *verified) put(value, id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.get(value); ok {
		return // two requests verified it at once
	}
	table := *v.table.Load()
	if v.n > len(table)*ways/2 && len(table) < lastSize {
		table = v.grow(table)
	}
	v.insert(table, &entry{value + id, len(value)})
}

// insert puts e first in its place, and pushes the last one out if that is full.
func (v *verified) insert(table []place, e *entry) {
	p := v.place(table, e.both[:e.cut])
	for i := range p {
		if e = p[i].Swap(e); e == nil {
			v.n++
			return
		}
	}
}

func (v *verified) grow(old []place) []place {
	table := make([]place, 4*len(old))
	v.n = 0
	for i := range old {
		for j := range old[i] {
			if e := old[i][j].Load(); e != nil {
				v.insert(table, e)
			}
		}
	}
	v.table.Store(&table)
	return table
}
