package main

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	parallel = 50
	rounds   = 5  // number of runs of the parallel writes
	trials   = 10 // number of runs of each other race
)

// races are the rows of the table.
var races = []struct {
	name string
	run  func(s *site) string
}{
	{"50 parallel writes of different keys: number that is kept", parallelWrites},
	{"50 parallel increments: value of the counter", parallelIncrements},
	{"a slow request saves after the logout: the browser is signed in again", func(s *site) string { return slowLogout(s, false) }},
	{"…: the cookie from before the logout is valid again", func(s *site) string { return slowLogout(s, true) }},
	{"a slow writer answers after a login: the browser keeps the new cookie", slowWriter},
	{"50 requests of a logged-in browser overlap a renewal of its token: answered as anonymous", renewalAnswers},
	{"…: their writes that the browser sees afterwards", renewalWrites},
	{"…: the token from before the renewal is still valid a minute later", oldToken},
	{"a change after the first byte of the response is kept", lateChange},
	{"`sendfile` survives the middleware", sendfile},
}

func parallelWrites(s *site) string {
	return spread(func(gate string) int {
		b := newBrowser(s)
		b.get("/set?key=first&value=1")
		together(b, gate, func(i int) { b.get(fmt.Sprintf("/set?key=k%d&value=1&gate=%s", i, gate)) })
		n := 0
		for i := range parallel {
			if b.get(fmt.Sprintf("/get?key=k%d", i)) == "1" {
				n++
			}
		}
		return n
	})
}

func parallelIncrements(s *site) string {
	return spread(func(gate string) int {
		b := newBrowser(s)
		b.get("/set?key=first&value=1")
		together(b, gate, func(int) { b.get("/add?gate=" + gate) })
		n, err := strconv.Atoi(b.get("/count"))
		if err != nil {
			b.fail(err)
		}
		return n
	})
}

// slowLogout logs the user out while a request is in flight, which then saves.
func slowLogout(s *site, replay bool) string {
	return count(func(gate string) bool {
		b := newBrowser(s)
		b.get("/set?key=first&value=1")
		b.get("/login?user=alice")
		if got := b.get("/whoami"); got != "alice" {
			b.fail(fmt.Errorf("after the login: %q", got))
		}
		old := b.clone()
		b.overtake("/set?key=slow&value=1&gate="+gate, gate, func() { b.get("/logout") })
		if replay {
			return old.get("/whoami") == "alice"
		}
		return b.get("/whoami") == "alice"
	})
}

// slowWriter logs the visitor in while a request is in flight, which then saves and whose
// response arrives last.
func slowWriter(s *site) string {
	return count(func(gate string) bool {
		b := newBrowser(s)
		b.get("/set?key=first&value=1")
		b.overtake("/set?key=slow&value=1&gate="+gate, gate, func() { b.get("/login?user=alice") })
		return b.get("/whoami") == "alice"
	})
}

// renewalAnswers renews the token of a browser while requests have arrived and not loaded their
// session.
func renewalAnswers(s *site) string {
	return spread(func(gate string) int {
		anonymous, _ := overlapRenewal(s, gate)
		return anonymous
	})
}

func renewalWrites(s *site) string {
	return spread(func(gate string) int {
		_, kept := overlapRenewal(s, gate)
		return kept
	})
}

// overlapRenewal returns the number of requests that were answered as anonymous, and the number
// of their writes that the browser sees after all responses.
func overlapRenewal(s *site, gate string) (anonymous, kept int) {
	b := newBrowser(s)
	b.get("/login?user=alice")
	b.get("/set?key=first&value=1")
	answers := make([]string, parallel)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = b.get(fmt.Sprintf("/look?key=k%d&arrive=%s", i, gate)) })
	}
	b.get(fmt.Sprintf("/await?gate=%s&n=%d", gate, parallel))
	b.get("/renew")
	b.get("/open?gate=" + gate)
	wg.Wait()
	for i, user := range answers {
		if user != "alice" {
			anonymous++
		}
		if b.get(fmt.Sprintf("/get?key=k%d", i)) == "1" {
			kept++
		}
	}
	return anonymous, kept
}

// renewed is a browser with the token from before its renewal.
type renewed struct {
	before *browser
	when   time.Time
}

// renew logs in and renews before the other races, so that the minute of oldToken passes for
// all sites at the same time.
func (s *site) renew() {
	b := newBrowser(s)
	b.get("/login?user=alice")
	s.renewed.before = b.clone()
	b.get("/renew")
	s.renewed.when = time.Now()
	if got := b.get("/whoami"); got != "alice" {
		b.fail(fmt.Errorf("after the renewal: %q", got))
	}
}

func oldToken(s *site) string {
	time.Sleep(time.Until(s.renewed.when.Add(61 * time.Second)))
	return yes(s.renewed.before.get("/whoami") == "alice")
}

func lateChange(s *site) string {
	b := newBrowser(s)
	b.get("/set?key=first&value=1")
	b.get("/late?key=late&value=1")
	return yes(b.get("/get?key=late") == "1")
}

func sendfile(s *site) string {
	if s.sendfiles == nil {
		return "–"
	}
	before := s.sendfiles.Load()
	b := newBrowser(s)
	b.get("/set?key=first&value=1")
	b.get("/file")
	return yes(s.sendfiles.Load() > before)
}

// together sends many requests, and lets them continue when all have loaded their session.
func together(b *browser, gate string, send func(i int)) {
	var wg sync.WaitGroup
	for i := range parallel {
		wg.Go(func() { send(i) })
	}
	b.get(fmt.Sprintf("/await?gate=%s&n=%d", gate, parallel))
	b.get("/open?gate=" + gate)
	wg.Wait()
}

// overtake sends a request that waits at a gate with its session loaded, and opens the gate
// after f.
func (b *browser) overtake(path, gate string, f func()) {
	var wg sync.WaitGroup
	wg.Go(func() { b.get(path) })
	b.get("/await?n=1&gate=" + url.QueryEscape(gate))
	f()
	b.get("/open?gate=" + gate)
	wg.Wait()
}

// spread runs f several times and returns the minimum and the maximum.
func spread(f func(gate string) int) string {
	var all []int
	for range rounds {
		all = append(all, f(nextGate()))
	}
	if least, most := slices.Min(all), slices.Max(all); least < most {
		return fmt.Sprintf("%d to %d", least, most)
	}
	return strconv.Itoa(all[0])
}

func count(f func(gate string) bool) string {
	n := 0
	for range trials {
		if f(nextGate()) {
			n++
		}
	}
	return fmt.Sprintf("%d of %d", n, trials)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

var gateNumber int

func nextGate() string {
	gateNumber++
	return fmt.Sprint("g", gateNumber)
}
