package expressjs_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/storetest"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
)

// redisUser returns a client of a Redis user with these rules.
func redisUser(t *testing.T, admin *redis.Client, name string, rules []string) *redis.Client {
	t.Helper()
	args := []any{"ACL", "SETUSER", name, "reset", "on", ">pw"}
	for _, rule := range rules {
		args = append(args, rule)
	}
	if err := admin.Do(t.Context(), args...).Err(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: admin.Options().Addr, Username: name, Password: "pw", ContextTimeoutEnabled: true, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// withRights returns a store whose client has exactly the rights that Rights returns.
func withRights(t *testing.T, o expressjs.Options) *expressjs.RedisStore {
	t.Helper()
	all, admin := redisStore(t, o)
	store, err := expressjs.NewRedisStore(redisUser(t, admin, "app", strings.Fields(all.Rights())), &o)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// TestRedisRights checks that the rights that Rights returns are sufficient.
func TestRedisRights(t *testing.T) {
	store := withRights(t, expressjs.Options{})
	storetest.Run(t, func(t *testing.T) session.Store { return store })
	storetest.RunManagers(t, func(t *testing.T) session.Store { return store })
}

// TestRedisRightsOfPrefixes checks prefixes that Redis would read as patterns.
func TestRedisRightsOfPrefixes(t *testing.T) {
	for _, prefix := range []string{"shop:", "a*b", "what?", "[x]", `back\slash`, "{app}:sess:", "s:{", "ключ:"} {
		store := withRights(t, expressjs.Options{Prefix: prefix, UserMember: "userId"})
		if err := useAll(t.Context(), store); err != nil {
			t.Errorf("%q: %v, by %s", prefix, err, store.Rights())
		}
	}
}

// useAll calls each method of a store, and executes each branch of each script. It returns the
// first failure.
func useAll(ctx context.Context, store session.Store) error {
	now := time.Now().Truncate(time.Millisecond)
	id := rand.Text()
	r := &session.Record{ID: id, User: "ann", Data: []byte(`{"a":1}`), Created: now, LastSeen: now, Deadline: now.Add(2 * time.Hour), Expires: now.Add(time.Hour), Version: 1}
	changed := *r
	changed.Version, changed.Data = 2, []byte(`{"a":2}`)
	ended := changed
	ended.Version, ended.User, ended.Data, ended.Deadline = 3, "", []byte(`{"session.ended":"logout"}`), now.Add(time.Minute)
	ended.Expires = ended.Deadline
	for _, step := range []func() error{
		func() error { return store.Create(ctx, r) },
		func() error { _, err := store.Load(ctx, id); return err },
		func() error { return store.Save(ctx, &changed, 1) },
		func() error { return store.Touch(ctx, id, now.Add(time.Minute), now.Add(time.Hour+time.Minute)) },
		func() error { _, err := store.List(ctx, "ann"); return err },
		func() error { return store.Save(ctx, &ended, 2) },
		func() error { return store.Delete(ctx, id) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// TestRedisRightsAreNeeded checks that each right is necessary, and that the error names the method
// that lists all rights.
func TestRedisRightsAreNeeded(t *testing.T) {
	o := expressjs.Options{UserMember: "userId"}
	all, admin := redisStore(t, o)
	rules := strings.Fields(all.Rights())
	if err := useAll(t.Context(), withRights(t, o)); err != nil {
		t.Fatal(err)
	}
	for i, rule := range rules {
		if rule == "+eval" || rule == "+evalsha" {
			// Redis executes a known script by its hash, and needs the text only of an unknown one.
			if err := admin.ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		client := redisUser(t, admin, "less", slices.Delete(slices.Clone(rules), i, i+1))
		store, err := expressjs.NewRedisStore(client, &o)
		if err != nil {
			t.Fatal(err)
		}
		if err := useAll(t.Context(), store); err == nil || !strings.Contains(err.Error(), "RedisStore.Rights") {
			t.Errorf("without %s: %v", rule, err)
		}
	}
}

// TestRequestWithoutARight checks that a request is answered 503 with an explanation if the store
// lacks a right.
func TestRequestWithoutARight(t *testing.T) {
	_, admin := redisStore(t, expressjs.Options{})
	client := redisUser(t, admin, "connect-redis", strings.Fields("~sess:* +get +set +expire +del +scan"))
	store, err := expressjs.NewRedisStore(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	var said error
	m := service(t, store, func(o *session.Options) {
		o.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, err error) {
			said = err
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	resp := in(t, m, sid, func(s *session.Session) { s.User() })
	if resp.StatusCode != http.StatusServiceUnavailable || said == nil || !strings.Contains(said.Error(), "NOPERM") || !strings.Contains(said.Error(), "RedisStore.Rights") {
		t.Errorf("%s: %v", resp.Status, said)
	}
}

// TestPostgresRights checks that the rights that Rights returns are sufficient, also for Sweep,
// that each of them is necessary, and that the error names the method that lists all rights.
func TestPostgresRights(t *testing.T) {
	admin, pool := postgresStore(t, expressjs.Options{UserMember: "userId"})
	role := fmt.Sprint("app_", databases.Add(1))
	exec := func(statement string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(admin.Schema())
	exec("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE " + role + " LOGIN")
	t.Cleanup(func() { // roles belong to the server, not to the database
		_, _ = pool.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role)
	})
	exec(admin.Rights(role))
	c := pool.Config()
	c.ConnConfig.User = role
	newStore := func(o expressjs.Options) *expressjs.PostgresStore {
		as, err := pgxpool.NewWithConfig(t.Context(), c.Copy())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(as.Close)
		store, err := expressjs.NewPostgresStore(as, &o)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	use := func(store *expressjs.PostgresStore) error {
		if err := useAll(t.Context(), store); err != nil {
			return err
		}
		_, err := store.Sweep(t.Context())
		return err
	}
	kit := newStore(expressjs.Options{})
	storetest.Run(t, func(t *testing.T) session.Store { return kit })
	store := newStore(expressjs.Options{UserMember: "userId"})
	if err := use(store); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{`"session"`, `"session_go"`} {
		for _, right := range []string{"SELECT", "INSERT", "UPDATE", "DELETE"} {
			exec("REVOKE " + right + " ON " + table + " FROM " + role)
			if err := use(store); err == nil || !strings.Contains(err.Error(), "PostgresStore.Rights") {
				t.Errorf("without %s on %s: %v", right, table, err)
			}
			exec("GRANT " + right + " ON " + table + " TO " + role)
		}
	}
	exec(`DROP TABLE "session_go"`)
	if err := use(newStore(expressjs.Options{})); err == nil || !strings.Contains(err.Error(), "PostgresStore.Schema") {
		t.Errorf("without the table, and the right to create it: %v", err)
	}
}

// TestRedisRightsOfOtherClients checks the additional rights of a client of a Cluster, and of one
// of another database than 0.
func TestRedisRightsOfOtherClients(t *testing.T) {
	admin := redis.NewClient(&redis.Options{Addr: servers.Redis(t, "--cluster-enabled", "yes").Addr})
	defer admin.Close()
	if err := admin.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	for admin.Do(t.Context(), "SET", "a", "b").Err() != nil { // until the cluster accepts writes
		time.Sleep(10 * time.Millisecond)
	}
	rules := strings.Fields(withRights(t, expressjs.Options{}).Rights())
	for extra, ok := range map[string]bool{"+cluster|slots": true, "+command": false} {
		redisUser(t, admin, "app", append(slices.Clone(rules), strings.Fields(extra)...))
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{admin.Options().Addr}, Username: "app", Password: "pw", ContextTimeoutEnabled: true, MaxRedirects: 1})
		store, err := expressjs.NewRedisStore(client, &expressjs.Options{UserMember: "userId"})
		if err != nil {
			t.Fatal(err)
		}
		if err := useAll(t.Context(), store); (err == nil) != ok {
			t.Errorf("a Cluster's client with %s: %v", extra, err)
		}
		_ = client.Close()
	}
	_, first := redisStore(t, expressjs.Options{})
	for extra, ok := range map[string]bool{"+select": true, "": false} {
		redisUser(t, first, "app", append(slices.Clone(rules), strings.Fields(extra)...))
		client := redis.NewClient(&redis.Options{Addr: first.Options().Addr, Username: "app", Password: "pw", DB: 1, ContextTimeoutEnabled: true, MaxRetries: -1})
		store, err := expressjs.NewRedisStore(client, &expressjs.Options{UserMember: "userId"})
		if err != nil {
			t.Fatal(err)
		}
		if err := useAll(t.Context(), store); (err == nil) != ok {
			t.Errorf("a client of database 1 with %q: %v", extra, err)
		}
		_ = client.Close()
	}
}
