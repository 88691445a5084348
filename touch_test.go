package session_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// TestBurstTouchesOnce: promise 11. A burst of concurrent requests touches its session once,
// including requests that had loaded the session before and end later. The next use touches it
// again.
func TestBurstTouchesOnce(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{
			"/login": clockRoutes["/login"],
			"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.User()
				time.Sleep(10 * time.Second)
			},
		}))
		b.get("/login")
		for range 3 {
			time.Sleep(2 * minute)
			slowStore(spy, 50*time.Millisecond)
			touches := spy.count("Touch")
			if got := atOnceGet(b, 50, "/look"); got[200] != 50 {
				t.Errorf("statuses %v", got)
			}
			spy.hook(nil)
			if n := spy.count("Touch") - touches; n != 1 {
				t.Errorf("%d touches for a burst of 50", n)
			}
		}
	})
}

// TestFailedTouchIsTriedAgain checks that after a touch that fails, or whose store panics, the
// next request touches again.
func TestFailedTouchIsTriedAgain(t *testing.T) {
	for what, fails := range map[string]func(context.Context, string, string) error{
		"fails": failing("Touch", errDown), "is indeterminate": failing("Touch", session.ErrIndeterminate), "panics": panicking("Touch"),
	} {
		for _, wait := range []time.Duration{2 * minute, 15 * minute} { // the touch is after the handler, or at the load
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(clockRoutes))
				b.get("/login")
				time.Sleep(wait)
				spy.hook(fails)
				func() {
					defer func() { recover() }()
					b.get("/look")
				}()
				spy.hook(nil)
				touches := spy.count("Touch")
				if got := body(b.get("/look")); got != "alice" || spy.count("Touch")-touches != 1 {
					t.Errorf("after a touch that %s: in as %q, %d touches", what, got, spy.count("Touch")-touches)
				}
			})
		}
	}
}

// TestLongRequestOverTheIdleEnd: promise 11. A request that begins when more than half of the
// idle time has passed, and takes longer than the rest, keeps its session. A passive request,
// and one that does not use its session, do not.
func TestLongRequestOverTheIdleEnd(t *testing.T) {
	for what, c := range map[string]struct {
		begins func(s *session.Session)
		keeps  bool
	}{
		"a read":   {func(s *session.Session) { s.User() }, true},
		"a change": {func(s *session.Session) { name.Set(s, "x") }, true},
		"passive":  {func(s *session.Session) { s.MarkPassive(); s.User() }, false},
		"unused":   {func(s *session.Session) {}, false},
	} {
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			b := newBrowser(t, m.Handler(routes{
				"/login": clockRoutes["/login"],
				"/look":  clockRoutes["/look"],
				"/upload": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					c.begins(s)
					time.Sleep(10 * minute)
					visits.Update(s, func(n int) int { return n + 1 })
					fmt.Fprint(w, s.User(), visits.Get(s))
				},
			}))
			b.get("/login")
			time.Sleep(11 * minute)
			got, after := body(b.get("/upload")), body(b.get("/look"))
			if keeps := strings.HasSuffix(after, "alice"); keeps != c.keeps || keeps && got != "alice1" {
				t.Errorf("%s: the upload was answered %q, the next page %q", what, got, after)
			}
		})
	}
}

// TestCanceledContext checks that List obeys the cancellation of its context, without an
// EventStoreFailed, and that calls that end sessions ignore it.
func TestCanceledContext(t *testing.T) {
	spy := newSpy()
	var log events
	m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
	b := newBrowser(t, m.Handler(clockRoutes))
	b.get("/login")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all, err := m.List(ctx, "alice"); err == nil {
		t.Errorf("List: %d sessions", len(all))
	}
	hung, stop := context.WithCancel(t.Context())
	spy.hook(func(ctx context.Context, call, id string) error {
		if call == "List" {
			stop()
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	if _, err := m.List(hung, "alice"); err == nil {
		t.Error("List over a store that hangs: no error")
	}
	spy.hook(nil)
	if n := log.count(session.EventStoreFailed); n > 0 {
		t.Errorf("%d times EventStoreFailed", n)
	}
	if err := m.RevokeAll(ctx, "alice"); err != nil || body(b.get("/look")) != "" {
		t.Errorf("RevokeAll: %v", err)
	}
}
