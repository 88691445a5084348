package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// A lease is a request's right to refresh one value. It is stored in the session, as a
// [body.Lease], and claimed and ended by compare-and-swap.
type lease struct {
	s     *Session
	m     *Manager
	ctx   context.Context
	name  string    // of the value, as it stands in JSON
	by    string    // a random name of this lease
	until time.Time // when f must have returned; zero: this request does not hold the lease
	poll  *poll     // shared by all requests that wait for the session; nil: this request has not waited
	// isWaiting is whether another request has made the look for which this one has waited. Only
	// the one that has looked claims the lease if it is free; the others wait for the next look.
	isWaiting bool

	// isStored is whether the lease is stored in the session. A session that no other
	// request can have needs no lease.
	isStored bool
}

const (
	// maxLease is how long f may take. The lease lasts for StoreTimeout and leaseSkew longer, so
	// that no other request refreshes the value before the result of f is saved.
	maxLease = 30 * time.Second

	// leaseSkew is by how much the clocks of the processes may differ.
	leaseSkew = time.Second

	// maxSurplus is by how much the lease of another request may end later than a lease of this
	// one could: the clock of the other process is ahead, or its StoreTimeout is longer. A lease
	// that ends later was claimed before the clocks were set back, and is shortened.
	maxSurplus = time.Minute

	// minLease is how much time a request must have left to begin f: with less, f could use
	// up a credential and then be canceled.
	minLease = 2 * time.Second
)

// refresh implements Key.Refresh for raw JSON values.
func (s *Session) refresh(ctx context.Context, name string, fresh func([]byte) bool, f func(context.Context, []byte) ([]byte, error)) ([]byte, error) {
	if err := s.refuses("Refresh"); err != nil {
		return nil, err
	}
	l := &lease{s: s, m: s.m, ctx: ctx, name: name, by: rand.Text()}
	s.useWithin(ctx)
	defer l.end() // even if a function of the program panics
	defer func() { l.m.polls.leave(l.poll) }()
	for {
		raw, err := s.use().current(l.name)
		switch {
		case err != nil:
			return nil, err
		case fresh(raw):
			return raw, nil
		case l.isHeld(): // the value is that of the claim, or newer
			return l.run(raw, f)
		}
		if !l.isWaiting {
			if err := l.claim(); err != nil {
				return nil, err
			}
		}
		if l.until.IsZero() {
			if err := l.wait(); err != nil {
				return nil, err
			}
		}
	}
}

// isHeld reports whether this request may run f. It may not if the claim stored no lease
// because no other request could have the session, and a Reload has since dropped the Logout or
// Login for which that was so.
func (l *lease) isHeld() bool {
	if l.until.IsZero() || l.isStored {
		return !l.until.IsZero()
	}
	return !l.s.use().isShared()
}

// claim takes the lease, unless another request holds it.
func (l *lease) claim() error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	until := now.Add(maxLease)
	if d, ok := l.ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	mine := body.Lease{By: l.by, Until: until.Add(l.m.timeout + leaseSkew).UnixMilli()}
	latest := now.Add(maxLease + l.m.timeout + leaseSkew)
	is, isStored, err := l.store(l.ctx, func(has body.Lease) (body.Lease, error) {
		switch {
		case has.Until > latest.Add(maxSurplus).UnixMilli():
			has.Until = latest.UnixMilli() // the holder, if it is alive, has no more time than that
			return has, nil
		case has.IsHeld(now):
			return has, errLeased
		case until.Sub(now) < minLease:
			return has, context.DeadlineExceeded
		}
		return mine, nil
	})
	switch {
	case err == nil && isStored && is.By != l.by: // the lease of another request was shortened
		return nil
	case err == nil:
		l.until, l.isStored = until, isStored
	case err == errLeased:
		return nil
	case errors.Is(err, ErrIndeterminate):
		l.giveBack(mine)
	}
	return err
}

// giveBack ends a lease whose claim had an unknown outcome, if the claim was stored, so that no
// request waits for it. It has a deadline of its own, because the claim may have used up that of
// the caller.
func (l *lease) giveBack(mine body.Lease) {
	_ = l.s.transact(func(t *tx) error {
		if t.stored.status != statusLive { // another goroutine of the request has ended or reloaded it
			return nil
		}
		rec, err := loadRecord(t.context(), l.m.store, t.stored.rec.ID)
		if err != nil || !isLive(rec) {
			return err
		}
		t.rebase(rec)
		if t.stored.status != statusLive || body.LeaseOf(rec.Data, l.name) != mine {
			return nil
		}
		return t.save(&pending{changes: body.Changes{l.edit(l.ended)}}) // if it fails, the lease runs out
	})
}

