package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

// TestSentinel checks that a URL with a master_name leads to the master.
func TestSentinel(t *testing.T) {
	master := servers.Redis(t)
	sentinel := servers.Sentinel(t, master)
	p := placeInRedis(t, master, "")
	id, _ := p.begin(p.manager(session.Options{}), "alice")
	p.env["SESSION_STORE"] = "redis://" + sentinel.Addr + "?master_name=main"
	p.run("list", "alice").want(t, exitDone, id)
	p.run("count").want(t, exitDone, "1, of 1 user")
	p.run("check").want(t, exitBad, "persistence is off")
}

// TestCluster checks that the URL of one node of a Cluster is enough.
func TestCluster(t *testing.T) {
	const slots = 16384
	nodes := make([]*servers.Server, 3)
	clients := make([]*redis.Client, 3)
	var bus [3]string
	for i := range nodes {
		bus[i] = strconv.Itoa(servers.Port(t))
		nodes[i] = servers.Redis(t, "--cluster-enabled", "yes", "--cluster-port", bus[i], "--cluster-node-timeout", "2000")
		clients[i] = redis.NewClient(&redis.Options{Addr: nodes[i].Addr})
		t.Cleanup(func() { _ = clients[i].Close() })
		must(t, clients[i].Do(t.Context(), "cluster", "set-config-epoch", i+1).Err())
		must(t, clients[i].Do(t.Context(), "cluster", "addslotsrange", i*slots/3, (i+1)*slots/3-1).Err())
		if i > 0 {
			must(t, clients[i].Do(t.Context(), "cluster", "meet", "127.0.0.1", nodes[0].Port(), bus[0]).Err())
		}
	}
	servers.Eventually(t, "the cluster is whole", func() bool {
		for _, c := range clients {
			info := c.ClusterInfo(t.Context()).Val()
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") || !strings.Contains(info, "cluster_slots_ok:16384") {
				return false
			}
		}
		return true
	})
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nodes[0].Addr}, ContextTimeoutEnabled: true})
	defer cluster.Close()
	store, err := redisstore.New(cluster, nil)
	must(t, err)
	p := newPlace(t, "redis://"+nodes[0].Addr)
	p.store = store
	m := p.manager(session.Options{})
	for i := range 20 {
		p.begin(m, fmt.Sprint("user", i%5))
	}
	p.run("count").want(t, exitDone, "20, of 5 users")
	p.run("list", "user0").want(t, exitDone, "user0 has 4 live sessions")
	p.run("-yes", "revoke-all", "user0").want(t, exitDone, "Ended 4 sessions of user0")
	r := p.run("check")
	r.want(t, exitBad)
	for _, n := range nodes {
		r.want(t, exitBad, n.Addr+": persistence is off", "the server "+n.Addr)
	}
	p.env["SESSION_STORE"] += "?addr=" + url.QueryEscape(nodes[1].Addr)
	p.run("count").want(t, exitDone, "16, of 4 users")
}
