package expressjs

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
)

// A place stores the records. Its methods are the differences between Redis and PostgreSQL; this
// file contains the common part.
type place interface {
	// look returns the stored state of a session. What only Go stores of an ended session is
	// included as long as there may be a record.
	look(ctx context.Context, id string) (*snapshot, error)

	// swap atomically replaces the record and what only Go stores, if the stored state is still the
	// one in found. A nil record means none.
	swap(ctx context.Context, id string, found *snapshot, record []byte, w *own, now time.Time) (bool, error)

	// index adds a session to the list of its user until the session ends. If user is "", it does
	// nothing.
	index(ctx context.Context, user, id string, lasts time.Time) error

	// forget deletes the record of an ended session, and keeps what only Go stores at least until
	// this time.
	forget(ctx context.Context, id string, until time.Time) error

	Delete(ctx context.Context, id string) error
}

// records is the common part of both stores.
type records struct {
	o Options

	// found caches the snapshots of the last loads, by version, so that a Save that follows needs
	// no read. A stale entry is harmless: swap compares the stored state.
	found [512]atomic.Pointer[loaded]

	advised atomic.Bool // whether adviseUser has logged

	// listed contains hashes of the entries that this process has added to the lists of users. An
	// entry whose place another one has taken is added again.
	listed [4096]atomic.Uint64
}

type loaded struct {
	id      string
	version uint64
	*snapshot
}

