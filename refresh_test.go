package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// grant is issued by an issuer. It is valid until Ends, and then for one use.
type grant struct {
	Serial int
	Ends   time.Time
}

func (g grant) fresh() bool { return time.Now().Before(g.Ends) }

var grants = session.NewKey[grant]("grants")

// issuer revokes everything when a grant is used twice, as Dex does, and as RFC 9700, 4.14.2,
// recommends.
type issuer struct {
	mu      sync.Mutex
	serial  int
	takes   time.Duration
	calls   int
	revoked bool
}

var errRevoked = errors.New("issuer: a refresh token was used twice")

func (is *issuer) renew(ctx context.Context, g grant) (grant, error) {
	is.mu.Lock()
	is.calls++
	if is.revoked = is.revoked || g.Serial != is.serial; is.revoked {
		defer is.mu.Unlock()
		return grant{}, errRevoked
	}
	is.serial++
	next := grant{is.serial, time.Now().Add(minute + is.takes)}
	is.mu.Unlock()
	time.Sleep(is.takes) // the duration of the network request
	return next, nil
}

// refreshing is the environment of a test of Refresh: three processes over one store.
type refreshing struct {
	t         *testing.T
	spies     [3]*spyStore
	processes [3]*session.Manager
	issuer    issuer
	log       events
	b         *browser
}

func inRefresh(t *testing.T, f func(x *refreshing)) {
	synctest.Test(t, func(t *testing.T) {
		x := &refreshing{t: t, issuer: issuer{takes: time.Second}}
		store := session.NewMemoryStore(nil)
		for i := range x.processes {
			x.spies[i] = &spyStore{Store: store, calls: map[string]int{}}
			x.processes[i] = newManager(t, session.Options{Store: x.spies[i], OnEvent: x.log.on})
		}
		x.b = newBrowser(t, nil)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("alice")
			grants.Set(s, grant{})
		})
		f(x)
	})
}

// at sends a request to one of the processes.
func (x *refreshing) at(process int, h func(w http.ResponseWriter, r *http.Request, s *session.Session)) *http.Response {
	x.t.Helper()
	wrapped := x.processes[process].Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h(w, r, session.From(r.Context()))
	}))
	return (&browser{x.t, wrapped, x.b.jar}).get("/")
}

// refresh calls Refresh and checks that the grant has this serial number.
func (x *refreshing) refresh(want int) func(w http.ResponseWriter, r *http.Request, s *session.Session) {
	return func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		g, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew)
		if err != nil || g.Serial != want || !g.fresh() {
			x.t.Errorf("%+v, %v, want grant %d", g, err, want)
		}
		if got := grants.Get(s); got != g {
			x.t.Errorf("afterwards the session has %+v", got)
		}
	}
}

// TestRefresh checks that of all concurrent requests, in any process, one calls the issuer, and
// all get the result. Their other changes are kept.
func TestRefresh(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		for round := 1; round <= 5; round++ {
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					time.Sleep(time.Duration(i) * 100 * time.Millisecond * time.Duration(round%2))
					x.at(i%3, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						x.refresh(round)(w, r, s)
						visits.Update(s, func(n int) int { return n + 1 })
					})
				})
			}
			all.Wait()
			if x.issuer.calls != round || x.issuer.revoked {
				t.Errorf("round %d: the issuer was called %d times", round, x.issuer.calls)
			}
			time.Sleep(2 * minute)
		}
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if n := visits.Get(s); n != 100 {
				t.Errorf("%d of 100 other changes were kept", n)
			}
			if got := strings.Join(s.Names(), " "); got != "grants visits" {
				t.Errorf("keys: %s", got)
			}
		})
		list, err := x.spies[0].Store.List(t.Context(), "alice")
		if err != nil || len(list) != 1 || strings.Contains(string(list[0].Data), "lease") {
			t.Errorf("a lease is left: %s, %v", list[0].Data, err)
		}
	})
}

// TestRefreshCosts checks that a fresh value costs only the load of the session, and a value
// that is not fresh a Save to claim the lease and a Save of the value.
func TestRefreshCosts(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.spies[0].forget()
		x.at(0, x.refresh(1))
		if got := x.spies[0].summary(); got != "Load Save×2" {
			t.Errorf("to refresh: %s", got)
		}
		x.spies[0].forget()
		x.at(0, x.refresh(1))
		if got := x.spies[0].summary(); got != "Load" {
			t.Errorf("when it is fresh: %s", got)
		}
	})
}

