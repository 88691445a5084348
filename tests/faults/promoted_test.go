package faults_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
)

// TestPromotedReplica promotes a replica that lacks an acknowledged write, as can happen
// because Redis replicates asynchronously. The write is lost, but its writer gets an error, and
// no record is overwritten by a request that has not read it.
func TestPromotedReplica(t *testing.T) {
	sys := startSystemRedis(t, nil)
	link := startProxy(t, sys.server.Addr, 1)
	replica := startRedis(t)
	master, standby := redisClient(t, sys.server.Addr, nil), redisClient(t, replica.Addr, nil)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(master.ConfigSet(ctx, "repl-diskless-sync-delay", "0").Err()) // otherwise the master waits for more replicas
	host, port, _ := strings.Cut(link.Addr, ":")
	must(standby.ReplicaOf(ctx, host, port).Err())
	servers.Eventually(t, "the replica has the master's data", func() bool {
		info, _ := standby.Info(ctx, "replication").Result()
		return strings.Contains(info, "master_link_status:up")
	})

	c := &client{rng: rand.New(rand.NewPCG(1, 1)), start: time.Now()}
	before := sys.open(t, sys.server.Addr)
	first, second := c.record("id-2-0"), c.record("id-2-0")
	must(before.Create(ctx, first))
	// WAIT is of no use: it waits for the writes of its own connection only.
	after := sys.open(t, replica.Addr)
	servers.Eventually(t, "the replica has the first version", func() bool {
		r, err := after.Load(ctx, first.ID)
		return err == nil && r.Version == first.Version
	})
	link.set(forget, 1) // the replica misses all writes from here on
	login := c.record("id-3-0")
	must(before.Save(ctx, second, first.Version))
	must(before.Create(ctx, login))
	sys.server.Kill()
	must(standby.ReplicaOf(ctx, "NO", "ONE").Err())

	is := func(err, want error, what string) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := after.Load(ctx, login.ID)
	is(err, session.ErrNotFound, "Load of the session that was lost")
	is(after.Save(ctx, c.record(login.ID), login.Version), session.ErrNotFound, "Save of the session that was lost")
	is(after.Touch(ctx, login.ID, time.Now(), login.Expires), session.ErrNotFound, "Touch of the session that was lost")

	third := c.record(first.ID)
	is(after.Save(ctx, third, second.Version), session.ErrConflict, "Save over the version that was lost")
	r, err := after.Load(ctx, first.ID)
	must(err)
	if r.Version != first.Version {
		t.Errorf("the promoted replica has version %x, want the first, %x", r.Version, first.Version)
	}
	// Another request saves over the previous version. If the server counted versions, this
	// save would get the number of the lost version, and a save by the other writer would
	// overwrite it.
	must(after.Save(ctx, third, first.Version))
	is(after.Save(ctx, c.record(first.ID), second.Version), session.ErrConflict, "Save over the version that was lost, once more")
	r, err = after.Load(ctx, first.ID)
	must(err)
	if r.Version != third.Version {
		t.Errorf("version %x was overwritten by %x", third.Version, r.Version)
	}
}
