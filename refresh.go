package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/storectx"
)

// A lease is the right to refresh one value. Who has it stands in the session,
// where it is claimed and ended by compare-and-swap:
//
//	"session.leases":{"tokens":{"by":"…","until":1732639200000}}
type lease struct {
	*Session
	ctx   context.Context
	name  string    // of the value, as it stands in JSON
	by    string    // names this lease, and no other
	until time.Time // zero: somebody else has it, or nobody
}

// betweenLooks is what a pause before the first look at somebody else's lease is
// about.
const betweenLooks = 4 * time.Millisecond

// maxLease is for how long others wait at most for a process that has died.
const maxLease = 30 * time.Second

// refresh is Key.Refresh, of values as they stand in JSON.
func (s *Session) refresh(ctx context.Context, name string, fresh func([]byte) bool, f func(context.Context, []byte) ([]byte, error)) ([]byte, error) {
	l := &lease{Session: s, ctx: ctx, name: name, by: rand.Text()}
	l.loadWithin(ctx)
	defer l.end() // also if the program's functions panic
	for try := 0; ; try++ {
		raw, err := l.current(l.name)
		switch {
		case err != nil:
			return nil, err
		case fresh(raw):
			return raw, nil
		case !l.until.IsZero(): // and the value is what it was when the lease began, or newer
			return l.run(raw, f)
		}
		if err := l.claim(); err != nil {
			return nil, err
		}
		if l.until.IsZero() {
			if err := l.wait(try); err != nil {
				return nil, err
			}
		}
	}
}

// claim takes the lease, unless somebody else has it.
func (l *lease) claim() error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	until := time.Now().Add(maxLease)
	if d, ok := l.ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	err := l.store(l.ctx, func(has holder) (holder, error) {
		if time.Now().UnixMilli() < has.until {
			return has, errLeased
		}
		return holder{l.by, until.UnixMilli()}, nil
	})
	switch {
	case err == nil:
		l.until = until
	case err == errLeased:
		return nil
	}
	return err
}

var errLeased = errors.New("session: somebody else has the lease")

// end gives the lease back, if this one has it.
func (l *lease) end() {
	if !l.until.IsZero() {
		_ = l.store(context.WithoutCancel(l.ctx), l.ended) // if it fails, the lease runs out
	}
}

// ended is nobody's lease, in place of this one.
func (l *lease) ended(has holder) (holder, error) {
	if has.by == l.by {
		return holder{}, nil
	}
	return has, nil
}

// run calls f, under a context that ends with the lease, and saves what it returns.
func (l *lease) run(raw []byte, f func(context.Context, []byte) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(l.ctx), l.until)
	defer cancel()
	value, err := f(ctx, raw)
	if err != nil {
		return nil, err
	}
	l.until = time.Time{} // it ends with the Save, and not if that fails: the value is used up
	return value, l.save(ctx, raw, value)
}

// save saves the value, unless somebody has changed it meanwhile, and ends the
// lease. A store that fails is tried again until the lease is over: what f has
// used up cannot be had a second time.
func (l *lease) save(ctx context.Context, was, value []byte) error {
	l.revise("", func(*pending) {
		l.keep(change{call: "Refresh", name: l.name, raw: value, in: was, again: func(in []byte) ([]byte, error) { return in, nil }})
		l.keep(l.edit(l.ended))
	})
	for try := 0; ; try++ {
		err := l.Save(context.WithoutCancel(ctx))
		if !errors.Is(err, ErrStore) || errors.Is(err, ErrIndeterminate) || pause(ctx, betweenLooks, try+1) != nil {
			return err
		}
	}
}

// wait lets some time pass, more with each try, and looks what the session has
// become.
func (l *lease) wait(try int) error {
	if err := pause(l.ctx, betweenLooks, try+1); err != nil {
		return err
	}
	l.changing.Lock()
	defer l.done()
	if !l.shared() {
		return nil
	}
	c := storectx.Within(l.ctx, l.m.timeout)
	defer c.Release()
	rec, err := l.m.follow(c, l.stored.rec.ID)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.note(EventStoreFailed, l.stored.rec, err)
		return err
	}
	commit{l.Session, c, &l.todo}.becomes(rec)
	return nil
}

// shared tells whether other requests have the session in which the value will
// be. changing is held.
func (l *lease) shared() bool {
	st, user := &l.stored, l.todo.user
	return st.is == live && !l.todo.logout && (user == "" || user == st.rec.User)
}

// A holder is who has a lease; the zero holder is nobody.
type holder struct {
	by    string
	until int64 // Unix milliseconds
}

// store changes who has the lease, by a Save of its own: what is pending stays so.
func (l *lease) store(ctx context.Context, edit func(holder) (holder, error)) error {
	l.changing.Lock()
	defer l.done()
	if !l.shared() {
		return nil
	}
	c := storectx.Within(ctx, l.m.timeout)
	defer c.Release()
	ch, now := l.edit(edit), lookup(l.stored.rec.Data, nil, leases)
	if raw, err := ch.again(now); err != nil || bytes.Equal(raw, now) {
		return err
	}
	err := commit{l.Session, c, &pending{changes: []change{ch}}}.save()
	if errors.Is(err, ErrStore) {
		l.mu.Lock()
		l.note(EventStoreFailed, l.stored.rec, err)
		l.mu.Unlock()
	}
	return err
}

// notJSON is the value of no member: what was made from it is always made anew.
var notJSON = []byte{0}

// edit returns a change of who has the lease, to be made in whatever the session
// has become.
func (l *lease) edit(f func(holder) (holder, error)) change {
	return change{call: "Refresh", name: leases, in: notJSON, again: func(in []byte) ([]byte, error) {
		members, err := object.Append(nil, in)
		if err != nil {
			members = nil // damaged: nobody has it
		}
		var has holder
		old := object.Get(members, l.name)
		has.by = unquote(object.Find(old, `"by"`))
		has.until, _ = digits(object.Find(old, `"until"`))
		is, err := f(has)
		if err != nil || is == has {
			return in, err
		}
		var raw []byte
		if is.by != "" {
			raw = object.Write([]object.Member{
				{Name: []byte(`"by"`), Raw: quote(is.by)},
				{Name: []byte(`"until"`), Raw: number(is.until)},
			})
		}
		if members = object.Set(members, l.name, raw); len(members) == 0 {
			return nil, nil
		}
		return object.Write(members), nil
	}}
}
