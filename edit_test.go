package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// only returns the only session of alice.
func (d *desk) only() session.Info {
	d.t.Helper()
	all, err := d.m.List(d.t.Context(), "alice")
	if err != nil || len(all) != 1 {
		d.t.Fatal(all, err)
	}
	return all[0]
}

// edit changes the only session of alice, and returns the error of Edit.
func (d *desk) edit(f func(s *session.Session)) error {
	d.t.Helper()
	return d.m.Edit(d.t.Context(), "alice", d.only().ID, f)
}

// An Edit changes values and flashes, the user's next request sees them, and the clocks stay.
func TestEdit(t *testing.T) {
	for what, c := range map[string]struct {
		edit func(s *session.Session)
		want string
	}{
		"Set":      {func(s *session.Session) { name.Set(s, "after") }, "after 0 []"},
		"Delete":   {func(s *session.Session) { name.Delete(s) }, " 0 []"},
		"Pop":      {func(s *session.Session) { name.Pop(s) }, " 0 []"},
		"Update":   {func(s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) }, "before 1 []"},
		"AddFlash": {func(s *session.Session) { s.AddFlash("info", "hello") }, "before 0 [{info hello}]"},
		"Flashes":  {func(s *session.Session) { s.AddFlash("info", "hello"); s.Flashes() }, "before 0 []"},
		"Clear":    {func(s *session.Session) { s.Clear() }, " 0 []"},
		"several": {func(s *session.Session) {
			s.Clear()
			visits.Set(s, 1)
			visits.Update(s, func(n int) int { return n + 1 })
			if name.Get(s) != "" || visits.Get(s) != 2 || !slices.Equal(s.Names(), []string{"visits"}) {
				t.Errorf("the function does not see what it has changed: %q", s.Names())
			}
		}, " 2 []"},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				before := d.only()
				time.Sleep(15 * minute) // of 20
				err := d.edit(func(s *session.Session) {
					if s.ID() != before.ID || s.User() != "alice" || !s.AuthTime().Equal(before.Created) || s.IsNew() || s.Ended() || s.Remembered() || s.Err() != nil ||
						!s.Created().Equal(before.Created) || !s.LastSeen().Equal(before.LastSeen) || !s.Expires().Equal(before.Expires) || name.Get(s) != "before" {
						t.Error("the function sees another session")
					}
					c.edit(s)
				})
				if err != nil {
					t.Fatal(err)
				}
				if after := d.only(); !after.LastSeen.Equal(before.LastSeen) || !after.Expires.Equal(before.Expires) || !after.Created.Equal(before.Created) {
					t.Errorf("the clocks have moved: %v, before %v", after, before)
				}
				if d.do(b, func(s *session.Session) {
					if got := fmt.Sprint(name.Get(s), " ", visits.Get(s), " ", s.Flashes()); got != c.want {
						t.Errorf("the user sees %s, want %s", got, c.want)
					}
				}) {
					t.Error("the user got another token")
				}
				if len(d.log.all) != 1 { // the login's
					t.Error("events", d.log.all)
				}
			})
		})
	}
}

