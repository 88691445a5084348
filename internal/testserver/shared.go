package testserver

import (
	"sync"
	"testing"
)

// A Shared is a server of several tests. It starts with the first of them, and is there
// until End, for which a TestMain is the place.
type Shared struct {
	mu      sync.Mutex
	address string
	ends    []func()
}

// Address returns the address of the server, which start starts unless it runs.
func (s *Shared) Address(t testing.TB, start func(testing.TB) string) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.address == "" {
		s.address = start(lasting{t, s})
	}
	return s.address
}

// End ends the server, if it was started.
func (s *Shared) End() {
	for i := len(s.ends) - 1; i >= 0; i-- {
		s.ends[i]()
	}
}

// lasting is a test whose servers outlive it.
type lasting struct {
	testing.TB
	s *Shared
}

func (l lasting) Cleanup(f func()) { l.s.ends = append(l.s.ends, f) }