// TestRefreshFails checks that the caller gets an error or a panic of f, that nothing is saved,
// and that the next request calls f immediately.
func TestRefreshFails(t *testing.T) {
	for name, fail := range map[string]func() error{
		"an error": func() error { return errDown },
		"a panic":  func() error { panic("at the disco") },
	} {
		t.Run(name, func(t *testing.T) {
			inRefresh(t, func(x *refreshing) {
				var all sync.WaitGroup
				for i := range 10 {
					all.Go(func() {
						first := false
						x.at(i%3, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
							defer func() {
								if v := recover(); v != nil && v != "at the disco" {
									t.Error(v)
								}
							}()
							g, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
								x.issuer.mu.Lock()
								x.issuer.calls++
								first = x.issuer.calls == 1
								x.issuer.mu.Unlock()
								if time.Sleep(time.Second); first {
									return grant{99, time.Now().Add(time.Hour)}, fail()
								}
								return x.issuer.renew(ctx, g)
							})
							switch {
							case first && (err != errDown || g != grant{}):
								t.Errorf("the request whose call failed: %+v, %v", g, err)
							case !first && (err != nil || g.Serial != 1):
								t.Errorf("the other requests: %+v, %v", g, err)
							}
						})
					})
				}
				began := time.Now()
				all.Wait()
				if x.issuer.calls != 3 || x.issuer.revoked { // the two calls of f, and the issuer's own count
					t.Errorf("%d calls", x.issuer.calls)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("the other requests waited %v", took)
				}
			})
		})
	}
}

// TestRefreshOfAProcessThatDies checks that a process that crashes with the lease delays other
// requests until the lease ends, and not longer. f of that process gets no more time than the
// lease.
func TestRefreshOfAProcessThatDies(t *testing.T) {
	for _, limit := range []time.Duration{0, 5 * time.Second, time.Hour} {
		inRefresh(t, func(x *refreshing) {
			want := min(limit, 30*time.Second)
			if limit == 0 {
				want = 30 * time.Second
			}
			began := time.Now()
			claimed := make(chan struct{})
			var dead sync.WaitGroup
			dead.Go(func() {
				x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					ctx := r.Context()
					if limit > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, limit)
						defer cancel()
					}
					grants.Refresh(ctx, s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
						close(claimed)
						x.spies[0].down.Store(true) // the process no longer reaches the store
						<-ctx.Done()
						if d := time.Since(began); d != want || ctx.Err() != context.DeadlineExceeded {
							t.Errorf("f's context ended after %v, %v", d, ctx.Err())
						}
						return g, ctx.Err()
					})
				})
			})
			<-claimed
			// The lease outlives f by StoreTimeout, and by a second for a process whose clock is
			// ahead.
			held := want + 5*time.Second + time.Second
			time.Sleep(held - 100*time.Millisecond)
			x.at(1, x.refresh(1))
			if d := time.Since(began) - x.issuer.takes; d < held || d > held+2*time.Second {
				t.Errorf("limit %v: the next one called the issuer after %v, want a little more than %v", limit, d, held)
			}
			dead.Wait()
		})
	}
}

// TestRefreshGivesUp checks that a request that waits gives up when its context ends, and that
// a request whose context has ended does not begin.
func TestRefreshGivesUp(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		claimed, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
					close(claimed)
					time.Sleep(10 * time.Second)
					return x.issuer.renew(ctx, g)
				})
			})
		}()
		<-claimed
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
			defer cancel()
			if _, err := grants.Refresh(ctx, s, grant.fresh, x.issuer.renew); err != context.DeadlineExceeded || time.Since(began) != 3*time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
			if _, err := grants.Refresh(ctx, s, grant.fresh, x.issuer.renew); err != context.DeadlineExceeded {
				t.Error(err)
			}
		})
		<-done
		time.Sleep(2 * minute)
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			ctx, cancel := context.WithCancel(r.Context())
			cancel()
			if _, err := grants.Refresh(ctx, s, grant.fresh, x.issuer.renew); err != context.Canceled {
				t.Error(err)
			}
		})
		if x.issuer.calls != 1 {
			t.Errorf("%d calls", x.issuer.calls)
		}
	})
}

// TestRefreshOutlivesItsConnection checks that nothing is lost if the client closes the
// connection while f runs.
func TestRefreshOutlivesItsConnection(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			ctx, cancel := context.WithCancel(r.Context())
			g, err := grants.Refresh(ctx, s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				cancel()
				if g, err := x.issuer.renew(ctx, g); err != nil || ctx.Err() == nil {
					return g, err
				}
				return g, ctx.Err()
			})
			if err != nil || g.Serial != 1 {
				t.Errorf("%+v, %v", g, err)
			}
		})
		x.at(1, x.refresh(1))
	})
}

