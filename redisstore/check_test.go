package redisstore_test

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

func TestCheck(t *testing.T) {
	s := startServer(t, "--repl-diskless-sync-delay", "0")
	client := s.client(nil)
	store := newStore(t, client)
	lines := func(t *testing.T, ctx context.Context, c redis.UniversalClient) []string {
		if err := newStore(t, c).Check(ctx); err != nil {
			return strings.Split(err.Error(), "\n")
		}
		return nil
	}
	as := func(user string) *redis.Client {
		return s.client(func(o *redis.Options) { o.Username, o.Password = user, "secret" })
	}
	for _, rule := range []string{
		"app on >secret ~* +@all -config", "blind on >secret ~* +@all -config -info",
		"reader on >secret ~* +@all -eval", "hasher on >secret ~* +@all -evalsha", "hasty on >secret ~* +@all -wait",
	} {
		must(t, client.Do(t.Context(), append([]any{"acl", "setuser"}, anys(strings.Fields(rule))...)...).Err())
	}
	old := s.client(nil)
	old.AddHook(oldVersion{})
	for _, test := range []struct {
		name   string
		set    string // name=value, …
		client redis.UniversalClient
		want   []string
	}{
		{"off", "appendonly=no save=", client, []string{"persistence is off"}},
		{"snapshots", "save=60 1", client, []string{"persistence is by snapshots"}},
		{"every second", "appendonly=yes appendfsync=everysec", client, []string{"appendfsync is everysec"}},
		{"never", "appendfsync=no", client, []string{"appendfsync is no"}},
		{"no problem", "appendfsync=always", client, nil},
		{"eviction", "maxmemory-policy=allkeys-lru", client, []string{"maxmemory-policy is allkeys-lru"}},
		{"no CONFIG", "", as("app"), []string{"maxmemory-policy is allkeys-lru", "not allowed to ask: CONFIG GET appendonly appendfsync save min-replicas-to-write"}},
		{"no INFO either", "", as("blind"), []string{"not allowed to ask: CONFIG GET maxmemory-policy", "not allowed to ask: INFO"}},
		{"no scripts", "maxmemory-policy=noeviction", as("reader"), []string{"not allowed to run a script"}},
		{"no scripts by hash", "", as("hasher"), []string{"not allowed to run a script"}},
		{"WAIT is not needed", "", as("hasty"), nil},
		{"an old version", "maxmemory-policy=noeviction", old, []string{"the version 6.2.14 is too old"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for pair := range strings.SplitSeq(strings.ReplaceAll(test.set, "60 1", "60_1"), " ") {
				if name, value, ok := strings.Cut(pair, "="); ok {
					s.set(name, strings.ReplaceAll(value, "_", " "))
				}
			}
			same(t, lines(t, t.Context(), test.client), test.want)
		})
	}

	t.Run("replicas", func(t *testing.T) {
		host, port, _ := net.SplitHostPort(s.Addr)
		replica := startServer(t, "--replicaof", host+" "+port, "--appendonly", "yes", "--appendfsync", "always")
		servers.Eventually(t, "the replica follows", func() bool {
			return strings.Contains(client.Info(t.Context(), "replication").Val(), "state=online") &&
				strings.Contains(replica.client(nil).Info(t.Context(), "replication").Val(), "master_link_status:up")
		})
		same(t, lines(t, t.Context(), client), []string{"min-replicas-to-write is 0"})
		same(t, lines(t, t.Context(), replica.client(nil)), []string{"it is a replica"})
		s.set("min-replicas-to-write", "1")
		same(t, lines(t, t.Context(), client), nil)

		waits := func(c redis.UniversalClient, replicas int) []string {
			store, err := redisstore.New(c, &redisstore.Options{WaitReplicas: replicas})
			must(t, err)
			if err := store.Check(t.Context()); err != nil {
				return strings.Split(err.Error(), "\n")
			}
			return nil
		}
		same(t, waits(client, 1), nil)
		same(t, waits(client, 2), []string{"1 replicas acknowledge writes, and WaitReplicas is 2"})
		same(t, waits(as("hasty"), 1), []string{"not allowed to wait for replicas"})
	})

	t.Run("the login is refused", func(t *testing.T) {
		must(t, client.Do(t.Context(), "acl", "setuser", "default", "resetpass", ">secret").Err())
		defer func() { must(t, as("app").Do(t.Context(), "acl", "setuser", "default", "nopass").Err()) }()
		wrong := s.client(func(o *redis.Options) { o.Password = "wrong" })
		for reply, c := range map[string]*redis.Client{"NOAUTH": s.client(nil), "WRONGPASS": wrong} {
			found := lines(t, t.Context(), c)
			same(t, found, []string{"(" + reply})
			if !strings.Contains(found[0], "set Username and Password") {
				t.Errorf("%s: %s", reply, found)
			}
		}
	})

	t.Run("no server", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		must(t, l.Close())
		gone := redis.NewClient(&redis.Options{Addr: l.Addr().String(), ContextTimeoutEnabled: true})
		defer gone.Close()
		same(t, lines(t, t.Context(), gone), []string{"start the server, or correct the address"})
	})

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := store.Check(ctx); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("Check with a cancelled context returned %v", err)
	}
}

// checkCluster checks that Check examines every master of a Cluster and names it.
func checkCluster(t *testing.T, nodes []*server) {
	nodes[1].set("appendonly", "yes")
	nodes[1].set("appendfsync", "always")
	err := newStore(t, clusterClient(t, nodes)).Check(t.Context())
	want := []string{nodes[0].Addr + ": persistence is off", nodes[2].Addr + ": persistence is off"}
	slices.Sort(want)
	if err == nil {
		t.Fatal("Check found nothing")
	}
	same(t, strings.Split(err.Error(), "\n"), want)
}

// same checks that there is one line for each text wanted, and no other.
func same(t *testing.T, lines, want []string) {
	t.Helper()
	if len(lines) != len(want) {
		t.Fatalf("Check found %q, want %q", lines, want)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, "redisstore: check: ") || !strings.Contains(line, want[i]) {
			t.Errorf("Check found %q, want %q", line, want[i])
		}
	}
}

func anys(words []string) (args []any) {
	for _, w := range words {
		args = append(args, w)
	}
	return args
}

// oldVersion rewrites replies of INFO to a version that this package does not support.
type oldVersion struct{}

func (oldVersion) DialHook(next redis.DialHook) redis.DialHook { return next }

func (oldVersion) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (oldVersion) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if info, ok := cmd.(*redis.StringCmd); ok && cmd.Name() == "info" {
			_, rest, _ := strings.Cut(info.Val(), "redis_version:")
			_, rest, _ = strings.Cut(rest, "\r\n")
			info.SetVal("redis_version:6.2.14\r\n" + rest)
		}
		return err
	}
}
