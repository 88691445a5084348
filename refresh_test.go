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

// A grant is what an issuer gives: good until Ends, and then for one use.
type grant struct {
	Serial int
	Ends   time.Time
}

func (g grant) fresh() bool { return time.Now().Before(g.Ends) }

var grants = session.NewKey[grant]("grants")

// An issuer revokes everything when a grant comes twice, as Dex does, and as RFC
// 9700, 4.14.2, wants it.
type issuer struct {
	mu      sync.Mutex
	serial  int
	takes   time.Duration
	calls   int
	revoked bool
}

var errRevoked = errors.New("issuer: a refresh token came twice")

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
	time.Sleep(is.takes) // the answer is on its way
	return next, nil
}

// A refreshing is a test of Refresh: three processes over one store.
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

// refresh asks for a fresh grant and expects one of this serial.
func (x *refreshing) refresh(want int) func(w http.ResponseWriter, r *http.Request, s *session.Session) {
	return func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		g, err := grants.Refresh(r.Context(), s, grant.fresh, x.issuer.renew)
		if err != nil || g.Serial != want || !g.fresh() {
			x.t.Errorf("%+v, %v, want grant %d", g, err, want)
		}
		if got := grants.Get(s); got != g {
			x.t.Errorf("the session has %+v afterwards", got)
		}
	}
}

// Of all requests that overlap, on whatever process, one asks the issuer, and all
// have what it was given; what they change besides is kept.
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
				t.Errorf("round %d: the issuer was asked %d times", round, x.issuer.calls)
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

// A fresh value costs the session's own load and no more; one that is not, a Save
// to claim the lease and a Save of the value.
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

// An error of f, or a panic, is its caller's: nothing is saved, and the next one
// asks, at once.
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
								t.Errorf("whose call failed: %+v, %v", g, err)
							case !first && (err != nil || g.Serial != 1):
								t.Errorf("the others: %+v, %v", g, err)
							}
						})
					})
				}
				began := time.Now()
				all.Wait()
				if x.issuer.calls != 3 || x.issuer.revoked { // the first, the second, and the issuer's own count of that
					t.Errorf("%d calls", x.issuer.calls)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("they waited %v", took)
				}
			})
		})
	}
}

// A process that dies with the lease holds the others up until that is over, and
// no longer; what it still does then is not under the lease.
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
						x.spies[0].down.Store(true) // nothing of this process arrives any more
						<-ctx.Done()
						if d := time.Since(began); d != want || ctx.Err() != context.DeadlineExceeded {
							t.Errorf("f's context ended after %v, %v", d, ctx.Err())
						}
						return g, ctx.Err()
					})
				})
			})
			<-claimed
			x.at(1, x.refresh(1))
			held := want + 5*time.Second // the lease outlives f by StoreTimeout
			if d := time.Since(began); d < held || d > held+3*time.Second {
				t.Errorf("limit %v: the next one was done after %v, want a little more than %v", limit, d, held)
			}
			dead.Wait()
		})
	}
}

// Whoever waits gives up with his context; whoever asks with one that has ended
// does not begin.
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

// A user who goes to another page while f runs loses nothing of it.
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

// A session that ends while f runs is ErrEnded for who runs it and for who
// waits; a token that is no session asks nobody.
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
			"a Renew of long ago":     {func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() }, minute},
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

// While f runs no lock is held, in this request or another; what is changed
// meanwhile is kept, and if that is the value itself, it stays.
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
						t.Errorf("%s: the other value is there: %v", c.what, ok)
					}
				})
			})
		}
	}
}

// What else is pending is saved with the value, and not before: an error of f
// saves nothing of it.
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

// A renewal that is asked for while f runs: what f got is kept. Who came before
// it and sees the session as it was never uses a grant a second time.
func TestRefreshAndARenewal(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		var all sync.WaitGroup
		var answered, refused atomic.Int64
		for i := range 20 {
			all.Go(func() {
				x.at(i%3, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					s.User() // came before the renewal
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

// A store that fails: before f nothing has happened; after it, it is tried again
// while the lease lasts, for what f has used up cannot be had again.
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

// A Reload by another goroutine of the request forgets what is unsaved, but not what f
// has used a grant up for, and not that the lease is over.
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
			time.Sleep(x.issuer.takes + time.Second) // the Save of what f returned is being tried
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

// elsewhere lets another process hold the lease for d. wait waits for the end of that.
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

// clone returns the same with another browser that has the cookie of now.
func (x *refreshing) clone() *refreshing {
	return &refreshing{t: x.t, spies: x.spies, processes: x.processes, b: x.b.replay(x.b.cookie())}
}

func fails(context.Context, grant) (grant, error) { return grant{}, errDown }

// While a request waits, another goroutine of it begins another session. What the look
// at the old one finds is not about that.
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

// A request that begins to wait while the others' look at the store is under way may
// have loaded a newer record than that look will find.
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
				t.Fatal("the request sees an old session from the first")
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

// A request needs no lease while a Logout is pending. If a Reload takes that back, it
// does.
func TestRefreshAfterALogoutThatWasTakenBack(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			elsewhere := func(f func()) { // in another goroutine, as fresh must call no method itself
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
						t.Error("f runs twice at once")
						return grant{}, errDown
					})
				})
				return grant{}, errDown
			})
			if !runs {
				t.Error("f never ran")
			}
		})
	})
}

// A request that logs out while f runs has nowhere to keep what f returns.
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

// A pending Login keeps the values of the anonymous session, which another request
// refreshes.
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

// A value that cannot be encoded is an error, and the lease is given back.
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

// Where nothing is stored yet nobody overlaps: f is called, and the session made.
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
			s.Login("bob") // is pending
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

// Two values of one session are refreshed each under a lease of its own, at the
// same time; and a lease is no value.
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
			t.Errorf("one after the other: %v", time.Since(began))
		}
	})
}

// Whoever runs on after his lease ends nobody else's, and what he has is saved
// although his time is over.
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

// A Save of which nobody knows whether it was applied is not repeated: an Update
// that is saved with it would count twice.
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

// A lease is none of the values: Clear does not end it, and it takes no room.
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
							t.Error("two at the same time")
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

// What cannot be saved is not begun.
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

// A Login that begins another session takes the values along, and no lease.
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
					t.Errorf("it took %v", d)
				}
				return g, nil
			})
			if !errors.Is(err, session.ErrReplaced) {
				t.Error(err)
			}
		})
	})
}

// Goroutines of one request overlap like requests do.
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

// The context holds for the first load too.
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

// A panic of fresh leaves no lease behind.
func TestRefreshWhoseFreshPanics(t *testing.T) {
	inRefresh(t, func(x *refreshing) {
		x.at(0, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			defer func() { recover() }()
			calls := 0
			grants.Refresh(r.Context(), s, func(grant) bool {
				if calls++; calls == 2 { // under the lease
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

// Promise 17. A request that has less than two seconds left does not begin f: it waits
// while another holds the lease, and else returns the deadline's error. The credential
// is not used up in vain.
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

// Promise 17. A claim whose outcome is unknown holds up no other request: it is looked
// at, and given back if the store has it.
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

// Promise 17. All requests of a session in one process that wait for a Refresh share
// one poll of the store, and one that leaves does not take it away from the others.
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
		if calls := x.spies[1].count("") - before; calls > n+400 { // a load each, and the looks
			t.Errorf("%d calls of the store for %d requests that wait ten seconds", calls, n)
		}
	})
}

// f is not begun with less than two seconds left, also if the claim has used up the
// rest of the time, or the session is new and needs no claim.
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
