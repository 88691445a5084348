package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

const hour = time.Hour

// A call is one call in a handler.
type call = func(s *session.Session)

func endBy(d time.Duration) call {
	return func(s *session.Session) { s.EndBy(time.Now().Add(d)) }
}

func loginAs(user string) call { return func(s *session.Session) { s.Login(user) } }

func rememberFor(d time.Duration) call { return func(s *session.Session) { s.Remember(d) } }

// deadline returns the absolute end of the only session of a user, from now.
func deadline(t *testing.T, store session.Store, user string) time.Duration {
	t.Helper()
	all, err := store.List(t.Context(), user)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d sessions of %q, %v", len(all), user, err)
	}
	if all[0].Expires.After(all[0].Deadline) {
		t.Errorf("expires at %v, after its deadline %v", all[0].Expires, all[0].Deadline)
	}
	return time.Until(all[0].Deadline)
}

// EndBy caps the absolute end, whatever sets it, before or after, until the next Login.
// The earliest time counts.
func TestEndBy(t *testing.T) {
	const lifetime = 2 * hour
	renew := func(s *session.Session) { s.Renew() }
	clearAll := func(s *session.Session) { s.Clear() }
	type request []call
	for _, c := range []struct {
		what     string
		requests []request // one every minute
		user     string
		ends     time.Duration // after the first request
	}{
		{"alone", []request{{loginAs("alice"), endBy(hour)}}, "alice", hour},
		{"in a later request", []request{{loginAs("alice")}, {endBy(hour)}}, "alice", hour + minute},
		{"sooner than the idle end", []request{{loginAs("alice"), endBy(5 * minute)}}, "alice", 5 * minute},
		{"later than Lifetime", []request{{loginAs("alice"), endBy(5 * hour)}}, "alice", lifetime},
		{"later than Lifetime, then Remember", []request{{loginAs("alice"), endBy(5 * hour)}, {rememberFor(30 * day)}}, "alice", 5 * hour},
		{"before Remember", []request{{loginAs("alice"), endBy(hour), rememberFor(30 * day)}}, "alice", hour},
		{"after Remember", []request{{loginAs("alice"), rememberFor(30 * day), endBy(hour)}}, "alice", hour},
		{"a request before Remember", []request{{loginAs("alice"), endBy(hour)}, {rememberFor(30 * day)}}, "alice", hour},
		{"a request after Remember", []request{{loginAs("alice"), rememberFor(30 * day)}, {endBy(hour)}}, "alice", hour + minute},
		{"later than Remember", []request{{loginAs("alice"), rememberFor(30 * minute), endBy(hour)}}, "alice", 30 * minute},
		{"twice, the first is earlier", []request{{loginAs("alice"), endBy(hour), endBy(90 * minute)}}, "alice", hour},
		{"twice, the second is earlier", []request{{loginAs("alice"), endBy(90 * minute), endBy(hour)}}, "alice", hour},
		{"in two requests, the first is earlier", []request{{loginAs("alice"), endBy(hour)}, {endBy(90 * minute)}}, "alice", hour},
		{"in two requests, the second is earlier", []request{{loginAs("alice"), endBy(90 * minute)}, {endBy(hour)}}, "alice", hour + minute},
		{"Renew", []request{{loginAs("alice"), endBy(hour)}, {renew}}, "alice", hour},
		{"Clear", []request{{loginAs("alice"), endBy(hour)}, {clearAll}}, "alice", hour},
		{"Clear, then Remember", []request{{loginAs("alice"), endBy(hour)}, {clearAll}, {rememberFor(30 * day)}}, "alice", hour},
		{"values", []request{{loginAs("alice"), endBy(hour)}, {write}}, "alice", hour},
		{"before the Login", []request{{endBy(hour), loginAs("alice")}}, "alice", lifetime},
		{"of the anonymous session before the Login", []request{{write, endBy(hour)}, {loginAs("alice")}}, "alice", lifetime + minute},
		{"a Login of the same user", []request{{loginAs("alice"), endBy(hour)}, {loginAs("alice")}}, "alice", lifetime + minute},
		{"a Login of the same user, and again", []request{{loginAs("alice"), endBy(hour)}, {loginAs("alice"), endBy(hour)}}, "alice", hour + minute},
		{"a Login of the same user who is remembered", []request{{loginAs("alice"), rememberFor(30 * day), endBy(hour)}, {loginAs("alice")}}, "alice", 30 * day},
		{"remembered later, a Login of the same user", []request{{loginAs("alice"), endBy(hour)}, {rememberFor(30 * day)}, {loginAs("alice")}}, "alice", 30*day + minute},
		{"a Login of another user", []request{{loginAs("alice"), endBy(hour)}, {loginAs("bob")}}, "bob", lifetime + minute},
		{"a Logout before", []request{{loginAs("alice"), endBy(hour)}, {logOut, loginAs("alice")}}, "alice", lifetime + minute},
		{"of the session after a Logout", []request{{loginAs("alice")}, {logOut, loginAs("bob"), endBy(hour)}}, "bob", hour + minute},
	} {
		for _, own := range []bool{true, false} { // tokens of ours, or another program's
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				if !own {
					m = keyless(t, session.Options{Store: spy, Lifetime: lifetime, IdleTimeout: 20 * minute})
				}
				d := &desk{t: t, spy: spy, m: m}
				b := d.visitor()
				for i, calls := range c.requests {
					if i > 0 {
						time.Sleep(minute)
					}
					d.do(b, func(s *session.Session) {
						for _, f := range calls {
							f(s)
						}
					})
				}
				want := c.ends - time.Duration(len(c.requests)-1)*minute
				if got := deadline(t, spy.Store, c.user); got != want {
					t.Fatalf("%s, own tokens %v: ends in %v, want %v", c.what, own, got, want)
				}
				// In use to its end, and not longer.
				remembered := false
				for left := want; ; {
					d.do(b, func(s *session.Session) {
						if remembered = s.Remembered(); s.User() != c.user || len(s.Names()) > 1 {
							t.Fatalf("%s, own tokens %v: %v before the end in as %q", c.what, own, left, s.User())
						}
					})
					step := 15 * minute
					if remembered {
						step = 7 * day
					}
					if left <= step {
						time.Sleep(left - time.Millisecond)
						break
					}
					time.Sleep(step)
					left -= step
				}
				d.do(b, func(s *session.Session) {
					if s.User() != c.user {
						t.Errorf("%s, own tokens %v: ended a millisecond early", c.what, own)
					}
				})
				time.Sleep(time.Millisecond)
				d.do(b, func(s *session.Session) {
					if s.User() != "" || !remembered && !s.Ended() { // a browser drops the cookie of Remember by itself
						t.Errorf("%s, own tokens %v: outlives its end as %q", c.what, own, s.User())
					}
				})
			})
		}
	}
}

