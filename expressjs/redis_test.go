package expressjs_test

import (
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testserver"
	"github.com/coatcheck/session/storetest"
	"github.com/redis/go-redis/v9"
)

// redisStore returns a store on a private server, and a client of it.
func redisStore(t testing.TB, o expressjs.Options) (*expressjs.RedisStore, *redis.Client) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: testserver.Redis(t), ContextTimeoutEnabled: true})
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

// In a Cluster what Go knows is in the slot of the record, whatever hash tag the prefix has.
func TestClusterSlots(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: testserver.Redis(t, "--cluster-enabled", "yes")})
	defer client.Close()
	for _, key := range []string{"sess:abc", "{app}:sess:abc", "sess:{x}abc{y}", "sess:a{b"} {
		record, err := client.ClusterKeySlot(t.Context(), key).Result()
		own, err2 := client.ClusterKeySlot(t.Context(), expressjs.OwnKeyForTest(key)).Result()
		if err != nil || err2 != nil || record != own {
			t.Errorf("%s is in slot %d, %s in %d, %v %v", key, record, expressjs.OwnKeyForTest(key), own, err, err2)
		}
	}
}
