package redisstore_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/coatcheck/session/sessiontest"
	"github.com/coatcheck/session/storetest"
	"github.com/redis/go-redis/v9"
)

// startPair starts a server with a replica that follows it.
func startPair(t *testing.T) (primary, replica *server) {
	t.Helper()
	primary = startServer(t, "--repl-diskless-sync-delay", "0")
	host, port, _ := net.SplitHostPort(primary.Addr)
	replica = startServer(t, "--replicaof", host+" "+port)
	servers.Eventually(t, "the replica follows", func() bool {
		return strings.Contains(primary.client(nil).Info(t.Context(), "replication").Val(), "state=online") &&
			strings.Contains(replica.client(nil).Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	return primary, replica
}

// waitingStore returns a Store that waits for one replica.
func waitingStore(t *testing.T, client redis.UniversalClient) *redisstore.Store {
	t.Helper()
	s, err := redisstore.New(client, &redisstore.Options{WaitReplicas: 1})
	must(t, err)
	return s
}

// TestWaitReplicas checks which writes wait for a replica: the replica has them when the call
// returns, and while it acknowledges none their outcome is unknown. WAIT is sent on the connection
// of its script, and delays no other command.
func TestWaitReplicas(t *testing.T) {
	primary, replica := startPair(t)
	client, follower := primary.client(nil), replica.client(nil)
	plain, watched := newStore(t, client), primary.client(nil)
	store := waitingStore(t, watched)
	watched.AddHook(hook{
		alone: func(cmd redis.Cmder) error {
			if cmd.Name() == "wait" {
				t.Error("WAIT is sent alone, on any connection")
			}
			return nil
		},
		grouped: func(cmds []redis.Cmder) error {
			if got := names(cmds); len(got) != 2 || !strings.HasPrefix(got[0], "eval") || got[1] != "wait" {
				t.Errorf("WAIT is sent in the pipeline %q, want that of its script alone", got)
			}
			return nil
		},
	})
	warm := create(t, store, newRecord("warm"))
	must(t, store.Touch(t.Context(), warm.ID, time.Now(), warm.Expires))
	must(t, store.Save(t.Context(), next(warm), warm.Version))
	must(t, store.Delete(t.Context(), warm.ID)) // the server knows the scripts from here on

	creates := func(ctx context.Context, r *session.Record) error {
		must(t, plain.Delete(t.Context(), r.ID))
		return store.Create(ctx, r)
	}
	saves := func(ctx context.Context, r *session.Record) error { return store.Save(ctx, next(r), r.Version) }
	ends := func(ctx context.Context, r *session.Record) error { return store.Save(ctx, tombstone(r), r.Version) }
	touches := func(ctx context.Context, r *session.Record) error {
		return store.Touch(ctx, r.ID, time.Now(), r.Expires.Add(time.Hour))
	}
	deletes := func(ctx context.Context, r *session.Record) error { return store.Delete(ctx, r.ID) }
	writes := []struct {
		name  string
		user  string
		write func(ctx context.Context, r *session.Record) error
		waits bool
	}{
		{"a user's create", "alice", creates, true},
		{"the ending of a user's session", "alice", ends, true},
		{"the ending of an anonymous session", "", ends, true},
		{"a delete", "alice", deletes, true},
		{"an anonymous create", "", creates, false},
		{"a save", "alice", saves, false},
		{"a touch", "alice", touches, false},
	}
	for _, w := range writes {
		r := create(t, plain, newRecord(w.user))
		must(t, client.ConfigResetStat(t.Context()).Err())
		if err := w.write(t.Context(), r); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
		if got := strings.Contains(sent(t, client), "wait=1"); got != w.waits {
			t.Errorf("%s waits: %t", w.name, got)
		}
		key := "session:s:" + r.ID
		if got, want := follower.Get(t.Context(), key).Val(), client.Get(t.Context(), key).Val(); w.waits && got != want {
			t.Errorf("%s: the replica has %q, want %q", w.name, got, want)
		}
	}

	replica.Suspend(t)
	for _, w := range writes {
		for limit := 200 * time.Millisecond; ; limit *= 2 {
			r := create(t, plain, newRecord(w.user))
			err := within(t, limit, func(ctx context.Context) error { return w.write(ctx, r) })
			if err == nil && !w.waits || errors.Is(err, session.ErrIndeterminate) && w.waits {
				break
			}
			if err == nil || limit > time.Minute { // with a shorter limit the command may not have been sent in time
				t.Errorf("%s without the replica: %v", w.name, err)
				break
			}
		}
	}
}

// TestWaitReplicasAgain checks that a write that is sent again, and that the server finds applied, is
// also replicated again, because WAIT waits only for what its connection has written.
func TestWaitReplicasAgain(t *testing.T) {
	primary, replica := startPair(t)
	store, follower := waitingStore(t, primary.client(nil)), replica.client(nil)
	r := newRecord("alice")
	end := tombstone(r)
	for _, w := range []struct {
		name       string
		write      func(ctx context.Context) error
		replicated string // command that the replica receives
	}{
		{"a create", func(ctx context.Context) error { return store.Create(ctx, r) }, "pexpireat"},
		{"an ending", func(ctx context.Context) error { return store.Save(ctx, end, r.Version) }, "pexpireat"},
		{"a delete", func(ctx context.Context) error { return store.Delete(ctx, r.ID) }, "del"},
	} {
		must(t, w.write(t.Context()))
		must(t, follower.ConfigResetStat(t.Context()).Err())
		if err := w.write(t.Context()); err != nil {
			t.Errorf("%s, once more: %v", w.name, err)
		}
		if stats := follower.Info(t.Context(), "commandstats").Val(); !strings.Contains(stats, "cmdstat_"+w.replicated+":") {
			t.Errorf("%s, once more, was not replicated", w.name)
		}
	}
}

// TestWaitReplicasForbidden checks that the outcome of a write is unknown if WAIT is refused.
func TestWaitReplicasForbidden(t *testing.T) {
	s := startServer(t)
	must(t, s.client(nil).Do(t.Context(), "acl", "setuser", "hasty", "on", ">secret", "~*", "+@all", "-wait").Err())
	store := waitingStore(t, s.client(func(o *redis.Options) { o.Username, o.Password = "hasty", "secret" }))
	if err := store.Create(t.Context(), newRecord("alice")); !errors.Is(err, session.ErrIndeterminate) {
		t.Errorf("Create returned %v, want ErrIndeterminate", err)
	}
}

// TestWaitReplicasAnswers503 checks that logins and logouts fail while too few replicas acknowledge
// them, and that anonymous sessions and those of users are otherwise usable.
func TestWaitReplicasAnswers503(t *testing.T) {
	primary, replica := startPair(t)
	views := session.NewKey[int]("views")
	handler := func(timeout time.Duration) http.Handler {
		m, err := session.New(&session.Options{
			Store: waitingStore(t, primary.client(nil)), Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, StoreTimeout: timeout,
		})
		must(t, err)
		return m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch s := session.From(r.Context()); r.URL.Path {
			case "/login":
				s.Login("alice")
			case "/logout":
				s.Logout()
			default:
				views.Update(s, func(n int) int { return n + 1 })
			}
		}))
	}
	patient, hasty := handler(time.Minute), handler(200*time.Millisecond)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "hasty" {
			hasty.ServeHTTP(w, r)
		} else {
			patient.ServeHTTP(w, r)
		}
	})
	user, visitor := sessiontest.NewBrowser(t, h), sessiontest.NewBrowser(t, h)
	get := func(b *sessiontest.Browser, path string, want int) {
		t.Helper()
		if got := b.Get(path).StatusCode; got != want {
			t.Errorf("%s is answered with %d, want %d", path, got, want)
		}
	}
	get(user, "/login", 200)
	resume := replica.Suspend(t)
	get(user, "/view", 200)
	get(visitor, "/view", 200)
	get(visitor, "/login?hasty", 503)
	get(user, "/logout?hasty", 503)
	resume()
	get(visitor, "/login", 200)
	get(user, "/logout", 200)
}

