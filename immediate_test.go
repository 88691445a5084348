package session_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

var voucher = session.NewKey[string]("voucher")

// onOneRecord sends n requests of one browser to several processes over one store. Each has
// loaded the session before the first of them runs f.
func onOneRecord(t *testing.T, n int, begin func(s *session.Session), f func(i int, r *http.Request, s *session.Session)) *browser {
	t.Helper()
	store := session.NewMemoryStore(nil)
	var processes []http.Handler
	run := func(w http.ResponseWriter, r *http.Request) {}
	for range 3 {
		m := newManager(t, session.Options{Store: store})
		processes = append(processes, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { run(w, r) })))
	}
	b := newBrowser(t, processes[0])
	run = func(w http.ResponseWriter, r *http.Request) { begin(session.From(r.Context())) }
	b.get("/")
	var loaded, done sync.WaitGroup
	loaded.Add(n)
	run = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.User()
		loaded.Done()
		loaded.Wait()
		var i int
		fmt.Sscanf(r.URL.Path, "/%d", &i)
		f(i, r, s)
	}
	for i := range n {
		r := b.request(fmt.Sprint("/", i))
		done.Go(func() { processes[i%len(processes)].ServeHTTP(httptest.NewRecorder(), r) })
	}
	done.Wait()
	run = func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, session.From(r.Context()).Names(), visits.Get(session.From(r.Context())))
	}
	return b
}

// Promise 1. Of requests that have all read the value, exactly one takes it, and
// what each of them changed beside it is kept.
func TestTakeIsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		b := onOneRecord(t, 30, func(s *session.Session) { voucher.Set(s, "ten euros") }, func(i int, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
			v, ok, err := voucher.Take(r.Context(), s)
			if err != nil || ok != (v != "") {
				t.Errorf("Take: %q, %v, %v", v, ok, err)
			}
			if _, has := voucher.Lookup(s); has {
				t.Error("the value is still there")
			}
			mu.Lock()
			defer mu.Unlock()
			if ok {
				got = append(got, v)
			}
		})
		if !slices.Equal(got, []string{"ten euros"}) {
			t.Errorf("requests took %q", got)
		}
		if left := body(b.get("/")); left != `[visits] 30` {
			t.Errorf("left is %s", left)
		}
	})
}

// Promise 1. What UpdateNow returns is what was stored: no two requests get the
// same number, although all of them have read the same record.
func TestUpdateNowIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 30
		var mu sync.Mutex
		var got []int
		b := onOneRecord(t, n, func(s *session.Session) { s.Login("alice") }, func(i int, r *http.Request, s *session.Session) {
			saw := 0
			v, err := visits.UpdateNow(r.Context(), s, func(n int) int { saw = n; return n + 1 })
			if err != nil || v != saw+1 || visits.Get(s) != v {
				t.Errorf("UpdateNow: %d, %v; f saw %d, and now it is %d", v, err, saw, visits.Get(s))
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, v)
		})
		slices.Sort(got)
		for i, v := range got {
			if v != i+1 {
				t.Fatalf("the numbers are %d", got)
			}
		}
		if left := body(b.get("/")); left != fmt.Sprint(`[visits] `, n) {
			t.Errorf("left is %s", left)
		}
	})
}

// UpdateNow returns what was stored even if f never returns the same value twice and
// the value changes back and forth while it tries.
func TestUpdateNowReturnsWhatWasStored(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		calls := 0
		d.do(b, func(s *session.Session) {
			others, err := d.m.List(t.Context(), "alice")
			if err != nil {
				t.Fatal(err)
			}
			changes := []string{"other", "before", "other", "before"}
			d.spy.hook(func(_ context.Context, call, _ string) error {
				if call != "Save" || len(changes) == 0 {
					return nil
				}
				rec, err := d.spy.Store.Load(t.Context(), others[0].ID)
				if err != nil {
					t.Fatal(err)
				}
				old := rec.Version
				rec.Version++
				rec.Data = withKey(rec.Data, fmt.Sprintf(`{"name":%q}`, changes[0]))
				changes = changes[1:]
				if err := d.spy.Store.Save(t.Context(), rec, old); err != nil {
					t.Fatal(err)
				}
				return nil
			})
			got, err := name.UpdateNow(t.Context(), s, func(v string) string { calls++; return fmt.Sprint(v, calls) })
			if err != nil || got != name.Get(s) {
				t.Errorf("%q, %v, and the session has %q", got, err, name.Get(s))
			}
			name.Set(s, name.Get(s)) // the response's commit is not what is looked at
			if err := s.Reload(t.Context()); err != nil || name.Get(s) != got {
				t.Errorf("returned %q, stored %q, %v", got, name.Get(s), err)
			}
		})
	})
}

