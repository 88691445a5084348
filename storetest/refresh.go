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

// These are the races of RunManagers in which something must not happen twice.

// grant is the serial number of what an issuer gives, each good for one use.
var grant = session.NewKey[int]("grant")

// An issuer revokes everything when a grant comes twice (RFC 9700, 4.14.2).
type issuer struct {
	mu      sync.Mutex
	calls   int
	serial  int
	fails   bool // the next call, before it has used the grant
	revoked bool
}

func (is *issuer) renew(serial int) (int, error) {
	time.Sleep(50 * time.Millisecond) // on the way
	is.mu.Lock()
	defer is.mu.Unlock()
	is.calls++
	if is.fails {
		is.fails = false
		return 0, errors.New("the issuer failed")
	}
	if serial != is.serial {
		is.revoked = true
		return 0, errors.New("a grant came twice: all is revoked")
	}
	is.serial++
	return is.serial, nil
}

// refresh sees to it that the session's grant is at least the one that is wanted,
// and returns it, or what went wrong.
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

// die has another process die while it refreshes the browser's session, and returns
// what is closed when that has given up. From then on it does not reach the store.
func (c *cluster) die() (gone <-chan struct{}) {
	for limit := 3 * time.Second; ; limit *= 2 { // with less than two left nothing is begun
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
		case <-done: // on a slow machine it had no time to begin
			if limit > time.Minute {
				c.t.Fatal("no Refresh begins")
			}
		}
	}
}

// A line is a way to a store, which can be cut.
type line struct {
	session.Store
	cut atomic.Bool
}

var errCut = errors.New("storetest: the line is cut")

// Load implements session.Store, and Save and Touch below: all that a request
// calls that has its session.
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

// refreshed expects of the answers that so many are of a grant, and the others of
// a failure, and that the issuer was called so often altogether.
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
		c.t.Errorf("%d more should have failed", failed)
	}
	c.issuer.mu.Lock()
	defer c.issuer.mu.Unlock()
	if c.issuer.calls != calls || c.issuer.revoked {
		c.t.Errorf("the issuer was called %d times, want %d; revoked: %v", c.issuer.calls, calls, c.issuer.revoked)
	}
}

// parallelRefreshes: of twenty requests one uses the grant, and of those that
// follow if it fails one more.
func parallelRefreshes(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	_, bodies := c.together(c.browser, 20, func(int) string { return "do=refresh:1&do=count" })
	c.refreshed(bodies, "1", 0, 1)
	c.issuer.fails = true
	_, bodies = c.together(c.browser, 20, func(int) string { return "do=refresh:2&do=count" })
	c.refreshed(bodies, "2", 1, 3)
	c.expect(c.get(c.browser, 1, ""), c.user+" 40 2")
}

// deathOverlapsARefresh: the others wait for the lease of one that died, and no
// longer.
func deathOverlapsARefresh(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	gone := c.die()
	var wg sync.WaitGroup
	bodies := make([]string, 10)
	for i := range bodies {
		wg.Go(func() { bodies[i] = c.get(c.browser, i, "do=refresh:1").body })
	}
	wg.Wait()
	c.refreshed(bodies, "1", 0, 1)
	<-gone
}

// logoutOverlapsARefresh: nobody who refreshes, or waits, is let back in.
func logoutOverlapsARefresh(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	old := c.copy()
	var wg sync.WaitGroup
	bodies := make([]string, 10)
	for i := range bodies {
		wg.Go(func() { bodies[i] = c.get(old, i, "do=hold&do=refresh:1").body })
		<-c.holding
	}
	c.issuer.mu.Lock() // whoever asks it waits
	close(c.release)
	c.get(c.browser, 1, "do=logout")
	c.issuer.mu.Unlock()
	wg.Wait()
	for _, body := range bodies {
		if body != "ended  0 0" {
			t.Errorf("a request that refreshes is answered %q after the logout", body)
		}
	}
	c.issuer.mu.Lock()
	defer c.issuer.mu.Unlock()
	if c.issuer.calls > 1 {
		t.Errorf("the issuer was called %d times", c.issuer.calls)
	}
}
