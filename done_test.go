package session_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

const watchEvery = 5 * time.Second // the default of Options.WatchEvery

// stream is a long-lived request that waits for the end of its session.
type stream struct {
	ended   atomic.Int64 // time from the begin until Done was closed; 0: Done is open
	hangUp  func()       // cancels the request
	stopped chan struct{}
}

func (st *stream) String() string {
	if d := time.Duration(st.ended.Load()); d > 0 {
		return fmt.Sprint("ended after ", d-1)
	}
	return "open"
}

// listen opens a stream with the browser's cookie, and returns when it is open.
func (b *browser) listen(m *session.Manager) *stream { return b.listenAs(m, func(*session.Session) {}) }

// listenPassively opens a stream that does not count as use.
func (b *browser) listenPassively(m *session.Manager) *stream {
	return b.listenAs(m, (*session.Session).MarkPassive)
}

func (b *browser) listenAs(m *session.Manager, what func(*session.Session)) *stream {
	ctx, cancel := context.WithCancel(b.t.Context())
	st := &stream{hangUp: cancel, stopped: make(chan struct{})}
	opened := make(chan struct{})
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what(session.From(r.Context()))
		began, done := time.Now(), session.From(r.Context()).Done()
		close(opened)
		select {
		case <-done:
			st.ended.Store(int64(time.Since(began)) + 1)
		case <-r.Context().Done():
		}
	}))
	go func() {
		defer close(st.stopped)
		(&browser{b.t, h, b.jar}).do(b.request("/stream").WithContext(ctx))
	}()
	<-opened
	return st
}

// inWatch runs a test of streams with two Managers over one store, on a fake clock.
func inWatch(t *testing.T, o session.Options, f func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser)) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		o.Store, o.IdleTimeout, o.Lifetime, o.RenewAfter = spy, 20*minute, 120*minute, minute
		here, there := newManager(t, o), newManager(t, o)
		b := newBrowser(t, here.Handler(endRoutes))
		b.get("/login")
		f(t, spy, here, there, b)
	})
}

// endRoutes contains routes that end sessions, and some that do not.
var endRoutes = routes{
	"/look":     func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.User()) },
	"/set":      func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "value") },
	"/clear":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Clear() },
	"/login":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
	"/again":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
	"/bob":      func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("bob") },
	"/renew":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
	"/remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Remember(30 * day) },
	"/logout":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
}

// at returns a browser with the same cookies that sends its requests to another process.
func (b *browser) at(m *session.Manager) *browser {
	return &browser{b.t, m.Handler(endRoutes), b.jar}
}

// TestDone checks that Done is closed for every way in which a session ends: immediately if
// this process ended it, and within WatchEvery if another did.
func TestDone(t *testing.T) {
	only := func(t *testing.T, m *session.Manager) session.Info {
		list, err := m.List(t.Context(), "alice")
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0]
	}
	for name, end := range map[string]func(t *testing.T, m *session.Manager, b *browser) error{
		"logout":       func(t *testing.T, m *session.Manager, b *browser) error { b.at(m).get("/logout"); return nil },
		"another user": func(t *testing.T, m *session.Manager, b *browser) error { b.at(m).get("/bob"); return nil },
		"Revoke": func(t *testing.T, m *session.Manager, b *browser) error {
			return m.Revoke(t.Context(), "alice", only(t, m).ID)
		},
		"RevokeAll": func(t *testing.T, m *session.Manager, b *browser) error { return m.RevokeAll(t.Context(), "alice") },
		"RevokeOthers": func(t *testing.T, m *session.Manager, b *browser) (err error) {
			other := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				s.Login("alice")
				s.Save(r.Context())
				err = m.RevokeOthers(r.Context(), s)
			})))
			other.get("/")
			return err
		},
		"MaxPerUser": func(t *testing.T, m *session.Manager, b *browser) error {
			time.Sleep(time.Nanosecond) // of logins with the same time this one may be the one that ends
			newBrowser(t, m.Handler(endRoutes)).get("/login")
			newBrowser(t, m.Handler(endRoutes)).get("/login")
			return nil
		},
		"an EndBy in an Edit": func(t *testing.T, m *session.Manager, b *browser) error {
			return m.Edit(t.Context(), "alice", only(t, m).ID, func(s *session.Session) { s.EndBy(time.Now()) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWatch(t, session.Options{MaxPerUser: 2}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
				st := b.listen(here)
				time.Sleep(minute)
				loads := spy.count("Load")
				if err := end(t, here, b); err != nil {
					t.Fatal(err)
				}
				if synctest.Wait(); fmt.Sprint(st) == "open" {
					t.Error("ended by this process, and Done is open")
				}
				time.Sleep(minute)
				if n := spy.count("Load") - loads; n > 5 { // loads of the end itself
					t.Errorf("%d loads afterwards", n)
				}
			})
			inWatch(t, session.Options{MaxPerUser: 2}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
				st := b.listen(here)
				time.Sleep(minute)
				if err := end(t, there, b); err != nil {
					t.Fatal(err)
				}
				if time.Sleep(watchEvery); fmt.Sprint(st) == "open" {
					t.Error("ended by the other process, and Done is open")
				}
			})
		})
	}
}

