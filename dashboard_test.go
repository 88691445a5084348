package session_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/dashboard"
)

// TestDashboardOnThreeProcesses runs a dashboard on three processes, with tokens that are
// renewed every minute. No request of a logged-in user is answered as anonymous, no request
// after a logout is answered as a user, and no write is lost. Module faults runs the same over
// Redis and PostgreSQL.
func TestDashboardOnThreeProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session.NewMemoryStore(nil)
		var log events
		end := time.Now().Add(6 * time.Minute)
		c := &dashboard.Crowd{
			Browsers: 100, Pause: time.Minute, Short: 2 * time.Second, Long: 4 * time.Minute,
			Again: func() bool { return time.Now().Before(end) },
		}
		for range 3 {
			m := newManager(t, session.Options{Store: store, RenewAfter: time.Minute, OnEvent: log.on})
			c.Processes = append(c.Processes, m.Handler(http.HandlerFunc(dashboard.Handler)))
		}
		c.Run(t)
		renewed, conflicts := log.count(session.EventRenewed), log.count(session.EventConflict)
		if renewed < 100 || conflicts < 100 || c.Lost.Load() < 1000 || c.Logouts.Load() < 110 {
			t.Error("too few renewals, conflicts or lost responses")
		}
		if n := log.count(session.EventDropped); n > 0 {
			t.Errorf("%d changes were dropped: %v", n, log.last(session.EventDropped))
		}
		t.Logf("%d requests, %d renewals, %d conflicts, %d responses lost, %d logouts", c.Requests.Load(), renewed, conflicts, c.Lost.Load(), c.Logouts.Load())
	})
}
