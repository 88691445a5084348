package session_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// TestManyLoginsOfOneUser: promises 11 and 21. After any number of concurrent logins of one
// user, in any number of processes and over a slow store, MaxPerUser sessions are left. Each
// login costs fewer than eight store calls, and a login whose session was ended sets no cookie.
func TestManyLoginsOfOneUser(t *testing.T) {
	for _, c := range []struct {
		n, most, processes int
		slow               time.Duration
	}{
		{2, 1, 1, time.Millisecond}, {10, 1, 1, time.Millisecond}, {50, 3, 1, time.Millisecond}, {600, 1, 1, time.Millisecond},
		{600, 1, 1, 15 * time.Millisecond}, {600, 3, 1, 200 * time.Millisecond}, {600, 3, 3, 15 * time.Millisecond}, {50, 1, 2, 200 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%d logins, %d, %d processes, %v", c.n, c.most, c.processes, c.slow), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spy := newSpy()
				var hs []*browser
				for range c.processes {
					hs = append(hs, newBrowser(t, newManager(t, session.Options{Store: spy, MaxPerUser: c.most}).Handler(clockRoutes)))
				}
				for range c.most { // sessions that exist before the logins
					newBrowser(t, hs[0].h).get("/login")
				}
				time.Sleep(time.Second)
				slowStore(spy, c.slow)
				before := spy.count("")
				var all sync.WaitGroup
				cookies := make([]string, c.n)
				for i := range c.n {
					all.Go(func() {
						b := newBrowser(t, hs[i%c.processes].h)
						if resp := b.get("/login"); resp.StatusCode != 200 {
							t.Error(resp.Status)
						}
						cookies[i] = b.cookie()
					})
				}
				all.Wait()
				if calls := spy.count("") - before; calls >= 8*c.n {
					t.Errorf("%d calls of the store for %d logins", calls, c.n)
				}
				spy.hook(nil)
				listed, err := spy.Store.List(t.Context(), "alice")
				if err != nil || len(listed) != c.most {
					t.Errorf("%d sessions are left (%v), MaxPerUser is %d", len(listed), err, c.most)
				}
				in := 0
				for _, cookie := range cookies {
					if cookie == "" {
						continue
					}
					if body(hs[0].replay(cookie).get("/look")) == "alice" {
						in++
					}
				}
				if in != c.most {
					t.Errorf("%d browsers are logged in, want %d", in, c.most)
				}
			})
		})
	}
}

// TestLoginAfterTheClockWasSetBack: promise 11. If the clock was set back, or another process
// is ahead, sessions with a later LastSeen do not end the newest login.
func TestLoginAfterTheClockWasSetBack(t *testing.T) {
	for _, most := range []int{1, 2} {
		for _, ahead := range []time.Duration{6 * time.Second, time.Hour, day} {
			t.Run(fmt.Sprint(most, " ", ahead), func(t *testing.T) {
				inBubble(t, session.Options{MaxPerUser: most}, func(t *testing.T, spy *spyStore, m *session.Manager) {
					future := time.Now().Add(ahead)
					for i := range 2 {
						r := memoryRecord(fmt.Sprint("future", i), "alice", 0)
						r.Data = []byte(`{"session.key":"0123456789012345678901"}`)
						r.Created, r.LastSeen, r.Deadline, r.Expires = future, future, future.Add(day), future.Add(day)
						put(t, spy.Store, r)
					}
					var all []*browser
					for range most {
						b := newBrowser(t, m.Handler(clockRoutes))
						b.get("/login")
						all = append(all, b)
					}
					for i, b := range all {
						if got := body(b.get("/look")); got != "alice" && i == len(all)-1 {
							t.Errorf("the last login is in as %q", got)
						}
					}
					if listed, err := spy.Store.List(t.Context(), "alice"); err != nil || len(listed) != most {
						t.Errorf("%d sessions, %v", len(listed), err)
					}
				})
			})
		}
	}
}

// TestListOfALoginFails checks that a login that waits for another's List gives up at its own
// deadline, that a List that fails or panics delays no other login, and that all these logins
// succeed.
func TestListOfALoginFails(t *testing.T) {
	for what, fails := range map[string]func(ctx context.Context) error{
		"hangs":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"fails":  func(ctx context.Context) error { return errDown },
		"panics": func(ctx context.Context) error { panic("oh") },
	} {
		inBubble(t, session.Options{MaxPerUser: 1}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			h := m.Handler(clockRoutes)
			spy.hook(func(ctx context.Context, call, id string) error {
				if call == "List" {
					return fails(ctx)
				}
				return nil
			})
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() {
					defer func() { recover() }()
					w := httptest.NewRecorder()
					h.ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/login", nil))
					if w.Code != 200 || len(w.Result().Cookies()) != 1 {
						t.Errorf("List %s: %d %v", what, w.Code, w.Header())
					}
				})
			}
			all.Wait()
			spy.hook(nil)
			time.Sleep(time.Second)
			b := newBrowser(t, h)
			b.get("/login")
			listed, err := spy.Store.List(t.Context(), "alice")
			if got := body(b.get("/look")); got != "alice" || err != nil || len(listed) != 1 {
				t.Errorf("after a List that %s: %q, %d sessions, %v", what, got, len(listed), err)
			}
		})
	}
}

// TestLimitOverASlowList checks that the limit holds for logins that arrive during the List of
// another login, even if they have waited for it for most of StoreTimeout and their own List
// takes as long.
func TestLimitOverASlowList(t *testing.T) {
	for _, takes := range []time.Duration{time.Second, 3 * time.Second, 4900 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			const most = 2
			spy := newSpy()
			var log events
			m := newManager(t, session.Options{Store: spy, MaxPerUser: most, OnEvent: log.on})
			spy.hook(func(ctx context.Context, call, id string) error {
				if call != "List" {
					return nil
				}
				select {
				case <-time.After(takes):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			var all sync.WaitGroup
			for i := range 30 {
				all.Go(func() {
					time.Sleep(time.Duration(i) * 100 * time.Millisecond)
					newBrowser(t, m.Handler(clockRoutes)).get("/login")
				})
			}
			all.Wait()
			listed, err := spy.Store.List(t.Context(), "alice")
			if err != nil || len(listed) != most || log.count(session.EventStoreFailed) != 0 {
				t.Errorf("a list takes %v: %d sessions are left (%v), events %v", takes, len(listed), err, log.all)
			}
		})
	}
}
