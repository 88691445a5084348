package session

import (
	"errors"
	"time"
)

var errFull = errors.New("session: the MemoryStore is full of sessions that are logged in: raise MemoryOptions.MaxBytes or use another store")

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
