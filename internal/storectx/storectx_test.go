package storectx_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

type key struct{}

// ended reports whether the Done channel of c is closed.
func ended(c context.Context) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// TestAsTheStandardLibrary checks that a Context behaves as the equivalent context of the
// standard library, whether or not Done was called before.
func TestAsTheStandardLibrary(t *testing.T) {
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "value"), time.Second)
			c := storectx.New(parent, 3*time.Second)
			began := time.Now()
			want, stop := context.WithDeadline(context.WithoutCancel(parent), began.Add(3*time.Second))
			defer stop()
			if asked {
				c.Done()
			}
			same := func(when string) {
				t.Helper()
				d, ok := c.Deadline()
				wantD, wantOK := want.Deadline()
				if !d.Equal(wantD) || ok != wantOK || c.Err() != want.Err() || c.ErrAt(time.Now()) != want.Err() || asked && ended(c) != ended(want) {
					t.Errorf("%s: Deadline %v, Err %v, ErrAt %v, want %v, %v", when, d, c.Err(), c.ErrAt(time.Now()), wantD, want.Err())
				}
			}
			if c.Began() != began {
				t.Error("began", c.Began())
			}
			same("at first")
			cancel()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			same("after the parent")
			time.Sleep(time.Second - time.Nanosecond)
			synctest.Wait()
			same("just before the deadline")
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			same("at the deadline")
			if c.Err() != context.DeadlineExceeded || !ended(c) {
				t.Error("Err", c.Err())
			}
			if c.Value(key{}) != "value" || c.Value("other") != nil {
				t.Error("Value", c.Value(key{}))
			}
			c.Release()
			if c.Err() == nil {
				t.Error("Release has cleared the error")
			}
		})
	}
}

// TestRelease checks that Release ends a Context, also for later calls of Done.
func TestRelease(t *testing.T) {
	for _, asked := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := storectx.New(t.Context(), time.Hour)
			if asked {
				c.Done()
			}
			c.Release()
			if c.Err() != context.Canceled || c.ErrAt(time.Now()) != context.Canceled || !ended(c) {
				t.Errorf("Done called before: %v; Err %v", asked, c.Err())
			}
			c.Release()
		})
	}
}

// TestErrNeverChanges checks that Err, once it has returned an error, always returns the same
// error, and so do contexts that Done creates later: otherwise a store would log one reason and
// return another.
func TestErrNeverChanges(t *testing.T) {
	wait := func(c *storectx.Context) { time.Sleep(time.Hour) }
	err := func(c *storectx.Context) { _ = c.Err() }
	errAt := func(c *storectx.Context) { _ = c.ErrAt(time.Now()) }
	done := func(c *storectx.Context) { c.Done() }
	for _, c := range []struct {
		name  string
		steps []func(*storectx.Context)
		want  error
	}{
		{"released", []func(*storectx.Context){(*storectx.Context).Release}, context.Canceled},
		{"released, and the deadline later", []func(*storectx.Context){(*storectx.Context).Release, wait}, context.Canceled},
		{"Done, released, and the deadline later", []func(*storectx.Context){done, (*storectx.Context).Release, wait}, context.Canceled},
		{"the deadline", []func(*storectx.Context){wait}, context.DeadlineExceeded},
		{"the deadline, Err, then released", []func(*storectx.Context){wait, err, (*storectx.Context).Release}, context.DeadlineExceeded},
		{"the deadline, ErrAt, then released", []func(*storectx.Context){wait, errAt, (*storectx.Context).Release}, context.DeadlineExceeded},
		{"Done, the deadline, then released", []func(*storectx.Context){done, wait, (*storectx.Context).Release}, context.DeadlineExceeded},
		{"the deadline, Done, then released", []func(*storectx.Context){wait, done, (*storectx.Context).Release}, context.DeadlineExceeded},
		// The one case in which the standard library would report DeadlineExceeded: it has a
		// timer, and here nothing has read the clock before the release.
		{"the deadline, then released", []func(*storectx.Context){wait, (*storectx.Context).Release}, context.Canceled},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := storectx.New(t.Context(), time.Minute)
				defer ctx.Release()
				for _, step := range c.steps {
					step(ctx)
					synctest.Wait()
				}
				for _, when := range []string{"first", "again"} {
					if ctx.Err() != c.want || ctx.ErrAt(time.Now()) != c.want {
						t.Errorf("%s: %v, %v, want %v", when, ctx.Err(), ctx.ErrAt(time.Now()), c.want)
					}
				}
				if !ended(ctx) || ctx.Err() != c.want || ctx.ErrAt(time.Now()) != c.want || context.Cause(ctx) != c.want {
					t.Errorf("after Done: %v, %v, %v, want %v", ctx.Err(), ctx.ErrAt(time.Now()), context.Cause(ctx), c.want)
				}
				time.Sleep(time.Hour)
				ctx.Release()
				if ctx.Err() != c.want {
					t.Errorf("later: %v, want %v", ctx.Err(), c.want)
				}
			})
		})
	}
}

