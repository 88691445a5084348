package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// A dashboard on three processes: many browsers, each of which sends twenty
// requests at once, again and again, while its token is renewed every minute. A
// tenth of the responses is lost, some requests last over several renewals, and
// now and then somebody signs out. Nobody who is logged in is ever answered as
// nobody, nobody as somebody after his Logout, and no write is lost.
func TestDashboardOnThreeProcesses(t *testing.T) {
	const browsers, rounds, atOnce = 100, 12, 20
	synctest.Test(t, func(t *testing.T) {
		store := session.NewMemoryStore(nil)
		var log events
		var processes [3]http.Handler
		for i := range processes {
			processes[i] = newManager(t, session.Options{Store: store, RenewAfter: time.Minute, OnEvent: log.on}).Handler(dashboard)
		}
		var lost atomic.Int64
		var all sync.WaitGroup
		for i := range browsers {
			all.Go(func() {
				v := &viewer{t: t, user: fmt.Sprint("user", i), processes: processes, lost: &lost, rand: rand.New(rand.NewPCG(uint64(i), 7))}
				for range 2 {
					v.logIn()
					for range rounds / 2 {
						v.together(atOnce)
						time.Sleep(time.Duration(v.rand.IntN(60_000)) * time.Millisecond)
					}
					v.logOut()
				}
			})
		}
		all.Wait()
		renewed, replayed := log.count(session.EventRenewed), log.count(session.EventReplayed)
		if renewed < browsers || lost.Load() < browsers || log.count(session.EventConflict) < browsers {
			t.Errorf("too quiet: %d renewals, %d lost responses", renewed, lost.Load())
		}
		if n := log.count(session.EventDropped); n > 0 {
			t.Errorf("%d changes were dropped: %v", n, log.last(session.EventDropped))
		}
		t.Logf("%d renewals, %d conflicts, %d responses lost, %d replayed tokens", renewed, log.count(session.EventConflict), lost.Load(), replayed)
	})
}

// dashboard counts the requests of a session that takes as long as it is asked to.
var dashboard = routes{
	"/login":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login(r.URL.RawQuery) },
	"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
	"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		user := s.User()
		takes, _ := time.ParseDuration(r.URL.RawQuery)
		time.Sleep(takes)
		visits.Update(s, func(n int) int { return n + 1 })
		fmt.Fprint(w, user)
	},
	"/visits": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, visits.Get(s)) },
	"/who":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.User()) },
}

// A viewer is a user and his browser.
type viewer struct {
	t         *testing.T
	user      string
	processes [3]http.Handler
	lost      *atomic.Int64
	rand      *rand.Rand // of the goroutine that plans
	under     sync.WaitGroup

	mu      sync.Mutex
	cookie  string
	cookies map[string]bool // all that the browser ever had
	sent    int
}

// get sends one request to some process. Its answer's cookie arrives unless the
// response is lost.
func (v *viewer) get(process int, target, cookie string, lost bool) string {
	r := httptest.NewRequest("GET", "https://localhost"+target, nil).WithContext(context.Background())
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := httptest.NewRecorder()
	v.processes[process].ServeHTTP(w, r)
	if w.Code != 200 {
		v.t.Error(target, w.Code, w.Body)
	}
	if lost {
		v.lost.Add(1)
		return w.Body.String()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range w.Result().Cookies() {
		if v.cookie = ""; c.MaxAge >= 0 {
			v.cookie = c.Name + "=" + c.Value
			v.cookies[v.cookie] = true
		}
	}
	return w.Body.String()
}

func (v *viewer) now() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cookie
}

func (v *viewer) logIn() {
	v.cookies, v.sent = map[string]bool{}, 0
	v.get(v.rand.IntN(3), "/login?"+v.user, "", false)
}

// together sends requests at once, of which a few take minutes.
func (v *viewer) together(n int) {
	var quick sync.WaitGroup
	for range n {
		process, lost, takes := v.rand.IntN(3), v.rand.IntN(10) == 0, time.Duration(v.rand.IntN(2000))*time.Millisecond
		wait := quick.Go
		if v.rand.IntN(100) == 0 {
			takes, wait = time.Duration(1+v.rand.IntN(4))*time.Minute, v.under.Go
		}
		v.sent++
		wait(func() {
			if got := v.get(process, "/?"+takes.String(), v.now(), lost); got != v.user {
				v.t.Errorf("%s is answered as %q", v.user, got)
			}
		})
	}
	quick.Wait()
}

// logOut counts what was kept, signs out, and tries every token there was.
func (v *viewer) logOut() {
	v.under.Wait()
	if got := v.get(0, "/visits", v.now(), false); got != fmt.Sprint(v.sent) {
		v.t.Errorf("%s: %s of %d writes were kept", v.user, got, v.sent)
	}
	v.get(v.rand.IntN(3), "/logout", v.now(), false)
	for cookie := range v.cookies {
		if got := v.get(v.rand.IntN(3), "/who", cookie, true); got != "" {
			v.t.Errorf("after the Logout of %s: answered as %q", v.user, got)
		}
	}
}