// EndBy begins no session. It is of the one that another change begins, also later in the
// request. The cookie lasts as long.
func TestEndByBeginsNoSession(t *testing.T) {
	atDesk(t, session.Options{Cookie: session.CookieOptions{Persistent: true}}, func(d *desk) {
		b := d.visitor()
		if d.do(b, endBy(hour)) || d.do(b, endBy(-hour)) || d.spy.count("Create") > 0 {
			t.Error("EndBy alone begins a session")
		}
		d.do(b, func(s *session.Session) {
			endBy(hour)(s)
			if err := s.Save(t.Context()); err != nil || !s.IsNew() {
				t.Errorf("Save: %v", err)
			}
			name.Set(s, "x")
			if err := s.Save(t.Context()); err != nil || time.Until(s.Expires()) > hour {
				t.Errorf("Save: %v, expires %v", err, s.Expires())
			}
			endBy(10 * minute)(s) // which does without a cookie
		})
		d.do(b, func(s *session.Session) {
			if got := time.Until(s.Expires()); got != 10*minute {
				t.Errorf("ends in %v", got)
			}
		})
		d.f = func(s *session.Session) { s.Login("alice"); s.Remember(30 * day); endBy(hour)(s) }
		if got := b.get("/").Cookies(); len(got) != 1 || got[0].MaxAge != 3600 {
			t.Errorf("cookies %v", got)
		}
	})
}

