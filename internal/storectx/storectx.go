// Package storectx provides the contexts of store calls.
package storectx

import (
	"context"
	"sync/atomic"
	"time"
)

// Context has the values of the context with which it was begun, but not its cancellation, so
// that a lost connection loses no write. It has a deadline of its own. It is equivalent to
//
//	context.WithDeadline(context.WithoutCancel(parent), began.Add(limit))
//
// That context is created only when Done or Value is called. A store in memory calls neither,
// and the timer with its four allocations would cost more than the load. Until then Context
// reads the clock only when Err is called: a Context whose Err was not called between its
// deadline and its release reports the release. The zero Context must be begun before it is
// used.
type Context struct {
	parent   context.Context
	began    time.Time
	limit    time.Duration
	isBound  bool                     // whether it ends with its parent
	standard atomic.Pointer[standard] // nil until needed
	ended    atomic.Int32             // the reason that Err returned first: 0 (none), released or exceeded
}

// The reasons why a Context has ended.
const (
	released = 1 + iota
	exceeded
)

// standard is the equivalent context of the standard library.
type standard struct {
	context.Context
	cancel context.CancelFunc
}

// New returns a [Context] that has begun.
func New(parent context.Context, limit time.Duration) *Context {
	c := new(Context)
	c.Begin(parent, limit)
	return c
}

// Within is [New] for a call that has a context of its own: the earlier of both deadlines
// applies.
func Within(ctx context.Context, limit time.Duration) *Context {
	c := new(Context)
	c.BeginWithin(ctx, limit)
	return c
}

// Under is [Within], but the Context also ends with ctx. It is for calls without effect, whose
// result is useless after ctx has ended.
func Under(ctx context.Context, limit time.Duration) *Context {
	c := Within(ctx, limit)
	c.isBound = true
	return c
}

// Begin reads the clock and starts the limit of c. The caller must call [Context.Release]. A
// Context begins once.
func (c *Context) Begin(parent context.Context, limit time.Duration) {
	c.parent, c.began, c.limit = parent, time.Now(), limit
}

// BeginWithin is [Context.Begin] for a call that has a context of its own: the earlier of both
// deadlines applies.
func (c *Context) BeginWithin(ctx context.Context, limit time.Duration) {
	c.Begin(ctx, limit)
	if d, ok := ctx.Deadline(); ok {
		c.limit = min(c.limit, d.Sub(c.began))
	}
}

// Began returns when c began, or the zero time if it has not.
func (c *Context) Began() time.Time { return c.began }

// Release ends c and frees its resources.
func (c *Context) Release() {
	c.ended.CompareAndSwap(0, released)
	if s := c.standard.Load(); s != nil {
		s.cancel()
	}
}

func (c *Context) make() context.Context {
	if s := c.standard.Load(); s != nil {
		return s
	}
	parent := c.parent
	if !c.isBound {
		parent = context.WithoutCancel(parent)
	}
	if c.ended.Load() == released { // stays the reason even if the deadline has passed since
		var cancel context.CancelFunc
		parent, cancel = context.WithCancel(parent)
		cancel()
	}
	s := new(standard)
	s.Context, s.cancel = context.WithDeadline(parent, c.began.Add(c.limit))
	if !c.standard.CompareAndSwap(nil, s) {
		s.cancel()
		return c.standard.Load()
	}
	if c.ended.Load() == released {
		s.cancel()
	}
	return s
}

// Deadline implements [context.Context].
func (c *Context) Deadline() (time.Time, bool) { return c.began.Add(c.limit), true }

// Done implements [context.Context].
func (c *Context) Done() <-chan struct{} { return c.make().Done() }

// Value implements [context.Context]. It asks the standard context, because package context
// finds its own cancellation through Value, and then starts no goroutine for contexts that are
// derived from c.
func (c *Context) Value(key any) any {
	if c.isBound && c.standard.Load() == nil { // no context is derived from c
		return c.parent.Value(key)
	}
	return c.make().Value(key)
}

// Err implements [context.Context].
func (c *Context) Err() error {
	if s := c.standard.Load(); s != nil {
		return s.Err()
	}
	return c.ErrAt(time.Now())
}

// ErrAt is [Context.Err] for a caller that has just read the clock: reading it is most of the
// cost of Err.
func (c *Context) ErrAt(now time.Time) error {
	if s := c.standard.Load(); s != nil {
		return s.Err()
	}
	if c.isBound && c.parent.Err() != nil {
		return c.parent.Err()
	}
	if now.Sub(c.began) >= c.limit {
		c.ended.CompareAndSwap(0, exceeded)
	}
	switch c.ended.Load() {
	case released:
		return context.Canceled
	case exceeded:
		return context.DeadlineExceeded
	}
	return nil
}