// TestDoneOfTime checks that Done is closed when the session expires, and that waiting for it
// does not count as use.
func TestDoneOfTime(t *testing.T) {
	for _, use := range []bool{false, true} {
		inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
			st := b.listen(here)
			left := 20 * minute
			if use { // the absolute end comes first
				for range 11 {
					time.Sleep(10 * minute)
					b.get("/look")
				}
				left = 10 * minute
			}
			if time.Sleep(left - 1); fmt.Sprint(st) != "open" {
				t.Error(st)
			}
			if time.Sleep(watchEvery + 1); fmt.Sprint(st) == "open" {
				t.Error("the session has expired, and Done is open")
			}
		})
	}
}

// TestDoneStaysOpen checks that an automatic renewal, a change, and a failing store do not
// close Done, and that a later end does.
func TestDoneStaysOpen(t *testing.T) {
	for name, do := range map[string]func(t *testing.T, spy *spyStore, b *browser){
		"automatic renewals": func(t *testing.T, spy *spyStore, b *browser) {
			for range 10 {
				before := b.cookie()
				time.Sleep(61 * time.Second)
				if b.get("/look"); b.cookie() == before {
					t.Error("the token was not renewed")
				}
			}
		},
		"changes": func(t *testing.T, spy *spyStore, b *browser) {
			for _, path := range []string{"/set", "/clear", "/look"} {
				b.get(path)
				time.Sleep(minute)
			}
		},
		"an outage": func(t *testing.T, spy *spyStore, b *browser) {
			spy.down.Store(true)
			time.Sleep(4 * minute)
			spy.down.Store(false)
		},
		"a store that hangs": func(t *testing.T, spy *spyStore, b *browser) {
			spy.hook(func(ctx context.Context, call, id string) error { <-ctx.Done(); return ctx.Err() })
			time.Sleep(4 * minute)
			spy.hook(nil)
			time.Sleep(watchEvery) // also the time for which the last call hangs
		},
		"a store that panics": func(t *testing.T, spy *spyStore, b *browser) {
			spy.hook(func(ctx context.Context, call, id string) error { panic("oh") })
			time.Sleep(4 * minute)
			spy.hook(nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
				st := b.listen(here)
				do(t, spy, b.at(there))
				do(t, spy, b.at(here))
				if synctest.Wait(); fmt.Sprint(st) != "open" {
					t.Error(st)
				}
				b.at(there).get("/logout")
				if time.Sleep(watchEvery); fmt.Sprint(st) == "open" {
					t.Error("Done is open after the end")
				}
			})
		})
	}
}

// renews are the routes of explicit renewals.
var renews = []string{"/renew", "/again", "/remember"}