// All other calls are for requests: they fail the Edit, and nothing is stored.
func TestEditRefusesOtherCalls(t *testing.T) {
	for call, f := range map[string]func(s *session.Session) error{
		"Login":       func(s *session.Session) error { s.Login("alice"); return s.Err() },
		"Logout":      func(s *session.Session) error { s.Logout(); return s.Err() },
		"Renew":       func(s *session.Session) error { s.Renew(); return s.Err() },
		"Remember":    func(s *session.Session) error { s.Remember(day); return s.Err() },
		"MarkPassive": func(s *session.Session) error { s.MarkPassive(); return s.Err() },
		"Save":        func(s *session.Session) error { return s.Save(t.Context()) },
		"Reload":      func(s *session.Session) error { return s.Reload(t.Context()) },
		"Done":        func(s *session.Session) error { <-s.Done(); return s.Err() },
		"Take":        func(s *session.Session) error { _, _, err := name.Take(t.Context(), s); return err },
		"UpdateNow": func(s *session.Session) error {
			_, err := name.UpdateNow(t.Context(), s, func(string) string { return "other" })
			return err
		},
		"Refresh": func(s *session.Session) error {
			_, err := name.Refresh(t.Context(), s, func(string) bool { return true }, func(context.Context, string) (string, error) { return "other", nil })
			return err
		},
	} {
		t.Run(call, func(t *testing.T) {
			for _, o := range []session.Options{{}, {Tokens: new(plainTokens), Cookie: session.CookieOptions{Name: "session"}}} {
				atDesk(t, o, func(d *desk) {
					b := d.browser()
					id := d.only().ID
					d.spy.forget()
					err := d.m.Edit(t.Context(), "alice", id, func(s *session.Session) {
						name.Set(s, "other")
						if err := f(s); err == nil || !strings.Contains(err.Error(), "Edit: "+call+" ") {
							t.Errorf("in the function: %v", err)
						}
						visits.Set(s, 7)
					})
					if err == nil || !strings.Contains(err.Error(), "Edit: "+call+" ") || errors.Is(err, session.ErrStore) {
						t.Errorf("Edit: %v", err)
					}
					if d.spy.count("") != 1 { // its Load
						t.Errorf("%d calls of the store", d.spy.count(""))
					}
					d.do(b, func(s *session.Session) {
						if name.Get(s) != "before" || visits.Get(s) != 0 || s.User() != "alice" {
							t.Errorf("the user is %q, with %q and %d", s.User(), name.Get(s), visits.Get(s))
						}
					})
				})
			}
		})
	}
}

// The Edit of a session that has ended or is another user's is ErrEnded, and its function is
// not called.
func TestEditOfNoSession(t *testing.T) {
	for what, prepare := range map[string]func(d *desk, b *browser, id string) (user, of string){
		"unknown":        func(d *desk, b *browser, id string) (string, string) { return "alice", "unknown" },
		"another user's": func(d *desk, b *browser, id string) (string, string) { return "bob", id },
		"logged out": func(d *desk, b *browser, id string) (string, string) {
			d.do(b, (*session.Session).Logout)
			return "alice", id
		},
		"revoked": func(d *desk, b *browser, id string) (string, string) {
			d.m.Revoke(t.Context(), "alice", id)
			return "alice", id
		},
		"expired": func(d *desk, b *browser, id string) (string, string) { time.Sleep(20 * minute); return "alice", id },
		"given to another user": func(d *desk, b *browser, id string) (string, string) {
			d.do(b, func(s *session.Session) { s.Login("bob") })
			return "alice", id
		},
		"anonymous": func(d *desk, b *browser, id string) (string, string) {
			d.do(d.visitor(), func(s *session.Session) {
				name.Set(s, "value")
				s.Save(d.t.Context())
				id = s.ID()
			})
			return "alice", id
		},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				user, id := prepare(d, b, d.only().ID)
				before := len(d.log.all)
				err := d.m.Edit(t.Context(), user, id, func(s *session.Session) { t.Error("the function is called") })
				if err != session.ErrEnded || len(d.log.all) != before {
					t.Errorf("%v, events %v", err, d.log.all[before:])
				}
			})
		})
	}
	atDesk(t, session.Options{}, func(d *desk) {
		d.browser()
		err := d.m.Edit(t.Context(), "", d.only().ID, func(s *session.Session) { t.Error("the function is called") })
		if err == nil || !strings.Contains(err.Error(), "empty") {
			t.Errorf("of the empty user: %v", err)
		}
	})
}

// A session that ends after the function was called does not come back.
func TestEditMeetsAnEnding(t *testing.T) {
	for what, end := range map[string]func(d *desk, b *browser, id string){
		"Logout":  func(d *desk, b *browser, id string) { d.do(b, (*session.Session).Logout) },
		"Revoke":  func(d *desk, b *browser, id string) { d.m.Revoke(t.Context(), "alice", id) },
		"Login":   func(d *desk, b *browser, id string) { d.do(b, func(s *session.Session) { s.Login("bob") }) },
		"deleted": func(d *desk, b *browser, id string) { d.spy.Store.Delete(t.Context(), id) },
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				id := d.only().ID
				d.spy.hook(once(d.spy, "Save", func(context.Context) { end(d, b, id) }))
				calls := 0
				if err := d.m.Edit(t.Context(), "alice", id, func(s *session.Session) { name.Set(s, "lost"); calls++ }); err != session.ErrEnded || calls != 1 {
					t.Errorf("%v after %d calls of the function", err, calls)
				}
				if all, err := d.m.List(t.Context(), "alice"); len(all) > 0 || err != nil {
					t.Errorf("%d sessions are left, %v", len(all), err)
				}
			})
		})
	}
}

