package simulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/coatcheck/session"
)

// A process is a program with a Manager, over the shared store. It implements session.Store, and
// applies the faults to the calls of its Manager.
type process struct {
	w       *world
	n       int
	ahead   time.Duration // how far its clock is ahead
	limits  limits
	manager *session.Manager
	isDead  bool

	lateLogged int // log lines about changes after the handler has returned
}

var (
	errDown = errors.New("the store is down")
	errDead = errors.New("the process is dead")
)

// A fate is what happens to one store call.
type fate struct {
	before, after time.Duration // delays before and after the call is applied
	refused       bool          // the call fails and is not applied
	lost          bool          // the call is applied and fails
}

// fate draws the fate of a call. The random numbers that it draws do not depend on the faults of
// the plan, so that omitting a fault does not change the others.
func (w *world) fate(rng *rand.Rand) (f fate) {
	draw := func(fault Fault, n int) bool { return rng.IntN(n) == 0 && w.plan.Faults&fault != 0 }
	isRefused, isLost := draw(FailingStore, 25), draw(FailingStore, 25)
	isUnreached, isUnanswered := draw(SilentStore, 50), draw(SilentStore, 50)
	isSlowBefore, isSlowAfter := draw(SlowStore, 3), draw(SlowStore, 3)
	before, after := someTime(rng, time.Second), someTime(rng, time.Second)
	switch {
	case isRefused:
		w.truth.count("fault: a store call fails")
		f.refused = true
	case isLost:
		w.truth.count("fault: the reply of the store is lost")
		f.lost = true
	case isUnreached:
		w.truth.count("fault: a call does not reach the store")
		f.before, f.refused = time.Hour, true
	case isUnanswered:
		w.truth.count("fault: the store does not answer")
		f.after = time.Hour
	}
	if isSlowBefore {
		w.truth.count("fault: a slow store call")
		f.before += before
	}
	if isSlowAfter {
		w.truth.count("fault: a slow reply of the store")
		f.after += after
	}
	return f
}

// do executes a store call. apply must not keep ctx.
func (p *process) do(ctx context.Context, call, id string, isWrite bool, apply func() error) error {
	w, x := p.w, exchangeOf(ctx)
	w.park(placeOf(ctx, p.n, call, id))
	if x != nil {
		x.calls++
	}
	failed := func(err error) error {
		w.truth.storeFailed(x)
		if isWrite {
			return fmt.Errorf("%w: %w", session.ErrIndeterminate, err)
		}
		return err
	}
	if p.isDead {
		return failed(errDead)
	}
	rng := w.rng
	if x != nil {
		rng = x.rng
	}
	f := w.fate(rng)
	if f.refused || f.lost || f.before+f.after > 0 {
		w.truth.disturbed()
		if x != nil && f.before+f.after > 0 {
			x.isSlow = true
		}
	}
	if !p.wait(ctx, id, f.before) {
		p.happens(x, call, id, "is cancelled before it reaches the store")
		return failed(ctx.Err())
	}
	switch {
	case p.isDead:
		return failed(errDead)
	case f.refused:
		p.happens(x, call, id, "fails, and changes nothing")
		w.truth.storeFailed(x)
		return errDown
	}
	for w.plan.MaxBytes > 0 && !time.Now().After(w.applied) { // the store depends on the order of uses
		p.wait(ctx, id, time.Nanosecond)
	}
	w.applied = time.Now()
	err := apply()
	switch { // logged when other requests can see the result, not when the reply arrives
	case f.lost:
		p.happens(x, call, id, resultOf(err)+", but the reply is lost")
		return failed(errDown)
	case isWrite && f.after > 0:
		p.happens(x, call, id, resultOf(err)+"; the reply takes "+f.after.Round(time.Microsecond).String())
	case isWrite:
		p.happens(x, call, id, resultOf(err))
	}
	if !p.wait(ctx, id, f.after) {
		p.happens(x, call, id, "is cancelled before its reply arrives")
		return failed(ctx.Err())
	}
	return err
}

// happens logs the result of a call.
func (p *process) happens(x *exchange, call, id, what string) {
	of := "a user's sessions"
	if n := p.w.truth.number(id); n > 0 {
		of = fmt.Sprintf("session %d", n)
	} else if id != "" {
		of = "a new session"
	}
	whose := "its"
	if x == nil {
		whose = fmt.Sprintf("process %d:", p.n)
	}
	p.w.log(x, "%s %s of %s %s", whose, call, of, what)
}