// TestDoneAfterAnExplicitRenewal: promise 3. An explicit renewal by another request closes Done
// at the end of its grace: immediately in the process of the renewal, within WatchEvery in
// another. Done of a stream with the new token stays open.
func TestDoneAfterAnExplicitRenewal(t *testing.T) {
	for _, grace := range []time.Duration{0, 30 * time.Second, -1} {
		for _, path := range renews {
			for _, elsewhere := range []bool{false, true} {
				t.Run(fmt.Sprint(path, " elsewhere ", elsewhere, " grace ", grace), func(t *testing.T) {
					inWatch(t, session.Options{RenewGrace: grace}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
						thief := b.replay(b.cookie())
						before := thief.listen(here)
						time.Sleep(time.Second)
						at := here
						if elsewhere {
							at = there
						}
						renewed := time.Now()
						b.at(at).get(path)
						wait := grace
						switch {
						case grace == 0:
							wait = 10 * time.Second
						case grace < 0:
							wait = 0
						}
						during := before
						if wait > 0 {
							during = thief.listen(here) // sees the session before the renewal
						}
						after := b.listen(here)
						time.Sleep(time.Until(renewed.Add(wait)) - 1)
						if wait > 0 && (fmt.Sprint(before) != "open" || fmt.Sprint(during) != "open") {
							t.Errorf("within the grace: %v, %v", before, during)
						}
						if time.Sleep(2 * time.Nanosecond); elsewhere && wait < watchEvery {
							time.Sleep(watchEvery) // until the next check
						}
						synctest.Wait()
						if fmt.Sprint(before) == "open" || fmt.Sprint(during) == "open" {
							t.Errorf("at the end of the grace: %v, %v", before, during)
						}
						if time.Sleep(10 * minute); fmt.Sprint(after) != "open" {
							t.Errorf("with the new token: %v", after)
						}
						after.hangUp()
					})
				})
			}
		}
	}
}

// TestDoneOfTheRequestThatRenews checks that Done stays open for the request that renewed its
// session, whether it called Done before or after.
func TestDoneOfTheRequestThatRenews(t *testing.T) {
	for what, renew := range map[string]func(s *session.Session){
		"Renew":    func(s *session.Session) { s.Renew() },
		"Remember": func(s *session.Session) { s.Remember(day) },
		"Login":    func(s *session.Session) { s.Login("alice") },
	} {
		inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
			newBrowser(t, here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				done := s.Done()
				renew(s)
				if err := s.Save(r.Context()); err != nil {
					t.Error(err)
				}
				select {
				case <-done:
					t.Errorf("%s: closed for the request that renewed", what)
				case <-s.Done():
					t.Errorf("%s: closed afterwards", what)
				case <-time.After(5 * minute):
				}
				if err := here.RevokeAll(r.Context(), "alice"); err != nil {
					t.Error(err)
				}
				<-done
			}))).replay(b.cookie()).get("/")
		})
	}
}

// aheadStore returns records as a process sees them whose clock is ahead.
type aheadStore struct {
	session.Store
	by time.Duration
}

func (s aheadStore) Load(ctx context.Context, id string) (*session.Record, error) {
	r, err := s.Store.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	c := *r
	c.Created, c.LastSeen = r.Created.Add(-s.by), r.LastSeen.Add(-s.by)
	c.Expires, c.Deadline = r.Expires.Add(-s.by), r.Deadline.Add(-s.by)
	return &c, nil
}