// TestRefreshAndTheEnd checks that a session that ends while f runs is ErrEnded for the request
// that runs f and for those that wait, and that f is not called for a token that opens no
// session.
func TestRefreshAndTheEnd(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				x.at(i%3, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					if _, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); err != session.ErrEnded {
						t.Errorf("ended meanwhile: %v", err)
					}
				})
			})
		}
		synctest.Wait()
		if err := x.processes[2].RevokeAll(t.Context(), "alice"); err != nil {
			t.Error(err)
		}
		if all.Wait(); x.issuer.calls != 1 {
			t.Errorf("%d calls", x.issuer.calls)
		}

		login := func(user string) func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			return func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.Login(user)
				grants.Set(s, grant{})
			}
		}
		x.issuer = issuer{}
		for what, c := range map[string]struct {
			do   func(w http.ResponseWriter, r *http.Request, s *session.Session)
			wait time.Duration
		}{
			"a Login of another user": {login("bob"), 0},
			"a Renew long ago":        {func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() }, minute},
		} {
			x.at(0, login("alice"))
			was := x.b.cookie()
			x.at(0, c.do)
			time.Sleep(c.wait)
			other := x.b.replay(was)
			other.h = x.processes[1].Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, err := grants.Refresh(r.Context(), session.From(r.Context()), grant.fresh, x.issuer.renew)
				if err != session.ErrReplaced {
					t.Errorf("%s: %v", what, err)
				}
			}))
			other.get("/")
		}
		if x.issuer.calls != 0 {
			t.Errorf("%d calls", x.issuer.calls)
		}
	})
}

// TestRefreshBesideOtherChanges checks that while f runs no mutex is held, in this request or
// another. Concurrent changes are kept. If another request changes the value itself, its value
// is kept.
func TestRefreshBesideOtherChanges(t *testing.T) {
	for _, c := range []struct {
		what string
		do   func(s *session.Session)
		want grant
	}{
		{"another value", func(s *session.Session) { name.Set(s, "value") }, grant{Serial: 1}},
		{"the value", func(s *session.Session) { grants.Set(s, grant{Serial: 7}) }, grant{Serial: 7}},
		{"deleted", func(s *session.Session) { grants.Delete(s) }, grant{}},
		{"cleared", func(s *session.Session) { s.Clear() }, grant{}},
		{"updated", func(s *session.Session) {
			grants.Update(s, func(g grant) grant { g.Serial += 7; return g })
		}, grant{Serial: 7}},
	} {
		for _, same := range []bool{true, false} {
			inRefresh(t, func(x *refreshing) {
				x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					if _, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
						if grants.Get(s) != g || s.User() != "alice" {
							t.Error("reading while f runs")
						}
						if same {
							c.do(s)
						} else {
							x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) { c.do(s) })
						}
						return grant{Serial: 1}, nil
					}); err != nil {
						t.Errorf("%s: %v", c.what, err)
					}
				})
				x.at(2, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					if got := grants.Get(s); got != c.want {
						t.Errorf("%s, by the same request %v: %+v, want %+v", c.what, same, got, c.want)
					}
					if _, ok := name.Lookup(s); ok != (c.what == "another value") {
						t.Errorf("%s: the other value exists: %v", c.what, ok)
					}
				})
			})
		}
	}
}

// TestRefreshSavesWhatIsPending checks that pending changes are saved with the value, and not
// before: after an error of f none is saved.
func TestRefreshSavesWhatIsPending(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		there := func() (ok bool) {
			x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) { _, ok = name.Lookup(s) })
			return ok
		}
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "value")
			_, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				if there() {
					t.Error("saved with the lease")
				}
				return g, errDown
			})
			if err != errDown || there() {
				t.Errorf("%v; saved: %v", err, there())
			}
			if g, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); err != nil || g.Serial != 1 || !there() {
				t.Errorf("%+v, %v; saved: %v", g, err, there())
			}
		})
	})
}

// TestRefreshAndARenewal covers an explicit renewal while f runs: the result of f is kept. A
// request that sees the session as it was before the renewal never uses a grant a second time.
func TestRefreshAndARenewal(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		var all sync.WaitGroup
		var answered, refused atomic.Int64
		for i := range 20 {
			all.Go(func() {
				x.at(i%3, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					s.User() // loads the session before the renewal
					time.Sleep(time.Duration(i) * 100 * time.Millisecond)
					switch g, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); {
					case err == nil && g.Serial == 1:
						answered.Add(1)
					case errors.Is(err, session.ErrReplaced):
						refused.Add(1)
					default:
						t.Errorf("%+v, %v", g, err)
					}
				})
			})
		}
		time.Sleep(500 * time.Millisecond)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() })
		all.Wait()
		if x.issuer.calls != 1 || answered.Load() == 0 {
			t.Errorf("%d calls; %d answered, %d refused", x.issuer.calls, answered.Load(), refused.Load())
		}
		x.at(1, x.refresh(1))
	})
}

