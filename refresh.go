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
	until time.Time // when f must have returned; zero: this request does not hold the lease
	poll  *poll     // shared with the others that wait; nil: this request has not waited

	// isStored is whether the lease stands in the session. A session that no other
	// request has needs none.
	isStored bool
}

// betweenLooks is what a pause before the first look at somebody else's lease is
// about.
const betweenLooks = 4 * time.Millisecond

const (
	// maxLease is how long f may take. The lease outlives that by StoreTimeout, so
	// that the Save of what f returned is never overtaken.
	maxLease = 30 * time.Second

	// minLease is how much time a request must have left to begin f, which would use
	// a credential up in vain.
	minLease = 2 * time.Second
)

// refresh is Key.Refresh, of values as they stand in JSON.
func (s *Session) refresh(ctx context.Context, name string, fresh func([]byte) bool, f func(context.Context, []byte) ([]byte, error)) ([]byte, error) {
	l := &lease{Session: s, ctx: ctx, name: name, by: rand.Text()}
	l.loadWithin(ctx)
	defer l.end() // also if the program's functions panic
	defer func() { l.m.polls.leave(l.poll) }()
	for {
		raw, err := l.current(l.name)
		switch {
		case err != nil:
			return nil, err
		case fresh(raw):
			return raw, nil
		case l.isHeld(): // and the value is what it was when the lease began, or newer
			return l.run(raw, f)
		}
		if err := l.claim(); err != nil {
			return nil, err
		}
		if l.until.IsZero() {
			if err := l.wait(); err != nil {
				return nil, err
			}
		}
	}
}

// isHeld reports whether this request may run f. If it needed no lease when it claimed
// it, and now does because a Reload took a Logout or a Login back, it may not.
func (l *lease) isHeld() bool {
	if l.until.IsZero() || l.isStored {
		return !l.until.IsZero()
	}
	l.changing.Lock()
	defer l.changing.Unlock()
	return !l.shared()
}

// claim takes the lease, unless somebody else has it.
func (l *lease) claim() error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	until := now.Add(maxLease)
	if d, ok := l.ctx.Deadline(); ok && d.Before(until) {
		until = d
	}
	mine := holder{l.by, until.Add(l.m.timeout).UnixMilli()}
	isStored, err := l.store(l.ctx, func(has holder) (holder, error) {
		switch {
		case now.UnixMilli() < has.until:
			return has, errLeased
		case until.Sub(now) < minLease:
			return has, context.DeadlineExceeded
		}
		return mine, nil
	})
	switch {
	case err == nil:
		l.until, l.isStored = until, isStored
	case err == errLeased:
		return nil
	case errors.Is(err, ErrIndeterminate):
		l.giveBack(mine)
	}
	return err
}

// giveBack ends a lease whose claim had an unknown outcome, if the store has it: no
// request is to wait for a process that is alive. It has a deadline of its own, for the
// store's silence may have used up the claim's.
func (l *lease) giveBack(mine holder) {
	l.changing.Lock()
	defer l.done()
	if l.stored.is != live { // another goroutine of the request has ended or reloaded it
		return
	}
	c := storectx.New(l.ctx, l.m.timeout)
	defer c.Release()
	rec, err := l.m.load(c, l.stored.rec.ID)
	if is, _ := statusOf(rec); err != nil || is != live {
		return
	}
	k := commit{l.Session, c, &pending{changes: []change{l.edit(l.ended)}}}
	l.mu.Lock()
	k.becomes(rec)
	l.mu.Unlock()
	if l.stored.is == live && holderOf(lookup(rec.Data, nil, leases), l.name) == mine {
		_ = k.save() // if it fails, the lease runs out
	}
}

var errLeased = errors.New("session: somebody else has the lease")

// end gives the lease back, if this one has it.
func (l *lease) end() {
	if !l.until.IsZero() {
		_, _ = l.store(context.WithoutCancel(l.ctx), l.ended) // if it fails, the lease runs out
	}
}

// ended is nobody's lease, in place of this one.
func (l *lease) ended(has holder) (holder, error) {
	if has.by == l.by {
		return holder{}, nil
	}
	return has, nil
}

