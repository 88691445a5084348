package redisstore_test

import (
	"context"
	"log"
	"log/slog"
	"net/http"
	"os"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

func Example() {
	client := redis.NewClient(&redis.Options{
		Addr:                  "localhost:6379",
		ContextTimeoutEnabled: true, // New refuses a client without it
	})
	store, err := redisstore.New(client, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Check(context.Background()); err != nil {
		slog.Warn("sessions can be lost", "err", err)
	}
	sessions := session.Must(session.New(&session.Options{
		Store:   store,
		Secrets: [][]byte{[]byte(os.Getenv("SESSION_SECRET"))}, // at least 32 random bytes
	}))
	log.Fatal(http.ListenAndServe(":8080", sessions.Handler(http.DefaultServeMux)))
}

func ExampleNew_cluster() {
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                 []string{"redis-1:6379", "redis-2:6379", "redis-3:6379"},
		ContextTimeoutEnabled: true,
	})
	store, err := redisstore.New(client, &redisstore.Options{Prefix: "shop:"})
	if err != nil {
		log.Fatal(err)
	}
	_ = store
}

// A replica lags, and still shows a session that was logged out a moment ago.
func ExampleNew_incorrect() {
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:                 []string{"redis-1:6379"},
		ContextTimeoutEnabled: true,
		RouteByLatency:        true, // wrong: reads go to replicas
	})
	_, err := redisstore.New(client, nil)
	log.Print(err) // redisstore: redis.ClusterOptions.RouteByLatency: set it to false: …
}
