package session

import (
	"context"
	"time"
)

// Simulate lets the simulator decide random numbers and the order in which goroutines continue.
func Simulate(random func(n int64) int64, resumed func(ctx context.Context, m *Manager, what, id string)) {
	simulated.random, simulated.resumed = random, resumed
}

// SetBack makes all times of the records later by d: so they look after the clocks of the store
// and of all processes have been set back by d. shift does the same for Record.Data. Expired
// records are removed: which of them a sweep has removed before depends on their shards, which
// are random.
func SetBack(m *MemoryStore, d time.Duration, shift func(data []byte) []byte) {
	for i := range m.shards {
		sh := &m.shards[i]
		sh.mu.Lock()
		for id, e := range sh.entries {
			if m.live(sh, id, time.Now()) == nil {
				continue
			}
			e.created, e.seen = e.created+d.Milliseconds(), e.seen+d.Milliseconds()
			e.deadline, e.expires = e.deadline+d.Milliseconds(), e.expires+d.Milliseconds()
			e.data = shift(e.data)
		}
		sh.mu.Unlock()
	}
}

// Peek returns the live record with this id, or nil. Unlike Load it does not count as a use of
// the record, so it does not change what a full store evicts.
func Peek(m *MemoryStore, id string) *Record {
	sh := m.lock(id)
	defer sh.mu.Unlock()
	if e := m.live(sh, id, time.Now()); e != nil {
		return e.record()
	}
	return nil
}
