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