// resultOf describes the result of the store.
func resultOf(err error) string {
	if err != nil {
		return fmt.Sprintf("is refused (%v)", err)
	}
	return "succeeds"
}

// wait waits for d in a call for the session of this id. It returns false if ctx ends first.
func (p *process) wait(ctx context.Context, id string, d time.Duration) bool {
	if d == 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d + time.Duration(p.w.rng.Int64N(int64(time.Microsecond))))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	p.w.park(placeOf(ctx, p.n, "wait", id))
	return ctx.Err() == nil
}

func (p *process) Load(ctx context.Context, id string) (r *session.Record, err error) {
	err = p.do(ctx, "load", id, false, func() (err error) {
		r, err = p.w.store.Load(context.Background(), id)
		p.w.truth.room.loaded(id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return p.local(r), nil
}

func (p *process) Create(ctx context.Context, r *session.Record) error {
	r = p.global(r)
	x, isStored := exchangeOf(ctx), false
	err := p.do(ctx, "create", r.ID, true, func() error {
		err := p.w.store.Create(context.Background(), r)
		if err == nil {
			isStored = true
			p.w.truth.written(p, x, r)
		}
		p.w.truth.room.wrote(x, r, err)
		return err
	})
	if err != nil && isStored && x != nil {
		x.unsure[r.ID] = true
	}
	return err
}

func (p *process) Save(ctx context.Context, r *session.Record, old uint64) error {
	r = p.global(r)
	return p.do(ctx, "save", r.ID, true, func() error {
		err := p.w.store.Save(context.Background(), r, old)
		if err == nil {
			p.w.truth.written(p, exchangeOf(ctx), r)
		}
		p.w.truth.room.wrote(exchangeOf(ctx), r, err)
		return err
	})
}

func (p *process) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	return p.do(ctx, "touch", id, true, func() error {
		err := p.w.store.Touch(context.Background(), id, seen.Add(p.ahead), expires.Add(p.ahead))
		if s := p.w.truth.sessions[id]; s != nil {
			s.maybeUsed(p)
			p.w.truth.touched(exchangeOf(ctx), id)
			p.w.truth.room.touched(id)
		}
		return err
	})
}

func (p *process) Delete(ctx context.Context, id string) error {
	if x := exchangeOf(ctx); x != nil {
		delete(x.unsure, id) // a failing Delete is not a fault of the Manager
	}
	return p.do(ctx, "delete", id, true, func() error {
		p.w.truth.deleted(exchangeOf(ctx), id)
		p.w.truth.room.deleted(id)
		return p.w.store.Delete(context.Background(), id)
	})
}

func (p *process) List(ctx context.Context, user string) (records []*session.Record, err error) {
	err = p.do(ctx, "list", "", false, func() (err error) {
		records, err = p.w.store.List(context.Background(), user)
		return err
	})
	if err != nil {
		return nil, err
	}
	// The order of the store depends on a randomly seeded hash.
	slices.SortFunc(records, func(a, b *session.Record) int {
		return cmp.Compare(p.w.truth.number(a.ID), p.w.truth.number(b.ID))
	})
	for i, r := range records {
		records[i] = p.local(r)
	}
	return records, nil
}

// The processes share one virtual clock. The clock of a process is ahead by p.ahead: the times that
// it writes are later, and the times that it reads are earlier.

func (p *process) global(r *session.Record) *session.Record { return shifted(r, p.ahead) }
func (p *process) local(r *session.Record) *session.Record  { return shifted(r, -p.ahead) }

// milliseconds matches the times in the Data of a record: Data contains no other numbers of this
// size.
var milliseconds = regexp.MustCompile(`\b[0-9]{12,13}\b`)

func shifted(r *session.Record, d time.Duration) *session.Record {
	if d == 0 {
		return r
	}
	c := *r
	c.Created, c.LastSeen, c.Expires, c.Deadline = r.Created.Add(d), r.LastSeen.Add(d), r.Expires.Add(d), r.Deadline.Add(d)
	c.Data = Later(r.Data, d)
	return &c
}

// Later returns the data of a record with all times later by d.
func Later(data []byte, d time.Duration) []byte {
	return milliseconds.ReplaceAllFunc(data, func(b []byte) []byte {
		ms, err := strconv.ParseInt(string(b), 10, 64)
		if err != nil {
			return b
		}
		return strconv.AppendInt(nil, ms+d.Milliseconds(), 10)
	})
}