// TestWaitReplicasContract runs the tests of a store with a replica.
func TestWaitReplicasContract(t *testing.T) {
	primary, _ := startPair(t)
	store := waitingStore(t, primary.client(nil))
	storetest.Run(t, func(t *testing.T) session.Store { return store })
	storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
}

// waitInCluster gives each master of a Cluster a replica, and checks that a write waits for that
// of its own master.
func waitInCluster(t *testing.T, nodes []*server) {
	ctx := t.Context()
	var replicas []*server
	firstBus := nodes[0].client(nil).ConfigGet(ctx, "cluster-port").Val()["cluster-port"]
	for _, master := range nodes {
		replica := startServer(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(servers.Port(t)))
		replicas = append(replicas, replica)
		client := replica.client(nil)
		must(t, client.Do(ctx, "cluster", "meet", "127.0.0.1", nodes[0].Port(), firstBus).Err())
		id := master.client(nil).ClusterMyID(ctx).Val()
		servers.Eventually(t, "a replica follows", func() bool {
			return client.ClusterReplicate(ctx, id).Err() == nil
		})
	}
	for _, n := range nodes {
		servers.Eventually(t, "a replica is online", func() bool {
			return strings.Contains(n.client(nil).Info(ctx, "replication").Val(), "state=online")
		})
	}
	client := clusterClient(t, nodes)
	store, plain := waitingStore(t, client), newStore(t, client)
	user := create(t, store, newRecord("alice"))
	must(t, store.Save(ctx, tombstone(user), user.Version))
	must(t, store.Delete(ctx, user.ID))

	replicas[0].Suspend(t)
	var stuck, through int
	for stuck < 3 || through < 3 {
		r := create(t, plain, newRecord(""))
		if client.ClusterKeySlot(ctx, "session:s:"+r.ID).Val() >= 16384/3 {
			through++
			must(t, store.Save(ctx, tombstone(r), r.Version))
			continue
		}
		stuck++
		for limit := 200 * time.Millisecond; ; limit *= 2 {
			err := within(t, limit, func(ctx context.Context) error { return store.Save(ctx, tombstone(r), r.Version) })
			if errors.Is(err, session.ErrIndeterminate) {
				break
			} else if err == nil || limit > time.Minute {
				t.Fatalf("Save without the replica: %v", err)
			}
		}
	}
}