// TestRefreshInAnOutage checks a failing store: before f nothing has happened. After f the save
// is retried while the lease lasts, because f has used up its grant.
func TestRefreshInAnOutage(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.spies[0].down.Store(true)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if _, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); !errors.Is(err, session.ErrStore) {
				t.Error(err)
			}
		})
		x.spies[0].down.Store(false)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			x.spies[0].down.Store(true)
			before := x.log.count(session.EventStoreFailed)
			if _, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); !errors.Is(err, session.ErrStore) || x.log.count(session.EventStoreFailed) != before+1 {
				t.Error(err)
			}
			x.spies[0].down.Store(false)
		})
		if x.issuer.calls != 0 {
			t.Fatalf("%d calls", x.issuer.calls)
		}
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			g, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				x.spies[0].down.Store(true)
				time.AfterFunc(10*time.Second, func() { x.spies[0].down.Store(false) })
				return x.issuer.renew(ctx, g)
			})
			if err != nil || g.Serial != 1 {
				t.Errorf("%+v, %v", g, err)
			}
		})
		x.at(1, x.refresh(1))
		time.Sleep(2 * minute)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			began := time.Now()
			g, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				x.spies[0].down.Store(true)
				return x.issuer.renew(ctx, g)
			})
			if !errors.Is(err, session.ErrStore) || g.Serial != 2 || time.Since(began) > 31*time.Second {
				t.Errorf("an outage that does not end: %+v, %v after %v", g, err, time.Since(began))
			}
		})
	})
}

// TestRefreshBesideAReload checks that a Reload by another goroutine of the request drops
// unsaved changes, but not the result of f, and not the return of the lease.
func TestRefreshBesideAReload(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			x.spies[0].hook(func(_ context.Context, op, _ string) error {
				if op == "Save" && x.issuer.calls == 1 {
					return errDown
				}
				return nil
			})
			var all sync.WaitGroup
			all.Go(func() {
				if g, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); err != nil || g.Serial != 1 {
					t.Errorf("%+v, %v", g, err)
				}
			})
			time.Sleep(x.issuer.takes + time.Second) // the Save of the result of f is being retried
			x.spies[0].hook(nil)
			if err := s.Reload(r.Context()); err != nil {
				t.Error(err)
			}
			all.Wait()
			if err := s.Reload(r.Context()); err != nil || grants.Get(s).Serial != 1 {
				t.Errorf("%v; %+v is stored", err, grants.Get(s))
			}
		})
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			began := time.Now()
			g, err := grants.Refresh(r.Context(), s, func(g grant) bool { return g.Serial == 2 }, x.issuer.renew)
			if took := time.Since(began); err != nil || g.Serial != 2 || took != x.issuer.takes {
				t.Errorf("the next Refresh: %+v, %v after %v", g, err, took)
			}
		})
	})
}

// elsewhere lets another process hold the lease for d. wait waits until it ends.
func (x *refreshing) elsewhere(d time.Duration) (wait func()) {
	var all sync.WaitGroup
	begun := make(chan struct{})
	other := x.clone()
	all.Go(func() {
		other.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			grants.Refresh(r.Context(), s, grant.fresh, func(context.Context, grant) (grant, error) {
				close(begun)
				time.Sleep(d)
				return grant{}, errDown
			})
		})
	})
	<-begun
	return all.Wait
}

// clone returns a copy with another browser that has the current cookie.
func (x *refreshing) clone() *refreshing {
	return &refreshing{t: x.t, spies: x.spies, processes: x.processes, b: x.b.replay(x.b.cookie())}
}

func fails(context.Context, grant) (grant, error) { return grant{}, errDown }

// TestRefreshWaitsWhileAnotherSessionBegins covers a request that waits while another goroutine
// of the request creates another session. The result of a check of the old session must not be
// applied to the new one.
func TestRefreshWaitsWhileAnotherSessionBegins(t *testing.T) {
	for what, begin := range map[string]func(s *session.Session){
		"by a Login":     func(s *session.Session) { s.Login("bob"); name.Set(s, "bob") },
		"after a Logout": func(s *session.Session) { s.Logout(); name.Set(s, "bob") },
	} {
		inRefresh(t, func(x *refreshing) {
			wait := x.elsewhere(5 * second)
			x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.User()
				var all sync.WaitGroup
				all.Go(func() { grants.Refresh(r.Context(), s, grant.fresh, fails) })
				time.Sleep(2 * second)
				begin(s)
				if err := s.Save(r.Context()); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				all.Wait()
			})
			x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				if name.Get(s) != "bob" {
					t.Errorf("%s: the new session is lost (%v)", what, s.Err())
				}
			})
			wait()
		})
	}
}

// TestRefreshWhoseRequestEndsTheSession lets a goroutine end the session while another one of the
// request waits for a look that a third request makes: the one that waits is told.
func TestRefreshWhoseRequestEndsTheSession(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.issuer.takes = 20 * time.Second
		var all sync.WaitGroup
		for i := range 3 { // the first calls the issuer, the second looks, and the third waits for the second
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				x.at((i+1)/2, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					all.Go(func() {
						if time.Sleep(5 * time.Second); i == 2 {
							s.Logout()
							if err := s.Save(r.Context()); err != nil {
								t.Error(err)
							}
						}
					})
					if _, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); err == nil {
						t.Error("a Refresh of a session that has ended returned no error")
					}
				})
			})
		}
		all.Wait()
	})
}

