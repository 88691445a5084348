package redisstore_test

import (
	"strings"
	"testing"

	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

func TestNewRefuses(t *testing.T) {
	const slow = "ContextTimeoutEnabled: set it to true"
	ring := map[string]string{"a": "127.0.0.1:1"}
	for _, test := range []struct {
		name   string
		client redis.UniversalClient
		prefix string
		want   []string // a part of each line of the error; nil: the options are accepted
	}{
		{"no client", nil, "", []string{"the client is nil"}},
		{"a nil *Client", (*redis.Client)(nil), "", []string{"the client is nil"}},
		{"a client", redis.NewClient(&redis.Options{}), "", []string{"redis.Options." + slow}},
		{"a valid client", redis.NewClient(&redis.Options{ContextTimeoutEnabled: true}), "", nil},
		{"Sentinel", redis.NewFailoverClient(&redis.FailoverOptions{}), "", []string{"redis.Options." + slow}},
		{"valid Sentinel", redis.NewFailoverClient(&redis.FailoverOptions{ContextTimeoutEnabled: true}), "", nil},
		{"Sentinel with replicas", redis.NewFailoverClusterClient(&redis.FailoverOptions{ContextTimeoutEnabled: true, RouteRandomly: true}), "",
			[]string{"redis.ClusterOptions.RouteRandomly: set it to false"}},
		{"a Cluster", redis.NewClusterClient(&redis.ClusterOptions{}), "", []string{"redis.ClusterOptions." + slow}},
		{"a valid Cluster", redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true}), "", nil},
		{"read-only", redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, ReadOnly: true}), "",
			[]string{"redis.ClusterOptions.ReadOnly: set it to false"}},
		{"by latency", redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, RouteByLatency: true}), "",
			[]string{"redis.ClusterOptions.RouteByLatency: set it to false"}},
		{"a Ring", redis.NewRing(&redis.RingOptions{Addrs: ring}), "", []string{"redis.RingOptions." + slow}},
		{"a valid Ring", redis.NewRing(&redis.RingOptions{Addrs: ring, ContextTimeoutEnabled: true}), "", nil},
		{"an AutoPipeliner", pipeliner(t), "", []string{"the client is an AutoPipeliner"}},
		{"a wrapped client", struct{ redis.UniversalClient }{redis.NewClient(&redis.Options{})}, "", nil},
		{"a valid prefix", redis.NewClient(&redis.Options{ContextTimeoutEnabled: true}), "my-app.v2/Sessions_1:", nil},
		{"a hash tag", redis.NewClient(&redis.Options{ContextTimeoutEnabled: true}), "{app}:", []string{"Options.Prefix: must be"}},
		{"a long prefix", redis.NewClient(&redis.Options{ContextTimeoutEnabled: true}), strings.Repeat("p", 65), []string{"Options.Prefix: must be"}},
		{"everything at once", redis.NewClusterClient(&redis.ClusterOptions{RouteByLatency: true, RouteRandomly: true}), "a b", []string{
			slow, "RouteByLatency", "RouteRandomly", "Options.Prefix",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if ring, ok := test.client.(*redis.Ring); ok {
				defer ring.Close() // a Ring pings its servers until it is closed
			}
			_, err := redisstore.New(test.client, &redisstore.Options{Prefix: test.prefix})
			if err == nil || len(test.want) == 0 {
				if err != nil || len(test.want) > 0 {
					t.Fatalf("New: %v, want %q", err, test.want)
				}
				return
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.want) {
				t.Fatalf("New: %v, want %q", err, test.want)
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, "redisstore: ") || !strings.Contains(line, test.want[i]) {
					t.Errorf("New: %q, want %q", line, test.want[i])
				}
			}
		})
	}
}

// TestNewRefusesToWait checks the rules of WaitReplicas.
func TestNewRefusesToWait(t *testing.T) {
	client := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	ring := redis.NewRing(&redis.RingOptions{ContextTimeoutEnabled: true})
	defer ring.Close()
	for _, test := range []struct {
		name     string
		client   redis.UniversalClient
		replicas int
		want     string // "": accepted
	}{
		{"a client", client, 2, ""},
		{"a Cluster", redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true}), 1, ""},
		{"a Ring", ring, 1, "redisstore: Options.WaitReplicas: needs a"},
		{"a wrapped client", struct{ redis.UniversalClient }{client}, 1, "redisstore: Options.WaitReplicas: needs a"},
		{"a negative number", client, -1, "redisstore: Options.WaitReplicas: must not be negative"},
	} {
		_, err := redisstore.New(test.client, &redisstore.Options{WaitReplicas: test.replicas})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%s: New: %v, want %q", test.name, err, test.want)
		}
	}
}

// pipeliner returns a client that groups commands of several goroutines into pipelines.
func pipeliner(t *testing.T) redis.UniversalClient {
	client := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	p, err := client.AutoPipeline()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); client.Close() })
	return p
}
