package session_test

import (
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// Promise 3. A browser asks every few seconds, often several times at once; responses
// take up to 20 seconds, arrive in any order, or are lost. No automatic renewal signs
// its user out, and its key is renewed all the same.
func TestAutomaticRenewalsAtRandom(t *testing.T) {
	for seed := range uint64(200) {
		atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
			rng := rand.New(rand.NewPCG(seed, 0))
			b := d.browser()
			first := b.cookie()
			var all sync.WaitGroup
			defer all.Wait()
			began := time.Now()
			var history []string
			for time.Since(began) < 15*minute && !t.Failed() {
				time.Sleep(time.Duration(rng.IntN(10000))*time.Millisecond + 1)
				for range 1 + rng.IntN(3)*rng.IntN(2) {
					held := b.cookie()
					reads := func(s *session.Session) { s.User() }
					if rng.IntN(3) == 0 {
						reads = func(s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) }
					}
					in := ""
					d.f = func(s *session.Session) {
						reads(s)
						in = s.User()
					}
					w := httptest.NewRecorder()
					b.h.ServeHTTP(w, b.request("/"))
					delay, isLost := time.Duration(rng.IntN(20000))*time.Millisecond, rng.IntN(3) == 0
					if rng.IntN(2) == 0 {
						delay = 0
					}
					history = append(history, fmt.Sprintf("%v: with …%s as %q, sets a cookie: %v, lost %v, takes %v",
						time.Since(began), held[len(held)-6:], in, setsCookie(w.Result()), isLost, delay))
					if in != "alice" {
						for _, line := range history[max(0, len(history)-25):] {
							t.Log(line)
						}
						t.Errorf("seed %d: answered as %q", seed, in)
						return
					}
					if cookies := w.Result().Cookies(); len(cookies) > 0 && !isLost {
						all.Go(func() {
							time.Sleep(delay)
							b.jar.SetCookies(origin, cookies)
						})
					}
				}
			}
			time.Sleep(minute)
			if b.cookie() == first {
				t.Errorf("seed %d: the key was never renewed", seed)
			}
			d.expectReplaced(b.replay(first))
		})
	}
}