// TestRefreshNeverGoesBack covers a request that begins to wait during a poll of other
// requests: it may have loaded a newer record than the poll will return.
func TestRefreshNeverGoesBack(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		wait := x.elsewhere(25 * second)
		slow := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			x.clone().at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.User()
				var calls atomic.Int32
				x.spies[0].hookAfter(func(_ context.Context, _, _ string, err error) error {
					if calls.Add(1) == 1 {
						close(slow)
						time.Sleep(3 * second)
					}
					return err
				})
				ctx, stop := context.WithTimeout(r.Context(), 3500*time.Millisecond)
				defer stop()
				grants.Refresh(ctx, s, grant.fresh, fails)
			})
		})
		<-slow
		x.clone().at(2, func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "newer") })
		x.clone().at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if name.Get(s) != "newer" {
				t.Fatal("the request sees an old session from the start")
			}
			ctx, stop := context.WithTimeout(r.Context(), 3002*time.Millisecond)
			defer stop()
			_, err := grants.Refresh(ctx, s, grant.fresh, fails)
			if got := name.Get(s); got != "newer" {
				t.Errorf("after Refresh (%v) the request sees an older session: %q", err, got)
			}
		})
		all.Wait()
		wait()
	})
}

// TestRefreshAfterALogoutThatWasTakenBack checks that a request needs no lease while a Logout
// is pending, and that it does after a Reload that drops the Logout.
func TestRefreshAfterALogoutThatWasTakenBack(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			elsewhere := func(f func()) { // in another goroutine, because fresh must not call methods of the session
				var all sync.WaitGroup
				all.Go(f)
				all.Wait()
			}
			looks, runs := 0, false
			grants.Refresh(r.Context(), s, func(grant) bool {
				switch looks++; looks {
				case 1:
					elsewhere(s.Logout)
				case 2:
					elsewhere(func() { s.Reload(r.Context()) })
				}
				return false
			}, func(context.Context, grant) (grant, error) {
				runs = true
				x.clone().at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					ctx, stop := context.WithTimeout(r.Context(), 20*second)
					defer stop()
					grants.Refresh(ctx, s, grant.fresh, func(context.Context, grant) (grant, error) {
						t.Error("two concurrent calls of f")
						return grant{}, errDown
					})
				})
				return grant{}, errDown
			})
			if !runs {
				t.Error("f was not called")
			}
		})
	})
}

// TestRefreshWhoseRequestLogsOut checks that a request that logs out while f runs gets
// ErrEnded, because there is no session for the result of f.
func TestRefreshWhoseRequestLogsOut(t *testing.T) {
	for _, saves := range []bool{false, true} {
		inRefresh(t, func(x *refreshing) {
			resp := x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				_, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
					s.Logout()
					if saves {
						if err := s.Save(ctx); err != nil {
							t.Error(err)
						}
					}
					return x.issuer.renew(ctx, g)
				})
				if err != session.ErrEnded {
					t.Errorf("%v, want ErrEnded", err)
				}
			})
			if c := resp.Cookies(); len(c) != 1 || c[0].MaxAge >= 0 || x.spies[0].count("Create") != 1 {
				t.Errorf("cookies %v, %d sessions", c, x.spies[0].count("Create"))
			}
		})
	}
}

// TestRefreshBesideAPendingLogin checks that a pending Login keeps the values of the anonymous
// session, which another request refreshes.
func TestRefreshBesideAPendingLogin(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.b = newBrowser(t, nil)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) { grants.Set(s, grant{}) })
		var all sync.WaitGroup
		other := x.clone()
		all.Go(func() { other.at(1, x.refresh(1)) })
		time.Sleep(x.issuer.takes / 2)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("alice")
			x.refresh(1)(w, r, s)
		})
		all.Wait()
		if x.issuer.calls != 1 || x.issuer.revoked {
			t.Errorf("%d calls of the issuer", x.issuer.calls)
		}
		x.at(0, x.refresh(1))
	})
}

// TestRefreshEncodes checks that a value that cannot be encoded is an error, and that the lease
// is returned.
func TestRefreshEncodes(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		bad := session.NewKey[func()]("bad")
		for range 2 {
			x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				began := time.Now()
				_, err := bad.Refresh(r.Context(), s, func(func()) bool { return false }, func(context.Context, func()) (func(), error) { return func() {}, nil })
				if err == nil || !strings.Contains(err.Error(), `Refresh "bad"`) || time.Since(began) > time.Second {
					t.Errorf("%v after %v", err, time.Since(began))
				}
			})
		}
	})
}

// TestRefreshOfNewSession checks that without a stored session, when there are no concurrent
// requests, f is called and the session is created.
func TestRefreshOfNewSession(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.b = newBrowser(t, nil)
		x.at(0, x.refresh(1))
		if x.b.cookie() == "" {
			t.Error("no cookie")
		}
		x.at(1, x.refresh(1))
		x.b = newBrowser(t, nil)
		x.issuer = issuer{takes: time.Second}
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("bob") // pending during the Refresh
			x.refresh(1)(w, r, s)
		})
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if s.User() != "bob" {
				t.Error("not logged in")
			}
			x.refresh(1)(w, r, s)
		})
	})
}

