package expressjs_test

import (
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/storetest"
	"github.com/redis/go-redis/v9"
)

// redisStore returns a store on a Redis server of its own, and a client of that server.
func redisStore(t testing.TB, o expressjs.Options) (*expressjs.RedisStore, *redis.Client) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: servers.Redis(t).Addr, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = client.Close() })
	store, err := expressjs.NewRedisStore(client, &o)
	if err != nil {
		t.Fatal(err)
	}
	return store, client
}

func TestRedisStore(t *testing.T) {
	store, _ := redisStore(t, expressjs.Options{})
	storetest.Run(t, func(t *testing.T) session.Store { return store })
}

func TestRedisStoreManagers(t *testing.T) {
	store, _ := redisStore(t, expressjs.Options{})
	storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
}

// TestTouchAfterALateCreate checks that a touch moves the end of a record even if a late Create has
// let the record outlive its end.
func TestTouchAfterALateCreate(t *testing.T) {
	store, client := redisStore(t, expressjs.Options{})
	ctx, now := t.Context(), time.Now().Truncate(time.Millisecond)
	r := &session.Record{ID: "late", Data: []byte(`{"x":1}`), Created: now, LastSeen: now, Expires: now.Add(time.Hour), Deadline: now.Add(24 * time.Hour), Version: 1}
	if err := store.Create(ctx, r); err != nil {
		t.Fatal(err)
	}
	if err := client.PExpireAt(ctx, "sess:late", r.Expires.Add(500*time.Millisecond)).Err(); err != nil {
		t.Fatal(err)
	}
	end := r.Expires
	for _, by := range []time.Duration{0, 1, 0, 2} {
		until := r.Expires.Add(by * time.Millisecond)
		if err := store.Touch(ctx, r.ID, now, until); err != nil {
			t.Fatal(err)
		}
		if until.After(end) { // never backward
			end = until
		}
		if got, err := store.Load(ctx, r.ID); err != nil || !got.Expires.Equal(end) {
			t.Errorf("touched until %v: %+v, %v, want %v", until, got, err, end)
		}
	}
}

// TestPrefixes checks that two apps with different prefixes can share a Redis and have users of the
// same name.
func TestPrefixes(t *testing.T) {
	shop, client := redisStore(t, expressjs.Options{Prefix: "shop:"})
	admin, err := expressjs.NewRedisStore(client, &expressjs.Options{Prefix: "admin:"})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Millisecond)
	for name, store := range map[string]session.Store{"shop": shop, "admin": admin} {
		r := &session.Record{ID: name, User: "7", Data: []byte(`{}`), Created: now, LastSeen: now, Expires: now.Add(time.Hour), Deadline: now.Add(time.Hour), Version: 1}
		if err := store.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		for name, store := range map[string]session.Store{"shop": shop, "admin": admin} {
			if list, err := store.List(t.Context(), "7"); err != nil || len(list) != 1 || list[0].ID != name {
				t.Errorf("%s lists %d sessions, %v", name, len(list), err)
			}
		}
	}
	if n := client.ZCard(t.Context(), "go-session:u:shop:7").Val(); n != 1 {
		t.Errorf("%d sessions in the index of one app", n)
	}
}

// TestClusterSlots checks that in a Cluster Go's own key is in the hash slot of the record, for any
// hash tag in the prefix.
func TestClusterSlots(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: servers.Redis(t, "--cluster-enabled", "yes").Addr})
	defer client.Close()
	for _, key := range []string{"sess:abc", "{app}:sess:abc", "sess:{x}abc{y}", "sess:a{b"} {
		record, err := client.ClusterKeySlot(t.Context(), key).Result()
		own, err2 := client.ClusterKeySlot(t.Context(), expressjs.OwnKeyForTest(key)).Result()
		if err != nil || err2 != nil || record != own {
			t.Errorf("%s is in slot %d, %s in %d, %v %v", key, record, expressjs.OwnKeyForTest(key), own, err, err2)
		}
	}
}