// Take without a value begins no session and costs no call of the store but the
// load. What was pending before it is committed all the same.
func TestTakeOfNothing(t *testing.T) {
	visit, spy, _ := newVisitor(t, session.Options{})
	take := func(s *session.Session) {
		t.Helper()
		if v, ok, err := voucher.Take(t.Context(), s); v != "" || ok || err != nil {
			t.Errorf("Take: %q, %v, %v", v, ok, err)
		}
	}
	if resp := visit(take); spy.count("") != 0 || setsCookie(resp) {
		t.Errorf("without a session: %s", spy.summary())
	}
	if resp := visit(func(s *session.Session) {
		name.Set(s, "value")
		take(s)
		if s.IsNew() {
			t.Error("what was pending before is not committed")
		}
	}); !setsCookie(resp) {
		t.Error("no cookie")
	}
	spy.forget()
	visit(take)
	if got := spy.summary(); got != "Load" {
		t.Errorf("in a stored session: %s", got)
	}
	visit(func(s *session.Session) {
		visits.Set(s, 7)
		session.NewKey[[]string]("name").Take(t.Context(), s) // does not decode
		if err := s.Reload(t.Context()); err != nil || visits.Get(s) != 7 || name.Get(s) != "value" {
			t.Errorf("%v, stored are %d and %q", err, visits.Get(s), name.Get(s))
		}
	})
	visit(func(s *session.Session) {
		s.Logout()
		take(s)
	})
	visit(func(s *session.Session) {
		if !s.IsNew() {
			t.Error("the Logout was not committed")
		}
		voucher.Set(s, "mine")
		if v, ok, err := voucher.Take(t.Context(), s); v != "mine" || !ok || err != nil {
			t.Errorf("Take of what this request has set: %q, %v, %v", v, ok, err)
		}
		take(s)
	})
}

// Both commit everything that is pending, a Login among it, and the response
// carries the cookie.
func TestImmediateCommitsAll(t *testing.T) {
	for what, f := range immediate {
		atDesk(t, session.Options{}, func(d *desk) {
			b := newBrowser(t, d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.f(session.From(r.Context())) })))
			d.do(b, func(s *session.Session) { voucher.Set(s, "good") })
			if !d.do(b, func(s *session.Session) {
				s.Login("alice")
				name.Set(s, "value")
				if err := f(t.Context(), s); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				all, err := d.m.List(t.Context(), "alice")
				if err != nil || len(all) != 1 {
					t.Fatalf("%s: stored are %d sessions, %v", what, len(all), err)
				}
				if stored, _ := name.Of(all[0]); stored != "value" {
					t.Errorf("%s: stored is %q", what, stored)
				}
			}) {
				t.Errorf("%s: no cookie", what)
			}
			d.expect(b, "value")
		})
	}
}

// immediate are the two calls, for which a session needs the voucher.
var immediate = map[string]func(ctx context.Context, s *session.Session) error{
	"Take": func(ctx context.Context, s *session.Session) error {
		_, _, err := voucher.Take(ctx, s)
		return err
	},
	"UpdateNow": func(ctx context.Context, s *session.Session) error {
		_, err := voucher.UpdateNow(ctx, s, func(v string) string { return v + "!" })
		return err
	},
}

