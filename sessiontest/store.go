package sessiontest

import (
	"context"
	"sync"
	"time"

	"github.com/coatcheck/session"
)

// A Store is a [session.Store] that wraps another and can simulate an outage. Create one with
// [NewStore].
type Store struct {
	inner session.Store
	mu    sync.Mutex
	err   error
}

// NewStore returns a Store that wraps inner, or a new [session.MemoryStore] if inner is nil.
func NewStore(inner session.Store) *Store {
	if inner == nil {
		inner = session.NewMemoryStore(nil)
	}
	return &Store{inner: inner}
}

// Fail makes every later call return err, without a call of the wrapped store. Fail(nil) ends
// the outage. Any error simulates an outage; [session.ErrIndeterminate] simulates a store that
// cannot say whether a write was applied.
func (s *Store) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Load implements [session.Store].
func (s *Store) Load(ctx context.Context, id string) (*session.Record, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	return s.inner.Load(ctx, id)
}

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, r *session.Record) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.inner.Create(ctx, r)
}

// Save implements [session.Store].
func (s *Store) Save(ctx context.Context, r *session.Record, old uint64) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.inner.Save(ctx, r, old)
}

// Touch implements [session.Store].
func (s *Store) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.inner.Touch(ctx, id, seen, expires)
}

// Delete implements [session.Store].
func (s *Store) Delete(ctx context.Context, id string) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.inner.Delete(ctx, id)
}

// List implements [session.Store].
func (s *Store) List(ctx context.Context, user string) ([]*session.Record, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	return s.inner.List(ctx, user)
}
