package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

// TestFailover counts the logins and logouts of 40 users that were acknowledged and then undone by
// a planned failover of Sentinel: the old master acknowledges writes until its clients know the
// new one. With WaitReplicas none is undone.
func TestFailover(t *testing.T) {
	for range number(t, "FAULT_RUNS", 1) {
		t.Logf("without WaitReplicas: %v", failover(t, 0))
		waiting := failover(t, 1)
		t.Logf("with WaitReplicas 1:  %v", waiting)
		if waiting.lostLogins > 0 || waiting.lostLogouts > 0 {
			t.Error("a write that a replica had acknowledged was undone")
		}
		if waiting.logouts == 0 {
			t.Error("no logout was acknowledged: the run proves nothing")
		}
	}
}

// A toll is what a failover has cost.
type toll struct {
	logins, logouts         int // acknowledged
	lostLogins, lostLogouts int // acknowledged, and undone
	failed                  int // neither acknowledged nor a logout of a lost login
}

func (c toll) String() string {
	return fmt.Sprintf("undone are %d of %d logins and %d of %d logouts; %d failed",
		c.lostLogins, c.logins, c.lostLogouts, c.logouts, c.failed)
}

// user is what one user knows.
type user struct {
	live    []*session.Record // sessions whose Create was acknowledged
	ended   []string          // ids of sessions whose tombstone was acknowledged
	logins  int               // acknowledged
	missing int               // sessions that were not found when they were to end
	failed  int               // other writes that were not acknowledged
}

// run calls ready when the user has ten sessions. Until over it then begins sessions and ends
// the oldest ones.
func (u *user) run(c *client, ready func(), over <-chan struct{}) {
	write := func(f func(ctx context.Context) error) bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := f(ctx)
		switch {
		case errors.Is(err, session.ErrNotFound):
			u.missing++
		case err != nil:
			u.failed++
		}
		return err == nil
	}
	for n := 0; ; n++ {
		if n == 10 {
			ready()
		}
		select {
		case <-over:
			return
		case <-time.After(time.Duration(c.rng.Int64N(int64(10 * time.Millisecond)))):
		}
		if n < 10 || n%2 == 0 {
			r := c.record(fmt.Sprintf("id-2-%d-%d", c.number, n))
			if write(func(ctx context.Context) error { return c.store.Create(ctx, r) }) {
				u.live = append(u.live, r)
				u.logins++
			}
		} else if len(u.live) > 0 {
			r := u.live[0]
			u.live = u.live[1:]
			end := c.record(r.ID)
			end.User, end.Data = "", []byte(`{"session.ended":"logout"}`)
			if write(func(ctx context.Context) error { return c.store.Save(ctx, end, r.Version) }) {
				u.ended = append(u.ended, r.ID)
			}
		}
	}
}

// failover lets users log in and out before, during and after a failover.
func failover(t *testing.T, replicas int) (total toll) {
	ctx := t.Context()
	master := startRedis(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	standby := servers.Redis(t, "--appendonly", "yes", "--appendfsync", "always", "--replicaof", host+" "+port)
	primary := redisClient(t, master.Addr, nil)
	if err := primary.ConfigSet(ctx, "repl-diskless-sync-delay", "0").Err(); err != nil {
		t.Fatal(err)
	}
	servers.Eventually(t, "the replica follows", func() bool {
		return strings.Contains(primary.Info(ctx, "replication").Val(), "state=online")
	})
	sentinel := servers.Sentinel(t, master)
	operator := redis.NewSentinelClient(&redis.Options{Addr: sentinel.Addr})
	application := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: "main", SentinelAddrs: []string{sentinel.Addr}, ContextTimeoutEnabled: true,
	})
	t.Cleanup(func() { _, _ = operator.Close(), application.Close() })
	store, err := redisstore.New(application, &redisstore.Options{WaitReplicas: replicas})
	if err != nil {
		t.Fatal(err)
	}

	var users [40]user
	var all, ready sync.WaitGroup
	ready.Add(len(users))
	over := make(chan struct{})
	for i := range users {
		c := &client{number: i, store: store, rng: rand.New(rand.NewPCG(1, uint64(i))), start: time.Now()}
		all.Go(func() { users[i].run(c, ready.Done, over) })
	}
	ready.Wait()
	servers.Eventually(t, "Sentinel begins a failover", func() bool { return operator.Failover(ctx, "main").Err() == nil })
	servers.Eventually(t, "Sentinel has a new master", func() bool {
		addr := operator.GetMasterAddrByName(ctx, "main").Val()
		return len(addr) == 2 && addr[1] == standby.Port()
	})
	time.Sleep(time.Second) // some more
	close(over)
	all.Wait()

	promoted, err := redisstore.New(redisClient(t, standby.Addr, nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	isLive := func(id string) bool {
		r, err := promoted.Load(ctx, id)
		if err != nil && !errors.Is(err, session.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil && r.User != ""
	}
	for _, u := range users {
		total.logins += u.logins
		total.lostLogins += u.missing
		total.logouts += len(u.ended)
		total.failed += u.failed
		for _, r := range u.live {
			if !isLive(r.ID) {
				total.lostLogins++
			}
		}
		for _, id := range u.ended {
			if isLive(id) {
				total.lostLogouts++
			}
		}
	}
	return total
}