// TestDoneOfASessionThatIsUsedAtTheLastMoment covers a slow check after which the session seems
// expired, because the clock of this process is ahead. For a request that began since, which
// knows that the session was used in time, Done stays open.
func TestDoneOfASessionThatIsUsedAtTheLastMoment(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, _, there *session.Manager, b *browser) {
		here := newManager(t, session.Options{Store: aheadStore{spy, 10 * time.Second}, IdleTimeout: 20 * minute, Lifetime: 120 * minute})
		b.at(there).get("/login")
		used := time.Now()
		time.Sleep(20*minute - 11*time.Second) // the first stream is still open
		first := b.listenPassively(here)
		looks := make(chan struct{})
		spy.hookAfter(func(_ context.Context, _, _ string, err error) error {
			if time.Since(used) < 20*minute-10*time.Second {
				return err
			}
			spy.hookAfter(nil)
			close(looks)
			time.Sleep(3 * time.Second)
			return err
		})
		<-looks
		time.Sleep(time.Second)
		b.at(there).get("/look")
		second := b.listen(here)
		time.Sleep(minute)
		if second.String() != "open" {
			t.Errorf("the stream that began after the use: %v", second)
		}
		first.hangUp()
		second.hangUp()
	})
}

// TestDoneOfANewTokenBesideASlowLook covers a slow check that began before a Login, so that its
// record does not contain the token of the Login.
func TestDoneOfANewTokenBesideASlowLook(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		first := b.listen(here)
		looks := make(chan struct{})
		spy.hookAfter(func(_ context.Context, _, _ string, err error) error {
			spy.hookAfter(nil)
			close(looks)
			time.Sleep(3 * time.Second)
			return err
		})
		<-looks
		b.at(there).get("/again")
		second := b.listen(here)
		time.Sleep(time.Minute)
		if first.String() == "open" || second.String() != "open" {
			t.Errorf("the stream with the previous token: %v; that of the Login: %v", first, second)
		}
		first.hangUp()
		second.hangUp()
	})
}

// TestStreamWithAStolenToken checks that a stream with a stolen token ends when the owner
// changes the password, and that Reload returns the error too. The stream keeps the values that
// it had loaded, and its changes are saved.
func TestStreamWithAStolenToken(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		b.get("/set")
		h := here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			<-s.Done()
			if s.User() != "alice" || name.Get(s) != "value" {
				t.Errorf("the stream was logged in as %q, and reads %q", s.User(), name.Get(s))
			}
			visits.Update(s, func(n int) int { return n + 1 })
			if err := s.Save(r.Context()); err != nil {
				t.Error("Save:", err)
			}
			if err := s.Reload(r.Context()); err != session.ErrReplaced || s.User() != "" {
				t.Errorf("Reload: %v, logged in as %q", err, s.User())
			}
		}))
		closed := make(chan struct{})
		go func() {
			newBrowser(t, h).replay(b.cookie()).get("/")
			close(closed)
		}()
		synctest.Wait()
		b.get("/renew")
		b.get("/clear")
		<-closed
		newBrowser(t, here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := visits.Get(session.From(r.Context())); got != 1 {
				t.Errorf("%d visits were kept", got)
			}
		}))).replay(b.cookie()).get("/")
	})
}

// TestDoneOfManyOverASlowStore checks that over a slow store the end of each of many sessions
// is known within WatchEvery.
func TestDoneOfManyOverASlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		here, there := newManager(t, session.Options{Store: spy}), newManager(t, session.Options{Store: spy})
		var streams []*stream
		for range 400 {
			b := newBrowser(t, here.Handler(endRoutes))
			b.get("/login")
			streams = append(streams, b.listen(here))
		}
		slow := func(ctx context.Context, call, id string) error {
			if call == "Load" {
				time.Sleep(200 * time.Millisecond)
			}
			return nil
		}
		spy.hook(slow)
		time.Sleep(time.Minute)
		spy.hook(nil)
		if err := there.RevokeAll(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		spy.hook(slow)
		time.Sleep(watchEvery + 200*time.Millisecond)
		open := 0
		for _, st := range streams {
			if fmt.Sprint(st) == "open" {
				open++
			}
		}
		if open > 0 {
			t.Errorf("%d of %d streams are open after WatchEvery", open, len(streams))
		}
		spy.hook(nil)
		for _, st := range streams {
			<-st.stopped
		}
	})
}