func (s *records) load(ctx context.Context, p place, id string) (*session.Record, error) {
	r, _, err := s.find(ctx, p, id)
	if err == session.ErrNotFound && s.o.AwaitWrite > 0 {
		if err = wait(ctx, s.o.AwaitWrite); err == nil {
			r, _, err = s.find(ctx, p, id)
		}
	}
	if err != nil && err != session.ErrNotFound {
		err = fmt.Errorf("expressjs: load: %w", err)
	}
	return r, err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// find returns a session and its snapshot.
func (s *records) find(ctx context.Context, p place, id string) (*session.Record, *snapshot, error) {
	found, err := p.look(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.see(ctx, p, id, found)
	if err != nil {
		return nil, found, err
	}
	s.slot(r.Version).Store(&loaded{id, r.Version, found})
	return r, found, s.list(ctx, p, r, found.own) // a login at Express has not added the session to the list
}

// see returns the session in a snapshot, or session.ErrNotFound. If the session has ended, see
// deletes the record that Express has written since.
func (s *records) see(ctx context.Context, p place, id string, found *snapshot) (*session.Record, error) {
	now := time.Now()
	if found.raw != nil && found.own.isEnded(now) {
		if err := p.forget(ctx, id, untilEnded(forever, now, s.o.windowOf(found.raw))); err != nil {
			return nil, err
		}
		found.raw = nil
	}
	return s.record(id, found, now)
}

// of returns the live sessions of a user in these snapshots.
func (s *records) of(ctx context.Context, p place, user string, ids []string, found []*snapshot) (all []*session.Record, _ error) {
	for i, id := range ids {
		r, err := s.see(ctx, p, id, found[i])
		switch {
		case err == nil && r.User == user:
			all = append(all, r)
		case err != nil && err != session.ErrNotFound && !errors.Is(err, errDamaged):
			return nil, err
		}
	}
	return all, nil
}

// list adds a session to the list of its user, unless Go's last write or this process has done so.
func (s *records) list(ctx context.Context, p place, r *session.Record, w *own) error {
	if r.User == "" || w.lists(r) {
		return nil
	}
	lasts := last(r.Deadline, r.Expires)
	sum := maphash.Comparable(seed, listing{r.User, r.ID, lasts.Truncate(day).Unix()}) | 1
	at := &s.listed[sum>>1%uint64(len(s.listed))]
	if at.Load() == sum {
		return nil
	}
	if err := p.index(ctx, r.User, r.ID, lasts); err != nil {
		return err
	}
	at.Store(sum)
	return nil
}

// A listing is an entry in the list of a user.
type listing struct {
	user, id string
	day      int64 // day on which the session ends, in Unix seconds
}

var seed = maphash.MakeSeed()

func (s *records) slot(version uint64) *atomic.Pointer[loaded] {
	return &s.found[version%uint64(len(s.found))]
}

// known returns the session with this version from the last loads if it is there and has not
// expired, and otherwise calls find.
func (s *records) known(ctx context.Context, p place, id string, version uint64) (*session.Record, *snapshot, error) {
	if l := s.slot(version).Load(); l != nil && l.id == id && l.version == version {
		if r, err := s.record(id, l.snapshot, time.Now()); err == nil {
			return r, l.snapshot, nil
		}
	}
	return s.find(ctx, p, id)
}

func (s *records) create(ctx context.Context, p place, r *session.Record) error {
	now := time.Now()
	old, found, err := s.find(ctx, p, r.ID)
	switch {
	case err == nil && old.Version == r.Version:
		return nil
	case err == nil:
		return session.ErrExists
	case err != session.ErrNotFound:
		return fmt.Errorf("expressjs: create: %w", err)
	case !now.Before(r.Expires):
		return nil
	}
	raw, w, err := s.o.write(r, nil)
	if err != nil {
		return err
	}
	if err := p.index(ctx, r.User, r.ID, last(r.Deadline, r.Expires)); err != nil {
		return fmt.Errorf("expressjs: create: %w", err)
	}
	found.raw = nil // a record that may be there has expired
	ok, err := p.swap(ctx, r.ID, found, raw, w, now)
	switch {
	case err != nil:
		return fmt.Errorf("expressjs: create: %w", err)
	case ok:
		return nil
	}
	if is, _, err := s.find(ctx, p, r.ID); err == nil && is.Version == r.Version { // stored by a try whose reply was lost
		return nil
	}
	return session.ErrExists
}

func (s *records) save(ctx context.Context, p place, r *session.Record, old uint64) error {
	now := time.Now()
	was, found, err := s.known(ctx, p, r.ID, old)
	switch {
	case err == session.ErrNotFound:
		return err
	case err != nil:
		return fmt.Errorf("expressjs: save: %w", err)
	case was.Version == r.Version:
		return nil
	case was.Version != old:
		return session.ErrConflict
	}
	var raw []byte
	var w *own
	if body.IsTombstone(r.Data) || !now.Before(r.Deadline) {
		w = &own{version: r.Version, created: r.Created, seen: r.LastSeen, deadline: r.Deadline, expires: r.Expires, tombstone: r.Data,
			until: untilEnded(was.Deadline, now, s.o.windowOf(found.raw))}
	} else if raw, w, err = s.o.write(r, found.raw); err != nil {
		return err
	}
	if err := s.list(ctx, p, r, found.own); err != nil {
		return fmt.Errorf("expressjs: save: %w", err)
	}
	ok, err := p.swap(ctx, r.ID, found, raw, w, now)
	switch {
	case err != nil:
		return fmt.Errorf("expressjs: save: %w", err)
	case ok:
		return nil
	}
	switch was, _, err = s.find(ctx, p, r.ID); {
	case errors.Is(err, session.ErrNotFound):
		return session.ErrNotFound
	case err == nil && was.Version == r.Version: // stored by an earlier call
		return nil
	}
	return session.ErrConflict
}

// untouched returns the error of a Touch without a live session. Its find deletes the record of an
// ended session that Express has written since.
func (s *records) untouched(ctx context.Context, p place, id string) error {
	if _, _, err := s.find(ctx, p, id); err != nil && err != session.ErrNotFound {
		return fmt.Errorf("expressjs: touch: %w", err)
	}
	return session.ErrNotFound
}

// touched adds a session that was used to the list of its user: a login at Express has not added
// it.
func (s *records) touched(ctx context.Context, p place, id string, raw []byte, expires time.Time) error {
	if !s.o.namesUser() {
		return nil
	}
	list, err := members(raw)
	if err != nil {
		return nil // a Load reports the error
	}
	return p.index(ctx, userText(s.o.userMember(list)), id, expires)
}