// EndBy works after the first byte of the response, and after the handler by Save. A zero
// time fails the request.
func TestLateEndBy(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.visitor()
		d.do(b, loginAs("alice"))
		var left *session.Session
		page := func(f call) http.Handler {
			return d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, session.From(r.Context()).User())
				w.(http.Flusher).Flush()
				left = session.From(r.Context())
				f(left)
			}))
		}
		b.h = page(endBy(hour))
		if got := body(b.get("/")); got != "alice" || deadline(t, d.spy, "alice") != hour {
			t.Errorf("%q, ends in %v", got, deadline(t, d.spy, "alice"))
		}
		b.h = page(read)
		b.get("/")
		endBy(30 * minute)(left)
		if err := left.Save(t.Context()); err != nil || deadline(t, d.spy, "alice") != 30*minute {
			t.Errorf("after the handler: %v, ends in %v", err, deadline(t, d.spy, "alice"))
		}
		endBy(20 * minute)(left) // and no Save
		time.Sleep(2 * second)
		if n := d.log.count(session.EventDropped); n != 1 || deadline(t, d.spy, "alice") != 30*minute-2*second {
			t.Errorf("%d times EventDropped, ends in %v", n, deadline(t, d.spy, "alice"))
		}
		b.h = page(func(s *session.Session) { s.EndBy(time.Time{}) })
		b.get("/")
		if err := left.Err(); err == nil || !strings.Contains(err.Error(), "EndBy") || d.log.count(session.EventDropped) != 2 {
			t.Errorf("a zero time: %v", err)
		}
		b.h = page(func(s *session.Session) { s.Login("bob"); endBy(minute)(s) }) // of bob's session, which does not begin
		b.get("/")
		if got := deadline(t, d.spy, "alice"); got != 30*minute-2*second {
			t.Errorf("ends in %v", got)
		}
		b.h = page(endBy(-minute))
		b.get("/")
		if all, err := d.spy.List(t.Context(), "alice"); len(all) > 0 || err != nil || d.log.count(session.EventLoggedOut) != 1 {
			t.Errorf("a past time after the first byte: %v, %v", all, err)
		}
	})
	visit, spy, _ := newVisitor(t, session.Options{})
	if resp := visit(func(s *session.Session) { name.Set(s, "x"); s.EndBy(time.Time{}) }); resp.StatusCode != 500 || spy.count("") > 0 {
		t.Errorf("a zero time: %s", resp.Status)
	}
}

// The end of another user's session, whose Login came too late for its cookie, is not the
// end of the session that stays.
func TestEndByOfALoginThatIsTakenBack(t *testing.T) {
	for user, want := range map[string]time.Duration{"alice": hour, "bob": 2 * hour} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			d.f = func(s *session.Session) { s.Login(user); endBy(hour)(s) }
			w := struct {
				*httptest.ResponseRecorder
				http.Hijacker
			}{httptest.NewRecorder(), &fileTaker{}}
			d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				d.f(session.From(r.Context()))
				if _, _, err := w.(http.Hijacker).Hijack(); err == nil {
					t.Error("Hijack succeeded")
				}
			})).ServeHTTP(w, b.request("/"))
			if got := deadline(t, d.spy, "alice"); got != want {
				t.Errorf("a Login as %s: ends in %v, want %v", user, got, want)
			}
		})
	}
}

