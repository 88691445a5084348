package storetest

import (
	"context"
	"sync"
	"time"

	"github.com/coatcheck/session"
)

// mapStore is the simplest implementation of the contract. Each method can be replaced, to make
// a store that violates the contract.
type mapStore struct {
	mu      sync.Mutex
	records map[string]session.Record
	now     func() time.Time

	load   func(ctx context.Context, id string) (*session.Record, error)
	create func(ctx context.Context, r *session.Record) error
	save   func(ctx context.Context, r *session.Record, old uint64) error
	touch  func(ctx context.Context, id string, seen, expires time.Time) error
	delete func(ctx context.Context, id string) error
	list   func(ctx context.Context, user string) ([]*session.Record, error)
}

func newMapStore() *mapStore {
	s := &mapStore{records: map[string]session.Record{}, now: time.Now}
	s.load, s.create, s.save = s.goodLoad, s.goodCreate, s.goodSave
	s.touch, s.delete, s.list = s.goodTouch, s.goodDelete, s.goodList
	return s
}

func (s *mapStore) Load(ctx context.Context, id string) (*session.Record, error) {
	return s.load(ctx, id)
}
func (s *mapStore) Create(ctx context.Context, r *session.Record) error { return s.create(ctx, r) }
func (s *mapStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	return s.save(ctx, r, old)
}
func (s *mapStore) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	return s.touch(ctx, id, seen, expires)
}
func (s *mapStore) Delete(ctx context.Context, id string) error { return s.delete(ctx, id) }
func (s *mapStore) List(ctx context.Context, user string) ([]*session.Record, error) {
	return s.list(ctx, user)
}

// live returns a live record. s.mu is held.
func (s *mapStore) live(id string) (session.Record, bool) {
	r, ok := s.records[id]
	return r, ok && s.now().Before(r.Expires)
}

func (s *mapStore) goodLoad(ctx context.Context, id string) (*session.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.live(id)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case !ok:
		return nil, session.ErrNotFound
	}
	return &r, nil
}

func (s *mapStore) goodCreate(ctx context.Context, r *session.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, ok := s.live(r.ID)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case ok && stored.Version == r.Version:
		return nil
	case ok:
		return session.ErrExists
	}
	s.records[r.ID] = *r
	return nil
}

func (s *mapStore) goodSave(ctx context.Context, r *session.Record, old uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, ok := s.live(r.ID)
	return s.swap(ctx, stored, ok, r, old)
}

// saveWith returns goodSave with another rule for the clocks.
func (s *mapStore) saveWith(clocks func(r, was session.Record) session.Record) func(context.Context, *session.Record, uint64) error {
	return func(ctx context.Context, r *session.Record, old uint64) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		was, ok := s.live(r.ID)
		err := s.swap(ctx, was, ok, r, old)
		if err == nil && was.Version != r.Version {
			s.records[r.ID] = clocks(*r, was)
		}
		return err
	}
}

// swap replaces stored by r, if stored has version old.
func (s *mapStore) swap(ctx context.Context, stored session.Record, ok bool, r *session.Record, old uint64) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !ok:
		return session.ErrNotFound
	case stored.Version == r.Version:
		return nil
	case stored.Version != old:
		return session.ErrConflict
	}
	s.records[r.ID] = forward(*r, stored)
	return nil
}

// forward returns r with the clocks of was where those are later.
func forward(r, was session.Record) session.Record {
	r.LastSeen = latest(r.LastSeen, was.LastSeen)
	r.Expires = latest(r.Expires, was.Expires)
	if r.Expires.After(r.Deadline) {
		r.Expires = r.Deadline
	}
	return r
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s *mapStore) goodTouch(ctx context.Context, id string, seen, expires time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.live(id)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !ok:
		return session.ErrNotFound
	}
	if expires.After(r.Deadline) {
		expires = r.Deadline
	}
	if seen.After(r.LastSeen) {
		r.LastSeen = seen
	}
	if expires.After(r.Expires) {
		r.Expires = expires
	}
	s.records[id] = r
	return nil
}

func (s *mapStore) goodDelete(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil {
		delete(s.records, id)
	}
	return ctx.Err()
}

func (s *mapStore) goodList(ctx context.Context, user string) ([]*session.Record, error) {
	return s.listIf(ctx, func(r session.Record) bool {
		return r.User == user && user != "" && s.now().Before(r.Expires)
	})
}

func (s *mapStore) listIf(ctx context.Context, ok func(r session.Record) bool) (list []*session.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.records {
		if ok(r) {
			list = append(list, &r)
		}
	}
	return list, ctx.Err()
}