// TestWithin checks that Within uses the earlier deadline and ignores the cancellation of its
// parent.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for given, want := range map[time.Duration]time.Duration{0: time.Minute, time.Second: time.Second, time.Minute: time.Minute, time.Hour: time.Minute, -time.Second: -time.Second} {
			ctx, cancel := context.WithCancel(t.Context())
			if given != 0 {
				ctx, cancel = context.WithTimeout(t.Context(), given)
			}
			c := storectx.Within(ctx, time.Minute)
			cancel()
			if d, ok := c.Deadline(); !ok || time.Until(d) != want {
				t.Errorf("%v: the deadline is in %v, want %v", given, time.Until(d), want)
			}
			if over := want <= 0; over != errors.Is(c.Err(), context.DeadlineExceeded) || !over && c.Err() != nil {
				t.Errorf("%v: Err %v", given, c.Err())
			}
			c.Release()
		}
	})
}

// TestDerived checks that contexts derived from a Context end with it, and that no goroutine is
// left, which the bubble would report.
func TestDerived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := storectx.New(t.Context(), time.Second)
		child, cancel := context.WithTimeout(c, time.Hour)
		defer cancel()
		stop := context.AfterFunc(c, func() {})
		if child.Err() != nil {
			t.Error(child.Err())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if child.Err() != context.DeadlineExceeded {
			t.Error("the child outlives the deadline:", child.Err())
		}
		stop()
		c.Release()

		c = storectx.New(t.Context(), time.Hour)
		child, cancel = context.WithCancel(c)
		defer cancel()
		c.Release()
		synctest.Wait()
		if child.Err() != context.Canceled {
			t.Error("the child outlives the release:", child.Err())
		}
	})
}

// TestDerivedStartsNoGoroutine checks that a derived context starts no goroutine: package
// context finds its own cancellation through Value.
func TestDerivedStartsNoGoroutine(t *testing.T) {
	c := storectx.New(t.Context(), time.Hour)
	defer c.Release()
	const n = 100
	before := runtime.NumGoroutine()
	for range n {
		_, cancel := context.WithTimeout(c, time.Minute)
		defer cancel()
	}
	if got := runtime.NumGoroutine() - before; got > n/2 { // unrelated goroutines may start and end
		t.Errorf("%d goroutines for %d contexts", got, n)
	}
}

// TestTogether checks that concurrent calls of Done and Release use one channel, and that it is
// closed.
func TestTogether(t *testing.T) {
	for range 200 {
		c := storectx.New(t.Context(), time.Hour)
		var all sync.WaitGroup
		var seen [4]<-chan struct{}
		for i := range seen {
			all.Go(func() { seen[i] = c.Done(); _ = c.Err(); _ = c.Value(key{}) })
		}
		all.Go(c.Release)
		all.Wait()
		for _, done := range seen {
			if done != seen[0] {
				t.Fatal("two channels")
			}
			<-done
		}
	}
}

// TestAllocatesNothing checks that the methods that a store in memory calls do not allocate.
func TestAllocatesNothing(t *testing.T) {
	var c storectx.Context
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		c = storectx.Context{}
		c.Begin(ctx, time.Minute)
		if d, ok := c.Deadline(); !ok || !d.Equal(c.Began().Add(time.Minute)) {
			t.Error(d, ok)
		}
		if c.Err() != nil || c.ErrAt(c.Began()) != nil {
			t.Error(c.Err())
		}
		c.Release()
		if c.Err() != context.Canceled {
			t.Error(c.Err())
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
