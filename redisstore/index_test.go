package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// gate blocks the scripts that write the record of a session, and lets those of an index pass.
type gate struct {
	reached chan struct{} // receives when a script waits
	open    chan struct{} // lets the waiting script continue
}

func (g gate) DialHook(next redis.DialHook) redis.DialHook { return next }

func (g gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (g gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); cmd.Name() == "evalsha" && strings.HasPrefix(args[3].(string), "session:s:") {
			g.reached <- struct{}{}
			<-g.open
		}
		return next(ctx, cmd)
	}
}

func newManager(t *testing.T, store session.Store) *session.Manager {
	t.Helper()
	m, err := session.New(&session.Options{Store: store, Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}})
	must(t, err)
	return m
}

// A create consists of two steps, on two nodes of a Cluster. A List between them does not
// return the session yet, and must not remove its entry.
func createHeldBetweenItsSteps(t *testing.T, nodes []*server) {
	client := clusterClient(t, nodes)
	store := newStore(t, client)
	m := newManager(t, store)
	held := clusterClient(t, nodes)
	g := gate{make(chan struct{}), make(chan struct{})}
	held.AddHook(g)
	slow := newStore(t, held)
	for i := range 6 { // enough users for keys on the same node and on different ones
		user := fmt.Sprint("user", i)
		r := newRecord(user)
		created := make(chan error)
		go func() { created <- slow.Create(t.Context(), r) }()
		<-g.reached
		must(t, client.ZScore(t.Context(), "session:u:"+user, r.ID).Err()) // the index is written first
		if ids := lists(t, store, user); len(ids) != 0 {
			t.Fatalf("List returned %q before the record was written", ids)
		}
		must(t, m.RevokeAll(t.Context(), user))
		g.open <- struct{}{}
		must(t, <-created)
		if ids := lists(t, store, user); !slices.Equal(ids, []string{r.ID}) {
			t.Fatalf("List returned %q, want the session", ids)
		}
		must(t, m.RevokeAll(t.Context(), user))
		if ids := lists(t, store, user); len(ids) != 0 {
			t.Fatalf("List returned %q after RevokeAll", ids)
		}
	}
}

// In every interleaving of a create and a revocation, the session has ended afterwards or is
// listed, so that another revocation ends it.
func createRacingRevokeAll(t *testing.T, nodes []*server) {
	store := newStore(t, clusterClient(t, nodes))
	m := newManager(t, store)
	survived := 0
	for i := range 1000 {
		user := fmt.Sprint("user", i)
		r := newRecord(user)
		var both sync.WaitGroup
		start := make(chan struct{})
		for _, do := range []func() error{
			func() error { return store.Create(t.Context(), r) },
			func() (err error) {
				for range 1 + i%4 { // to vary the moment of the last one
					err = errors.Join(err, m.RevokeAll(t.Context(), user))
				}
				return err
			},
		} {
			both.Go(func() {
				<-start
				if err := do(); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		both.Wait()
		stored, err := store.Load(t.Context(), r.ID)
		must(t, err) // the session or its tombstone
		isLive := stored.User == user
		if listed := slices.Contains(lists(t, store, user), r.ID); listed != isLive {
			t.Fatalf("live: %v, listed: %v", isLive, listed)
		}
		if isLive {
			survived++
		}
	}
	t.Logf("the create came after the last revocation %d times", survived)
}

// TestDeadlineMovesInTheIndexFirst checks that a Save that moves Deadline moves the entry
// before the record, because List removes entries past their Deadline.
func TestDeadlineMovesInTheIndexFirst(t *testing.T) {
	s := startServer(t)
	client, slow := s.client(nil), s.client(nil)
	g := gate{make(chan struct{}), make(chan struct{})}
	slow.AddHook(g)
	r := create(t, newStore(t, client), newRecord("alice"))
	score := func() int64 { return int64(client.ZScore(t.Context(), "session:u:alice", r.ID).Val()) }
	n := next(r)
	n.Deadline = n.Deadline.Add(24 * time.Hour)
	saved := make(chan error)
	go func() { saved <- newStore(t, slow).Save(t.Context(), n, r.Version) }()
	for _, step := range []struct {
		score time.Time
		has   *session.Record
	}{
		{r.Deadline, r}, // the first script finds that Deadline moves
		{n.Deadline, r}, // the second saves
	} {
		select {
		case <-g.reached:
		case err := <-saved:
			t.Fatalf("Save returned %v at once", err)
		}
		holds(t, newStore(t, client), step.has)
		if score() != step.score.UnixMilli() {
			t.Errorf("the score in the index is %v, want %v", time.UnixMilli(score()), step.score)
		}
		g.open <- struct{}{}
	}
	must(t, <-saved)
	holds(t, newStore(t, client), n)

	// A save that moves Deadline back leaves the entry where it is, which is late enough.
	back := next(r)
	must(t, newStore(t, client).Save(t.Context(), back, n.Version))
	if score() != n.Deadline.UnixMilli() {
		t.Error("the entry moved back: a slower save would find it removed")
	}

	// A slower save of an earlier Deadline does not move the entry back either, although it
	// moves the Deadline of the record that it replaces forward.
	last := next(r)
	last.Deadline = r.Deadline.Add(time.Minute)
	must(t, newStore(t, client).Save(t.Context(), last, back.Version))
	if score() != n.Deadline.UnixMilli() {
		t.Error("the entry moved back: the earlier save would find it removed")
	}
}

// TestListTidies checks that List removes entries past their Deadline, and no other.
func TestListTidies(t *testing.T) {
	client := startServer(t).client(nil)
	store := newStore(t, client)
	ctx := t.Context()
	r := create(t, store, newRecord("alice"))
	add := func(id string, deadline time.Time) {
		must(t, client.ZAdd(ctx, "session:u:alice", redis.Z{Score: float64(deadline.UnixMilli()), Member: id}).Err())
	}
	add("past", time.Now().Add(-time.Hour))
	add("on its way", time.Now().Add(time.Hour))
	bobs := create(t, store, newRecord("bob"))
	add(bobs.ID, time.Now().Add(time.Hour))
	if ids := lists(t, store, "alice"); !slices.Equal(ids, []string{r.ID}) {
		t.Errorf("List: %q", ids)
	}
	entries := client.ZRange(ctx, "session:u:alice", 0, -1).Val()
	slices.Sort(entries)
	want := []string{bobs.ID, "on its way", r.ID}
	slices.Sort(want)
	if !slices.Equal(entries, want) {
		t.Errorf("the index contains %q, want %q", entries, want)
	}
	add("past", time.Now().Add(-time.Hour))
	create(t, store, newRecord("alice"))
	if err := client.ZScore(ctx, "session:u:alice", "past").Err(); !errors.Is(err, redis.Nil) {
		t.Error("a create left an entry past its Deadline: the index of a user who is never listed would grow")
	}
}
