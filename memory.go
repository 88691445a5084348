package session

import (
	"container/heap"
	"context"
	"errors"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

// MemoryOptions configure a [MemoryStore].
type MemoryOptions struct {
	// MaxBytes limits the memory of all records, with an overhead of about 300 bytes for each
	// record. 0 or less: 256 MiB.
	MaxBytes int64
}

// A MemoryStore keeps sessions in the memory of this process. It is the default [Store].
//
// Its memory is bounded. A full MemoryStore evicts expired sessions, then anonymous sessions that
// were not loaded since the request that created them (those of crawlers), then other anonymous
// sessions, the least recently used first. It never evicts a session of a logged-in user: full of
// those, it refuses new sessions with an error, and the Manager answers 503.
//
// It starts no goroutine: each Create removes some expired sessions.
type MemoryStore struct {
	seed   maphash.Seed
	max    int64
	used   atomic.Int64
	shards [32]shard
}

// NewMemoryStore returns an empty store. A nil opts means all defaults.
func NewMemoryStore(opts *MemoryOptions) *MemoryStore {
	m := &MemoryStore{seed: maphash.MakeSeed(), max: 256 << 20}
	if opts != nil && opts.MaxBytes > 0 {
		m.max = opts.MaxBytes
	}
	for i := range m.shards {
		m.shards[i].entries = make(map[string]*memoryEntry)
		m.shards[i].users = make(map[string]list)
	}
	return m
}

// Load implements Store. If ctx is a context of the Manager, the record must not have expired when
// ctx began: the Manager checks the same, and reading the clock again is 3 % of a request.
func (m *MemoryStore) Load(ctx context.Context, id string) (*Record, error) {
	now := began(ctx)
	if err := errAt(ctx, now); err != nil {
		return nil, err
	}
	sh := m.lock(id)
	defer sh.mu.Unlock()
	e := m.live(sh, id, now)
	if e == nil {
		return nil, ErrNotFound
	}
	if e.user == "" {
		sh.list(e).remove(e)
		e.back = true
		e.used = now.UnixNano()
		sh.list(e).push(e)
	}
	return e.record(), nil
}

// Create implements Store.
func (m *MemoryStore) Create(ctx context.Context, r *Record) error {
	now := time.Now()
	if err := errAt(ctx, now); err != nil {
		return err
	}
	e := newEntry(r, now)
	if err := m.reserve(e.size(), now); err != nil {
		return err
	}
	sh := m.lock(r.ID)
	defer sh.mu.Unlock()
	m.sweep(sh, now)
	old := m.live(sh, r.ID, now)
	if old == nil && now.Before(r.Expires) {
		sh.insert(e)
		return nil
	}
	m.used.Add(-e.size())
	if old != nil && old.version != r.Version {
		return ErrExists
	}
	return nil // r has expired or is stored already
}

// Save implements Store.
func (m *MemoryStore) Save(ctx context.Context, r *Record, version uint64) error {
	for {
		now := time.Now()
		if err := errAt(ctx, now); err != nil {
			return err
		}
		grown, err := m.replace(r, version, now)
		if grown == 0 || err != nil {
			return err
		}
		// The larger record did not fit. Evict others, without the lock of the shard, and
		// try again.
		if err := m.reserve(grown, now); err != nil {
			return err
		}
		m.used.Add(-grown)
	}
}

// replace is one try of Save. It returns the number of bytes that were lacking.
func (m *MemoryStore) replace(r *Record, version uint64, now time.Time) (lacking int64, err error) {
	sh := m.lock(r.ID)
	defer sh.mu.Unlock()
	e := m.live(sh, r.ID, now)
	switch {
	case e == nil:
		return 0, ErrNotFound
	case e.version == r.Version:
		return 0, nil
	case e.version != version:
		return 0, ErrConflict
	}
	seen, expires := max(e.seen, r.LastSeen.UnixMilli()), max(e.expires, r.Expires.UnixMilli())
	size := sizeOf(r.ID, r.User, r.Data)
	if size > m.max {
		return 0, errFull
	}
	grown := size - e.size()
	if used := m.used.Add(grown); grown > 0 && used > m.max {
		m.used.Add(-grown)
		return grown, nil
	}
	if e.user == "" || e.user != r.User {
		sh.unlink(e)
		e.back = e.back || e.user != "" // a tombstone outlives what a crawler leaves
		e.set(r, now)
		sh.link(e)
	} else {
		e.set(r, now)
	}
	e.seen, e.expires = seen, min(expires, e.deadline)
	heap.Fix(&sh.expiring, int(e.at))
	if now.UnixMilli() >= e.expires {
		m.drop(sh, e)
	}
	return 0, nil
}

// Touch implements Store.
func (m *MemoryStore) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	now := time.Now()
	if err := errAt(ctx, now); err != nil {
		return err
	}
	sh := m.lock(id)
	defer sh.mu.Unlock()
	e := m.live(sh, id, now)
	if e == nil {
		return ErrNotFound
	}
	e.seen = max(e.seen, seen.UnixMilli())
	e.expires = max(e.expires, min(expires.UnixMilli(), e.deadline))
	heap.Fix(&sh.expiring, int(e.at))
	return nil
}

