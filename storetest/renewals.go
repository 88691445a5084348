package storetest

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/testing/browsers"
)

// This file contains the cases of RunManagers about sessions that get another token.

// together sends n concurrent requests, to the servers in turn. It returns the number of
// replies that set a cookie, and the bodies.
func (c *cluster) together(browser *browsers.Browser, n int, query func(i int) string) (cookies int, bodies []string) {
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

// expectAll checks that all bodies begin with the user.
func (c *cluster) expectAll(bodies []string, when string) {
	c.t.Helper()
	for _, body := range bodies {
		var user string
		if fmt.Sscan(body, &user); user != c.user {
			c.t.Errorf("a request %s was answered as %q, want the user: a renewal must sign no user out", when, body)
		}
	}
}

// parallelRenewals checks that of twenty concurrent renewals exactly one creates a token and
// sets a cookie. A request with the previous token sees the session as it was before.
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
	c.expectAll([]string{r.body}, "with the previous token of a renewal")
	if r.body == c.user+" 21 1" {
		t.Error("a request with the previous token sees the session after the renewal")
	}
	c.expectOne()
}

// expectOne checks that the user has exactly one session.
func (c *cluster) expectOne() {
	c.t.Helper()
	if live, err := c.managers[0].List(context.Background(), c.user); err != nil || len(live) != 1 {
		c.t.Errorf("%d live sessions (%v), want 1", len(live), err)
	}
}

// requestsOverlapARenewal sends ten requests that have loaded their session before a renewal,
// and twenty that arrive after it with the previous token. All are answered as the user, none
// sets a cookie, and all their writes are kept.
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
	c.expectAll(bodies, "with the previous token")
	if cookies > 0 {
		t.Errorf("%d requests with the previous token set a cookie, which replaces the newer one", cookies)
	}
	c.expect(c.get(old, 0, ""), c.user+" 0 1") // the session before the renewal
	c.expect(c.get(c.browser, 1, ""), c.user+" 30 33")
	c.expectOne()
}

// automaticRenewal sends twenty requests with a token that is older than RenewAfter. One of
// them creates a token and all are answered as the user. Both tokens show the same session,
// before the new token was first presented and for previousToken afterwards.
func automaticRenewal(t *testing.T, c *cluster) {
	for !c.renewsAutomatically() { // the machine was too slow to send all requests within previousToken
		c.user, c.browser = crand.Text(), browsers.New(t, nil)
	}
}

// renewsAutomatically is one try of automaticRenewal. It returns false if the requests with the
// previous token took too long to be judged.
func (c *cluster) renewsAutomatically() bool {
	c.get(c.browser, 0, "do=login:"+c.user)
	c.age()
	old := c.copy()
	cookies, bodies := c.together(c.browser, 20, func(int) string { return "do=count" })
	if c.expectAll(bodies, "during an automatic renewal"); cookies != 1 {
		c.t.Errorf("%d of twenty concurrent requests got a new token, want 1", cookies)
	}
	c.expect(c.get(old, 0, ""), c.user+" 20 1")
	presented := time.Now()
	c.expect(c.get(c.browser, 1, ""), c.user+" 20 1")
	again := c.get(old, 0, "")
	cookies, bodies = c.together(old, 20, func(int) string { return "do=count" })
	if time.Since(presented) > previousToken {
		return false
	}
	c.expect(again, c.user+" 20 1")
	if c.expectAll(bodies, "with the previous token"); cookies != 0 {
		c.t.Errorf("%d requests with the previous token got another token after the new one was presented", cookies)
	}
	c.expect(c.get(c.browser, 0, ""), c.user+" 40 1")
	c.expectOne()
	return true
}

// previousToken is the time that the previous token stays valid after the new token of an
// automatic renewal was first presented.
const previousToken = 10 * time.Second

// age changes the record so that the session seems to have begun an hour ago.
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

// logoutOverlapsARenewal checks that no concurrent renewal survives a Logout, whichever token
// the Logout was sent with.
func logoutOverlapsARenewal(t *testing.T, c *cluster) {
	c.get(c.browser, 0, "do=login:"+c.user)
	old := c.copy()
	var renewed []*browsers.Browser
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