// A time that has passed at the commit ends the session: its tombstone is stored, the
// cookie deleted, Done closed. Nothing else of the request is stored.
func TestEndByInThePast(t *testing.T) {
	errOf := func(_ any, _ bool, err error) error { return err }
	for _, c := range []struct {
		what    string
		do      call
		is      func(s *session.Session) error // nil: the commit is at the first byte
		err     error                          // of is, and then of Err if that tells
		deletes bool
		dropped int
	}{
		{"alone", endBy(-minute), nil, nil, true, 0},
		{"now", endBy(0), nil, nil, true, 0},
		{"Save", endBy(-minute), func(s *session.Session) error { return s.Save(t.Context()) }, nil, true, 0},
		{"Save, later", func(s *session.Session) { endBy(second)(s); time.Sleep(second) }, func(s *session.Session) error { return s.Save(t.Context()) }, nil, true, 0},
		{"values", func(s *session.Session) { write(s); endBy(-minute)(s); s.AddFlash("", "x") }, nil, nil, true, 0},
		{"Renew and Remember", func(s *session.Session) { s.Renew(); endBy(-minute)(s); s.Remember(day) }, nil, nil, true, 0},
		{"a Login of the same user", func(s *session.Session) { s.Login("alice"); endBy(-minute)(s) }, nil, nil, true, 0},
		{"a Login of another user", func(s *session.Session) { s.Login("bob"); endBy(-minute)(s) }, nil, nil, true, 0},
		{"UpdateNow", endBy(-minute), func(s *session.Session) error {
			return errOf(nil, true, func() error { _, err := name.UpdateNow(t.Context(), s, strings.ToUpper); return err }())
		}, session.ErrEnded, true, 0},
		{"Take", endBy(-minute), func(s *session.Session) error { return errOf(name.Take(t.Context(), s)) }, session.ErrEnded, true, 0},
		{"Refresh", endBy(-minute), func(s *session.Session) error {
			_, err := name.Refresh(t.Context(), s, func(string) bool { return false }, func(context.Context, string) (string, error) { return "new", nil })
			return err
		}, session.ErrEnded, true, 0},
	} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			other := b.replay(b.cookie())
			d.do(other, func(waits *session.Session) {
				done := waits.Done()
				d.f = func(s *session.Session) {
					c.do(s)
					if s.User() == "" {
						t.Errorf("%s: ends before the commit", c.what)
					}
					if c.is == nil {
						return
					}
					if err := c.is(s); err != c.err {
						t.Errorf("%s: %v, want %v", c.what, err, c.err)
					}
					if err := s.Save(t.Context()); c.err == nil && err != session.ErrEnded || c.err == nil && s.User() != "" {
						t.Errorf("%s: a second Save: %v, in as %q", c.what, err, s.User())
					}
				}
				resp := b.get("/")
				if got := resp.Header.Get("Set-Cookie"); resp.StatusCode != 200 || strings.Contains(got, "Max-Age=0") != c.deletes {
					t.Errorf("%s: %s, sets %q", c.what, resp.Status, got)
				}
				select {
				case <-done:
				default:
					t.Errorf("%s: Done is open", c.what)
				}
				name.Set(waits, "x")
				if err := waits.Save(t.Context()); err != session.ErrEnded {
					t.Errorf("%s: a concurrent request's Save: %v", c.what, err)
				}
			})
			for _, user := range []string{"alice", "bob"} {
				if all, err := d.spy.Store.List(t.Context(), user); len(all) > 0 || err != nil {
					t.Errorf("%s: %d sessions of %s are left, %v", c.what, len(all), user, err)
				}
			}
			d.do(other, func(s *session.Session) {
				if s.User() != "" || !s.Ended() || s.Err() != nil {
					t.Errorf("%s: the next request is in as %q, %v", c.what, s.User(), s.Err())
				}
			})
			if n := d.log.count(session.EventLoggedOut); n != 1 || d.log.last(session.EventLoggedOut).User != "alice" {
				t.Errorf("%s: %d times EventLoggedOut", c.what, n)
			}
		})
	}
}