// TestDoneOfNoSession checks that Done is closed immediately if this process has already ended
// the session, or if there is none.
func TestDoneOfNoSession(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		for name, cookie := range map[string]string{
			"new":    "",
			"forged": forge(b.cookie()),
			"ended": func() string {
				b := newBrowser(t, b.h)
				b.get("/login")
				defer b.get("/logout")
				return b.cookie()
			}(),
			"replaced": func() string {
				b := newBrowser(t, b.h)
				b.get("/login")
				was := b.cookie()
				b.get("/renew")
				time.Sleep(minute)
				return was
			}(),
			"twins": func() string {
				one, two := newBrowser(t, b.h), newBrowser(t, b.h)
				one.get("/login")
				two.get("/login")
				return one.cookie() + "; " + two.cookie()
			}(),
		} {
			r := newBrowser(t, nil).request("/")
			r.Header.Set("Cookie", cookie)
			newBrowser(t, here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-session.From(r.Context()).Done():
				default:
					t.Errorf("%s: Done is open", name)
				}
			}))).do(r)
		}
	})
	for _, way := range []string{"/logout", "/bob"} {
		inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
			newBrowser(t, here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if s.User() != "alice" {
					t.Error("the user is not logged in")
				}
				b.get(way)
				done := s.Done()
				synctest.Wait()
				select {
				case <-done:
				default:
					t.Errorf("%s between the load and Done: Done is open", way)
				}
			}))).do(b.request("/"))
		})
	}
}

// TestDoneInAnOutage checks that Done stays open while the store fails.
func TestDoneInAnOutage(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		spy.down.Store(true)
		st := b.listen(here)
		time.Sleep(minute)
		if fmt.Sprint(st) != "open" {
			t.Error(st)
		}
		st.hangUp()
	})
}

// TestDoneAcrossALogin checks Done before and after a Login: the channel of the old session is
// closed, and the new session has another.
func TestDoneAcrossALogin(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		b.h = here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			before := s.Done()
			if s.Done() != before {
				t.Error("two calls return different channels")
			}
			s.Login("bob")
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			after := s.Done()
			select {
			case <-before:
			default:
				t.Error("the channel of the old session is open")
			}
			select {
			case <-after:
				t.Error("the channel of the new session is closed")
			default:
			}
			s.Logout()
			if s.Save(r.Context()); s.Done() == after {
				t.Error("the same channel after a Logout")
			}
			<-after
			<-s.Done()
		}))
		b.get("/")
	})
}

// TestDoneCosts checks that fifty tabs of a session cost one Load per interval, and that
// nothing is left when the last tab is closed.
func TestDoneCosts(t *testing.T) {
	for _, every := range []time.Duration{0, time.Second} {
		inWatch(t, session.Options{WatchEvery: every}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
			var tabs []*stream
			for range 50 {
				tabs = append(tabs, b.listen(here))
			}
			loads, want := spy.count("Load"), 6
			if time.Sleep(30 * time.Second); every > 0 {
				want = 30
			}
			if got := spy.count("Load") - loads; got != want {
				t.Errorf("%d loads in half a minute, want %d", got, want)
			}
			for i, tab := range tabs {
				if i == len(tabs)-1 {
					loads = spy.count("Load")
					if time.Sleep(10 * time.Second); spy.count("Load")-loads != want/3 {
						t.Errorf("%d loads for the last tab in ten seconds", spy.count("Load")-loads)
					}
				}
				tab.hangUp()
				<-tab.stopped
			}
			synctest.Wait()
			loads = spy.count("Load")
			if s := stacks(); strings.Contains(s, "watch.(*Watch)") {
				t.Error("goroutines are left:\n", s)
			}
			if time.Sleep(minute); spy.count("Load") != loads {
				t.Errorf("%d loads although no request waits", spy.count("Load")-loads)
			}
			again := b.listen(here)
			loads = spy.count("Load")
			if synctest.Wait(); spy.count("Load") != loads {
				t.Error("an immediate check of a session that was just loaded")
			}
			again.hangUp()
		})
	}
}

