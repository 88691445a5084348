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

// A gate holds the scripts that write a session's record, not an index.
type gate struct {
	reached chan struct{}
	open    chan struct{}
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

// A create is two steps in two places of a Cluster. Whoever looks in between
// sees nothing yet, and must not make the session invisible for ever.
func createHeldBetweenItsSteps(t *testing.T, nodes []*server) {
	client := clusterClient(t, nodes)
	store := newStore(t, client)
	m := newManager(t, store)
	held := clusterClient(t, nodes)
	g := gate{make(chan struct{}), make(chan struct{})}
	held.AddHook(g)
	slow := newStore(t, held)
	for i := range 6 { // slots, and so nodes, of every kind
		user := fmt.Sprint("user", i)
		r := newRecord(user)
		created := make(chan error)
		go func() { created <- slow.Create(t.Context(), r) }()
		<-g.reached
		must(t, client.ZScore(t.Context(), "session:u:"+user, r.ID).Err()) // the index goes first
		if ids := lists(t, store, user); len(ids) != 0 {
			t.Fatalf("List shows %q before it is there", ids)
		}
		must(t, m.RevokeAll(t.Context(), user))
		g.open <- struct{}{}
		must(t, <-created)
		if ids := lists(t, store, user); !slices.Equal(ids, []string{r.ID}) {
			t.Fatalf("List shows %q, want the session", ids)
		}
		must(t, m.RevokeAll(t.Context(), user))
		if ids := lists(t, store, user); len(ids) != 0 {
			t.Fatalf("List shows %q after RevokeAll", ids)
		}
	}
}

// However a create and a revocation fall together, the session has ended or is
// there to be revoked.
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
				for range 1 + i%4 { // sooner or later
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
		is, err := store.Load(t.Context(), r.ID)
		must(t, err) // its tombstone at least
		if listed := slices.Contains(lists(t, store, user), r.ID); listed != (is.User == user) {
			t.Fatalf("alive: %v, listed: %v", is.User == user, listed)
		}
		if is.User == user {
			survived++
		}
	}
	t.Logf("the create was the later one %d times", survived)
}

// A Save that moves Deadline moves the entry before, or List would remove it.
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
		{r.Deadline, r}, // asks whether Deadline moves
		{n.Deadline, r}, // saves
	} {
		select {
		case <-g.reached:
		case err := <-saved:
			t.Fatalf("Save answered %v at once", err)
		}
		holds(t, newStore(t, client), step.has)
		if score() != step.score.UnixMilli() {
			t.Errorf("the index has %v, want %v", time.UnixMilli(score()), step.score)
		}
		g.open <- struct{}{}
	}
	must(t, <-saved)
	holds(t, newStore(t, client), n)

	// Back again: the entry stays where it is, which is late enough.
	back := next(r)
	must(t, newStore(t, client).Save(t.Context(), back, n.Version))
	if score() != n.Deadline.UnixMilli() {
		t.Error("the entry moved backward: a slower save would find it removed")
	}

	// Nor does it move backward when a save of an earlier Deadline, which
	// moves it forward from the record's, comes second.
	last := next(r)
	last.Deadline = r.Deadline.Add(time.Minute)
	must(t, newStore(t, client).Save(t.Context(), last, back.Version))
	if score() != n.Deadline.UnixMilli() {
		t.Error("the entry moved backward: the save that was first would find it removed")
	}
}

// List removes what is past its Deadline, and nothing else.
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
		t.Errorf("the index has %q, want %q", entries, want)
	}
	add("past", time.Now().Add(-time.Hour))
	create(t, store, newRecord("alice"))
	if err := client.ZScore(ctx, "session:u:alice", "past").Err(); !errors.Is(err, redis.Nil) {
		t.Error("a create left an entry past its Deadline: the index of a user whom nobody lists would grow")
	}
}
