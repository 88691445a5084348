package redisstore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// TestRoundTrips counts the commands of each operation with the server's statistics.
func TestRoundTrips(t *testing.T) {
	client := startServer(t).client(nil)
	store := newStore(t, client)
	ctx := t.Context()
	r, mine, moved := newRecord(""), newRecord("alice"), newRecord("alice")
	// From here on the server knows the scripts, and the connections are open.
	warm := create(t, store, newRecord("warm"))
	must(t, store.Touch(ctx, warm.ID, time.Now(), time.Now()))
	must(t, store.Save(ctx, next(warm), warm.Version))
	lists(t, store, "warm")
	for _, step := range []struct {
		name string
		do   func() error
		want string
	}{
		{"an anonymous create", func() error { return store.Create(ctx, r) }, "evalsha=1"},
		{"a user's create", func() error { return store.Create(ctx, mine) }, "evalsha=2"},
		{"another", func() error { return store.Create(ctx, moved) }, "evalsha=2"},
		{"a load", func() error { _, err := store.Load(ctx, r.ID); return err }, "get=1"},
		{"a touch", func() error { return store.Touch(ctx, r.ID, time.Now(), time.Now().Add(2*time.Hour)) }, "evalsha=1"},
		{"a save", func() error {
			n := next(mine)
			err := store.Save(ctx, n, mine.Version)
			mine = n
			return err
		}, "evalsha=1"},
		{"a save that moves Deadline", func() error {
			n := next(moved)
			n.Deadline = n.Deadline.Add(time.Hour)
			err := store.Save(ctx, n, moved.Version)
			moved = n
			return err
		}, "evalsha=3"},
		{"a list", func() error { _, err := store.List(ctx, "alice"); return err }, "get=2 zrange=1"},
		{"the ending of a user's session", func() error { return store.Save(ctx, tombstone(mine), mine.Version) }, "evalsha=1 zrem=1"},
		{"a delete", func() error { return store.Delete(ctx, r.ID) }, "getdel=1"},
		{"a delete of a user's session", func() error { return store.Delete(ctx, moved.ID) }, "getdel=1 zrem=1"},
	} {
		must(t, client.ConfigResetStat(ctx).Err())
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := sent(t, client); got != step.want {
			t.Errorf("%s took %q, want %q", step.name, got, step.want)
		}
	}
}

// TestRoundTripsOfARenewal counts the commands of a renewal, which is one Save after the load.
// A new Login of the same user moves the Deadline, and so also writes the user's index.
func TestRoundTripsOfARenewal(t *testing.T) {
	client := startServer(t).client(nil)
	m := session.Must(session.New(&session.Options{Store: newStore(t, client), Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}}))
	var do func(s *session.Session)
	h := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { do(session.From(r.Context())) }))
	var cookie string
	visit := func(f func(s *session.Session)) string {
		must(t, client.ConfigResetStat(t.Context()).Err())
		r, w := httptest.NewRequest("GET", "https://example.test/", nil), httptest.NewRecorder()
		r.Header.Set("Cookie", cookie)
		do = f
		h.ServeHTTP(w, r)
		for _, c := range w.Result().Cookies() {
			cookie = c.Name + "=" + c.Value
		}
		return sent(t, client)
	}
	visit(func(s *session.Session) { s.Login("alice") })
	visit((*session.Session).Renew) // from here on the server knows the scripts
	for _, c := range []struct {
		what string
		f    func(s *session.Session)
		want string
	}{
		{"reading", func(s *session.Session) { s.User() }, "get=1"},
		{"Renew", (*session.Session).Renew, "evalsha=1 get=1"},
		{"reading with a renewed token", func(s *session.Session) { s.User() }, "get=1"},
		{"Login again", func(s *session.Session) { s.Login("alice") }, "evalsha=3 get=1"},
		// One evalsha records, before the others, that the token of the Login was first
		// presented.
		{"Remember", func(s *session.Session) { s.Remember(365 * 24 * time.Hour) }, "evalsha=4 get=1"},
	} {
		if got := visit(c.f); got != c.want {
			t.Errorf("%s took %q, want %q", c.what, got, c.want)
		}
	}
}

// sent returns the commands that the server has received. It omits commands that only the
// scripts use, which the server counts too.
func sent(t *testing.T, client *redis.Client) string {
	t.Helper()
	info, err := client.Info(t.Context(), "commandstats").Result()
	must(t, err)
	var counts []string
	for line := range strings.Lines(info) {
		var name string
		var n int
		line = strings.NewReplacer("cmdstat_", "", ":calls=", " ", ",", " ").Replace(line)
		if _, err := fmt.Sscan(line, &name, &n); err != nil {
			continue
		}
		switch name {
		case "getrange", "setrange", "set", "del", "zadd", "zremrangebyscore", "pttl", "pexpire":
		case "config|resetstat", "info":
		default:
			counts = append(counts, fmt.Sprintf("%s=%d", name, n))
		}
	}
	sort.Strings(counts)
	return strings.Join(counts, " ")
}
