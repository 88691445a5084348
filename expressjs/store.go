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

// A place is where the records are. Its methods are what differs between Redis and
// PostgreSQL; this file is what does not.
type place interface {
	// look returns what is there of a session: what Go knows of it, if it has ended,
	// at the latest when its record is gone.
	look(ctx context.Context, id string) (*snapshot, error)

	// swap puts a record in the place of another one, with what Go knows of it, in one
	// step, if what is there is what was found. A nil record is none.
	swap(ctx context.Context, id string, found *snapshot, record []byte, w *own, now time.Time) (bool, error)

	// index adds a session to those of its user, or of "" to nobody's, for as long as it
	// lasts.
	index(ctx context.Context, user, id string, lasts time.Time) error

	// forget deletes the record of a session that has ended, and keeps what Go knows at
	// least until then.
	forget(ctx context.Context, id string, until time.Time) error

	Delete(ctx context.Context, id string) error
}

// records are what both stores do with the records of a place.
type records struct {
	o Options

	// What the last loads have found, by version: a Save that follows needs not look
	// again. It is no cache of the sessions: what is there is compared when it is
	// swapped.
	found [512]atomic.Pointer[loaded]

	advised atomic.Bool // adviseUser has logged

	// Hashes of what this process has added to users' lists. Of two with the same place
	// one is added again.
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

// find returns a session, and what is there of it.
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
	return r, found, s.list(ctx, p, r, found.own) // for whoever logged in at Express
}

// see returns the session that was found, or session.ErrNotFound. If it has ended, see
// deletes the record that Express has brought back.
func (s *records) see(ctx context.Context, p place, id string, found *snapshot) (*session.Record, error) {
	now := time.Now()
	if found.raw != nil && found.own.isOver(now) {
		if err := p.forget(ctx, id, untilEnded(forever, now, s.o.windowOf(found.raw))); err != nil {
			return nil, err
		}
		found.raw = nil
	}
	return s.record(id, found, now)
}

// of returns the live sessions of a user among those that were found.
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

// list adds a session to those of its user, unless Go's last write or this process has
// done so.
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

// A listing is what a user's list says of a session.
type listing struct {
	user, id string
	day      int64 // on which it ends
}

var seed = maphash.MakeSeed()

func (s *records) slot(version uint64) *atomic.Pointer[loaded] {
	return &s.found[version%uint64(len(s.found))]
}

// known is find of the session with this version, if it was found lately and its time
// is not up.
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
	found.raw = nil // what there may be has expired
	ok, err := p.swap(ctx, r.ID, found, raw, w, now)
	switch {
	case err != nil:
		return fmt.Errorf("expressjs: create: %w", err)
	case ok:
		return nil
	}
	if is, _, err := s.find(ctx, p, r.ID); err == nil && is.Version == r.Version { // by a try whose reply was lost
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
	case err == nil && was.Version == r.Version: // by an earlier call
		return nil
	}
	return session.ErrConflict
}

// untouched is what Touch returns if there is no live session. Express may have brought
// the record of an ended one back, which a look deletes.
func (s *records) untouched(ctx context.Context, p place, id string) error {
	if _, _, err := s.find(ctx, p, id); err != nil && err != session.ErrNotFound {
		return fmt.Errorf("expressjs: touch: %w", err)
	}
	return session.ErrNotFound
}

// touched adds a session that was used to those of its user: whoever logged in at
// Express is in nobody's list before that.
func (s *records) touched(ctx context.Context, p place, id string, raw []byte, expires time.Time) error {
	if !s.o.namesUser() {
		return nil
	}
	list, err := members(raw)
	if err != nil {
		return nil // of which a Load tells
	}
	return p.index(ctx, userText(s.o.userMember(list)), id, expires)
}
