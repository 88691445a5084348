package expressjs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coatcheck/session"
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

	// index adds a session to those of its user, or of "" to nobody's.
	index(ctx context.Context, user, id string, expires time.Time) error

	// forget deletes a record that is not to be, and leaves what Go knows.
	forget(ctx context.Context, id string) error

	Delete(ctx context.Context, id string) error
}

func (o *Options) load(ctx context.Context, p place, id string) (*session.Record, error) {
	r, _, err := o.find(ctx, p, id)
	if err == session.ErrNotFound && o.AwaitWrite > 0 {
		if err = wait(ctx, o.AwaitWrite); err == nil {
			r, _, err = o.find(ctx, p, id)
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
func (o *Options) find(ctx context.Context, p place, id string) (*session.Record, *snapshot, error) {
	found, err := p.look(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if now := time.Now(); found.raw != nil && found.own.isOver(now) {
		if err := p.forget(ctx, id); err != nil {
			return nil, nil, err
		}
		found.raw = nil
	}
	r, err := o.record(id, found, time.Now())
	return r, found, err
}

func (o *Options) create(ctx context.Context, p place, r *session.Record) error {
	now := time.Now()
	old, found, err := o.find(ctx, p, r.ID)
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
	raw, w, err := o.write(r, nil, now)
	if err != nil {
		return err
	}
	if err := p.index(ctx, r.User, r.ID, r.Expires); err != nil {
		return fmt.Errorf("expressjs: create: %w", err)
	}
	found.raw = nil // what there may be has expired
	ok, err := p.swap(ctx, r.ID, found, raw, w, now)
	switch {
	case err != nil:
		return fmt.Errorf("expressjs: create: %w", err)
	case !ok:
		return session.ErrExists
	}
	return nil
}

func (o *Options) save(ctx context.Context, p place, r *session.Record, old uint64) error {
	now := time.Now()
	was, found, err := o.find(ctx, p, r.ID)
	switch {
	case err == session.ErrNotFound:
		return err
	case err != nil:
		return fmt.Errorf("expressjs: save: %w", err)
	case was.Version == r.Version:
		return nil
	case was.Version != old:
		return session.ErrConflict
	case !now.Before(r.Expires):
		return p.Delete(ctx, r.ID)
	}
	var raw []byte
	w := &own{version: r.Version, created: r.Created, seen: r.LastSeen, deadline: r.Deadline, expires: r.Expires, tombstone: r.Data}
	if !isTombstone(r.Data) {
		if raw, w, err = o.write(r, found.raw, now); err != nil {
			return err
		}
	}
	if r.User != "" && (found.own == nil || found.own.user != r.User) {
		if err := p.index(ctx, r.User, r.ID, r.Expires); err != nil {
			return fmt.Errorf("expressjs: save: %w", err)
		}
	}
	ok, err := p.swap(ctx, r.ID, found, raw, w, now)
	switch {
	case err != nil:
		return fmt.Errorf("expressjs: save: %w", err)
	case ok:
		return nil
	}
	if _, _, err = o.find(ctx, p, r.ID); errors.Is(err, session.ErrNotFound) {
		return session.ErrNotFound
	}
	return session.ErrConflict
}

// touched adds a session that was used to those of its user: whoever logged in at
// Express is in nobody's list before that.
func (o *Options) touched(ctx context.Context, p place, id string, raw []byte, expires time.Time) error {
	if !o.namesUser() {
		return nil
	}
	list, err := members(raw)
	if err != nil {
		return nil // of which a Load tells
	}
	return p.index(ctx, userText(o.userMember(list)), id, expires)
}