// A failure of the store is the caller's: the response stays the handler's, and the
// change is not made later, when the store is back. Others that were pending are.
func TestImmediateWhileTheStoreFails(t *testing.T) {
	for what, f := range immediate {
		t.Run(what, func(t *testing.T) {
			visit, spy, _ := newVisitor(t, session.Options{})
			visit(func(s *session.Session) { s.Login("alice"); voucher.Set(s, "good") })
			resp := visit(func(s *session.Session) {
				name.Set(s, "value")
				spy.hook(failing("Save", errDown))
				for range 3 {
					if err := f(t.Context(), s); !errors.Is(err, session.ErrStore) || !errors.Is(err, errDown) {
						t.Error(err)
					}
				}
				if got := voucher.Get(s); got != "good" {
					t.Errorf("the voucher is %q", got)
				}
			})
			if resp.StatusCode != 200 {
				t.Errorf("the response is %s", resp.Status)
			}
			visit(func(s *session.Session) {
				name.Set(s, "value")
				if err := f(t.Context(), s); !errors.Is(err, errDown) {
					t.Error(err)
				}
				spy.hook(nil)
				if err := s.Save(t.Context()); err != nil || s.Err() != nil {
					t.Error(err, s.Err())
				}
			})
			visit(func(s *session.Session) {
				if voucher.Get(s) != "good" || name.Get(s) != "value" {
					t.Errorf("stored are %q and %q", voucher.Get(s), name.Get(s))
				}
				if err := f(t.Context(), s); err != nil {
					t.Error(err)
				}
				if got := voucher.Get(s); got != map[string]string{"Take": "", "UpdateNow": "good!"}[what] {
					t.Errorf("the voucher is %q", got)
				}
			})
			spy.down.Store(true)
			if resp := visit(func(s *session.Session) {
				if err := f(t.Context(), s); !errors.Is(err, errDown) {
					t.Error(err)
				}
			}); resp.StatusCode != 200 {
				t.Errorf("where the load has failed: %s", resp.Status)
			}
		})
	}
}

// After an unknown outcome at most one request gets the value, and no update is
// counted twice.
func TestImmediateOfUnknownOutcome(t *testing.T) {
	for _, applied := range []bool{true, false} {
		visit, spy, _ := newVisitor(t, session.Options{})
		unsure := func(on bool) {
			spy.hook(nil)
			spy.after = nil
			switch {
			case on && applied:
				spy.after = lost("Save")
			case on:
				spy.hook(failing("Save", session.ErrIndeterminate))
			}
		}
		visit(func(s *session.Session) { voucher.Set(s, "good"); visits.Set(s, 1) })
		taken := 0
		take := func(s *session.Session) error {
			_, ok, err := voucher.Take(t.Context(), s)
			if ok {
				taken++
			}
			return err
		}
		visit(func(s *session.Session) {
			unsure(true)
			if err := take(s); !errors.Is(err, session.ErrIndeterminate) {
				t.Error(err)
			}
			unsure(false)
			if err := take(s); !errors.Is(err, session.ErrIndeterminate) {
				t.Errorf("before a Reload: %v", err)
			}
			if err := s.Reload(t.Context()); err != nil {
				t.Error(err)
			}
			if err := take(s); err != nil {
				t.Error(err)
			}
		})
		if want := map[bool]int{true: 0, false: 1}[applied]; taken != want {
			t.Errorf("applied %v: %d requests have taken the value, want %d", applied, taken, want)
		}
		var count int
		visit(func(s *session.Session) {
			up := func() (int, error) { return visits.UpdateNow(t.Context(), s, func(n int) int { return n + 1 }) }
			unsure(true)
			if _, err := up(); !errors.Is(err, session.ErrIndeterminate) {
				t.Error(err)
			}
			unsure(false)
			s.Save(t.Context())
			if err := s.Reload(t.Context()); err != nil {
				t.Error(err)
			}
			count = visits.Get(s)
		})
		if want := map[bool]int{true: 2, false: 1}[applied]; count != want {
			t.Errorf("applied %v: counted %d, want %d", applied, count, want)
		}
	}
}

