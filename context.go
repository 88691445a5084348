package session

import (
	"context"
	"sync"
	"time"
)

// A storeContext is what a store is called with: the values of the request's
// context, never its cancellation (a lost connection loses no write), and a
// deadline of its own. It is
//
//	context.WithDeadline(context.WithoutCancel(parent), deadline)
//
// made only when somebody waits on Done or asks for a value: a store in memory
// does neither, and the timer and its four allocations would cost more than
// the load.
type storeContext struct {
	parent   context.Context
	deadline time.Time

	mu       sync.Mutex
	std      context.Context // nil until needed
	cancel   context.CancelFunc
	released bool
}

// context returns a context for one load, or for all the store calls of one
// commit, that ends after Options.StoreTimeout. The caller releases it.
func (k *keeper) context(parent context.Context) *storeContext {
	return &storeContext{parent: parent, deadline: time.Now().Add(k.timeout)}
}

// until is context for a call that the program makes with a ctx of its own,
// whose deadline holds if it is nearer.
func (k *keeper) until(ctx context.Context) *storeContext {
	c := k.context(ctx)
	if d, ok := ctx.Deadline(); ok && d.Before(c.deadline) {
		c.deadline = d
	}
	return c
}

func (c *storeContext) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.released = true
	if c.cancel != nil {
		c.cancel()
	}
}

func (c *storeContext) standard() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.std == nil {
		c.std, c.cancel = context.WithDeadline(context.WithoutCancel(c.parent), c.deadline)
		if c.released {
			c.cancel()
		}
	}
	return c.std
}

// Deadline implements context.Context.
func (c *storeContext) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context.
func (c *storeContext) Done() <-chan struct{} { return c.standard().Done() }

// Value implements context.Context. It goes through the standard context,
// which is how package context finds its own cancellation and starts no
// goroutine for contexts derived from this one.
func (c *storeContext) Value(key any) any { return c.standard().Value(key) }

// Err implements context.Context.
func (c *storeContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.std != nil:
		return c.std.Err()
	case c.released:
		return context.Canceled
	case !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return nil
}
