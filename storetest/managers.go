package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
)

// RunManagers tests the promises of a [session.Manager] about concurrent requests, over a
// store: three Managers, as in three processes, share the store, each behind an HTTP server,
// and one browser sends its requests to all three in turn. A store that passes [Run] and fails
// RunManagers breaks its contract only under concurrency.
func RunManagers(t *testing.T, newStore func(t *testing.T) session.Store) {
	for _, race := range []struct {
		name string
		run  func(t *testing.T, c *cluster)
	}{
		{"Writes", parallelWrites},
		{"Takes", parallelTakes},
		{"Logout", slowRequestsOverlapALogout},
		{"Login", slowWriterOverlapsALogin},
		{"Renewals", parallelRenewals},
		{"Renewal", func(t *testing.T, c *cluster) { requestsOverlapARenewal(t, c, "renew") }},
		{"LoginAgain", func(t *testing.T, c *cluster) { requestsOverlapARenewal(t, c, "login:"+c.user) }},
		{"Remember", func(t *testing.T, c *cluster) { requestsOverlapARenewal(t, c, "remember") }},
		{"AutomaticRenewal", automaticRenewal},
		{"RenewalAndLogout", logoutOverlapsARenewal},
		{"Revocation", revocationReachesAll},
		{"Refresh", parallelRefreshes},
		{"RefreshAndCrash", crashOverlapsARefresh},
		{"RefreshAndLogout", logoutOverlapsARefresh},
	} {
		t.Run(race.name, func(t *testing.T) { race.run(t, newCluster(t, newStore(t))) })
	}
}

// cluster is three servers over one store, and a browser.
type cluster struct {
	t        *testing.T
	store    session.Store
	managers [3]*session.Manager
	servers  [3]*httptest.Server
	issuer   issuer
	browser  *browsers.Browser
	user     string // the user who logs in; unique, because the store may be in use

	// A handler with do=hold sends on holding when it has loaded its session, and continues
	// when release is closed.
	holding chan struct{}
	release chan struct{}
}

var (
	count = session.NewKey[int]("count")
	slow  = session.NewKey[string]("slow")
	once  = session.NewKey[string]("once")
)

func newCluster(t *testing.T, store session.Store) *cluster {
	c := &cluster{t: t, store: store, browser: browsers.New(t, nil), user: rand.Text(), holding: make(chan struct{}, 100), release: make(chan struct{})}
	for i := range c.managers {
		c.managers[i] = newManager(t, store, time.Minute) // long enough for a busy machine
		c.servers[i] = c.serveWith(c.managers[i], c.serve)
	}
	return c
}