// A value that cannot be encoded is the caller's error, and changes nothing.
func TestUpdateNowOfWhatCannotBeEncoded(t *testing.T) {
	visit, _, _ := newVisitor(t, session.Options{})
	ratio := session.NewKey[float64]("ratio")
	resp := visit(func(s *session.Session) {
		ratio.Set(s, 1)
		name.Set(s, "value")
		if v, err := ratio.UpdateNow(t.Context(), s, func(float64) float64 { return math.NaN() }); err == nil || v != 0 {
			t.Error(v, err)
		}
		if s.Err() != nil || ratio.Get(s) != 1 {
			t.Error(s.Err(), ratio.Get(s))
		}
	})
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	visit(func(s *session.Session) {
		if name.Get(s) != "value" || ratio.Get(s) != 1 {
			t.Errorf("stored are %q and %v", name.Get(s), ratio.Get(s))
		}
	})
}

// Promise 6. In a stored session they work after the first byte and after the
// handler; a session that would have to begin there is an error and nothing else.
func TestImmediateWhenItIsLate(t *testing.T) {
	for what, f := range immediate {
		for _, returned := range []bool{false, true} {
			for _, stored := range []bool{false, true} {
				t.Run(fmt.Sprint(what, " returned=", returned, " stored=", stored), func(t *testing.T) {
					atDesk(t, session.Options{}, func(d *desk) {
						logged := captureLog(t)
						release, done := make(chan struct{}), make(chan struct{})
						b := newBrowser(t, d.m.Handler(routes{
							"/begin": func(w http.ResponseWriter, r *http.Request, s *session.Session) { voucher.Set(s, "good") },
							"/late": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
								s.User()
								fmt.Fprint(w, "the first byte")
								late := func() {
									defer close(done)
									ctx, cancel := context.WithCancel(r.Context())
									cancel() // as the request's is when the handler has returned
									switch err := f(ctx, s); {
									case stored && err != nil:
										t.Errorf("in a stored session: %v", err)
									case !stored && what == "UpdateNow":
										expectCall(t, err, "UpdateNow")
									case !stored && err != nil:
										t.Error(err)
									}
									if err := s.Save(ctx); err != nil || s.Err() != nil {
										t.Error("Save:", err, s.Err())
									}
								}
								if returned {
									go func() { <-release; late() }()
								} else {
									late()
								}
							},
							"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, voucher.Get(s)) },
						}))
						if stored {
							b.get("/begin")
						}
						b.get("/late")
						close(release)
						<-done
						want := ""
						if stored && what == "UpdateNow" {
							want = "good!"
						}
						if got := body(b.get("/look")); got != want {
							t.Errorf("the voucher is %q, want %q", got, want)
						}
						time.Sleep(minute)
						if n := d.log.count(session.EventDropped); n > 0 || logged.Len() > 0 {
							t.Errorf("%d EventDropped, logged %s", n, logged)
						}
					})
				})
			}
		}
	}
}

