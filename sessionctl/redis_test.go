package main

import (
	"fmt"
	"net/url"
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
	nodes := servers.RedisCluster(t)
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