// If the session changes meanwhile, the function is called again with the newer one, so that
// what it decided by is what its changes replace. Values that it does not touch keep every
// byte.
func TestEditMeetsAChange(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		id := d.only().ID
		rec, err := d.spy.Store.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		const untouched = `"odd":{ "b":1.0e2,"a" : "\u00e9" }`
		old := rec.Version
		rec.Version++
		rec.Data = withKey(rec.Data, `{"name":"trial",`+untouched+`}`)
		if err := d.spy.Store.Save(t.Context(), rec, old); err != nil {
			t.Fatal(err)
		}
		var seen []string
		changes := []string{"paid", "cancelled"}
		d.spy.hook(func(ctx context.Context, call, _ string) error {
			if call != "Save" || len(changes) == 0 {
				return nil
			}
			rec, err := d.spy.Store.Load(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			old := rec.Version
			rec.Version++
			rec.Data = withKey(rec.Data, `{"name":"`+changes[0]+`","visits":7,`+untouched+`}`)
			changes = changes[1:]
			return d.spy.Store.Save(ctx, rec, old)
		})
		err = d.m.Edit(t.Context(), "alice", id, func(s *session.Session) {
			seen = append(seen, name.Get(s))
			if name.Get(s) == "trial" {
				s.Clear()
			}
			s.AddFlash("info", "hello")
		})
		if err != nil || !slices.Equal(seen, []string{"trial", "paid", "cancelled"}) {
			t.Errorf("%v, the function has seen %q", err, seen)
		}
		if n := d.log.count(session.EventConflict); n != 1 {
			t.Errorf("%d EventConflict", n)
		}
		d.do(b, func(s *session.Session) {
			if f := s.Flashes(); name.Get(s) != "cancelled" || visits.Get(s) != 7 || len(f) != 1 {
				t.Errorf("stored are %q, %d, %v", name.Get(s), visits.Get(s), f)
			}
		})
		if rec, err = d.spy.Store.Load(t.Context(), id); err != nil || !strings.Contains(string(rec.Data), untouched) {
			t.Errorf("the untouched value has changed: %s, %v", rec.Data, err)
		}
	})
}

// In the grace of a renewal the new token sees the change, the previous one the session as it
// was, and both stay what they are.
func TestEditInTheGraceOfARenewal(t *testing.T) {
	for what, renew := range map[string]func(s *session.Session){
		"Renew":    (*session.Session).Renew,
		"Remember": func(s *session.Session) { s.Remember(day) },
		"Login":    func(s *session.Session) { s.Login("alice") },
		"by age":   func(s *session.Session) { s.User() },
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
				b := d.browser()
				previous := b.replay(b.cookie())
				time.Sleep(minute)
				if !d.do(b, renew) {
					t.Fatal("no new token")
				}
				if err := d.edit(func(s *session.Session) { name.Set(s, "edited") }); err != nil {
					t.Fatal(err)
				}
				d.expect(b, "edited")
				want := "before"
				if what == "by age" {
					want = "edited"
				}
				d.expect(previous, want)
				d.do(previous, func(s *session.Session) { visits.Set(s, 7) })
				if err := d.edit(func(s *session.Session) {
					if name.Get(s) != "edited" || visits.Get(s) != 7 {
						t.Errorf("the next Edit sees %q, %d", name.Get(s), visits.Get(s))
					}
					name.Delete(s)
				}); err != nil {
					t.Fatal(err)
				}
				d.expect(b, "")
				time.Sleep(minute / 2)
				d.expectReplaced(previous)
				d.expect(b, "")
			})
		})
	}
}

// A Manager that cannot read the browser's cookie edits its session all the same.
func TestEditByAnotherManager(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		admin := newManager(t, session.Options{Store: d.spy, Bearer: true, Secrets: [][]byte{[]byte("another secret of thirty-two byte")}})
		if err := admin.Edit(t.Context(), "alice", d.only().ID, func(s *session.Session) { name.Set(s, "edited") }); err != nil {
			t.Error(err)
		}
		d.expect(b, "edited")
	})
}