// TestRefreshOfTwoValues checks that two values of one session are refreshed concurrently, each
// with a lease of its own, and that a lease is not a value.
func TestRefreshOfTwoValues(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		var all sync.WaitGroup
		began := time.Now()
		for _, name := range []string{"one", "two", "a \"quoted\" <name>"} {
			key := session.NewKey[int](name)
			for i := range 3 {
				all.Go(func() {
					x.at(i, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						n, err := key.Refresh(r.Context(), s, func(n int) bool { return n > 0 }, func(ctx context.Context, n int) (int, error) {
							time.Sleep(5 * time.Second)
							x.at(2, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
								if got := fmt.Sprint(s.Names()); strings.Contains(got, "session") {
									t.Error(got)
								}
							})
							return n + 1, nil
						})
						if n != 1 || err != nil {
							t.Errorf("%s: %d, %v", name, n, err)
						}
					})
				})
			}
		}
		if all.Wait(); time.Since(began) > 7*time.Second {
			t.Errorf("the calls were not concurrent: they took %v", time.Since(began))
		}
	})
}

// TestRefreshBeyondTheLease checks that a request that continues after its lease does not end
// the lease of another, and that its result is saved nevertheless.
func TestRefreshBeyondTheLease(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		var all sync.WaitGroup
		all.Go(func() {
			x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				ctx, cancel := context.WithTimeout(r.Context(), time.Second)
				defer cancel()
				grants.Refresh(ctx, s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
					time.Sleep(5 * time.Second)
					return g, errDown
				})
			})
		})
		for i := range 6 {
			all.Go(func() {
				time.Sleep(time.Duration(i+2) * time.Second)
				x.at(1+i%2, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					g, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
						time.Sleep(10 * time.Second)
						return x.issuer.renew(ctx, g)
					})
					if err != nil || g.Serial != 1 {
						t.Errorf("%+v, %v", g, err)
					}
				})
			})
		}
		if all.Wait(); x.issuer.calls != 1 {
			t.Errorf("%d calls", x.issuer.calls)
		}
		time.Sleep(2 * minute)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			grants.Refresh(ctx, s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				time.Sleep(2 * time.Second)
				return x.issuer.renew(ctx, g)
			})
		})
		x.at(1, x.refresh(2))
	})
}

// TestRefreshIndeterminate checks that a Save with an unknown outcome is not repeated, because
// an Update that is saved with it would count twice.
func TestRefreshIndeterminate(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			began := time.Now()
			visits.Update(s, func(n int) int { return n + 1 })
			g, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				x.spies[0].after = func(ctx context.Context, call, id string, err error) error { return session.ErrIndeterminate }
				return x.issuer.renew(ctx, g)
			})
			if !errors.Is(err, session.ErrIndeterminate) || g.Serial != 1 || time.Since(began) > 2*time.Second {
				t.Errorf("%+v, %v after %v", g, err, time.Since(began))
			}
			x.spies[0].after = nil
		})
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			x.refresh(1)(w, r, s)
			if n := visits.Get(s); n != 1 {
				t.Errorf("counted %d times", n)
			}
		})
	})
}

// TestRefreshLeaseIsNoValue checks that Clear does not end a lease, and that a lease does not
// count against MaxDataSize.
func TestRefreshLeaseIsNoValue(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		var all sync.WaitGroup
		var running atomic.Int64
		for i := range 3 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 2 * time.Second)
				x.at(i, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
						if running.Add(1) > 1 {
							t.Error("two concurrent calls of f")
						}
						time.Sleep(5 * time.Second)
						running.Add(-1)
						return grant{Serial: 1, Ends: time.Now().Add(minute)}, nil
					})
				})
			})
		}
		time.Sleep(time.Second)
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Clear() })
		all.Wait()
	})
	m := newManager(t, session.Options{MaxDataSize: 30})
	key := session.NewKey[string]("k")
	b := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if s.IsNew() {
			key.Set(s, "x")
			return
		}
		if _, err := key.Refresh(r.Context(), s, func(string) bool { return false }, func(ctx context.Context, _ string) (string, error) {
			return strings.Repeat("x", 22), nil
		}); err != nil {
			t.Error(err)
		}
	})))
	b.get("/")
	b.get("/")
}