// Promise 3. With the key of before an explicit renewal they work as long as nobody has
// changed the value since; then they are ErrReplaced, and the newer value stays.
func TestImmediateWithThePreviousKey(t *testing.T) {
	for what, f := range immediate {
		for how, ask := range asks {
			for _, meanwhile := range []bool{false, true} { // the renewal comes after this request's load
				for _, changed := range []bool{false, true} {
					t.Run(fmt.Sprint(what, " ", how, " meanwhile=", meanwhile, " changed=", changed), func(t *testing.T) {
						atDesk(t, session.Options{}, func(d *desk) {
							b := d.browser()
							d.do(b, func(s *session.Session) { voucher.Set(s, "good") })
							g := newGate()
							routes := routes{
								"/renew": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
									ask(s)
									if changed {
										voucher.Set(s, "newer")
									}
								},
								"/use": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
									s.User()
									if meanwhile {
										g.pass()
									}
									if err := f(t.Context(), s); changed && err != session.ErrReplaced || !changed && err != nil {
										t.Error(err)
									}
									visits.Set(s, 7) // which is kept
								},
							}
							b.h = d.m.Handler(routes)
							old := b.replay(b.cookie())
							if meanwhile {
								g.during(old, "/use", func() { b.get("/renew") })
							} else {
								b.get("/renew")
								old.get("/use")
							}
							want := map[string]string{"Take": "", "UpdateNow": "good!"}[what]
							if changed {
								want = "newer"
							}
							b.h = d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.f(session.From(r.Context())) }))
							old.h = b.h
							d.do(b, func(s *session.Session) {
								if voucher.Get(s) != want || visits.Get(s) != 7 {
									t.Errorf("stored are %q and %d, want %q", voucher.Get(s), visits.Get(s), want)
								}
							})
							time.Sleep(11 * second)
							d.do(old, func(s *session.Session) {
								if err := f(t.Context(), s); err != session.ErrReplaced {
									t.Errorf("after the grace: %v", err)
								}
							})
						})
					})
				}
			}
		}
	}
}

// A session that has ended is ErrEnded, whether that is known or found out.
func TestImmediateAfterTheEnd(t *testing.T) {
	for what, f := range immediate {
		for _, known := range []bool{false, true} {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				d.do(b, func(s *session.Session) { voucher.Set(s, "good") })
				d.do(b, func(s *session.Session) {
					user, id := s.User(), s.ID()
					if err := d.m.Revoke(t.Context(), user, id); err != nil {
						t.Error(err)
					}
					if known {
						s.Reload(t.Context())
					}
					if err := f(t.Context(), s); err != session.ErrEnded || s.Err() != nil {
						t.Errorf("%s, known %v: %v, Err %v", what, known, err, s.Err())
					}
				})
			})
		}
	}
}

// f may panic: nothing is stored, and no lock is held.
func TestUpdateNowPanics(t *testing.T) {
	visit, spy, _ := newVisitor(t, session.Options{})
	visit(func(s *session.Session) { visits.Set(s, 1) })
	for _, when := range []string{"at first", "at the commit", "the store"} {
		visit(func(s *session.Session) {
			s.User()
			if when == "at the commit" {
				spy.hook(once(spy, "Save", func(context.Context) {
					visit(func(s *session.Session) { visits.Set(s, 2) })
				}))
			}
			if when == "the store" {
				spy.hook(panicking("Save"))
			}
			if p := returns(t, func() {
				visits.UpdateNow(t.Context(), s, func(n int) int {
					if when == "at first" || n == 2 {
						panic("f")
					}
					return 9
				})
			}); p == nil {
				t.Error("no panic")
			}
			spy.hook(nil)
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Reload(t.Context()); err != nil || visits.Get(s) > 2 {
				t.Error(err, visits.Get(s))
			}
			visits.Set(s, 1)
		})
	}
}

