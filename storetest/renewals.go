package storetest

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// These are the races of RunManagers in which a session gets another token.

// together sends n requests at once, to both servers in turn, and returns how
// many of the replies set a cookie, and what they say.
func (c *cluster) together(browser *http.Client, n int, query func(i int) string) (cookies int, bodies []string) {
	var wg sync.WaitGroup
	replies := make([]reply, n)
	for i := range replies {
		wg.Go(func() { replies[i] = c.get(browser, i, query(i)) })
	}
	wg.Wait()
	for _, r := range replies {
		if bodies = append(bodies, r.body); r.cookie {
			cookies++
		}
	}
	return cookies, bodies
}

// expectAll checks that all bodies are the user's, whatever else they say.
func (c *cluster) expectAll(bodies []string, when string) {
	c.t.Helper()
	for _, body := range bodies {
		var user string
		if fmt.Sscan(body, &user); user != c.user {
			c.t.Errorf("a request %s is answered as %q: a renewal loses nobody", when, body)
		}
	}
}

// parallelRenewals: of twenty renewals one makes a token, and it is in the one
// cookie. The token before sees for a while what it saw.
func parallelRenewals(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user+"&do=count")
	old := c.copy()
	var wg sync.WaitGroup
	var mu sync.Mutex
	cookies := 0
	for i := range 20 {
		wg.Go(func() {
			if c.get(c.browser, i, "do=hold&do=renew&do=count").cookie {
				mu.Lock()
				cookies++
				mu.Unlock()
			}
		})
		<-c.holding
	}
	close(c.release)
	wg.Wait()
	if cookies != 1 {
		t.Errorf("%d renewals set a cookie, want 1", cookies)
	}
	c.expect(c.get(c.browser, 0, ""), c.user+" 21 1")
	r := c.get(old, 1, "")
	c.expectAll([]string{r.body}, "with the token before a renewal")
	if r.body == c.user+" 21 1" {
		t.Error("the token before a renewal sees what came after it")
	}
	c.expectOne()
}

// expectOne checks that the user has one session.
func (c *cluster) expectOne() {
	c.t.Helper()
	if live, err := c.managers[0].List(context.Background(), c.user); err != nil || len(live) != 1 {
		c.t.Errorf("%d live sessions (%v), want 1", len(live), err)
	}
}

// requestsOverlapARenewal: ten requests have loaded their session before it, and
// twenty arrive after it with the token of before. None is answered as nobody,
// none sets a cookie, and all their writes are kept.
func requestsOverlapARenewal(t *testing.T, c *cluster, renewal string) {
	c.get(c.browser, 0, "do=login:"+c.user+"&do=set:first")
	old := c.copy()
	var wg sync.WaitGroup
	slow := make([]reply, 10)
	for i := range slow {
		wg.Go(func() { slow[i] = c.get(old, i, fmt.Sprintf("do=hold&do=set:slow%d&do=count", i)) })
		<-c.holding
	}
	if !c.get(c.browser, 1, "do="+renewal+"&do=set:after").cookie {
		t.Fatalf("%s set no cookie", renewal)
	}
	cookies, bodies := c.together(old, 20, func(i int) string { return fmt.Sprintf("do=set:late%d&do=count", i) })
	close(c.release)
	wg.Wait()
	for _, r := range slow {
		if bodies = append(bodies, r.body); r.cookie {
			cookies++
		}
	}
	c.expectAll(bodies, "with the token before a renewal")
	if cookies > 0 {
		t.Errorf("%d of them set a cookie, over the newer one", cookies)
	}
	c.expect(c.get(old, 0, ""), c.user+" 0 1") // as it was
	c.expect(c.get(c.browser, 1, ""), c.user+" 30 33")
	c.expectOne()
}

// renewalByAge: twenty requests find the token old. One makes another, nobody is
// lost, and both tokens see the same until the new one has come; then still,
// for a while.
func renewalByAge(t *testing.T, c *cluster) {
	for !c.renewsByAge() { // the machine was too slow to send all requests within that while
		c.user, c.browser = crand.Text(), newBrowser(t)
	}
}

// renewsByAge is one try of renewalByAge. It returns false if it has not judged the
// answers to the token before, which came too late.
func (c *cluster) renewsByAge() bool {
	c.get(c.browser, 0, "do=login:"+c.user)
	c.age()
	old := c.copy()
	cookies, bodies := c.together(c.browser, 20, func(int) string { return "do=count" })
	if c.expectAll(bodies, "that renews by age"); cookies != 1 {
		c.t.Errorf("%d of twenty requests at once got a new token, want 1", cookies)
	}
	c.expect(c.get(old, 0, ""), c.user+" 20 1")
	came := time.Now()
	c.expect(c.get(c.browser, 1, ""), c.user+" 20 1")
	again := c.get(old, 0, "")
	cookies, bodies = c.together(old, 20, func(int) string { return "do=count" })
	if time.Since(came) > previousToken {
		return false
	}
	c.expect(again, c.user+" 20 1")
	if c.expectAll(bodies, "with the token before"); cookies != 0 {
		c.t.Errorf("%d requests got another token although the new one has come", cookies)
	}
	c.expect(c.get(c.browser, 0, ""), c.user+" 40 1")
	c.expectOne()
	return true
}

// previousToken is how long the token before is good once the one that a renewal by
// age made has come.
const previousToken = 10 * time.Second

// age makes the user's session look as if it had begun an hour ago.
func (c *cluster) age() {
	c.t.Helper()
	ctx := context.Background()
	records, err := c.store.List(ctx, c.user)
	if err != nil || len(records) != 1 {
		c.t.Fatalf("%d records (%v), want 1", len(records), err)
	}
	r := *records[0]
	r.Created, r.Version = r.Created.Add(-time.Hour), rand.Uint64()>>1|1
	if err := c.store.Save(ctx, &r, records[0].Version); err != nil {
		c.t.Fatal(err)
	}
}

// logoutOverlapsARenewal: whichever token a Logout comes with, no renewal that
// overlaps it survives it.
func logoutOverlapsARenewal(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	old := c.copy()
	var renewed []*http.Client
	var wg sync.WaitGroup
	for i, renewal := range []string{"renew", "remember", "renew"} {
		b := c.copy()
		renewed = append(renewed, b)
		wg.Go(func() { c.get(b, i, "do=hold&do="+renewal) })
		<-c.holding
	}
	c.get(c.browser, 1, "do=renew")
	c.get(old, 0, "do=logout")
	close(c.release)
	wg.Wait()
	for i, b := range append(renewed, old, c.browser) {
		c.expect(c.get(b, i, ""), " 0 0")
	}
	live, err := c.managers[1].List(context.Background(), c.user)
	if err != nil || len(live) != 0 {
		t.Errorf("%d live sessions (%v), want none", len(live), err)
	}
}