// stacks returns the stacks of all goroutines.
func stacks() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// TestDoneIsSpread checks that a thousand sessions that arrive at the same time are checked
// once per interval each, spread over the interval.
func TestDoneIsSpread(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		const sessions, parts = 1000, 10
		var mu sync.Mutex
		ids, in := map[string]int{}, [parts]int{}
		var start time.Time
		var all []*stream
		for range sessions {
			b := newBrowser(t, b.h)
			b.get("/login")
			all = append(all, b.listen(here))
		}
		start = time.Now()
		spy.hook(func(ctx context.Context, call, id string) error {
			mu.Lock()
			defer mu.Unlock()
			ids[id]++
			in[time.Since(start)%watchEvery*parts/watchEvery]++
			return nil
		})
		time.Sleep(10*watchEvery + 1)
		mu.Lock()
		for id, n := range ids {
			if n != 10 {
				t.Errorf("%s was checked %d times in ten intervals", id, n)
			}
		}
		for i, n := range in {
			if n < 5*sessions/parts || n > 15*sessions/parts {
				t.Errorf("%d of %d calls in the %dth tenth", n, 10*sessions, i+1)
			}
		}
		if len(ids) != sessions {
			t.Errorf("%d of %d sessions were checked", len(ids), sessions)
		}
		mu.Unlock()
		if n := strings.Count(stacks(), "created by github.com/coatcheck/session/internal/watch.(*Watch)"); n != 1 {
			t.Errorf("%d goroutines for %d sessions", n, sessions)
		}
		for _, st := range all {
			st.hangUp()
		}
	})
}

// TestDoneBesideALoadThatHangs checks that a Load that hangs delays no other check, and that a
// store that hangs gets only a few concurrent checks.
func TestDoneBesideALoadThatHangs(t *testing.T) {
	inWatch(t, session.Options{StoreTimeout: minute}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		hung := b.listen(here)
		other := newBrowser(t, b.h)
		other.get("/bob")
		st := other.listen(here)
		list, err := here.List(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		id := list[0].ID
		var asking atomic.Int64
		spy.hook(func(ctx context.Context, call, which string) error {
			if which == id {
				if asking.Add(1) > 1 {
					t.Error("two concurrent checks of one session")
				}
				<-ctx.Done()
				asking.Add(-1)
			}
			return ctx.Err()
		})
		time.Sleep(3 * watchEvery)
		other.at(there).get("/logout")
		if time.Sleep(watchEvery); fmt.Sprint(st) == "open" {
			t.Error("the session has ended, and Done is open while the Load of another hangs")
		}
		hung.hangUp()
		<-hung.stopped

		var all []*stream
		for range 100 {
			b := newBrowser(t, b.h)
			b.get("/bob")
			all = append(all, b.listen(here))
		}
		var now, most atomic.Int64
		spy.hook(func(ctx context.Context, call, which string) error {
			most.Store(max(most.Load(), now.Add(1)))
			<-ctx.Done()
			now.Add(-1)
			return ctx.Err()
		})
		if time.Sleep(10 * minute); most.Load() > 10 {
			t.Errorf("%d concurrent checks", most.Load())
		}
		spy.hook(nil)
		loads := spy.count("Load")
		if time.Sleep(2 * minute); spy.count("Load")-loads > 26*len(all) {
			t.Errorf("%d loads of %d sessions in 24 intervals, to catch up", spy.count("Load")-loads, len(all))
		}
		loads = spy.count("Load")
		if time.Sleep(10*watchEvery + 1); spy.count("Load")-loads != 10*len(all) {
			t.Errorf("%d loads of %d sessions in ten intervals afterwards", spy.count("Load")-loads, len(all))
		}
		for _, st := range all {
			st.hangUp()
		}
	})
}