// TestRefreshThatCouldNotBeSaved checks that f is not called if its result could not be saved.
func TestRefreshThatCouldNotBeSaved(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		other := newBrowser(t, nil)
		other.h = x.processes[0].Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("bob") }))
		other.get("/")
		for name, before := range map[string]func(w http.ResponseWriter, s *session.Session){
			"a call that was refused": func(w http.ResponseWriter, s *session.Session) { s.Login("") },
			"a Login that came late":  func(w http.ResponseWriter, s *session.Session) { w.Write(ok); s.Login("bob") },
			"two live sessions":       nil,
		} {
			h := x.processes[0].Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if before != nil {
					before(w, s)
				}
				if _, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); err == nil {
					t.Errorf("%s: no error", name)
				}
			}))
			r := x.b.request("/")
			if before == nil {
				r.Header.Set("Cookie", x.b.cookie()+"; "+other.cookie())
			}
			newBrowser(t, h).do(r)
		}
		if x.issuer.calls != 0 {
			t.Errorf("%d calls", x.issuer.calls)
		}
	})
}

// TestRefreshLeaseIsOfOneSession checks that a Login that creates another session keeps the
// values, and no lease.
func TestRefreshLeaseIsOfOneSession(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.b = newBrowser(t, nil)
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) { grants.Set(s, grant{}) })
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			_, err := grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") })
				began := time.Now()
				x.at(2, x.refresh(1))
				if d := time.Since(began); d > 2*time.Second {
					t.Errorf("the Refresh took %v", d)
				}
				return g, nil
			})
			if !errors.Is(err, session.ErrReplaced) {
				t.Error(err)
			}
		})
	})
}

// TestRefreshInOneRequest checks that concurrent goroutines of one request behave as concurrent
// requests.
func TestRefreshInOneRequest(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() { x.refresh(1)(w, r, s) })
			}
			all.Wait()
		})
		if x.issuer.calls != 1 {
			t.Errorf("%d calls", x.issuer.calls)
		}
	})
}

// TestRefreshLoadsWithinItsDeadline checks that the deadline of the context also applies to the
// first load.
func TestRefreshLoadsWithinItsDeadline(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.spies[0].hook(func(ctx context.Context, call, id string) error { <-ctx.Done(); return ctx.Err() })
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			if _, err := grants.Refresh(ctx, s, grant.fresh, x.issuer.renew); !errors.Is(err, session.ErrStore) || time.Since(began) != time.Second {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	})
}

// TestRefreshWhoseFreshPanics checks that a panic of fresh leaves no lease behind.
func TestRefreshWhoseFreshPanics(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			defer func() { recover() }()
			calls := 0
			grants.Refresh(r.Context(), s, func(grant) bool {
				if calls++; calls == 2 { // the second call is with the lease
					panic("oh")
				}
				return false
			}, x.issuer.renew)
		})
		began := time.Now()
		if x.at(1, x.refresh(1)); time.Since(began) > 3*time.Second {
			t.Errorf("the next one waited %v", time.Since(began))
		}
	})
}

// hold lets the first process refresh for ten seconds, and returns when it has begun.
func (x *refreshing) hold(all *sync.WaitGroup) {
	began := make(chan struct{})
	all.Go(func() {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				close(began)
				time.Sleep(10 * time.Second)
				return x.issuer.renew(ctx, g)
			})
		})
	})
	<-began
}

// TestRefreshWithNoTimeLeft: promise 17. A request that has less than two seconds left does not
// call f. It waits while another request holds the lease, and otherwise returns the deadline's
// error, so that the grant is not used in vain.
func TestRefreshWithNoTimeLeft(t *testing.T) {
	for _, isHeld := range []bool{false, true} {
		for _, left := range []time.Duration{time.Millisecond, 2*time.Second - time.Millisecond, 2 * time.Second} {
			t.Run(fmt.Sprint(left, ", held: ", isHeld), func(t *testing.T) {
				inRefresh(t, func(x *refreshing) {
					var all sync.WaitGroup
					if isHeld {
						x.hold(&all)
					}
					calls := 0
					x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						ctx, cancel := context.WithTimeout(r.Context(), left)
						defer cancel()
						_, err := grants.Refresh(ctx, s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
							calls++
							return x.issuer.renew(ctx, g)
						})
						if begins := !isHeld && left >= 2*time.Second; begins != (calls == 1) || begins != (err == nil) || err != nil && !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("f was called %d times, %v", calls, err)
						}
					})
					all.Wait()
					x.at(2, x.refresh(1))
				})
			})
		}
	}
}

// TestRefreshClaimOfUnknownOutcome: promise 17. A claim with an unknown outcome delays no other
// request: the store is asked for the outcome, and the lease is returned if the claim was
// applied.
func TestRefreshClaimOfUnknownOutcome(t *testing.T) {
	for _, applied := range []bool{true, false} {
		inRefresh(t, func(x *refreshing) {
			x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.User()
				if applied {
					x.spies[0].after = func(ctx context.Context, call, id string, err error) error {
						if call == "Save" {
							x.spies[0].after = nil
							return session.ErrIndeterminate
						}
						return err
					}
				} else {
					x.spies[0].hook(func(ctx context.Context, call, id string) error {
						if call == "Save" {
							x.spies[0].hook(nil)
							return session.ErrIndeterminate
						}
						return nil
					})
				}
				if _, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew); !errors.Is(err, session.ErrIndeterminate) {
					t.Errorf("applied %v: the first: %v", applied, err)
				}
			})
			began := time.Now()
			x.at(1, x.refresh(1))
			if waited := time.Since(began); waited > time.Second {
				t.Errorf("applied %v: the next one waited %v", applied, waited)
			}
		})
	}
}

