package session

import (
	"context"
	"time"
)

// Simulate lets the simulator decide random numbers and the order in which goroutines continue.
func Simulate(random func(n int64) int64, resumed func(ctx context.Context, m *Manager, what, id string)) {
	simulated.random, simulated.resumed = random, resumed
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
