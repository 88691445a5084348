// Package crowds counts the store calls of many concurrent requests of one session or one user.
package crowds

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
)

// A Deed is what all requests of a crowd do.
type Deed struct {
	Name    string
	Options session.Options // without a store
	Most    float64         // no request costs more store calls on average, however many there are

	isOfUser bool                                                       // each request is of a browser of its own; otherwise all are of one session
	begins   func(s *session.Session, user string)                      // the request that begins the session
	pause    time.Duration                                              // after that request
	does     func(ctx context.Context, s *session.Session, user string) // each of the others, when all have loaded the session
}

var (
	count  = session.NewKey[int]("count")
	ticket = session.NewKey[string]("ticket")

	errIssuer = errors.New("the issuer is down")
)

func logIn(s *session.Session, user string) { s.Login(user) }

// Deeds are the deeds whose cost must not grow with the crowd.
var Deeds = []Deed{
	{Name: "write", Most: 4, begins: logIn, does: func(_ context.Context, s *session.Session, _ string) {
		count.Update(s, func(n int) int { return n + 1 })
	}},
	{Name: "write at once", Most: 4, begins: logIn, does: func(ctx context.Context, s *session.Session, _ string) {
		_, _ = count.UpdateNow(ctx, s, func(n int) int { return n + 1 })
	}},
	{Name: "take one value", Most: 4, begins: func(s *session.Session, _ string) { ticket.Set(s, "voucher") }, does: func(ctx context.Context, s *session.Session, _ string) {
		_, _, _ = ticket.Take(ctx, s)
	}},
	{Name: "renew", Most: 5, begins: logIn, does: func(_ context.Context, s *session.Session, _ string) { s.Renew() }},
	{Name: "log in, in one session", Most: 10, begins: func(s *session.Session, _ string) { count.Set(s, 1) }, does: func(_ context.Context, s *session.Session, user string) { s.Login(user) }},
	{Name: "log in as another user, in one session", Most: 10, begins: logIn, does: func(_ context.Context, s *session.Session, user string) { s.Login("another " + user) }},
	{Name: "log in, in browsers of one user, MaxPerUser 3", Most: 7, Options: session.Options{MaxPerUser: 3}, isOfUser: true, does: func(_ context.Context, s *session.Session, user string) { s.Login(user) }},
	{Name: "log out", Most: 4, begins: logIn, does: func(_ context.Context, s *session.Session, _ string) { s.Logout() }},
	{Name: "touch", Most: 2, Options: session.Options{IdleTimeout: 10 * time.Second}, begins: logIn, pause: 600 * time.Millisecond, does: func(context.Context, *session.Session, string) {}},
	{Name: "wait for a Refresh", Most: 4, begins: func(s *session.Session, _ string) { ticket.Set(s, "old") }, does: func(ctx context.Context, s *session.Session, _ string) {
		_, _ = ticket.Refresh(ctx, s, func(v string) bool { return v == "new" }, func(context.Context, string) (string, error) {
			time.Sleep(100 * time.Millisecond)
			return "new", nil
		})
	}},
	{Name: "wait for a Refresh that fails", Most: 6, begins: func(s *session.Session, _ string) { ticket.Set(s, "old") }, does: func(ctx context.Context, s *session.Session, _ string) {
		_, _ = ticket.Refresh(ctx, s, func(v string) bool { return v == "new" }, func(context.Context, string) (string, error) {
			return "", errIssuer
		})
	}},
}

// Run lets n concurrent requests do it, and returns the number of store calls of each on
// average.
func (d Deed) Run(t testing.TB, store session.Store, n int) float64 {
	t.Helper()
	counted := &countedStore{Store: store}
	o := d.Options
	o.Store, o.Secrets, o.StoreTimeout = counted, [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, time.Minute
	m := session.Must(session.New(&o))
	user := rand.Text() // the store may have sessions of an earlier run
	var loaded sync.WaitGroup
	loaded.Add(n)
	serve := func(does func(ctx context.Context, s *session.Session)) http.RoundTripper {
		return browsers.Handler(m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			does(r.Context(), session.From(r.Context()))
		})))
	}
	const page = "https://example.com/"
	send := func(b *browsers.Browser) {
		resp, err := b.Get(page)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %v, %v", d.Name, resp, err)
		}
	}
	first := browsers.New(t, serve(func(_ context.Context, s *session.Session) { d.begins(s, user) }))
	if !d.isOfUser {
		send(first)
	}
	time.Sleep(d.pause)
	before := counted.calls.Load()
	var all sync.WaitGroup
	for range n {
		b := first.Copy(t, page)
		b.Transport = serve(func(ctx context.Context, s *session.Session) {
			s.User()
			loaded.Done()
			loaded.Wait()
			d.does(ctx, s, user)
		})
		all.Go(func() { send(b) })
	}
	all.Wait()
	return float64(counted.calls.Load()-before) / float64(n)
}

// countedStore counts the calls of a store.
type countedStore struct {
	session.Store
	calls atomic.Int64
}

func (c *countedStore) Load(ctx context.Context, id string) (*session.Record, error) {
	c.calls.Add(1)
	return c.Store.Load(ctx, id)
}

func (c *countedStore) Create(ctx context.Context, r *session.Record) error {
	c.calls.Add(1)
	return c.Store.Create(ctx, r)
}

func (c *countedStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	c.calls.Add(1)
	return c.Store.Save(ctx, r, old)
}

func (c *countedStore) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	c.calls.Add(1)
	return c.Store.Touch(ctx, id, seen, expires)
}

func (c *countedStore) Delete(ctx context.Context, id string) error {
	c.calls.Add(1)
	return c.Store.Delete(ctx, id)
}

func (c *countedStore) List(ctx context.Context, user string) ([]*session.Record, error) {
	c.calls.Add(1)
	return c.Store.List(ctx, user)
}
