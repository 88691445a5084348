// Package storectx makes the contexts that a store is called with.
package storectx

import (
	"context"
	"sync/atomic"
	"time"
)

// A Context has the values of the context it was begun with, never its
// cancellation (a lost connection loses no write), and a deadline of its own.
// It is
//
//	context.WithDeadline(context.WithoutCancel(parent), began.Add(limit))
//
// made only when somebody waits on Done or asks for a value: a store in memory
// does neither, and the timer and its four allocations would cost more than
// the load. Unlike that, it looks at the clock only when it is asked: if nobody
// asked between its deadline and its release, it was ended by the release. The
// zero Context must be begun before it is used.
type Context struct {
	parent   context.Context
	began    time.Time
	limit    time.Duration
	isBound  bool                     // it ends with its parent
	standard atomic.Pointer[standard] // nil until needed
	ended    atomic.Int32             // how, as it was first said: 0, released or exceeded
}

const (
	released = 1 + iota
	exceeded
)

// standard is the standard library's context for the same.
type standard struct {
	context.Context
	cancel context.CancelFunc
}

// New returns a Context that has begun.
func New(parent context.Context, limit time.Duration) *Context {
	c := new(Context)
	c.Begin(parent, limit)
	return c
}

// Within is New for a call that was given a context of its own, whose deadline
// holds if it is nearer.
func Within(ctx context.Context, limit time.Duration) *Context {
	c := new(Context)
	c.BeginWithin(ctx, limit)
	return c
}

// Under is Within, but c ends with ctx too: for a call that has no effect, and whose
// answer is of no use then.
func Under(ctx context.Context, limit time.Duration) *Context {
	c := Within(ctx, limit)
	c.isBound = true
	return c
}

// Begin reads the clock and starts the time that c has. Who begins it releases
// it. A Context begins once.
func (c *Context) Begin(parent context.Context, limit time.Duration) {
	c.parent, c.began, c.limit = parent, time.Now(), limit
}

// BeginWithin is Begin for a call that was given a context of its own, whose deadline
// holds if it is nearer.
func (c *Context) BeginWithin(ctx context.Context, limit time.Duration) {
	c.Begin(ctx, limit)
	if d, ok := ctx.Deadline(); ok {
		c.limit = min(c.limit, d.Sub(c.began))
	}
}

// Began returns when c began, or the zero time if it has not.
func (c *Context) Began() time.Time { return c.began }

// Release ends c and frees what it holds.
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
	if c.ended.Load() == released { // which the deadline, if it has passed since, does not change
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

// Deadline implements context.Context.
func (c *Context) Deadline() (time.Time, bool) { return c.began.Add(c.limit), true }

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} { return c.make().Done() }

// Value implements context.Context. It goes through the standard context,
// which is how package context finds its own cancellation and starts no
// goroutine for contexts derived from this one.
func (c *Context) Value(key any) any {
	if c.isBound && c.standard.Load() == nil { // and no context is derived from it
		return c.parent.Value(key)
	}
	return c.make().Value(key)
}

// Err implements context.Context.
func (c *Context) Err() error {
	if s := c.standard.Load(); s != nil {
		return s.Err()
	}
	return c.ErrAt(time.Now())
}

// ErrAt is Err for who has just read the clock, which is most of what Err costs.
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
