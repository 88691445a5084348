package servers

import (
	"sync"
	"testing"
)

// A Shared is a server that several tests use, because its start takes seconds. It starts
// with the first test that asks for it and runs until End, which a TestMain calls.
type Shared struct {
	mu     sync.Mutex
	server *Server
	ends   []func()
}

// Get returns the server. Unless the server runs, Get starts it.
func (s *Shared) Get(t testing.TB, start func(testing.TB) *Server) *Server {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		s.server = start(lasting{t, s})
	}
	return s.server
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

// Failed reports false: when the server ends, the test has ended and cannot log anything.
func (l lasting) Failed() bool { return false }