// A Login that takes over an anonymous session's values takes a voucher only if no other
// request has: neither one that renewed the session, nor one that ended it afterwards.
func TestTakeTogetherWithALogin(t *testing.T) {
	for _, known := range []bool{false, true} { // the other request comes before this one's load, or after it
		for how, c := range map[string]struct {
			before, after func(s *session.Session) // Take, in the other request
			known, late   error                    // of Take in the login
		}{
			"taken":              {nil, nil, nil, nil},
			"renewed and taken":  {(*session.Session).Renew, nil, session.ErrReplaced, session.ErrReplaced},
			"taken and renewed":  {nil, (*session.Session).Renew, nil, session.ErrReplaced},
			"taken and ended":    {nil, (*session.Session).Logout, nil, nil},
			"taken by the login": {func(s *session.Session) { s.Login("alice") }, nil, nil, nil},
			"taken by bob":       {func(s *session.Session) { s.Login("bob") }, nil, nil, nil},
		} {
			t.Run(fmt.Sprint(how, " known=", known), func(t *testing.T) {
				atDesk(t, session.Options{}, func(d *desk) {
					taken := 0
					take := func(s *session.Session) error {
						v, ok, err := voucher.Take(t.Context(), s)
						if ok != (v == "good") {
							t.Errorf("%q, %v", v, ok)
						}
						if ok {
							taken++
						}
						return err
					}
					g := newGate()
					b := newBrowser(t, d.m.Handler(routes{
						"/begin": func(w http.ResponseWriter, r *http.Request, s *session.Session) { voucher.Set(s, "good") },
						"/other": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
							if c.before != nil {
								c.before(s)
							}
							if err := take(s); err != nil {
								t.Errorf("the other request: %v", err)
							}
							if c.after != nil {
								c.after(s)
							}
						},
						"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
							if !known {
								s.User()
								g.pass()
							}
							s.Login("alice")
							want := c.late
							if known {
								want = c.known
							}
							if err := take(s); err != want {
								t.Errorf("the login: %v, want %v", err, want)
							}
						},
						"/who": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.User()) },
					}))
					b.get("/begin")
					old := b.replay(b.cookie())
					if known {
						b.get("/other")
						old.get("/login")
					} else {
						g.during(old, "/login", func() { b.get("/other") })
					}
					if taken != 1 {
						t.Errorf("%d requests have taken the voucher", taken)
					}
					if got := body(old.get("/who")); got != "alice" {
						t.Errorf("in as %q", got)
					}
				})
			})
		}
	}
}

// Where a Login as another user came too late, what follows it was not meant for the
// session that stays: it is an error, and nothing is stored.
func TestImmediateAfterALoginThatIsLate(t *testing.T) {
	for what, f := range immediate {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			b.h = d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				s.Login("bob")
				d.spy.down.Store(true)
				fmt.Fprint(w, "the first byte")
				d.spy.down.Store(false)
				for range 2 {
					expectCall(t, f(t.Context(), s), "Login")
				}
			}))
			b.get("/")
			b.h = d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.f(session.From(r.Context())) }))
			d.do(b, func(s *session.Session) {
				if s.User() != "alice" || voucher.Get(s) != "" {
					t.Errorf("%s: in as %q, the voucher is %q", what, s.User(), voucher.Get(s))
				}
			})
		})
	}
}

// A value that another request has used up does not come back in the session that a
// Login begins, whether that other request renewed the session before, or ended it
// afterwards. What has not changed is kept.
func TestLoginInheritsNothingUsedUp(t *testing.T) {
	renew := func(s *session.Session) {
		s.Renew()
		if err := s.Save(t.Context()); err != nil {
			t.Error(err)
		}
		voucher.Take(t.Context(), s)
		visits.UpdateNow(t.Context(), s, func(n int) int { return n + 1 })
	}
	for how, c := range map[string]struct {
		other     func(s *session.Session)
		meanwhile bool // after the load of the request that logs in
		name      string
	}{
		"renewed":                   {renew, false, "before"},
		"renewed meanwhile":         {renew, true, "before"},
		"renewed, and another one":  {func(s *session.Session) { renew(s); voucher.Set(s, "another") }, true, "before"},
		"taken meanwhile":           {func(s *session.Session) { voucher.Take(t.Context(), s); visits.Delete(s) }, true, "before"},
		"taken and ended meanwhile": {func(s *session.Session) { voucher.Take(t.Context(), s); s.Logout() }, true, ""},
	} {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				g := newGate()
				b := newBrowser(t, d.m.Handler(routes{
					"/begin": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						voucher.Set(s, "good")
						visits.Set(s, 7)
						name.Set(s, "before")
					},
					"/other": func(w http.ResponseWriter, r *http.Request, s *session.Session) { c.other(s) },
					"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						s.User()
						if c.meanwhile {
							g.pass()
						}
						s.Login("alice")
					},
					"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						if voucher.Get(s) != "" || visits.Get(s) != 0 || name.Get(s) != c.name || s.User() != "alice" {
							t.Errorf("in as %q, with the voucher %q, %d and %q", s.User(), voucher.Get(s), visits.Get(s), name.Get(s))
						}
					},
				}))
				b.get("/begin")
				old := b.replay(b.cookie())
				if c.meanwhile {
					g.during(old, "/login", func() { b.get("/other") })
				} else {
					b.get("/other")
					old.get("/login")
				}
				old.get("/look")
			})
		})
	}
}

