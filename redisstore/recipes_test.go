package redisstore_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
	"github.com/redis/go-redis/v9"
)

// The functions in this file are recipes that docs/recipes prints.

// onlineInRedis returns the users who were seen since a time, and when each was seen
// last.
func onlineInRedis(ctx context.Context, client *redis.Client, sessions *session.Manager, since time.Time) (map[string]time.Time, error) {
	seen := map[string]time.Time{}
	keys := client.Scan(ctx, 0, "session:u:*", 1000).Iterator()
	for keys.Next(ctx) {
		user := strings.TrimPrefix(keys.Val(), "session:u:")
		all, err := sessions.List(ctx, user) // the most recently seen first
		if err != nil {
			return nil, err
		}
		if len(all) > 0 && !all[0].LastSeen.Before(since) {
			seen[user] = all[0].LastSeen
		}
	}
	return seen, keys.Err()
}

// TestRecipeWhoIsOnline lists the users while others log in and out concurrently.
func TestRecipeWhoIsOnline(t *testing.T) {
	const n = 10
	client := startServer(t).client(nil)
	store := newStore(t, client)
	m := newManager(t, store)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			b := sessiontest.NewBrowser(t, m.Handler(http.NotFoundHandler()))
			b.Session(m, func(s *session.Session) { s.Login(fmt.Sprint("user", i)) })
			if i%2 == 0 {
				b.Session(m, func(s *session.Session) { s.Logout() })
			}
			if _, err := onlineInRedis(t.Context(), client, m, time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	old, anonymous := newRecord("old"), newRecord("")
	old.LastSeen = old.LastSeen.Add(-30 * time.Minute)
	for _, r := range []*session.Record{old, anonymous} {
		must(t, store.Create(t.Context(), r))
	}
	seen, err := onlineInRedis(t.Context(), client, m, time.Now().Add(-10*time.Minute))
	must(t, err)
	got := slices.Sorted(maps.Keys(seen))
	if want := []string{"user1", "user3", "user5", "user7", "user9"}; !slices.Equal(got, want) {
		t.Errorf("online are %q, want %q", got, want)
	}
}
