package sqlstore

import (
	"context"
	"math/rand/v2"
	"time"
)

// retry calls f again while the database rolls it back for a concurrent statement, as
// it does at isolation levels above read committed, and in deadlocks.
func retry(ctx context.Context, f func() error) error {
	for try := 0; ; try++ {
		err := f()
		if !rolledBack(err) || pause(ctx, try) != nil {
			return err
		}
	}
}

// rolledBack reports whether the database undid a statement because of a concurrent
// one: a serialization failure or a deadlock, which nothing was applied of.
func rolledBack(err error) bool {
	state := sqlState(err)
	return state == "40001" || state == "40P01"
}

const (
	firstWait = 4 * time.Millisecond // doubled by each further try
	maxWait   = 128 * time.Millisecond
)

// pause waits before another try. It returns early with ctx's error.
func pause(ctx context.Context, try int) error {
	d := min(firstWait<<min(try, 10), maxWait)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
