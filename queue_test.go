package session_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// slowStore delays every call of the store by d.
func slowStore(spy *spyStore, d time.Duration) {
	spy.hook(func(ctx context.Context, call, id string) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// atOnceGet runs n concurrent requests of a browser, and returns their statuses.
func atOnceGet(b *browser, n int, path string) map[int]int {
	var all sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for range n {
		all.Go(func() {
			resp := b.replay(b.cookie()).get(path)
			mu.Lock()
			defer mu.Unlock()
			statuses[resp.StatusCode]++
		})
	}
	all.Wait()
	return statuses
}

// TestConcurrentWritersCostLinearly: promise 21. Any number of concurrent writers of one
// session cost the store fewer than five calls each, lose nothing, and cause at most one
// EventConflict each, even if all of them are the first to present the session's key.
func TestConcurrentWritersCostLinearly(t *testing.T) {
	for _, n := range []int{2, 10, 100, 3000} {
		for what, change := range map[string]func(s *session.Session){
			"Update": func(s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) },
			"Save": func(s *session.Session) {
				visits.Update(s, func(n int) int { return n + 1 })
				if err := s.Save(context.Background()); err != nil {
					panic(err)
				}
			},
			"UpdateNow": func(s *session.Session) {
				if _, err := visits.UpdateNow(context.Background(), s, func(n int) int { return n + 1 }); err != nil {
					panic(err)
				}
			},
		} {
			for _, logins := range []int{1, 2} {
				t.Run(fmt.Sprint(what, " ", n, " logins: ", logins), func(t *testing.T) {
					var log events
					inBubble(t, session.Options{OnEvent: log.on}, func(t *testing.T, spy *spyStore, m *session.Manager) {
						var loaded sync.WaitGroup
						loaded.Add(n)
						b := newBrowser(t, m.Handler(routes{
							"/login": clockRoutes["/login"],
							"/write": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
								s.User()
								loaded.Done()
								loaded.Wait()
								change(s)
							},
							"/count": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, visits.Get(s)) },
						}))
						for range logins {
							b.get("/login") // the second Login issues another key
						}
						slowStore(spy, time.Millisecond)
						before := spy.count("")
						if got := atOnceGet(b, n, "/write"); got[200] != n {
							t.Errorf("statuses %v", got)
						}
						if calls := spy.count("") - before; calls >= 5*n {
							t.Errorf("%d calls of the store for %d requests", calls, n)
						}
						if c := log.count(session.EventConflict); c > n {
							t.Errorf("%d times EventConflict", c)
						}
						if got := body(b.get("/count")); got != fmt.Sprint(n) {
							t.Errorf("%s of %d were kept", got, n)
						}
					})
				})
			}
		}
	}
}

// TestWritersAndAnEndingOverASlowStore checks that over a store that takes 200 ms, 20
// concurrent writers finish within StoreTimeout, including those that change the session after
// the first byte, and that a Logout or Revoke does not wait for them.
func TestWritersAndAnEndingOverASlowStore(t *testing.T) {
	for _, late := range []bool{false, true} {
		for _, ending := range []string{"", "/logout", "/bob", "revoke"} {
			t.Run(fmt.Sprint("late ", late, " ", ending), func(t *testing.T) {
				inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
					b := newBrowser(t, m.Handler(routes{
						"/login":  clockRoutes["/login"],
						"/logout": clockRoutes["/logout"],
						"/bob":    clockRoutes["/bob"],
						"/write": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
							s.User()
							if late {
								fmt.Fprint(w, "first byte")
							}
							visits.Update(s, func(n int) int { return n + 1 })
						},
						"/count": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, visits.Get(s)) },
					}))
					b.get("/login")
					writer := b.replay(b.cookie())
					slowStore(spy, 200*time.Millisecond)
					var all sync.WaitGroup
					all.Go(func() {
						if got := atOnceGet(writer, 20, "/write"); got[200] != 20 {
							t.Errorf("statuses of the writers: %v", got)
						}
					})
					if ending != "" {
						time.Sleep(700 * time.Millisecond) // the writers conflict by now
						began := time.Now()
						if ending == "revoke" {
							if err := m.RevokeAll(t.Context(), "alice"); err != nil {
								t.Error(err)
							}
						} else if resp := b.get(ending); resp.StatusCode != 200 {
							t.Error(resp.Status)
						}
						if took := time.Since(began); took > 1500*time.Millisecond {
							t.Errorf("%s waited %v", ending, took)
						}
					}
					all.Wait()
					spy.hook(nil)
					want := "20"
					if ending != "" {
						want = "0"
					}
					if got := body(writer.get("/count")); got != want {
						t.Errorf("%s were kept, want %s", got, want)
					}
				})
			})
		}
	}
}