// run calls f, under a context that ends with the lease, and saves what it returns. If
// less than minLease is left, because the claim took long or because the session is new
// and needed no claim, run does not call f.
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
	l.until = time.Time{} // it ends with the Save, and not if that fails: the value is used up
	return value, l.save(ctx, raw, value)
}

// save saves the value, unless somebody has changed it meanwhile, and ends the
// lease. A store that fails is tried again until the lease is over: what f has
// used up cannot be had a second time. Each try makes the changes again, for another
// goroutine of the request may have dropped them by a Reload; made twice they are what
// they are once.
func (l *lease) save(ctx context.Context, was, value []byte) error {
	prepare := func() error {
		switch {
		case l.isStored && (l.todo.logout || l.stored.is == nothing):
			return ErrEnded // by this request: a value of its session must not begin another
		case l.stored.is != unknown:
			l.keep(change{call: "Refresh", name: l.name, raw: value, in: was, again: func(in []byte) ([]byte, error) { return in, nil }})
			l.keep(l.edit(l.ended))
			l.problem.retry()
		}
		return nil
	}
	for try := 0; ; try++ {
		err := l.saveAfter(context.WithoutCancel(ctx), prepare)
		if !errors.Is(err, ErrStore) || errors.Is(err, ErrIndeterminate) || pause(ctx, betweenLooks, try+1) != nil {
			return err
		}
	}
}

// wait waits for the next look at the session, which all that wait for it in this
// process share.
func (l *lease) wait() error {
	l.mu.Lock()
	was := l.stored.rec
	l.mu.Unlock()
	if was == nil {
		return nil // another goroutine of the request has ended or reloaded it
	}
	if l.poll == nil || l.poll.id != was.ID {
		l.m.polls.leave(l.poll)
		l.poll = l.m.polls.join(was.ID)
	}
	rec, err := l.poll.next(l.ctx, l.m)
	if err != nil && l.ctx.Err() != nil {
		return l.ctx.Err()
	}
	l.changing.Lock()
	defer l.done()
	if !l.shared() || l.stored.rec != was { // another goroutine knows more than the look
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.note(EventStoreFailed, l.stored.rec, err)
		return err
	}
	commit{l.Session, nil, &l.todo}.becomes(rec)
	return nil
}

// shared reports whether other requests may have the value, now or later: it stands in
// the session, or will, and a Login keeps it. changing is held.
func (l *lease) shared() bool {
	st, user := &l.stored, l.todo.user
	return st.is == live && !l.todo.logout && (user == "" || st.rec.User == "" || user == st.rec.User)
}

// A holder is who has a lease; the zero holder is nobody.
type holder struct {
	by    string
	until int64 // Unix milliseconds
}

// holderOf returns who has the lease of a value, by the member of all leases.
func holderOf(leases []byte, name string) holder { return holderIn(object.Find(leases, name)) }

func holderIn(raw []byte) (h holder) {
	h.by = unquote(object.Find(raw, `"by"`))
	h.until, _ = digits(object.Find(raw, `"until"`))
	return h
}

// store changes who has the lease, by a Save of its own: what is pending stays so. It
// returns false if the session needs no lease.
func (l *lease) store(ctx context.Context, edit func(holder) (holder, error)) (isShared bool, err error) {
	l.changing.Lock()
	defer l.done()
	if !l.shared() {
		return false, nil
	}
	c := storectx.Within(ctx, l.m.timeout)
	defer c.Release()
	ch, now := l.edit(edit), lookup(l.stored.rec.Data, nil, leases)
	if raw, err := ch.again(now); err != nil || bytes.Equal(raw, now) {
		return true, err
	}
	err = commit{l.Session, c, &pending{changes: []change{ch}}}.save()
	if errors.Is(err, ErrStore) {
		l.mu.Lock()
		l.note(EventStoreFailed, l.stored.rec, err)
		l.mu.Unlock()
	}
	return true, err
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
		has := holderIn(object.Get(members, l.name))
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