// A Login whose end has passed already begins no session, and says so.
func TestLoginThatEndsInThePast(t *testing.T) {
	for what, c := range map[string]struct {
		before  call
		saveErr error
	}{
		"the first session":         {nil, session.ErrEnded},
		"from an anonymous session": {write, nil},
		"after a Logout":            {func(s *session.Session) { s.Login("bob") }, session.ErrEnded},
	} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.visitor()
			if c.before != nil {
				d.do(b, c.before)
			}
			creates := d.spy.count("Create")
			var s *session.Session
			if d.do(b, func(of *session.Session) {
				if s = of; what == "after a Logout" {
					s.Logout()
				}
				s.Login("alice")
				name.Set(s, "x")
				endBy(-minute)(s)
				if err := s.Save(t.Context()); err != c.saveErr {
					t.Errorf("%s: Save: %v", what, err)
				}
				s.Login("alice")
				endBy(-minute)(s)
			}) != (c.before != nil) {
				t.Errorf("%s: sets a cookie", what)
			}
			if s.Err() != session.ErrEnded || s.User() != "" || d.spy.count("Create") != creates || d.log.count(session.EventDropped) == 0 {
				t.Errorf("%s: Err: %v, in as %q, %d times Create, %v", what, s.Err(), s.User(), d.spy.count("Create"), d.log.all)
			}
			if d.do(b, func(s *session.Session) {
				if s.User() != "" || name.Get(s) != "" {
					t.Errorf("%s: in as %q", what, s.User())
				}
			}) {
				t.Errorf("%s: the browser still had a cookie", what)
			}
		})
	}
}

// Concurrent requests: the earliest end counts, no change is lost, and a time that has
// passed ends only the session that the request had.
func TestConcurrentEndBy(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		d.do(b, func(s *session.Session) {
			endBy(hour)(s)
			name.Set(s, "first")
			d.do(b, func(s *session.Session) { endBy(30 * minute)(s); visits.Set(s, 1) })
			d.do(b, func(s *session.Session) { endBy(90 * minute)(s); visits.Update(s, func(n int) int { return n + 1 }) })
		})
		d.do(b, func(s *session.Session) {
			if name.Get(s) != "first" || visits.Get(s) != 2 || deadline(t, d.spy, "alice") != 30*minute {
				t.Errorf("%q, %d, ends in %v", name.Get(s), visits.Get(s), deadline(t, d.spy, "alice"))
			}
		})
	})
	// A Login as another user came first.
	for _, from := range []call{write, loginAs("alice")} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.visitor()
			d.do(b, from)
			old := b.replay(b.cookie())
			d.do(old, func(s *session.Session) {
				s.User()
				d.do(b, loginAs("bob"))
				endBy(-minute)(s)
				if err := s.Save(t.Context()); err != session.ErrReplaced {
					t.Errorf("Save: %v", err)
				}
			})
			d.do(b, func(s *session.Session) {
				if s.User() != "bob" {
					t.Errorf("bob's session has ended")
				}
			})
		})
	}
	// The token was renewed meanwhile, and the cookie of that response is not deleted by
	// the older one.
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		if d.do(old, func(s *session.Session) {
			s.User()
			d.do(b, func(s *session.Session) { s.Renew() })
			endBy(-minute)(s)
		}) {
			t.Error("deletes the newer cookie")
		}
		if all, err := d.spy.List(t.Context(), "alice"); len(all) > 0 || err != nil {
			t.Errorf("%d sessions, %v", len(all), err)
		}
	})
}

// A store that fails while the session ends is an outage.
func TestEndByInThePastWhileTheStoreFails(t *testing.T) {
	for _, err := range []error{errDown, errors.Join(errDown, session.ErrIndeterminate)} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			d.spy.hook(func(_ context.Context, call, _ string) error {
				if call == "Save" {
					return err
				}
				return nil
			})
			d.f = endBy(-minute)
			if resp := b.get("/"); resp.StatusCode != 503 || setsCookie(resp) {
				t.Errorf("%v: %s", err, resp.Status)
			}
			d.spy.hook(nil)
			d.expect(b, "before")
		})
	}
}