// EndBy caps the end of the session, and ends it if the time has passed.
func TestEditEndBy(t *testing.T) {
	for _, wait := range []time.Duration{5 * minute, 0, -time.Hour} {
		t.Run(wait.String(), func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				stream := b.at(d.m).listen(d.m)
				if err := d.edit(func(s *session.Session) {
					name.Set(s, "edited")
					s.EndBy(time.Now().Add(wait))
				}); err != nil {
					t.Error(err)
				}
				if wait > 0 {
					if got := time.Until(d.only().Expires); got != wait {
						t.Errorf("%v are left", got)
					}
					d.expect(b, "edited")
					time.Sleep(wait)
				} else if synctest.Wait(); fmt.Sprint(stream) == "open" || d.log.count(session.EventRevoked) != 1 {
					t.Errorf("the stream is %v, events %v", stream, d.log.all)
				}
				if all, err := d.m.List(t.Context(), "alice"); len(all) > 0 || err != nil {
					t.Errorf("%d sessions are left, %v", len(all), err)
				}
				if d.do(b, func(s *session.Session) {
					if s.User() != "" || !s.Ended() {
						t.Errorf("in as %q", s.User())
					}
					s.Logout()
				}); b.cookie() != "" {
					t.Error("a Logout afterwards leaves the cookie")
				}
				stream.hangUp()
			})
		})
	}
	atDesk(t, session.Options{}, func(d *desk) {
		d.browser()
		if err := d.edit(func(s *session.Session) { s.EndBy(time.Time{}) }); err == nil || !strings.Contains(err.Error(), "EndBy") {
			t.Errorf("EndBy of the zero time: %v", err)
		}
	})
}

// What cannot be stored is an error of Edit, and nothing of it is stored.
func TestEditThatCannotBeStored(t *testing.T) {
	functions := session.NewKey[any]("function")
	for what, c := range map[string]struct {
		edit func(s *session.Session)
		is   error
	}{
		"too large":   {func(s *session.Session) { name.Set(s, strings.Repeat("x", 1<<10)) }, session.ErrTooLarge},
		"no JSON":     {func(s *session.Session) { functions.Set(s, func() {}) }, nil},
		"bad UTF-8":   {func(s *session.Session) { name.Set(s, "\xff") }, nil},
		"in a change": {func(s *session.Session) { functions.Update(s, func(any) any { return func() {} }) }, nil},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{MaxDataSize: 500}, func(d *desk) {
				b := d.browser()
				err := d.edit(func(s *session.Session) { visits.Set(s, 7); c.edit(s) })
				if err == nil || c.is != nil && !errors.Is(err, c.is) || errors.Is(err, session.ErrStore) || d.log.count(session.EventStoreFailed) > 0 {
					t.Errorf("%v, events %v", err, d.log.all)
				}
				d.do(b, func(s *session.Session) {
					if name.Get(s) != "before" || visits.Get(s) != 0 {
						t.Errorf("stored are %q, %d", name.Get(s), visits.Get(s))
					}
				})
			})
		})
	}
}

// Flashes beyond what a session keeps are dropped, the oldest first, and reported.
func TestEditOfManyFlashes(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		if err := d.edit(func(s *session.Session) {
			for i := range 51 {
				s.AddFlash("n", fmt.Sprint(i))
			}
		}); err != nil || d.log.count(session.EventDropped) != 1 {
			t.Errorf("%v, events %v", err, d.log.all)
		}
		d.do(b, func(s *session.Session) {
			if f := s.Flashes(); len(f) != 50 || f[0].Text != "1" {
				t.Errorf("%d flashes: %v", len(f), f)
			}
		})
	})
}