// TestQueueIsLeft checks that a commit that waits for others gives up at its own deadline, and
// that a panic of the store leaves no queue behind.
func TestQueueIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		m := newManager(t, session.Options{Store: spy, StoreTimeout: time.Second})
		var loaded sync.WaitGroup
		recovers := func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() { recover() }()
				h.ServeHTTP(w, r)
			})
		}
		b := newBrowser(t, recovers(m.Handler(routes{
			"/login": clockRoutes["/login"],
			"/write": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.User()
				loaded.Done()
				loaded.Wait()
				visits.Update(s, func(n int) int { return n + 1 })
				s.Save(r.Context())
			},
			"/count": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				visits.Update(s, func(n int) int { return n + 1 })
				fmt.Fprint(w, visits.Get(s))
			},
		})))
		b.get("/login")
		for what, fails := range map[string]func(ctx context.Context) error{
			"hangs":  func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			"panics": func(ctx context.Context) error { panic("oh") },
			"fails":  func(ctx context.Context) error { return errDown },
		} {
			loaded.Add(10)
			saves := 0
			var mu sync.Mutex
			spy.hook(func(ctx context.Context, call, id string) error {
				mu.Lock()
				saves++
				n := saves
				mu.Unlock()
				if call == "Save" && n > 15 { // when the first writers are in the queue
					return fails(ctx)
				}
				return nil
			})
			atOnceGet(b, 10, "/write")
			spy.hook(nil)
			calls := spy.count("")
			if resp := b.get("/count"); resp.StatusCode != 200 {
				t.Errorf("after a store that %s: %s", what, resp.Status)
			}
			if n := spy.count("") - calls; n != 2 {
				t.Errorf("after a store that %s a write costs %d calls", what, n)
			}
		}
	})
}

// TestQueueHandsOnNoOlderRecord checks that the queue does not pass on a record from before a
// renewal by another process: the request with the newest token can renew again.
func TestQueueHandsOnNoOlderRecord(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		applied, answer := holdSave(x.spies[0], 2)
		loaded, change := make(chan struct{}), make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.User()
				close(loaded)
				<-change
				name.Set(s, "value")
			})
		})
		<-loaded
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) { visits.Set(s, 1) })
		close(change) // the first Save of the change conflicts, and creates the queue
		<-applied
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() })
		before := x.b.cookie()
		all.Go(func() {
			x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() })
		})
		synctest.Wait() // the change is in the queue
		close(answer)
		all.Wait()
		if x.b.cookie() == before {
			t.Error("a Renew by the request with the newest token was dropped")
		}
	})
}

// TestQueueAcrossAnotherID checks that a renewal that changes the session's id, because its
// token has no key, goes before the writers that wait: their changes are kept.
func TestQueueAcrossAnotherID(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		for i := range 2 {
			x.processes[i] = keyless(t, session.Options{Store: x.spies[i]})
		}
		x.b = newBrowser(t, nil)
		x.at(0, clockRoutes["/login"])
		applied, answer := holdSave(x.spies[0], 2)
		var loaded, all sync.WaitGroup
		var changes [3]chan struct{}
		for i, change := range []func(s *session.Session){
			func(s *session.Session) { name.Set(s, "value") },
			func(s *session.Session) { s.Renew() },
			func(s *session.Session) {
				visits.Update(s, func(n int) int { return n + 10 })
				if err := s.Save(context.Background()); err != nil {
					t.Error(err)
				}
			},
		} {
			changes[i] = make(chan struct{})
			loaded.Add(1)
			all.Go(func() {
				x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					s.User()
					loaded.Done()
					<-changes[i]
					change(s)
				})
			})
		}
		loaded.Wait()
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) { visits.Set(s, 1) })
		close(changes[0])
		<-applied
		close(changes[1])
		synctest.Wait()
		close(changes[2])
		synctest.Wait()
		close(answer)
		all.Wait()
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if s.User() != "alice" || name.Get(s) != "value" || visits.Get(s) != 11 {
				t.Errorf("%q has %q and %d, want 11", s.User(), name.Get(s), visits.Get(s))
			}
		})
	})
}

// holdSave applies the n-th Save from now on, and withholds its reply until answer is closed.
func holdSave(spy *spyStore, n int32) (applied, answer chan struct{}) {
	applied, answer = make(chan struct{}), make(chan struct{})
	var saves atomic.Int32
	spy.after = func(ctx context.Context, call, id string, err error) error {
		if call == "Save" && saves.Add(1) == n {
			close(applied)
			<-answer
		}
		return err
	}
	return applied, answer
}
