package redisstore_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sort"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/coatcheck/session/storetest"
	"github.com/redis/go-redis/v9"
)

func TestRedis(t *testing.T) {
	store := newStore(t, startServer(t).client(nil))
	storetest.Run(t, func(t *testing.T) session.Store { return store })
	storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
}

func TestSentinel(t *testing.T) {
	sentinel := servers.Sentinel(t, startServer(t).Server)
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: "main", SentinelAddrs: []string{sentinel.Addr}, ContextTimeoutEnabled: true,
	})
	defer client.Close()
	store := newStore(t, client)
	storetest.Run(t, func(t *testing.T) session.Store { return store })
}

// TestCluster runs all tests of a Cluster on one, because its start takes seconds.
func TestCluster(t *testing.T) {
	nodes := startCluster(t)
	t.Run("Contract", func(t *testing.T) {
		store := newStore(t, clusterClient(t, nodes))
		storetest.Run(t, func(t *testing.T) session.Store { return store })
		storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
	})
	t.Run("CreateHeldBetweenItsSteps", func(t *testing.T) { createHeldBetweenItsSteps(t, nodes) })
	t.Run("CreateRacingRevokeAll", func(t *testing.T) { createRacingRevokeAll(t, nodes) })
	t.Run("Crowd", func(t *testing.T) { crowdOfCluster(t, nodes) })
	t.Run("Check", func(t *testing.T) { checkCluster(t, nodes) })
	t.Run("Hung", func(t *testing.T) {
		hung(t, nodes, func() *redisstore.Store { return newStore(t, clusterClient(t, nodes)) })
	})
	t.Run("WaitReplicas", func(t *testing.T) { waitInCluster(t, nodes) })
}

// TestProtocol2 covers version 2 of the protocol, in which the client decodes replies to other
// types.
func TestProtocol2(t *testing.T) {
	store := newStore(t, startServer(t).client(func(o *redis.Options) { o.Protocol = 2 }))
	storetest.Run(t, func(t *testing.T) session.Store { return store })
}

// newStore returns a Store with the default prefix.
func newStore(t testing.TB, client redis.UniversalClient) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newRecord returns a record that lives for an hour.
func newRecord(user string) *session.Record {
	now := time.Now().Truncate(time.Millisecond)
	return &session.Record{
		ID: rand.Text(), User: user, Data: []byte(`{"name":"value"}`),
		Created: now, LastSeen: now, Deadline: now.Add(2 * time.Hour), Expires: now.Add(time.Hour),
		Version: mathrand.Uint64()>>1 | 1,
	}
}

// next returns the record that a save replaces r by.
func next(r *session.Record) *session.Record {
	n := *r
	n.Version = mathrand.Uint64()>>1 | 1
	n.Data = []byte(`{"name":"` + rand.Text() + `"}`)
	return &n
}

// tombstone returns the tombstone that replaces r when its session ends.
func tombstone(r *session.Record) *session.Record {
	n := next(r)
	n.User, n.Data = "", []byte(`{"session.ended":""}`)
	n.Deadline = time.Now().Add(time.Minute).Truncate(time.Millisecond)
	n.Expires = n.Deadline
	return n
}

