package redisstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/proxy"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/coatcheck/session/storetest"
	"github.com/redis/go-redis/v9"
)

// places is the number of commands of a Store that are sent alone at a time.
const places = 8

// hook is called before the commands of a Store are sent, but not before those that open a
// connection. A command that it returns an error for is not sent.
type hook struct {
	alone   func(cmd redis.Cmder) error    // for a command that is sent alone
	grouped func(cmds []redis.Cmder) error // for a pipeline
}

func (h hook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if h.alone != nil && isOfStore(cmd) {
			if err := h.alone(cmd); err != nil {
				return err
			}
		}
		return next(ctx, cmd)
	}
}

func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if h.grouped != nil && isOfStore(cmds[0]) {
			if err := h.grouped(cmds); err != nil {
				return err
			}
		}
		return next(ctx, cmds)
	}
}

func isOfStore(cmd redis.Cmder) bool {
	return slices.Contains([]string{"get", "getdel", "eval", "evalsha", "zrange", "zrem", "wait"}, cmd.Name())
}

// A crowd is a Store whose places the test takes, so that all other calls wait for the next
// pipeline.
type crowd struct {
	*redisstore.Store
	t     *testing.T
	taken chan struct{} // receives when a load has taken a place
	free  func()        // ends the loads that have taken the places
	calls sync.WaitGroup
}

// newCrowd returns a crowd whose pipelines pass through grouped. The loads that take the places
// return what freed returns, and are not sent.
func newCrowd(t *testing.T, client *redis.Client, grouped func(cmds []redis.Cmder) error, freed func() error) *crowd {
	t.Helper()
	store := newStore(t, client)
	r := create(t, store, newRecord("warm"))
	must(t, store.Save(t.Context(), next(r), r.Version)) // the server knows the scripts from here on
	c := &crowd{Store: store, t: t, taken: make(chan struct{})}
	release := make(chan struct{})
	c.free = sync.OnceFunc(func() { close(release) })
	client.AddHook(hook{grouped: grouped, alone: func(cmd redis.Cmder) error {
		if !strings.HasPrefix(fmt.Sprint(cmd.Args()[1]), "session:s:held") {
			return nil
		}
		c.taken <- struct{}{}
		<-release
		return freed()
	}})
	t.Cleanup(func() { c.free(); c.calls.Wait() })
	c.take()
	return c
}

// take takes all places.
func (c *crowd) take() {
	for i := range places {
		c.calls.Go(func() {
			defer func() { _ = recover() }()
			_, _ = c.Load(context.Background(), fmt.Sprint("held", i))
		})
	}
	for range places {
		select {
		case <-c.taken:
		case <-time.After(time.Minute):
			c.t.Fatal("a place is not free")
		}
	}
}

func absent() error { return redis.Nil }

// call calls f in a goroutine of its own, which must return want.
func (c *crowd) call(want error, f func() error) {
	c.calls.Go(func() {
		if err := f(); !errors.Is(err, want) {
			c.t.Errorf("a call returned %v, want %v", err, want)
		}
	})
}

// load loads a record that must have this version.
func (c *crowd) load(r *session.Record) {
	c.call(nil, func() error {
		got, err := c.Load(context.Background(), r.ID)
		if err == nil && (got.ID != r.ID || got.Version != r.Version) {
			c.t.Errorf("Load(%s) returned %+v", r.ID, got)
		}
		return err
	})
}

// save saves over a record.
func (c *crowd) save(ctx context.Context, r *session.Record, want error) {
	c.call(want, func() error { return c.Save(ctx, next(r), r.Version) })
}

// await waits until n calls wait for a pipeline to leave or for its replies.
func (c *crowd) await(n int) {
	c.t.Helper()
	servers.Eventually(c.t, fmt.Sprint(n, " calls wait"), func() bool {
		return strings.Count(stacks(), "]:\ngithub.com/coatcheck/session/redisstore.(*group).process(") == n
	})
}

// stacks returns the stacks of all goroutines.
func stacks() string {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 2)
	return b.String()
}

// noneLeft checks that all goroutines of a Store end.
func noneLeft(t *testing.T) {
	t.Helper()
	servers.Eventually(t, "no goroutine is left", func() bool {
		return !strings.Contains(stacks(), "session/redisstore.")
	})
}

func names(cmds []redis.Cmder) (names []string) {
	for _, cmd := range cmds {
		names = append(names, cmd.Name())
	}
	return names
}

// TestCrowd checks that the calls of a crowd leave with the next pipeline. Each gets its own
// answer, and equal loads are sent once. Loads come last: the client looks for another master if
// the first command is refused.
func TestCrowd(t *testing.T) {
	var sent [][]string
	client := startServer(t).client(nil)
	store := newStore(t, client)
	popular, saved, gone := create(t, store, newRecord("alice")), create(t, store, newRecord("")), newRecord("")
	c := newCrowd(t, client, func(cmds []redis.Cmder) error {
		sent = append(sent, names(cmds))
		return nil
	}, absent)
	for range 50 {
		c.load(popular)
	}
	c.call(session.ErrNotFound, func() error { _, err := c.Load(t.Context(), gone.ID); return err })
	c.await(51)
	c.save(t.Context(), saved, nil)
	c.save(t.Context(), gone, session.ErrNotFound)
	c.save(t.Context(), &session.Record{ID: popular.ID, Version: 1}, session.ErrConflict)
	c.await(54)
	c.free()
	c.calls.Wait()
	if got, want := fmt.Sprint(sent), "[[evalsha evalsha evalsha get get]]"; got != want {
		t.Errorf("pipelines: %s, want %s", got, want)
	}
	noneLeft(t)
}

