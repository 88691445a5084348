package simulate

import (
	"context"
	"sync"
	"time"

	"github.com/coatcheck/session"
)

// NewStore returns the store of a run without faults, actors and scheduling. It must fulfil the
// contract of session.Store.
func NewStore(library Library) session.Store {
	w := &world{library: library, scheduler: newScheduler(0), store: session.NewMemoryStore(nil), began: time.Now(), counts: map[string]int{}}
	w.over = true // no call waits for its turn
	w.truth = newTruth(w)
	return &lockedStore{p: &process{w: w}}
}

// A lockedStore serializes the calls, as the scheduler does in a run.
type lockedStore struct {
	mu sync.Mutex
	p  *process
}

func (s *lockedStore) Load(ctx context.Context, id string) (*session.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.p.Load(ctx, id)
}

func (s *lockedStore) Create(ctx context.Context, r *session.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.p.Create(ctx, r)
}

func (s *lockedStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.p.Save(ctx, r, old)
}

func (s *lockedStore) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.p.Touch(ctx, id, seen, expires)
}

func (s *lockedStore) Delete(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.p.Delete(ctx, id)
}

func (s *lockedStore) List(ctx context.Context, user string) ([]*session.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.p.List(ctx, user)
}
