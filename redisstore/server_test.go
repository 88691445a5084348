package redisstore_test

import (
	"context"
	"os"
	"strconv"
	"strings"
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
func startCluster(t testing.TB) []*server {
	t.Helper()
	const slots = 16384
	nodes := make([]*server, 3)
	ctx := t.Context()
	do := func(c *redis.Client, args ...any) {
		if err := c.Do(ctx, args...).Err(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	var firstPort, firstBus string
	for i := range nodes {
		bus := strconv.Itoa(servers.Port(t))
		nodes[i] = startServer(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000")
		client := nodes[i].client(nil)
		do(client, "cluster", "set-config-epoch", i+1)
		do(client, "cluster", "addslotsrange", i*slots/3, (i+1)*slots/3-1)
		if i == 0 {
			firstPort, firstBus = nodes[i].Port(), bus
			continue
		}
		do(client, "cluster", "meet", "127.0.0.1", firstPort, firstBus)
	}
	servers.Eventually(t, "the cluster is whole", func() bool {
		for _, n := range nodes {
			c := n.client(nil)
			info, _ := c.ClusterInfo(ctx).Result()
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") || !strings.Contains(info, "cluster_slots_ok:16384") {
				return false
			}
		}
		return true
	})
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