func newManager(t *testing.T, store session.Store, timeout time.Duration) *session.Manager {
	m, err := session.New(&session.Options{
		Store:        store,
		StoreTimeout: timeout,
		Secrets:      [][]byte{[]byte(strings.Repeat("secret", 6))},
		Cookie:       session.CookieOptions{Insecure: true},
		// Only sessions that a test has made older than this are renewed automatically.
		RenewAfter: 10 * time.Minute,
		RenewGrace: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// serveWith starts an HTTP server that runs h with the sessions of m.
func (c *cluster) serveWith(m *session.Manager, h http.HandlerFunc) *httptest.Server {
	server := httptest.NewServer(m.Handler(h))
	c.t.Cleanup(server.Close)
	return server
}

// serve performs the operations in the query's "do" parameters, in order.
func (c *cluster) serve(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	for _, what := range r.URL.Query()["do"] {
		name, arg, _ := strings.Cut(what, ":")
		switch name {
		case "login":
			s.Login(arg)
		case "logout":
			s.Logout()
		case "renew":
			s.Renew()
		case "remember":
			s.Remember(24 * time.Hour)
		case "count":
			count.Update(s, func(n int) int { return n + 1 })
		case "offer":
			once.Set(s, arg)
		case "take":
			v, _, err := once.Take(r.Context(), s)
			n, err2 := count.UpdateNow(r.Context(), s, func(n int) int { return n + 1 })
			if err := errors.Join(err, err2); err != nil {
				fmt.Fprint(w, err)
			}
			fmt.Fprintf(w, "%q is number %d,", v, n)
		case "set":
			session.NewKey[bool](arg).Set(s, true)
		case "slow":
			slow.Set(s, arg)
		case "flash":
			s.AddFlash("", arg)
		case "refresh":
			fmt.Fprint(w, c.refresh(r.Context(), s, arg), " ")
		case "hold":
			s.User()
			c.holding <- struct{}{}
			<-c.release
		}
	}
	fmt.Fprintf(w, "%s %d %d", s.User(), count.Get(s), len(s.Names()))
	if r.URL.Query().Has("flashes") {
		fmt.Fprintf(w, " %d", len(s.Flashes()))
	}
}

// reply is the part of a response that tests check.
type reply struct {
	body   string
	cookie bool // whether the response sets a cookie
}

// get sends a request to one of the servers.
func (c *cluster) get(browser *browsers.Browser, server int, query string) reply {
	c.t.Helper()
	resp, err := browser.Get(c.servers[server%len(c.servers)].URL + "/?" + query)
	if err != nil {
		c.t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Errorf("GET %s: %s %v", query, resp.Status, err)
	}
	return reply{string(body), len(resp.Header["Set-Cookie"]) > 0}
}

// expect checks the body of a reply.
func (c *cluster) expect(r reply, want string) {
	c.t.Helper()
	if r.body != want {
		c.t.Errorf("the browser sees %q, want %q", r.body, want)
	}
}

// copy returns another browser with the current cookies of the first.
func (c *cluster) copy() *browsers.Browser { return c.browser.Copy(c.t, c.servers[0].URL) }

// parallelWrites sends 50 concurrent requests with 50 different keys, 50 increments and 50
// flashes: all must be kept.
func parallelWrites(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { c.get(c.browser, i, fmt.Sprintf("do=set:key%d&do=count&do=flash:f%d", i, i)) })
	}
	wg.Wait()
	c.expect(c.get(c.browser, 1, "flashes"), c.user+" 50 51 50")
}

// parallelTakes checks that of 20 requests that have all read a value, exactly one takes it,
// and that no two of them get the same number.
func parallelTakes(t *testing.T, c *cluster) {
	const n = 20
	c.get(c.browser, 0, "do=login:"+c.user+"&do=offer:voucher")
	var wg sync.WaitGroup
	replies := make([]reply, n)
	for i := range replies {
		wg.Go(func() { replies[i] = c.get(c.browser, i, "do=hold&do=take") })
	}
	for range n {
		<-c.holding
	}
	close(c.release)
	wg.Wait()
	taken, numbers := 0, map[string]bool{}
	for _, r := range replies {
		answer, _, _ := strings.Cut(r.body, ",")
		took, number, _ := strings.Cut(answer, " is ")
		numbers[number] = true
		switch took {
		case `"voucher"`:
			taken++
		case `""`:
		default:
			t.Errorf("a request was answered %q", r.body)
		}
	}
	if taken != 1 || len(numbers) != n {
		t.Errorf("%d requests took the value, want 1; of %d numbers %d are different", taken, n, len(numbers))
	}
	c.expect(c.get(c.browser, 1, ""), fmt.Sprintf("%s %d 1", c.user, n))
}

// slowRequestsOverlapALogout checks readers and writers that loaded their session before a
// logout: none sets a cookie, and the session stays ended.
func slowRequestsOverlapALogout(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	old := c.copy()
	var wg sync.WaitGroup
	replies := make([]reply, 4)
	for i, query := range []string{"do=hold", "do=hold&do=count", "do=count&do=hold", "do=hold&do=renew"} {
		wg.Go(func() { replies[i] = c.get(c.copy(), i, query) })
		<-c.holding
	}
	c.get(c.browser, 1, "do=logout")
	close(c.release)
	wg.Wait()
	for i, r := range replies {
		if r.cookie {
			t.Errorf("slow request %d set a cookie after the logout", i)
		}
	}
	for i := range c.servers {
		c.expect(c.get(old, i, ""), " 0 0")
	}
}

// slowWriterOverlapsALogin checks that a writer that began before a login does not replace the
// cookie of the login.
func slowWriterOverlapsALogin(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=count")
	done := make(chan reply)
	go func() { done <- c.get(c.browser, 1, "do=hold&do=slow:late") }()
	<-c.holding
	c.get(c.browser, 0, "do=login:"+c.user+"&do=count")
	close(c.release)
	if r := <-done; r.cookie {
		t.Error("the slow writer set a cookie after the login")
	}
	c.expect(c.get(c.browser, 1, ""), c.user+" 2 1")
}

// revocationReachesAll checks that sessions that one Manager revokes have ended for the others,
// including a session that was renewed meanwhile.
func revocationReachesAll(t *testing.T, c *cluster) {
	phone := browsers.New(t, nil)
	c.get(c.browser, 0, "do=login:"+c.user)
	c.get(phone, 1, "do=login:"+c.user)
	done := make(chan reply)
	go func() { done <- c.get(phone, 1, "do=renew&do=hold") }()
	<-c.holding
	if err := c.managers[0].RevokeAll(context.Background(), c.user); err != nil {
		t.Fatal(err)
	}
	close(c.release)
	<-done
	for i := range c.servers {
		c.expect(c.get(phone, i, ""), " 0 0")
		c.expect(c.get(c.browser, i, ""), " 0 0")
	}
	if live, err := c.managers[1].List(context.Background(), c.user); err != nil || len(live) != 0 {
		t.Errorf("%d live sessions (%v), want none", len(live), err)
	}
}
