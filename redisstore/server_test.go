package redisstore_test

import (
	"context"
	"os"
	"testing"

	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/redis/go-redis/v9"
)

// A server is a private redis-server.
type server struct {
	*servers.Server
	t testing.TB
}

// startServer starts a server without persistence, unless args configure it.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	return &server{servers.Redis(t, args...), t}
}

// client returns a client of the server. It has no retries of its own, unless adapt configures
// them.
func (s *server) client(adapt func(o *redis.Options)) *redis.Client {
	o := &redis.Options{Addr: s.Addr, ContextTimeoutEnabled: true, MaxRetries: -1}
	if adapt != nil {
		adapt(o)
	}
	client := redis.NewClient(o)
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// set changes the server's configuration.
func (s *server) set(name, value string) {
	s.t.Helper()
	if err := s.client(nil).ConfigSet(s.t.Context(), name, value).Err(); err != nil {
		s.t.Fatalf("CONFIG SET %s %s: %v", name, value, err)
	}
}

// startCluster starts a Redis Cluster of three masters.
func startCluster(t testing.TB) (nodes []*server) {
	t.Helper()
	for _, n := range servers.RedisCluster(t) {
		nodes = append(nodes, &server{n, t})
	}
	return nodes
}

// clusterClient returns a client of a Cluster.
func clusterClient(t testing.TB, nodes []*server) *redis.ClusterClient {
	o := &redis.ClusterOptions{ContextTimeoutEnabled: true}
	for _, n := range nodes {
		o.Addrs = append(o.Addrs, n.Addr)
	}
	client := redis.NewClusterClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// TestMain silences the client, which logs the faults that the tests make.
func TestMain(m *testing.M) {
	redis.SetLogger(silence{})
	os.Exit(m.Run())
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}