// Random requests of one browser to three processes take, count, renew, log in and out,
// over a store that loses calls and replies. No voucher is taken twice, and no session
// gives a number twice.
func TestTakeAndUpdateNowUnderFaults(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			chance := newChance(seed)
			o, tokens := session.Options{RenewAfter: minute}, &plainTokens{}
			if seed%3 == 0 {
				o = session.Options{Tokens: tokens}
			}
			var use func(r *http.Request, s *session.Session)
			var processes []http.Handler
			store := session.NewMemoryStore(nil)
			for range 3 {
				spy := &spyStore{Store: store, calls: map[string]int{}}
				spy.before = func(context.Context, string, string) error {
					time.Sleep(time.Duration(chance.of(5)) * time.Millisecond)
					if chance.of(15) == 0 {
						return []error{errDown, session.ErrIndeterminate}[chance.of(2)]
					}
					return nil
				}
				spy.after = func(_ context.Context, call, _ string, err error) error {
					time.Sleep(time.Duration(chance.of(3)) * time.Millisecond)
					if err == nil && chance.of(15) == 0 && (call == "Save" || call == "Create") {
						return session.ErrIndeterminate
					}
					return err
				}
				o.Store, o.Secrets = spy, nil
				if o.Tokens == nil {
					o.Secrets = [][]byte{[]byte("0123456789abcdef0123456789abcdef")}
				}
				m, err := session.New(&o)
				if err != nil {
					t.Fatal(err)
				}
				processes = append(processes, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					for range 1 + chance.of(4) {
						time.Sleep(time.Duration(chance.of(4)) * time.Millisecond)
						use(r, session.From(r.Context()))
					}
				})))
			}
			var mu sync.Mutex
			got, offered := map[string]bool{}, 0
			once := func(format string, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				what := fmt.Sprintf(format, args...)
				if got[what] {
					t.Errorf("seed %d: twice: %s", seed, what)
				}
				got[what] = true
			}
			use = func(r *http.Request, s *session.Session) {
				switch chance.of(12) {
				case 0:
					mu.Lock()
					offered++
					v := fmt.Sprint(offered)
					mu.Unlock()
					voucher.Set(s, v)
				case 1, 2, 3, 4:
					if v, ok, _ := voucher.Take(r.Context(), s); ok {
						once("voucher %s", v)
					}
				case 5, 6:
					if n, err := visits.UpdateNow(r.Context(), s, func(n int) int { return n + 1 }); err == nil {
						once("number %d of session %s", n, s.ID())
					}
				case 7:
					s.Renew()
				case 8:
					s.Login([]string{"alice", "alice", "bob"}[chance.of(3)])
				case 9:
					if chance.of(3) == 0 {
						s.Logout()
					}
				case 10:
					s.Reload(r.Context())
				case 11:
					s.Save(r.Context())
				}
			}
			b := newBrowser(t, nil)
			for range 6 {
				sent := b.request("/")
				var all sync.WaitGroup
				for range 5 {
					process, r := processes[chance.of(3)], sent.Clone(context.Background())
					all.Go(func() {
						w := httptest.NewRecorder()
						process.ServeHTTP(w, r)
						b.jar.SetCookies(origin, w.Result().Cookies())
					})
				}
				all.Wait()
				if chance.of(3) == 0 {
					time.Sleep(time.Duration(chance.of(80)) * second)
				}
			}
		})
	}
}

// A chance is a source of random numbers for several goroutines.
type chance struct {
	mu  sync.Mutex
	rnd *rand.Rand
}

func newChance(seed uint64) *chance { return &chance{rnd: rand.New(rand.NewPCG(seed, 1))} }

// of returns a number below n.
func (c *chance) of(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rnd.IntN(n)
}