// TestDoneFailureIsAnEvent checks that a failed check is an event, for the operator.
func TestDoneFailureIsAnEvent(t *testing.T) {
	var log events
	inWatch(t, session.Options{OnEvent: log.on, StoreTimeout: minute}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		st := b.listen(here)
		spy.down.Store(true)
		time.Sleep(watchEvery)
		if log.count(session.EventStoreFailed) != 1 {
			t.Errorf("%d events", log.count(session.EventStoreFailed))
		}
		if st.hangUp(); log.count(session.EventStoreFailed) != 1 {
			t.Errorf("%d events", log.count(session.EventStoreFailed))
		}
		// A Load for which no request waits any more is not a failure.
		<-st.stopped
		spy.down.Store(false)
		st = b.listen(here)
		spy.hook(func(ctx context.Context, call, id string) error { <-ctx.Done(); return ctx.Err() })
		time.Sleep(watchEvery - 1) // so that a Load that began immediately has not hung for StoreTimeout
		st.hangUp()
		<-st.stopped
		if synctest.Wait(); log.count(session.EventStoreFailed) != 1 {
			t.Errorf("%d events", log.count(session.EventStoreFailed))
		}
	})
}

// TestDoneAfterTheHandler checks that after the handler has returned the session is no longer
// checked, and that Done is not closed by the return.
func TestDoneAfterTheHandler(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		var s *session.Session
		var before, after <-chan struct{}
		b.h = here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s = session.From(r.Context()); s.User() == "alice" && before == nil {
				before = s.Done()
			}
		}))
		for range 2 { // the second request does not call Done before it returns
			b.get("/")
			after = s.Done()
		}
		loads := spy.count("Load")
		time.Sleep(minute)
		select {
		case <-before:
			t.Error("Done was closed by the end of the handler")
		case <-after:
			t.Error("Done was closed although the session lives")
		default:
		}
		if n := spy.count("Load") - loads; n > 0 {
			t.Errorf("%d loads", n)
		}
	})
}

// TestDoneAndAPanicOfTheStore checks that a store that panics when the handler has returned
// leaves nothing behind.
func TestDoneAndAPanicOfTheStore(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, b *browser) {
		h := here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Done()
			name.Set(s, "value")
			spy.hook(func(ctx context.Context, call, id string) error { panic("oh") })
		}))
		func() {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			(&browser{t, h, b.jar}).get("/")
		}()
		spy.hook(nil)
		synctest.Wait()
		loads := spy.count("Load")
		if time.Sleep(minute); spy.count("Load") != loads {
			t.Errorf("%d loads although no request waits", spy.count("Load")-loads)
		}
	})
}

// TestDoneCrowd opens and closes thousands of streams while sessions end. Done of each is
// closed for the end of its own session, in time, and for no other.
func TestDoneCrowd(t *testing.T) {
	inWatch(t, session.Options{}, func(t *testing.T, spy *spyStore, here, there *session.Manager, _ *browser) {
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				user := fmt.Sprint("user ", i)
				b := newBrowser(t, here.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					session.From(r.Context()).Login(user)
				})))
				for round := range 5 {
					b.get("/")
					var tabs []*stream
					for range 4 {
						tabs = append(tabs, b.listen(here))
						time.Sleep(time.Duration(i*round) * time.Millisecond)
					}
					tabs[0].hangUp()
					time.Sleep(time.Duration(i) * 20 * time.Millisecond)
					m, within := here, time.Duration(0)
					if (i+round)%2 == 0 {
						m, within = there, watchEvery
					}
					for _, st := range tabs[1:] {
						if fmt.Sprint(st) != "open" {
							t.Errorf("%s: %v", user, st)
						}
					}
					if err := m.RevokeAll(t.Context(), user); err != nil {
						t.Error(err)
					}
					began := time.Now()
					for _, st := range tabs {
						<-st.stopped
					}
					if took := time.Since(began); took > within {
						t.Errorf("%s: closed %v after the end, want %v", user, took, within)
					}
				}
			})
		}
		all.Wait()
	})
}
