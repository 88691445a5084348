package token

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Verified caches the values that its Format has verified, with what they refer to, because
// verifying is the most expensive step of a request.
//
// The cache is safe for these reasons. An entry is added only after the Format has verified
// that exact value with its secrets, which never change. The whole value is compared, not a
// hash. The table ends with the Format. It contains valid values only, so an attacker cannot
// fill it with forged ones. The number of entries and their lengths are bounded, so an attacker
// cannot exhaust memory; a value that was evicted is verified again. An entry's place is chosen
// by a keyed hash of the whole value, so a guess that differs in one character is compared with
// no value, or once in about 20 000 guesses with an unrelated value: the duration reveals
// nothing.
//
// The table doubles when it has as many entries as places, up to lastSize. The entries of the
// table that it replaces are moved a few at a time, by calls that add an entry or find one in
// the old table, so that no call waits for all of them.
type Verified struct {
	Format
	seed   maphash.Seed
	tables atomic.Pointer[tables]
	grow   sync.Mutex // acquired with TryLock only
}

type tables struct {
	now    []place
	before atomic.Pointer[[]place] // the table that now replaces; nil: all its entries were moved
	n      atomic.Int64            // number of entries in now
	taken  atomic.Int64            // number of places of before whose move has begun
	moved  atomic.Int64            // number of places of before whose move has ended
}

const (
	ways      = 3       // entries in a place, so that a place is one cache line
	firstSize = 1 << 6  // places of the first table
	lastSize  = 1 << 17 // places of the largest table: 393 216 entries of about 200 bytes
	longest   = 256     // maximum length of a cached value in bytes; bounds memory
)

// place is one cache line of the processor. Its entries are ordered, newest first. Each has 16
// bits of the hash, so that only the matching entry is compared.
type place struct {
	mu   sync.Mutex
	tags [ways]uint16
	both [ways]string
}

// entry encodes a value and what it refers to in one string: the value, the id, the hash of the
// key, and the lengths of the last two in a byte each.
func entry(value string, ref Ref) string {
	return value + ref.ID + ref.Key + string([]byte{byte(len(ref.ID)), byte(len(ref.Key))})
}

// valueOf decodes an entry.
func valueOf(entry string) (value string, ref Ref) {
	end := len(entry) - 2
	key := end - int(entry[end+1])
	id := key - int(entry[end])
	return entry[:id], Ref{entry[id:key], entry[key:end]}
}

// NewVerified returns an empty Verified.
func NewVerified(f Format) *Verified {
	v := &Verified{Format: f, seed: maphash.MakeSeed()}
	v.tables.Store(&tables{now: make([]place, firstSize)})
	return v
}

// Verify is the Format's Verify, at a tenth of the cost for a cached value.
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
	if cached, ref := valueOf(both); cached == value { // HasPrefix alone also accepts a longer value
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

// move moves the entries of some places of before. The call that moves the last ones releases
// before.
func (v *Verified) move(t *tables, before []place) {
	const some = 2 // places per call; divides the number of places
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

// insert puts an entry at the front of its place. It replaces the entry with the same tag, or
// else the last one.
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