// Delete implements Store.
func (m *MemoryStore) Delete(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	sh := m.lock(id)
	defer sh.mu.Unlock()
	if e := sh.entries[id]; e != nil {
		m.drop(sh, e)
	}
	return nil
}

// List implements Store. It visits only the records of the user, and holds the lock of one shard
// at a time.
func (m *MemoryStore) List(ctx context.Context, user string) ([]*Record, error) {
	if err := ctx.Err(); err != nil || user == "" {
		return nil, err
	}
	var records []*Record
	now := time.Now().UnixMilli()
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		for e := sh.users[user].front; e != nil; e = e.next {
			if now < e.expires {
				records = append(records, e.record())
			}
		}
		sh.mu.Unlock()
	}
	return records, nil
}

// lock locks and returns the shard of an id.
func (m *MemoryStore) lock(id string) *shard {
	sh := &m.shards[maphash.String(m.seed, id)%uint64(len(m.shards))]
	sh.mu.Lock()
	return sh
}

// live returns the entry of an id, or nil. It removes an expired entry.
func (m *MemoryStore) live(sh *shard, id string, now time.Time) *memoryEntry {
	e := sh.entries[id]
	if e != nil && now.UnixMilli() >= e.expires {
		m.drop(sh, e)
		return nil
	}
	return e
}

func (m *MemoryStore) drop(sh *shard, e *memoryEntry) {
	sh.remove(e)
	m.used.Add(-e.size())
}

// began returns when ctx began if it is a context of the Manager, otherwise the current time.
func began(ctx context.Context) time.Time {
	if c, ok := ctx.(*storectx.Context); ok {
		return c.Began()
	}
	return time.Now()
}

// errAt returns ctx.Err at time now. A context of the Manager does not read the clock again for
// it.
func errAt(ctx context.Context, now time.Time) error {
	if c, ok := ctx.(*storectx.Context); ok {
		return c.ErrAt(now)
	}
	return ctx.Err()
}

var errFull = errors.New("session: the MemoryStore is full of sessions of logged-in users: raise MemoryOptions.MaxBytes or use another store")

// sweep removes a bounded number of expired entries, more than one for each Create, so that they
// do not accumulate.
func (m *MemoryStore) sweep(sh *shard, now time.Time) {
	for range 8 {
		if len(sh.expiring) == 0 || sh.expiring[0].expires > now.UnixMilli() {
			return
		}
		m.drop(sh, sh.expiring[0])
	}
}

// reserve reserves n bytes, and evicts entries until they are free.
func (m *MemoryStore) reserve(n int64, now time.Time) error {
	if n > m.max {
		return errFull // n can never fit: evict nothing
	}
	for used := m.used.Add(n); used > m.max; used = m.used.Load() {
		if !m.evict(now) && m.used.Load() > m.max {
			m.used.Add(-n)
			return errFull
		}
	}
	return nil
}

// evict removes one entry, of the first kind in the order of MemoryStore that exists. It holds the
// lock of one shard at a time, and visits one entry of each.
func (m *MemoryStore) evict(now time.Time) bool {
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		if len(sh.expiring) > 0 && sh.expiring[0].expires <= now.UnixMilli() {
			m.drop(sh, sh.expiring[0])
			sh.mu.Unlock()
			return true
		}
		sh.mu.Unlock()
	}
	return m.evictOldest(func(sh *shard) *list { return &sh.fresh }) ||
		m.evictOldest(func(sh *shard) *list { return &sh.returned })
}

func (m *MemoryStore) evictOldest(of func(*shard) *list) bool {
	for {
		var from *shard
		var used int64
		for i := range m.shards {
			sh := &m.shards[i]
			sh.mu.Lock()
			if e := of(sh).front; e != nil && (from == nil || e.used < used) {
				from, used = sh, e.used
			}
			sh.mu.Unlock()
		}
		if from == nil {
			return false
		}
		from.mu.Lock()
		e := of(from).front
		if e != nil {
			m.drop(from, e)
		}
		from.mu.Unlock()
		if e != nil {
			return true
		} // another goroutine has removed the entry: try again
	}
}