// TestCrowdIsDivided checks that a pipeline has at most a hundred commands.
func TestCrowdIsDivided(t *testing.T) {
	var mu sync.Mutex
	var sizes []int
	c := newCrowd(t, startServer(t).client(nil), func(cmds []redis.Cmder) error {
		mu.Lock()
		defer mu.Unlock()
		sizes = append(sizes, len(cmds))
		return nil
	}, absent)
	for range 250 {
		c.call(nil, func() error { return c.Create(t.Context(), newRecord("")) })
	}
	c.await(250)
	c.free()
	c.calls.Wait()
	slices.Sort(sizes)
	if want := []int{50, 100, 100}; !slices.Equal(sizes, want) {
		t.Errorf("pipelines of %v commands, want %v", sizes, want)
	}
}

// TestCrowdGivesUp checks that a caller that gives up fails no other. If its command has not been
// sent, it is not sent; else its outcome is unknown.
func TestCrowdGivesUp(t *testing.T) {
	var sent []string
	arrived, open := make(chan struct{}), make(chan struct{})
	client := startServer(t).client(nil)
	r, popular := create(t, newStore(t, client), newRecord("")), create(t, newStore(t, client), newRecord(""))
	c := newCrowd(t, client, func(cmds []redis.Cmder) error {
		sent = append(sent, names(cmds)...)
		close(arrived)
		<-open
		return nil
	}, absent)
	load := func(ctx context.Context, id string) func() error {
		return func() error { _, err := c.Load(ctx, id); return err }
	}
	early, giveUpEarly := context.WithCancel(t.Context())
	late, giveUpLate := context.WithCancel(t.Context())
	c.call(context.Canceled, load(early, r.ID))
	c.call(context.Canceled, load(early, popular.ID))
	unsent := make(chan error, 1)
	go func() { unsent <- c.Save(early, next(r), r.Version) }()
	c.call(context.Canceled, load(late, popular.ID))
	c.save(late, r, session.ErrIndeterminate)
	c.await(5)
	c.load(popular)
	c.call(nil, func() error { return c.Create(t.Context(), newRecord("")) }) // a create that fails is not tried again
	c.await(7)
	giveUpEarly()
	if err := <-unsent; !errors.Is(err, context.Canceled) || errors.Is(err, session.ErrIndeterminate) {
		t.Errorf("a save that was not sent returned %v", err)
	}
	c.await(4)
	c.free()
	<-arrived
	giveUpLate()
	c.await(2)
	close(open)
	c.calls.Wait()
	if want := []string{"evalsha", "evalsha", "get"}; !slices.Equal(sent, want) {
		t.Errorf("sent: %q, want %q", sent, want)
	}
	noneLeft(t)
}

// TestCrowdHung checks that a hung server delays no call of a crowd past the deadline of its
// context, and that no goroutine is left while the server still hangs.
func TestCrowdHung(t *testing.T) {
	s := startServer(t)
	client := s.client(patient)
	store := newStore(t, client)
	r := create(t, store, newRecord("alice"))
	openConnections(t, client, 10)
	s.Suspend(t)
	var calls sync.WaitGroup
	for i := range 200 {
		limit := time.Duration(200+10*(i%20)) * time.Millisecond
		for call, do := range map[string]func(ctx context.Context) error{
			"Load":   func(ctx context.Context) error { _, err := store.Load(ctx, fmt.Sprint(r.ID, i%3)); return err },
			"Create": func(ctx context.Context) error { return store.Create(ctx, newRecord("")) },
			"Save":   func(ctx context.Context) error { return store.Save(ctx, next(r), r.Version) },
		} {
			calls.Go(func() {
				err := within(t, limit, do)
				if err == nil || isAnswer(err) || call == "Load" && errors.Is(err, session.ErrIndeterminate) {
					t.Errorf("%s returned %v", call, err)
				}
			})
		}
	}
	calls.Wait()
	noneLeft(t)
}

// TestCrowdCreatesOnce checks that neither the client nor the Store sends a create again that hung
// in a pipeline, for the reason that TestHungCreateIsSentOnce gives.
func TestCrowdCreatesOnce(t *testing.T) {
	s := startServer(t)
	client := s.client(func(o *redis.Options) { o.ReadTimeout, o.MaxRetries = 50*time.Millisecond, 3 })
	c := newCrowd(t, client, nil, absent)
	openConnections(t, client, 4)
	for range 5 {
		c.call(session.ErrIndeterminate, func() error { return c.Create(t.Context(), newRecord("")) })
	}
	c.await(5)
	must(t, s.client(nil).ConfigResetStat(t.Context()).Err())
	resume := s.Suspend(t)
	c.free()
	c.calls.Wait()
	resume()
	if got := sent(t, s.client(nil)); !strings.HasPrefix(got, "evalsha=5 ") {
		t.Errorf("the server received %q, want each create once", got)
	}
}

