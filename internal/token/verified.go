package token

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Verified remembers the values that its Format has verified, and what they
// refer to. Verifying costs more than everything else a request does.
//
// It is safe to believe it: an entry is made only after the Format verified
// that very value under its secrets, which never change; the whole value is
// compared, not a hash of it; and the table is gone with the Format. It holds good
// values only, so that nobody can fill it with forged ones, and a fixed number of
// them, none of them long, so that nobody with a script can fill the memory either: who is pushed out is verified again. Its places are chosen by
// a keyed hash of the whole value, so that a guess that is wrong in one
// character is compared with no value, or once in some 20 000 guesses with
// somebody else's, and the time that takes tells nothing.
//
// The table doubles when it has an entry for every place, up to its last size.
// The places of the one that it replaces move a few at a time, by those who add
// an entry or still find theirs there: nobody waits for the whole of it.
type Verified struct {
	Format
	seed   maphash.Seed
	tables atomic.Pointer[tables]
	grow   sync.Mutex // tried only
}

type tables struct {
	now    []place
	before atomic.Pointer[[]place] // nil: all has moved
	n      atomic.Int64            // entries in now
	taken  atomic.Int64            // places of before that somebody moves, or has moved
	moved  atomic.Int64            // and those that he has
}

const (
	ways      = 3       // entries that share a place
	firstSize = 1 << 6  // places
	lastSize  = 1 << 17 // places: 393 216 entries of about 200 bytes
	longest   = 256     // bytes of a value that is worth remembering
)

// A place is one line of the processor's cache. Its entries stand with the newest
// first, each with 16 bits of the hash, so that none but the right one is looked at.
type place struct {
	mu   sync.Mutex
	tags [ways]uint16
	both [ways]string
}

// An entry is a value and what it refers to in one string: value, id, key's hash,
// and the lengths of the last two in a byte each.
func entry(value string, ref Ref) string {
	return value + ref.ID + ref.Key + string([]byte{byte(len(ref.ID)), byte(len(ref.Key))})
}

// valueOf returns the value of an entry, and what it refers to.
func valueOf(entry string) (value string, ref Ref) {
	end := len(entry) - 2
	key := end - int(entry[end+1])
	id := key - int(entry[end])
	return entry[:id], Ref{entry[id:key], entry[key:end]}
}

// NewVerified returns a Verified that remembers nothing yet.
func NewVerified(f Format) *Verified {
	v := &Verified{Format: f, seed: maphash.MakeSeed()}
	v.tables.Store(&tables{now: make([]place, firstSize)})
	return v
}

// Verify is the Format's, at a tenth of its price for a value seen before.
func (v *Verified) Verify(value string) (Ref, bool) {
	if ref, ok := v.get(value); ok {
		return ref, true
	}
	ref, ok := v.Format.Verify(value)
	if ok && len(value) <= longest && len(ref.ID) <= 255 && len(ref.Key) <= 255 {
		v.put(value, ref)
	}
	return ref, ok
}

func (v *Verified) get(value string) (Ref, bool) {
	hash, t := maphash.String(v.seed, value), v.tables.Load()
	if ref, ok := lookIn(t.now, hash, value); ok {
		return ref, true
	}
	before := t.before.Load()
	if before == nil {
		return Ref{}, false
	}
	ref, ok := lookIn(*before, hash, value)
	if ok {
		v.move(t, *before)
	}
	return ref, ok
}

func lookIn(table []place, hash uint64, value string) (Ref, bool) {
	p := &table[hash%uint64(len(table))]
	tag, both := uint16(hash>>48), ""
	p.mu.Lock()
	for i := range p.both {
		if p.tags[i] == tag {
			both = p.both[i]
			break
		}
	}
	p.mu.Unlock()
	if !strings.HasPrefix(both, value) || both == "" {
		return Ref{}, false
	}
	if is, ref := valueOf(both); is == value { // and not only begins with it
		return ref, true
	}
	return Ref{}, false
}

func (v *Verified) put(value string, ref Ref) {
	t := v.tables.Load()
	t.insert(maphash.String(v.seed, value), entry(value, ref))
	if before := t.before.Load(); before != nil {
		v.move(t, *before)
	} else if t.n.Load() > int64(len(t.now)) && len(t.now) < lastSize && v.grow.TryLock() {
		defer v.grow.Unlock()
		if v.tables.Load() == t {
			larger := &tables{now: make([]place, 2*len(t.now))}
			larger.before.Store(&t.now)
			v.tables.Store(larger)
		}
	}
}

// move moves some places of before. Who moves the last lets go of it.
func (v *Verified) move(t *tables, before []place) {
	const some = 2 // of which the number of places is a multiple
	from := int(t.taken.Add(some)) - some
	if from >= len(before) {
		return
	}
	for i := range some {
		p := &before[from+i]
		p.mu.Lock()
		all := p.both
		p.mu.Unlock()
		for _, both := range slices.Backward(all[:]) {
			if both != "" {
				value, _ := valueOf(both)
				t.insert(maphash.String(v.seed, value), both)
			}
		}
	}
	if t.moved.Add(some) == int64(len(before)) {
		t.before.Store(nil)
	}
}

// insert puts an entry first in its place, in place of one with its tag, or
// else of the last.
func (t *tables) insert(hash uint64, both string) {
	p := &t.now[hash%uint64(len(t.now))]
	tag := uint16(hash >> 48)
	p.mu.Lock()
	defer p.mu.Unlock()
	at := 0
	for at < ways-1 && p.both[at] != "" && p.tags[at] != tag {
		at++
	}
	if p.both[at] == "" {
		t.n.Add(1)
	}
	copy(p.both[1:], p.both[:at])
	copy(p.tags[1:], p.tags[:at])
	p.both[0], p.tags[0] = both, tag
}