// A store that fails is an ErrStore and one event. A write of unknown outcome is not
// repeated.
func TestEditOverAFailingStore(t *testing.T) {
	lost := fmt.Errorf("%w: the reply is lost", session.ErrIndeterminate)
	for what, c := range map[string]struct {
		call  string
		err   error
		calls int // of the function
	}{
		"load":          {"Load", errDown, 0},
		"save":          {"Save", errDown, 1},
		"indeterminate": {"Save", lost, 1},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				d.browser()
				id := d.only().ID
				d.spy.forget()
				d.spy.hookAfter(func(_ context.Context, call, _ string, err error) error {
					if call == c.call {
						return c.err
					}
					return err
				})
				calls := 0
				err := d.m.Edit(t.Context(), "alice", id, func(s *session.Session) {
					calls++
					visits.Update(s, func(n int) int { return n + 1 })
				})
				if !errors.Is(err, session.ErrStore) || !errors.Is(err, c.err) || errors.Is(err, session.ErrEnded) {
					t.Error(err)
				}
				if calls != c.calls || d.spy.count(c.call) != 1 {
					t.Errorf("%d calls of the function, %d of the store's %s", calls, d.spy.count(c.call), c.call)
				}
				if n := d.log.count(session.EventStoreFailed); n != 1 || d.log.all[len(d.log.all)-1].ID != id {
					t.Error("events", d.log.all)
				}
			})
		})
	}
}

// An Edit that changes nothing stores nothing.
func TestEditWithoutAChange(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		d.browser()
		id := d.only().ID
		time.Sleep(15 * minute)
		d.spy.forget()
		if err := d.m.Edit(t.Context(), "alice", id, func(s *session.Session) { name.Get(s); s.Flashes() }); err != nil || d.spy.count("") != 1 {
			t.Errorf("%v, %d calls of the store", err, d.spy.count(""))
		}
	})
}

// Promise 8. An Edit has its context's values and deadline, not its cancellation.
func TestEditOfALostConnection(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		id := d.only().ID
		ctx, cancel := context.WithCancel(context.WithValue(d.t.Context(), d, "value"))
		cancel()
		d.spy.hook(func(ctx context.Context, call, _ string) error {
			if ctx.Value(d) != "value" {
				t.Errorf("%s has not the context's values", call)
			}
			return nil
		})
		if err := d.m.Edit(ctx, "alice", id, func(s *session.Session) { name.Set(s, "edited") }); err != nil {
			t.Error(err)
		}
		d.spy.hook(nil)
		d.expect(b, "edited")

		ctx, cancel = context.WithTimeout(d.t.Context(), time.Second)
		defer cancel()
		d.spy.hook(func(ctx context.Context, call, _ string) error { <-ctx.Done(); return ctx.Err() })
		called := time.Now()
		err := d.m.Edit(ctx, "alice", id, func(s *session.Session) {})
		if took := time.Since(called); !errors.Is(err, context.DeadlineExceeded) || took != time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// A function that takes longer than StoreTimeout does not use up the time of the store.
func TestEditByASlowFunction(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		if err := d.edit(func(s *session.Session) {
			time.Sleep(minute)
			name.Set(s, "edited")
		}); err != nil {
			t.Error(err)
		}
		d.expect(b, "edited")
	})
}

// A panic of the function goes on to the caller. Nothing is stored, and nothing stays locked,
// also where the function is called after a conflict.
func TestEditByAFunctionThatPanics(t *testing.T) {
	for _, conflicts := range []bool{false, true} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			id := d.only().ID
			if conflicts {
				d.spy.hook(once(d.spy, "Save", func(context.Context) {
					d.do(b, func(s *session.Session) { visits.Set(s, 7) })
				}))
			}
			calls := 0
			func() {
				defer func() {
					if v := recover(); v != "a bug" {
						t.Errorf("the panic became %v", v)
					}
				}()
				d.m.Edit(t.Context(), "alice", id, func(s *session.Session) {
					name.Set(s, "lost")
					if calls++; calls == 2 || !conflicts {
						panic("a bug")
					}
				})
			}()
			d.expect(b, "before")
			if err := d.edit(func(s *session.Session) { name.Set(s, "edited") }); err != nil {
				t.Error(err)
			}
			d.expect(b, "edited")
		})
	}
}