// TestCrowdPanics checks that a hook that panics does so in each caller, and keeps no place.
func TestCrowdPanics(t *testing.T) {
	isFirst := true
	client := startServer(t).client(nil)
	r := create(t, newStore(t, client), newRecord(""))
	c := newCrowd(t, client, func([]redis.Cmder) error {
		if isFirst {
			isFirst = false
			panic("of a pipeline")
		}
		return nil
	}, func() error { panic("of a command") })
	for range 3 {
		c.call(nil, func() (err error) {
			defer func() {
				if v := recover(); v != "of a pipeline" {
					t.Errorf("Save panicked with %v", v)
				}
			}()
			return c.Save(t.Context(), next(r), r.Version)
		})
	}
	c.await(3)
	c.free()
	c.calls.Wait()
	c.take() // all places are free again
	c.calls.Wait()
	c.load(r)
	c.calls.Wait()
}

// TestCrowdRefused checks that all calls fail if a hook refuses their pipeline.
func TestCrowdRefused(t *testing.T) {
	client := startServer(t).client(nil)
	r := create(t, newStore(t, client), newRecord(""))
	c := newCrowd(t, client, func([]redis.Cmder) error { return redis.ErrClosed }, absent)
	c.call(redis.ErrClosed, func() error { _, err := c.Load(t.Context(), r.ID); return err })
	c.call(redis.ErrClosed, func() error { return c.Create(t.Context(), newRecord("")) })
	c.await(2)
	c.free()
	c.calls.Wait()
}

// TestCrowdIsCutShort cuts the connection after the first reply of a pipeline: the commands without
// a reply are sent again, and only these.
func TestCrowdIsCutShort(t *testing.T) {
	s := startServer(t)
	p := proxy.New(t, s.Addr, func(c proxy.Chunk) proxy.Fate {
		if c.IsReply && string(c.Data) == ":0\r\n:0\r\n:0\r\n" {
			return proxy.Fate{Pass: len(":0\r\n"), Cut: true}
		}
		return proxy.Forward(c)
	})
	c := newCrowd(t, s.client(func(o *redis.Options) { o.Addr = p.Addr }), nil, absent)
	for range 3 {
		c.call(nil, func() error { return c.Create(t.Context(), newRecord("")) })
	}
	c.await(3)
	must(t, s.client(nil).ConfigResetStat(t.Context()).Err())
	c.free()
	c.calls.Wait()
	if got := sent(t, s.client(nil)); !strings.HasPrefix(got, "evalsha=5 ") {
		t.Errorf("the server received %q, want 2 of 3 creates again", got)
	}
}

// TestCrowdIsCutInAString cuts the connection in the middle of a record: the commands are sent again,
// and a part of a reply is none.
func TestCrowdIsCutInAString(t *testing.T) {
	s := startServer(t)
	var isCut atomic.Bool
	p := proxy.New(t, s.Addr, func(c proxy.Chunk) proxy.Fate {
		if c.IsReply && bytes.HasPrefix(c.Data, []byte("$")) && len(c.Data) > 50 && isCut.CompareAndSwap(false, true) {
			return proxy.Fate{Pass: 50, Cut: true}
		}
		return proxy.Forward(c)
	})
	c := newCrowd(t, s.client(func(o *redis.Options) { o.Addr = p.Addr }), nil, absent)
	for range 3 {
		r := newRecord("")
		must(t, newStore(t, s.client(nil)).Create(t.Context(), r))
		c.call(nil, func() error {
			got, err := c.Load(t.Context(), r.ID)
			if err == nil && got.Version != r.Version {
				t.Errorf("version %d, want %d", got.Version, r.Version)
			}
			return err
		})
	}
	c.await(3)
	c.free()
	c.calls.Wait()
	if !isCut.Load() {
		t.Error("no reply was cut")
	}
}

// TestGrouped runs the tests of a store with one place, so that most concurrent calls are sent in
// pipelines.
func TestGrouped(t *testing.T) {
	store := newStore(t, startServer(t).client(func(o *redis.Options) { o.PoolSize = 1 }))
	storetest.Run(t, func(t *testing.T) session.Store { return store })
	storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
}

// crowdOfCluster checks that the commands of a Cluster are not grouped: a call waits for no other.
func crowdOfCluster(t *testing.T, nodes []*server) {
	const n = 3 * places
	client := clusterClient(t, nodes)
	var arrived, calls sync.WaitGroup
	arrived.Add(n)
	client.AddHook(hook{alone: func(redis.Cmder) error {
		arrived.Done()
		arrived.Wait()
		return nil
	}})
	store := newStore(t, client)
	for i := range n {
		calls.Go(func() {
			if _, err := store.Load(t.Context(), fmt.Sprint(i)); !errors.Is(err, session.ErrNotFound) {
				t.Errorf("Load: %v", err)
			}
		})
	}
	calls.Wait()
}
