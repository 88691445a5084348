package session

import (
	"context"
	"sync/atomic"
	"time"
)

// A storeContext is what a store is called with: the values of the request's
// context, never its cancellation (a lost connection loses no write), and a
// deadline of its own. It is
//
//	context.WithDeadline(context.WithoutCancel(parent), began.Add(limit))
//
// made only when somebody waits on Done or asks for a value: a store in memory
// does neither, and the timer and its four allocations would cost more than
// the load.
type storeContext struct {
	parent   context.Context
	began    time.Time
	limit    time.Duration
	timer    atomic.Pointer[timer] // nil until needed
	released atomic.Bool
}

// A timer is the standard library's context for the same.
type timer struct {
	context.Context
	cancel context.CancelFunc
}

// context returns a context for one load, or for all the store calls of one
// commit, that ends after Options.StoreTimeout. The caller releases it.
func (k *keeper) context(parent context.Context) *storeContext {
	c := new(storeContext)
	c.begin(parent, k.timeout)
	return c
}

func (c *storeContext) begin(parent context.Context, limit time.Duration) {
	c.parent, c.began, c.limit = parent, time.Now(), limit
}

// now is time.Now, at half its price once c has begun. That was moments ago, in
// which the two clocks that time.Now reads do not part.
func (c *storeContext) now() time.Time {
	if c.began.IsZero() {
		return time.Now()
	}
	return c.began.Add(time.Since(c.began))
}

// until is context for a call that the program makes with a ctx of its own,
// whose deadline holds if it is nearer.
func (k *keeper) until(ctx context.Context) *storeContext {
	c := k.context(ctx)
	if d, ok := ctx.Deadline(); ok {
		c.limit = min(c.limit, d.Sub(c.began))
	}
	return c
}

func (c *storeContext) release() {
	c.released.Store(true)
	if t := c.timer.Load(); t != nil {
		t.cancel()
	}
}

func (c *storeContext) standard() context.Context {
	if t := c.timer.Load(); t != nil {
		return t
	}
	t := new(timer)
	t.Context, t.cancel = context.WithDeadline(context.WithoutCancel(c.parent), c.began.Add(c.limit))
	if !c.timer.CompareAndSwap(nil, t) {
		t.cancel()
		return c.timer.Load()
	}
	if c.released.Load() {
		t.cancel()
	}
	return t
}

// Deadline implements context.Context.
func (c *storeContext) Deadline() (time.Time, bool) { return c.began.Add(c.limit), true }

// Done implements context.Context.
func (c *storeContext) Done() <-chan struct{} { return c.standard().Done() }

// Value implements context.Context. It goes through the standard context,
// which is how package context finds its own cancellation and starts no
// goroutine for contexts derived from this one.
func (c *storeContext) Value(key any) any { return c.standard().Value(key) }

// Err implements context.Context.
func (c *storeContext) Err() error {
	switch t := c.timer.Load(); {
	case t != nil:
		return t.Err()
	case c.released.Load():
		return context.Canceled
	case time.Since(c.began) >= c.limit:
		return context.DeadlineExceeded
	}
	return nil
}
