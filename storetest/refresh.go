package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// This file contains the cases of RunManagers about operations that must not happen twice.

// grant is the serial number of a grant from the issuer. Each grant is valid for one use.
var grant = session.NewKey[int]("grant")

// issuer issues grants, and revokes everything when a grant is used twice (RFC 9700, 4.14.2).
type issuer struct {
	mu      sync.Mutex
	calls   int
	serial  int
	fails   bool // whether the next call fails, before it uses the grant
	revoked bool
}

func (is *issuer) renew(serial int) (int, error) {
	time.Sleep(50 * time.Millisecond) // the duration of the network request
	is.mu.Lock()
	defer is.mu.Unlock()
	is.calls++
	if is.fails {
		is.fails = false
		return 0, errors.New("the issuer failed")
	}
	if serial != is.serial {
		is.revoked = true
		return 0, errors.New("a grant was used twice: all are revoked")
	}
	is.serial++
	return is.serial, nil
}

// refresh makes sure that the session's grant is at least want. It returns the grant, or
// "ended" or "failed".
func (c *cluster) refresh(ctx context.Context, s *session.Session, want string) string {
	least, _ := strconv.Atoi(want)
	got, err := grant.Refresh(ctx, s, func(serial int) bool { return serial >= least }, func(ctx context.Context, serial int) (int, error) {
		return c.issuer.renew(serial)
	})
	switch {
	case errors.Is(err, session.ErrEnded), errors.Is(err, session.ErrReplaced):
		return "ended"
	case err != nil:
		return "failed"
	}
	return fmt.Sprint(got)
}

// crash simulates another process that crashes while it refreshes the browser's session: it no
// longer reaches the store. crash returns when the refresh has begun. The channel is closed
// when the crashed request has returned.
func (c *cluster) crash() (returned <-chan struct{}) {
	for limit := 3 * time.Second; ; limit *= 2 { // Refresh does not begin with less than two seconds left
		l := &line{Store: c.store}
		begun, done := make(chan struct{}), make(chan struct{})
		server := c.serveWith(newManager(c.t, l, limit), func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			grant.Refresh(ctx, session.From(ctx), func(int) bool { return false }, func(ctx context.Context, serial int) (int, error) {
				l.cut.Store(true)
				close(begun)
				<-ctx.Done()
				return 0, ctx.Err()
			})
		})
		go func() {
			defer close(done)
			resp, err := c.browser.Get(server.URL)
			if err == nil {
				resp.Body.Close()
			}
		}()
		select {
		case <-begun:
			return done
		case <-done: // on a slow machine the limit passed before the refresh began
			if limit > time.Minute {
				c.t.Fatal("the Refresh does not begin")
			}
		}
	}
}

// line is a connection to a store that can be cut.
type line struct {
	session.Store
	cut atomic.Bool
}

var errCut = errors.New("storetest: the connection to the store is cut")

// Load implements session.Store, as do Save and Touch below. A request that has its session
// calls no other method.
func (l *line) Load(ctx context.Context, id string) (*session.Record, error) {
	if l.cut.Load() {
		return nil, errCut
	}
	return l.Store.Load(ctx, id)
}

func (l *line) Save(ctx context.Context, r *session.Record, old uint64) error {
	if l.cut.Load() {
		return errCut
	}
	return l.Store.Save(ctx, r, old)
}

func (l *line) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	if l.cut.Load() {
		return errCut
	}
	return l.Store.Touch(ctx, id, seen, expires)
}

// refreshed checks that of the bodies as many as failed report a failure and all others the
// grant serial, and the total number of calls of the issuer.
func (c *cluster) refreshed(bodies []string, serial string, failed, calls int) {
	c.t.Helper()
	for _, body := range bodies {
		var got string
		if fmt.Sscan(body, &got); got == "failed" {
			failed--
		} else if got != serial {
			c.t.Errorf("a request has grant %q, want %s", got, serial)
		}
	}
	if failed != 0 {
		c.t.Errorf("%d fewer requests failed than expected", failed)
	}
	c.issuer.mu.Lock()
	defer c.issuer.mu.Unlock()
	if c.issuer.calls != calls || c.issuer.revoked {
		c.t.Errorf("the issuer was called %d times, want %d; revoked: %v", c.issuer.calls, calls, c.issuer.revoked)
	}
}

// parallelRefreshes checks that one of twenty concurrent requests uses the grant. If its call
// of the issuer fails, one of the others tries again.
func parallelRefreshes(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	_, bodies := c.together(c.browser, 20, func(int) string { return "do=refresh:1&do=count" })
	c.refreshed(bodies, "1", 0, 1)
	c.issuer.fails = true
	_, bodies = c.together(c.browser, 20, func(int) string { return "do=refresh:2&do=count" })
	c.refreshed(bodies, "2", 1, 3)
	c.expect(c.get(c.browser, 1, ""), c.user+" 40 2")
}

// crashOverlapsARefresh checks that requests wait for the lease of a process that crashed, and
// then refresh.
func crashOverlapsARefresh(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	returned := c.crash()
	var wg sync.WaitGroup
	bodies := make([]string, 10)
	for i := range bodies {
		wg.Go(func() { bodies[i] = c.get(c.browser, i, "do=refresh:1").body })
	}
	wg.Wait()
	c.refreshed(bodies, "1", 0, 1)
	<-returned
}

// logoutOverlapsARefresh checks that a logout also ends the session for requests that refresh
// or wait for a refresh.
func logoutOverlapsARefresh(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	old := c.copy()
	var wg sync.WaitGroup
	bodies := make([]string, 10)
	for i := range bodies {
		wg.Go(func() { bodies[i] = c.get(old, i, "do=hold&do=refresh:1").body })
		<-c.holding
	}
	c.issuer.mu.Lock() // calls of the issuer wait
	close(c.release)
	c.get(c.browser, 1, "do=logout")
	c.issuer.mu.Unlock()
	wg.Wait()
	for _, body := range bodies {
		if body != "ended  0 0" {
			t.Errorf("a request that refreshed was answered %q after the logout", body)
		}
	}
	c.issuer.mu.Lock()
	defer c.issuer.mu.Unlock()
	if c.issuer.calls > 1 {
		t.Errorf("the issuer was called %d times", c.issuer.calls)
	}
}
