// Package dashboard is a test: many browsers repeatedly send twenty concurrent requests to
// several processes, while their tokens are renewed, a tenth of the responses is lost, some
// requests last over several renewals, and users occasionally log out.
package dashboard

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

var visits = session.NewKey[int]("visits")

// Handler is the handler that each process wraps in its Manager.
func Handler(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	switch r.URL.Path {
	case "/login":
		s.Login(r.FormValue("user"))
	case "/logout":
		s.Logout()
	case "/visits":
		fmt.Fprint(w, visits.Get(s))
	default: // shows the user, after the requested time, and counts if requested
		user := s.User()
		takes, _ := time.ParseDuration(r.FormValue("takes"))
		time.Sleep(takes)
		if r.FormValue("count") != "" {
			visits.Update(s, func(n int) int { return n + 1 })
		}
		fmt.Fprint(w, user)
	}
}

// Crowd is the browsers, each with a user of its own.
type Crowd struct {
	Processes []http.Handler
	Browsers  int
	Again     func() bool   // reports whether there is another round
	Pause     time.Duration // maximum time between two rounds
	Short     time.Duration // maximum duration of a request
	Long      time.Duration // maximum duration of one request in a hundred

	Requests, Lost, Logouts atomic.Int64
}

// Run runs the browsers. It fails t if a request of a logged-in browser is answered as
// anonymous, a request after a logout is answered as a user, or a write is lost.
func (c *Crowd) Run(t testing.TB) {
	var all sync.WaitGroup
	for i := range c.Browsers {
		all.Go(func() {
			b := &browser{t: t, c: c, user: fmt.Sprint("user", i), rand: rand.New(rand.NewPCG(uint64(i), 7))}
			b.logIn()
			for c.Again() {
				b.together(20)
				time.Sleep(b.some(c.Pause))
				if b.rand.IntN(6) == 0 {
					b.logOut()
					b.logIn()
				}
			}
			b.logOut()
		})
	}
	all.Wait()
}

type browser struct {
	t    testing.TB
	c    *Crowd
	user string
	rand *rand.Rand     // used by the goroutine that plans only
	long sync.WaitGroup // long-lived requests

	mu      sync.Mutex
	cookie  string
	cookies map[string]bool // all cookies that the browser has had
	counted int

	// starved is whether, since the login, a request took so long on a slow machine that its
	// token may have ended meanwhile. Its writes may be missing.
	starved atomic.Bool
}

// patience is the time that a request may take beyond its duration without its token ending:
// less than the ten seconds for which a previous token is valid.
const patience = 5 * time.Second

func (b *browser) some(most time.Duration) time.Duration {
	return time.Duration(b.rand.Int64N(int64(most)))
}

// get sends one request to a process. The browser keeps the cookie of the response unless the
// response is lost.
func (b *browser) get(process int, target, cookie string, lost bool) string {
	r := httptest.NewRequest("GET", "https://localhost"+target, nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	b.c.Processes[process].ServeHTTP(w, r)
	if b.c.Requests.Add(1); w.Code != http.StatusOK {
		b.t.Errorf("%s: %d %s", target, w.Code, w.Body)
	}
	if lost {
		b.c.Lost.Add(1)
		return w.Body.String()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range w.Result().Cookies() {
		if b.cookie = ""; c.MaxAge >= 0 {
			b.cookie = c.Name + "=" + c.Value
			b.cookies[b.cookie] = true
		}
	}
	return w.Body.String()
}

func (b *browser) now() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cookie
}

func (b *browser) process() int { return b.rand.IntN(len(b.c.Processes)) }

func (b *browser) logIn() {
	b.cookies, b.counted = map[string]bool{}, 0
	b.starved.Store(false)
	b.get(b.process(), "/login?user="+b.user, "", false)
}

// together sends concurrent requests. It does not wait for one in a hundred.
func (b *browser) together(n int) {
	var short sync.WaitGroup
	for range n {
		process, lost, takes, wait := b.process(), b.rand.IntN(10) == 0, b.some(b.c.Short), short.Go
		if b.rand.IntN(100) == 0 {
			takes, wait = b.some(b.c.Long), b.long.Go
		}
		target := "/?takes=" + takes.String()
		if b.rand.IntN(3) > 0 {
			target += "&count=1"
			b.counted++
		}
		wait(func() {
			began := time.Now()
			got := b.get(process, target, b.now(), lost)
			switch {
			case got == b.user:
			case got == "" && (time.Since(began) > takes+patience || b.starved.Load()):
				b.starved.Store(true)
			default:
				b.t.Errorf("%s was answered as %q", b.user, got)
			}
		})
	}
	short.Wait()
}

// logOut checks the count, logs out, and tries every token that the browser has had.
func (b *browser) logOut() {
	b.long.Wait()
	if got := b.get(b.process(), "/visits", b.now(), false); got != fmt.Sprint(b.counted) && !b.starved.Load() {
		b.t.Errorf("%s: %s of %d writes were kept", b.user, got, b.counted)
	}
	b.get(b.process(), "/logout", b.now(), false)
	b.c.Logouts.Add(1)
	for cookie := range b.cookies {
		if got := b.get(b.process(), "/", cookie, true); got != "" {
			b.t.Errorf("after the Logout of %s: logged in as %q", b.user, got)
		}
	}
}