// Promises 1 and 21. Edits and requests of two processes at once lose no change, and cost no more
// than their number.
func TestEditsAtOnce(t *testing.T) {
	const n = 20
	spy := newSpy()
	log := &events{}
	var managers []*session.Manager
	for range 2 {
		managers = append(managers, newManager(t, session.Options{Store: spy, OnEvent: log.on}))
	}
	b := newBrowser(t, managers[0].Handler(routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/count": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
		},
	}))
	b.get("/login")
	all, err := managers[0].List(t.Context(), "alice")
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	edit := func(m *session.Manager, f func(s *session.Session)) {
		if err := m.Edit(t.Context(), "alice", all[0].ID, f); err != nil {
			t.Error(err)
		}
	}
	spy.forget()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			edit(managers[i%2], func(s *session.Session) {
				visits.Set(s, visits.Get(s)+1) // which the request's Update may not overtake
				keyOfRequest(i).Set(s, i)
			})
		})
		wg.Go(func() {
			if resp := b.replay(b.cookie()).get("/count"); resp.StatusCode != http.StatusOK {
				t.Error(resp.Status)
			}
		})
	}
	wg.Wait()
	edit(managers[0], func(s *session.Session) {
		if visits.Get(s) != 2*n || len(s.Names()) != n+1 {
			t.Errorf("counted are %d of %d, and there are %d values", visits.Get(s), 2*n, len(s.Names()))
		}
	})
}

// n Edits of one session in one process cost fewer than 5 calls of the store each.
func TestEditsAtOnceCost(t *testing.T) {
	const n = 50
	synctest.Test(t, func(t *testing.T) {
		spy, log := newSpy(), &events{}
		m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
		b := newBrowser(t, m.Handler(clockRoutes))
		b.get("/login")
		id := body(b.get("/id"))
		spy.hook(func(context.Context, string, string) error { time.Sleep(time.Millisecond); return nil })
		spy.forget()
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) { visits.Set(s, visits.Get(s)+1) }); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if calls := spy.count(""); calls >= 5*n || log.count(session.EventConflict) > n {
			t.Errorf("%d calls of the store, %d EventConflict", calls, log.count(session.EventConflict))
		}
		if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) {
			if visits.Get(s) != n {
				t.Errorf("%d of %d are counted", visits.Get(s), n)
			}
		}); err != nil {
			t.Error(err)
		}
	})
}

// Events are told when the Edit holds no lock any more: OnEvent may edit the session itself.
func TestEditInOnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		var m *session.Manager
		id := ""
		m = newManager(t, session.Options{Store: spy, OnEvent: func(ctx context.Context, e session.Event) {
			if e.Kind == session.EventConflict {
				if err := m.Edit(ctx, "alice", id, func(s *session.Session) { name.Set(s, "noted") }); err != nil {
					t.Error(err)
				}
			}
		}})
		b := newBrowser(t, m.Handler(clockRoutes))
		b.get("/login")
		id = body(b.get("/id"))
		spy.hook(once(spy, "Save", func(context.Context) { b.get("/set") }))
		if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) { visits.Set(s, 7) }); err != nil {
			t.Error(err)
		}
		if got := body(b.get("/look")); got != "notedalice" {
			t.Errorf("stored is %s", got)
		}
	})
}

// A request that has loaded the session keeps what an Edit stores meanwhile, and its own
// change.
func TestEditBesideARequest(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		d.do(b, func(s *session.Session) {
			visits.Set(s, 7)
			if err := d.edit(func(s *session.Session) { name.Set(s, "edited") }); err != nil {
				t.Error(err)
			}
			if name.Get(s) != "before" {
				t.Errorf("the request sees %q", name.Get(s))
			}
			if err := s.Save(t.Context()); err != nil || name.Get(s) != "edited" {
				t.Errorf("after its Save it sees %q, %v", name.Get(s), err)
			}
		})
		if got, ok := visits.Of(d.only()); got != 7 || !ok {
			t.Errorf("its change is lost: %d", got)
		}
	})
}

// The Session of an Edit may be used by several goroutines.
func TestEditByGoroutines(t *testing.T) {
	const n = 10
	m := newManager(t, session.Options{})
	w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil)
	id := ""
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Login("alice")
		s.Save(r.Context())
		id = s.ID()
	})).ServeHTTP(w, r)
	if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) {
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() { visits.Update(s, func(n int) int { return n + 1 }) })
		}
		wg.Wait()
	}); err != nil {
		t.Error(err)
	}
	if err := m.Edit(t.Context(), "alice", id, func(s *session.Session) {
		if visits.Get(s) != n {
			t.Errorf("%d of %d are counted", visits.Get(s), n)
		}
	}); err != nil {
		t.Error(err)
	}
}