var errLeased = errors.New("session: another request has the lease")

// end ends the lease, if this request holds it.
func (l *lease) end() {
	if !l.until.IsZero() {
		_, _, _ = l.store(context.WithoutCancel(l.ctx), l.ended) // if it fails, the lease runs out
	}
}

// ended returns the zero Lease if has is this lease, otherwise has.
func (l *lease) ended(has body.Lease) (body.Lease, error) {
	if has.By == l.by {
		return body.Lease{}, nil
	}
	return has, nil
}

// run calls f with a context that ends with the lease, and saves the result. If less than
// minLease is left, because the claim took long or because the session is new and needed no
// claim, run does not call f.
func (l *lease) run(raw []byte, f func(context.Context, []byte) ([]byte, error)) ([]byte, error) {
	if time.Until(l.until) < minLease {
		return nil, context.DeadlineExceeded
	}
	ctx, cancel := context.WithDeadline(context.WithoutCancel(l.ctx), l.until)
	defer cancel()
	value, err := f(ctx, raw)
	if err != nil {
		return nil, err
	}
	l.until = time.Time{} // the Save ends the lease. If the Save fails the lease stays, because the value is used up
	return value, l.save(ctx, raw, value)
}

// save saves the value, unless another request has changed it meanwhile, and ends the lease. If
// the store fails, save retries until the lease ends: f has used up a credential, and the result
// must not be lost. Each try adds the changes again, because another goroutine of the request may
// have dropped them by a Reload. The changes are idempotent.
func (l *lease) save(ctx context.Context, was, value []byte) error {
	prepare := func(t *tx) error {
		switch {
		case l.isStored && (t.pending.logout || t.stored.status == statusNone):
			return ErrEnded // this request has ended the session: its value must not begin another one
		case t.pending.hasEnded(time.Now()):
			return ErrEnded
		case t.stored.isKnown():
			t.keep(body.Change{Call: "Refresh", Name: l.name, Raw: value, In: was, Again: func(in []byte) ([]byte, error) { return in, nil }})
			t.keep(l.edit(l.ended))
			t.problem.retry()
		}
		return nil
	}
	for try := 0; ; try++ {
		err := l.s.saveAfter(context.WithoutCancel(ctx), prepare)
		if !errors.Is(err, ErrStore) || errors.Is(err, ErrIndeterminate) || pause(ctx, betweenLooks, try+1) != nil {
			return err
		}
	}
}

// wait waits for the next poll of the session, which all waiting requests of this process
// share.
func (l *lease) wait() error {
	l.isWaiting = false
	was := l.s.use().stored.rec
	if was == nil {
		return nil // another goroutine of the request has ended or reloaded it
	}
	if l.poll == nil || l.poll.id != was.ID {
		l.m.polls.leave(l.poll)
		l.poll = l.m.polls.join(was.ID)
	}
	rec, isOwn, err := l.poll.next(l.ctx)
	l.isWaiting = !isOwn
	if err != nil && l.ctx.Err() != nil {
		return l.ctx.Err()
	}
	return l.s.transact(func(t *tx) error {
		switch {
		case !t.isShared() || t.stored.rec != was: // another goroutine has a newer record
			return nil
		case err != nil:
			t.note(EventStoreFailed, t.stored.rec, err)
			return err
		}
		t.rebase(rec)
		return nil
	})
}

// store changes the stored lease by edit, in a Save of its own: pending changes stay pending. It
// returns the lease in the record that it has saved, and false if the session needs no lease. A Save
// may call edit several times, with leases that are not stored, too.
func (l *lease) store(ctx context.Context, edit func(body.Lease) (body.Lease, error)) (is body.Lease, isShared bool, err error) {
	err = l.s.transactWithin(ctx, func(t *tx) error {
		if isShared = t.isShared(); !isShared {
			return nil
		}
		change, leases := l.edit(edit), body.Value(t.stored.rec.Data, body.Leases)
		if raw, err := change.Again(leases); err != nil || bytes.Equal(raw, leases) {
			return err
		}
		err := t.save(&pending{changes: body.Changes{change}})
		switch {
		case errors.Is(err, ErrStore):
			t.note(EventStoreFailed, t.stored.rec, err)
		case t.stored.status == statusLive:
			is = body.LeaseOf(t.stored.rec.Data, l.name)
		}
		return err
	})
	return is, isShared, err
}

// edit returns a change of the lease by f. After a conflict f is applied to the lease in the
// newer record.
func (l *lease) edit(f func(body.Lease) (body.Lease, error)) body.Change {
	return body.Change{Call: "Refresh", Name: body.Leases, In: notJSON, Again: func(in []byte) ([]byte, error) {
		return body.EditLease(in, l.name, f)
	}}
}
