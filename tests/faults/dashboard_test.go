package faults_test

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/dashboard"
)

// The tests run a dashboard in three processes over a real store. No request of a logged-in
// user is answered as anonymous, no request after a logout is answered as a user, and no write
// is lost. DASHBOARD_BROWSERS and DASHBOARD_FOR, a duration, make a longer run of more browsers: the
// browsers then pause for longer, so that the number of requests per second stays the same.
func TestDashboardOverRedis(t *testing.T)      { runDashboard(t, startSystemRedis(t, nil)) }
func TestDashboardOverPostgreSQL(t *testing.T) { runDashboard(t, startSystemPostgres(t)) }

func runDashboard(t *testing.T, sys system) {
	var mu sync.Mutex
	events := map[session.EventKind]int{}
	browsers, _ := strconv.Atoi(cmp.Or(os.Getenv("DASHBOARD_BROWSERS"), "100"))
	length, err := time.ParseDuration(cmp.Or(os.Getenv("DASHBOARD_FOR"), "15s"))
	if err != nil || browsers < 1 {
		t.Fatalf("DASHBOARD_BROWSERS=%d, DASHBOARD_FOR: %v", browsers, err)
	}
	end := time.Now().Add(length)
	c := &dashboard.Crowd{
		Browsers: browsers, Pause: time.Duration(browsers) * 10 * time.Millisecond, Short: 100 * time.Millisecond, Long: 9 * time.Second,
	}
	quiet := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return events[session.EventRenewed] < 100 || events[session.EventConflict] < 100 || c.Lost.Load() < 100
	}
	c.Again = func() bool { // runs longer on a slow machine
		return time.Now().Before(end) || quiet() && time.Since(end) < 4*time.Minute
	}
	for range 3 {
		m, err := session.New(&session.Options{
			Store:        hurried{sys.open(t, sys.server.Addr)},
			Secrets:      [][]byte{bytes.Repeat([]byte("secret"), 6)},
			RenewAfter:   time.Minute,
			StoreTimeout: 5 * time.Minute, // for two thousand concurrent requests
			OnEvent: func(_ context.Context, e session.Event) {
				mu.Lock()
				defer mu.Unlock()
				events[e.Kind]++
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Processes = append(c.Processes, m.Handler(http.HandlerFunc(dashboard.Handler)))
	}
	c.Run(t)
	if quiet() {
		t.Error("too few renewals, conflicts or lost responses")
	}
	if n := events[session.EventDropped] + events[session.EventStoreFailed]; n > 0 {
		t.Errorf("%d changes were dropped, or failed", n)
	}
	t.Logf("%d requests, %d renewals, %d conflicts, %d responses lost, %d logouts", c.Requests.Load(), events[session.EventRenewed], events[session.EventConflict], c.Lost.Load(), c.Logouts.Load())
}

// hurried is a store that shows a key that is four seconds old as an hour older, so that
// renewals happen every few seconds. They must not be more frequent: more than three renewals
// within the ten seconds in which older keys are valid do not occur in practice.
type hurried struct{ session.Store }

var madeAt = regexp.MustCompile(`"session\.(?:renewed|unseen)":([0-9]+)`)

func (s hurried) Load(ctx context.Context, id string) (*session.Record, error) {
	r, err := s.Store.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	at := madeAt.FindSubmatchIndex(r.Data)
	if at == nil {
		if time.Since(r.Created) > 4*time.Second {
			r.Created = r.Created.Add(-time.Hour)
		}
		return r, nil
	}
	ms, err := strconv.ParseInt(string(r.Data[at[2]:at[3]]), 10, 64)
	if err == nil && time.Since(time.UnixMilli(ms)) > 4*time.Second {
		older := strconv.AppendInt(bytes.Clone(r.Data[:at[2]]), ms-time.Hour.Milliseconds(), 10)
		r.Data = append(older, r.Data[at[3]:]...)
	}
	return r, err
}