// TestRefreshWaitersShareAPoll: promise 17. All requests of a session in one process that wait
// for a Refresh share one poll of the store, and a request that leaves does not end the poll
// for the others.
func TestRefreshWaitersShareAPoll(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		const n = 1000
		var all sync.WaitGroup
		x.hold(&all)
		before := x.spies[1].count("")
		for i := range n {
			all.Go(func() {
				x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					ctx := r.Context()
					if i%10 == 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, time.Duration(i+1)*time.Millisecond)
						defer cancel()
					}
					g, err := grants.Refresh(ctx, s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
						t.Error("f of a request that waits was called")
						return g, nil
					})
					if isLate := i%10 == 0; isLate != (err != nil) || !isLate && g.Serial != 1 {
						t.Errorf("request %d: %+v, %v", i, g, err)
					}
				})
			})
		}
		all.Wait()
		if calls := x.spies[1].count("") - before; calls > n+400 { // one load per request, and the polls
			t.Errorf("%d calls of the store for %d requests that wait ten seconds", calls, n)
		}
	})
}

// TestRefreshNeedsTimeAfterTheClaim checks that f is not called with less than two seconds
// left, also if the claim has used up the rest of the time, or if the session is new and needs
// no claim.
func TestRefreshNeedsTimeAfterTheClaim(t *testing.T) {
	refuses := func(x *refreshing, limit time.Duration, before func(s *session.Session)) {
		t.Helper()
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			before(s)
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			if _, err := grants.Refresh(ctx, s, grant.fresh, x.issuer.renew); err != context.DeadlineExceeded || x.issuer.calls != 0 {
				t.Errorf("%v, %d calls", err, x.issuer.calls)
			}
		})
	}
	inRefresh(t, func(x *refreshing) {
		slowStore(x.spies[0], 1500*time.Millisecond)
		refuses(x, 4500*time.Millisecond, func(s *session.Session) {}) // 3 s for the load and the claim
		began := time.Now()
		if x.at(1, x.refresh(1)); time.Since(began) > 2*time.Second {
			t.Errorf("the lease was not given back: the next request waited %v", time.Since(began))
		}
	})
	for _, before := range []func(s *session.Session){
		func(s *session.Session) {},
		func(s *session.Session) { name.Set(s, "value") },
		func(s *session.Session) { s.Login("bob") },
	} {
		inRefresh(t, func(x *refreshing) {
			x.b = newBrowser(t, nil)
			refuses(x, time.Second, before)
		})
	}
}

// TestRefreshOfATokenThatWasReplaced checks that a request whose token was replaced by a renewal
// holds the lease only if it is stored as the holder, and then gives it back: what it shows of the
// session, as it was before the renewal, may contain another lease.
func TestRefreshOfATokenThatWasReplaced(t *testing.T) {
	// another leaves a lease that ends three hours later than it should, as if the clocks had been
	// set back since.
	another := func(x *refreshing) {
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			grants.Refresh(r.Context(), s, grant.fresh, func(ctx context.Context, g grant) (grant, error) {
				x.spies[1].down.Store(true)
				return g, errors.New("the process dies")
			})
		})
		x.spies[1].down.Store(false)
		x.spies[1].setBack(3 * time.Hour)
	}
	// shorten begins to wait for that lease, which makes it end in time.
	shorten := func(x *refreshing) {
		x.at(1, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Second)
			defer cancel()
			if _, err := grants.Refresh(ctx, s, grant.fresh, x.issuer.renew); !errors.Is(err, context.DeadlineExceeded) {
				x.t.Errorf("Refresh beside another lease: %v", err)
			}
		})
	}
	renew := func(x *refreshing) {
		x.at(2, func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() })
	}
	// old calls Refresh in a request that loads the session before meanwhile.
	old := func(x *refreshing, meanwhile func()) (took time.Duration) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			meanwhile()
			began := time.Now()
			x.refresh(1)(w, r, s)
			took = time.Since(began)
		})
		return took
	}
	t.Run("the lease in the session before", func(t *testing.T) {
		inRefresh(t, func(x *refreshing) {
			another(x)
			took := old(x, func() {
				shorten(x)
				time.Sleep(minute) // the lease ends
				renew(x)
			})
			if took > 2*x.issuer.takes {
				t.Errorf("Refresh waited for a lease of its own: %v", took)
			}
		})
	})
	t.Run("the lease in the session after", func(t *testing.T) {
		inRefresh(t, func(x *refreshing) {
			took := old(x, func() {
				renew(x)
				another(x)
			})
			if took < 30*time.Second {
				t.Errorf("Refresh did not wait for the lease of another request: %v", took)
			}
		})
	})
}