// create stores a record and returns it.
func create(t testing.TB, s session.Store, r *session.Record) *session.Record {
	t.Helper()
	must(t, s.Create(t.Context(), r))
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// holds checks that the store contains r.
func holds(t testing.TB, s session.Store, r *session.Record) {
	t.Helper()
	got, err := s.Load(t.Context(), r.ID)
	must(t, err)
	if got.Version != r.Version || got.User != r.User || !bytes.Equal(got.Data, r.Data) || !got.Expires.Equal(r.Expires) {
		t.Fatalf("the store contains %+v, want %+v", got, r)
	}
}

// lists returns the ids of the user's sessions.
func lists(t testing.TB, s session.Store, user string) (ids []string) {
	t.Helper()
	records, err := s.List(t.Context(), user)
	must(t, err)
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	return ids
}

// TestScriptsAreSentWhereUnknown covers a server that has just started and knows no script.
func TestScriptsAreSentWhereUnknown(t *testing.T) {
	client := startServer(t).client(nil)
	store := newStore(t, client)
	forget := func() { must(t, client.ScriptFlush(t.Context()).Err()) }
	forget()
	r := create(t, store, newRecord("alice"))
	forget()
	n := next(r)
	must(t, store.Save(t.Context(), n, r.Version))
	forget()
	must(t, store.Touch(t.Context(), r.ID, time.Now(), n.Expires))
	holds(t, store, n)
}

// TestNothingIsLeft checks that the keys in Redis expire with the sessions.
func TestNothingIsLeft(t *testing.T) {
	client := startServer(t).client(nil)
	store := newStore(t, client)
	ctx := t.Context()
	ttl := func(key string) time.Duration { return client.PTTL(ctx, key).Val() }
	begun := time.Now()
	around := func(what string, got, want time.Duration) {
		t.Helper()
		if got > want || got < want-2*time.Second-2*time.Since(begun) { // the tolerance includes the duration of the test, because a touch adds a quarter of the time left
			t.Errorf("%s ends in %v, want %v", what, got, want)
		}
	}
	r := create(t, store, newRecord("alice"))
	around("the session", ttl("session:s:"+r.ID), time.Hour)
	around("the index", ttl("session:u:alice"), 2*time.Hour+time.Minute)
	must(t, store.Touch(ctx, r.ID, time.Now(), r.Expires.Add(time.Minute)))
	around("the touched session", ttl("session:s:"+r.ID), (time.Hour+time.Minute)*5/4) // see touchScript
	must(t, store.Touch(ctx, r.ID, time.Now(), r.Expires.Add(5*time.Minute)))
	around("the session touched again", ttl("session:s:"+r.ID), (time.Hour+time.Minute)*5/4)
	must(t, store.Touch(ctx, r.ID, time.Now(), r.Expires.Add(30*time.Minute)))
	around("the session touched for longer", ttl("session:s:"+r.ID), (time.Hour+30*time.Minute)*5/4)
	n := next(r)
	n.Deadline, n.Expires = n.Deadline.Add(time.Hour), n.Deadline.Add(time.Hour)
	must(t, store.Save(ctx, n, r.Version))
	around("the saved session", ttl("session:s:"+r.ID), 3*time.Hour)
	around("the moved index", ttl("session:u:alice"), 3*time.Hour+time.Minute)

	past := newRecord("bob")
	past.Deadline = time.Now().Add(-time.Second)
	past.Expires = past.Deadline
	create(t, store, past)
	gone := next(n)
	gone.Deadline, gone.Expires = past.Deadline, past.Expires
	must(t, store.Save(ctx, gone, n.Version))
	if keys := client.Keys(ctx, "session:s:*").Val(); len(keys) != 0 {
		t.Errorf("expired records were stored: %q", keys)
	}
	other := create(t, store, newRecord("carol"))
	must(t, store.Save(ctx, tombstone(other), other.Version))
	deleted := create(t, store, newRecord("carol"))
	must(t, store.Delete(ctx, deleted.ID))
	if client.Exists(ctx, "session:u:carol").Val() != 0 {
		t.Error("the index of a user without sessions is left")
	}
}

// TestTheCallersClock checks that a session that has expired by the caller's clock is absent,
// even if the server, whose clock may differ, still has it.
func TestTheCallersClock(t *testing.T) {
	client := startServer(t).client(nil)
	store := newStore(t, client)
	ctx := t.Context()
	r := newRecord("alice")
	r.Expires = time.Now().Add(50 * time.Millisecond).Truncate(time.Millisecond)
	create(t, store, r)
	must(t, client.Persist(ctx, "session:s:"+r.ID).Err())
	time.Sleep(time.Until(r.Expires))
	_, err := store.Load(ctx, r.ID)
	for name, err := range map[string]error{
		"Load":  err,
		"Save":  store.Save(ctx, next(newRecordOf(r)), r.Version),
		"Touch": store.Touch(ctx, r.ID, time.Now(), r.Deadline),
	} {
		if !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s returned %v, want ErrNotFound", name, err)
		}
	}
	if ids := lists(t, store, "alice"); len(ids) != 0 {
		t.Errorf("List: %q", ids)
	}
	again := newRecordOf(r)
	must(t, store.Create(ctx, again))
	holds(t, store, again)
}

// newRecordOf returns a record with r's id and user that has not expired.
func newRecordOf(r *session.Record) *session.Record {
	n := newRecord(r.User)
	n.ID = r.ID
	return n
}

func TestPrefixes(t *testing.T) {
	client := startServer(t).client(nil)
	one := newStore(t, client)
	two, err := redisstore.New(client, &redisstore.Options{Prefix: "staff/"})
	must(t, err)
	r := create(t, two, newRecord("alice"))
	if _, err := one.Load(context.Background(), r.ID); err != session.ErrNotFound {
		t.Errorf("Load under another prefix: %v", err)
	}
	if ids := lists(t, one, "alice"); len(ids) != 0 {
		t.Errorf("List under another prefix: %q", ids)
	}
	keys := client.Keys(t.Context(), "*").Val()
	sort.Strings(keys)
	if want := []string{"staff/s:" + r.ID, "staff/u:alice"}; fmt.Sprint(keys) != fmt.Sprint(want) {
		t.Errorf("keys %q, want %q", keys, want)
	}
}
