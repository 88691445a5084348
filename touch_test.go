package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/simulate"
)

const (
	minute = time.Minute
	day    = 24 * time.Hour
)

// clockRoutes are the routes of the tests about time.
var clockRoutes = routes{
	"/set":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "value") },
	"/look":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, name.Get(s), s.User()) },
	"/err":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.Err()) },
	"/id":     func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.ID()) },
	"/login":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
	"/bob":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("bob") },
	"/renew":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
	"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
	"/remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		name.Set(s, "value")
		s.Remember(30 * day)
	},
	"/login+remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login("alice")
		s.Remember(30 * day)
	},
	"/remember+login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Remember(30 * day)
		s.Login("alice")
	},
	"/remember-twice": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		name.Set(s, "value")
		s.Remember(30 * day)
		s.Remember(5 * minute)
	},
	"/unused": func(w http.ResponseWriter, r *http.Request, s *session.Session) {},
}

// inBubble runs a test on a fake clock, with a spy on the store and sessions that end after 20
// minutes without use and after 2 hours.
func inBubble(t *testing.T, o session.Options, f func(t *testing.T, spy *spyStore, m *session.Manager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		o.Store, o.IdleTimeout, o.Lifetime = spy, 20*minute, 120*minute
		f(t, spy, newManager(t, o))
	})
}

// TestTwoClocks: promise 11. A session ends when it was not used for the idle timeout, and at
// its absolute end however much it is used, to the millisecond.
func TestTwoClocks(t *testing.T) {
	const ms = time.Millisecond
	type step struct {
		wait time.Duration
		path string
	}
	use := func(steps ...step) []step { return steps }
	everyQuarter := func(n int) (steps []step) {
		for range n {
			steps = append(steps, step{15 * minute, "/look"})
		}
		return steps
	}
	for _, c := range []struct {
		name  string
		steps []step
		ends  time.Duration // end, relative to the last step
	}{
		{"idle", use(step{0, "/set"}), 20 * minute},
		{"used", use(step{0, "/set"}, step{19 * minute, "/look"}), 20 * minute},
		{"used within 1/20 of the idle timeout", use(step{0, "/set"}, step{1 * minute, "/look"}), 19 * minute},
		{"used a little later", use(step{0, "/set"}, step{1*minute + ms, "/look"}), 20 * minute},
		{"changed within 1/20 of the idle timeout", use(step{0, "/set"}, step{1 * minute, "/set"}), 20 * minute},
		{"wrapped but not used", use(step{0, "/set"}, step{15 * minute, "/unused"}), 5 * minute},
		{"used to the end", append(use(step{0, "/set"}), everyQuarter(7)...), 15 * minute},
		{"changed to the end", append(append(use(step{0, "/set"}), everyQuarter(7)...), step{10 * minute, "/set"}), 5 * minute},
		{"logged in late", append(append(use(step{0, "/set"}), everyQuarter(7)...), step{10 * minute, "/login"}), 20 * minute},
		{"used to the end after a login", append(append(append(use(step{0, "/set"}), everyQuarter(7)...), step{0, "/login"}), everyQuarter(7)...), 15 * minute},
		{"renewed late", append(append(use(step{0, "/set"}), everyQuarter(7)...), step{10 * minute, "/renew"}), 5 * minute},
		{"renewed", use(step{0, "/set"}, step{10 * minute, "/renew"}), 20 * minute},
		{"renewed before it was stored", use(step{0, "/renew"}, step{10 * minute, "/set"}), 20 * minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				h := m.Handler(unusedIsUnused(clockRoutes))
				b := newBrowser(t, h)
				for i, s := range c.steps {
					time.Sleep(s.wait)
					if got := body(b.get(s.path)); s.path == "/look" && got[:min(5, len(got))] != "value" {
						t.Fatalf("step %d: the session has ended", i)
					}
				}
				time.Sleep(c.ends - ms)
				spy.hook(noUse) // the check must not extend the session
				if body(b.get("/look")) == "" {
					t.Fatal("ended at least a millisecond early")
				}
				time.Sleep(ms)
				if got := body(b.get("/look")); got != "" {
					t.Fatalf("outlived its end: %q", got)
				}
			})
		})
	}
}

// noUse fails every touch and save, so that no request extends the session.
func noUse(_ context.Context, call, _ string) error {
	if call == "Touch" || call == "Save" {
		return errDown
	}
	return nil
}

// unusedIsUnused returns a handler whose route /unused does not use the session.
func unusedIsUnused(rs routes) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/unused" {
			rs.ServeHTTP(w, r)
		}
	})
}

// TestStoreThatForgetsTheTime checks that the clocks are checked on every read, even if the
// store returns expired records.
func TestStoreThatForgetsTheTime(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		spy.Store = &hoarder{Store: spy.Store}
		b := newBrowser(t, m.Handler(clockRoutes))
		b.get("/login")
		for _, want := range []string{"alice", ""} {
			if got := body(b.get("/look")); got != want {
				t.Errorf("the user is %q, want %q", got, want)
			}
			list, err := m.List(t.Context(), "alice")
			if err != nil || (len(list) > 0) != (want != "") {
				t.Errorf("List: %d sessions, %v", len(list), err)
			}
			time.Sleep(20 * minute)
		}
	})
}

// hoarder returns the record that it has found last, even if it has expired.
type hoarder struct {
	session.Store
	last *session.Record
}

func (h *hoarder) Load(ctx context.Context, id string) (*session.Record, error) {
	if r, err := h.Store.Load(ctx, id); err == nil {
		h.last = r
	}
	last := *h.last
	return &last, nil
}

func (h *hoarder) List(context.Context, string) ([]*session.Record, error) {
	last := *h.last
	return []*session.Record{&last}, nil
}

// TestClockMethods checks the methods that return the clocks, and that a Login restarts both.
func TestClockMethods(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, _ *spyStore, m *session.Manager) {
		type clocks struct{ created, seen, expires, authenticated time.Time }
		var got clocks
		b := newBrowser(t, m.Handler(routes{
			"/set":   clockRoutes["/set"],
			"/login": clockRoutes["/login"],
			"/renew": clockRoutes["/renew"],
			"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				got = clocks{s.Created(), s.LastSeen(), s.Expires(), s.AuthTime()}
			},
		}))
		expect := func(want clocks) {
			t.Helper()
			b.get("/look")
			if !got.created.Equal(want.created) || !got.seen.Equal(want.seen) || !got.expires.Equal(want.expires) || !got.authenticated.Equal(want.authenticated) {
				t.Errorf("the clocks are\n%v, want\n%v", got, want)
			}
		}
		expect(clocks{})
		start := time.Now()
		b.get("/set")
		expect(clocks{start, start, start.Add(20 * minute), time.Time{}})
		time.Sleep(15 * minute)
		expect(clocks{start, start, start.Add(20 * minute), time.Time{}}) // times before this request
		expect(clocks{start, start.Add(15 * minute), start.Add(35 * minute), time.Time{}})
		time.Sleep(15 * minute)
		login := time.Now()
		b.get("/login")
		expect(clocks{login, login, login.Add(20 * minute), login})
		time.Sleep(10 * minute)
		b.get("/renew")
		expect(clocks{login, login.Add(10 * minute), login.Add(30 * minute), login})
		for range 7 {
			time.Sleep(15 * minute)
			b.get("/set")
		}
		expect(clocks{login, login.Add(115 * minute), login.Add(120 * minute), login})
	})
}

// TestTouchesAreRare checks that a request touches after its handler, and only if the record
// was last seen more than 1/20 of the idle timeout ago.
func TestTouchesAreRare(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		during := 0
		b := newBrowser(t, m.Handler(routes{
			"/set": clockRoutes["/set"],
			"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				name.Get(s)
				fmt.Fprint(w, "the response leaves")
				during = spy.count("Touch")
			},
		}))
		touches := func(want int) {
			t.Helper()
			if got := spy.count("Touch"); got != want {
				t.Fatalf("%d touches, want %d", got, want)
			}
		}
		b.get("/set")
		for range 6 {
			time.Sleep(10 * time.Second)
			b.get("/look")
		}
		touches(0)
		time.Sleep(time.Millisecond)
		b.get("/look")
		touches(1)
		if during != 0 {
			t.Error("touched before the handler returned")
		}
		b.get("/look")
		touches(1)
		time.Sleep(10 * minute)
		b.get("/set") // a save counts as use, so no touch is needed
		touches(1)
		for range 120 { // 20 minutes: every seventh request is more than a minute after the last touch
			time.Sleep(10 * time.Second)
			b.get("/look")
		}
		touches(1 + 17)
	})
}

// TestSaveIsUse checks that Save counts as use, also without a change, and touches when due: a
// long-lived request has no other way to report that its user is present.
func TestSaveIsUse(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{"/login": clockRoutes["/login"], "/look": clockRoutes["/look"],
			"/stream": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				fmt.Fprint(w, "first byte")
				for range 7 { // 70 minutes, of an idle timeout of 20
					time.Sleep(10 * minute)
					if err := s.Save(r.Context()); err != nil || !s.LastSeen().Equal(time.Now()) || !s.Expires().Equal(time.Now().Add(20*minute)) {
						t.Errorf("Save: %v; seen %v, ends %v", err, s.LastSeen(), s.Expires())
					}
					if err := s.Save(r.Context()); err != nil {
						t.Error(err)
					}
				}
				touches := spy.count("Touch")
				if touches != 7 {
					t.Errorf("%d touches, want 7", touches)
				}
				spy.hook(failing("Touch", errDown))
				time.Sleep(10 * minute)
				if err := s.Save(r.Context()); !errors.Is(err, session.ErrStore) || !errors.Is(err, errDown) || s.Err() != err {
					t.Errorf("Save of a store that is down: %v, Err: %v", err, s.Err())
				}
				spy.hook(nil)
				if err := s.Save(r.Context()); err != nil || s.Err() != nil {
					t.Errorf("Save after the outage: %v, Err: %v", err, s.Err())
				}
				spy.hook(func(_ context.Context, call, id string) error {
					if call == "Touch" || call == "Save" {
						return spy.Store.Delete(context.Background(), id)
					}
					return nil
				})
				time.Sleep(10 * minute)
				for range 2 {
					if err := s.Save(r.Context()); err != session.ErrEnded || s.User() != "" {
						t.Errorf("Save of a session that has ended: %v, logged in as %q", err, s.User())
					}
				}
			}}))
		b.get("/login")
		b.get("/stream")
	})
}

// TestNewSessionAfterTheEnd checks that a request with the cookie of an ended session creates a new
// session, however long the process has run.
func TestNewSessionAfterTheEnd(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(clockRoutes))
		for _, path := range []string{"/set", "/login", "/set"} {
			held := b.cookie()
			if b.get(path); b.cookie() == held || body(b.get("/id")) == "" {
				t.Errorf("%s creates no session", path)
			}
			time.Sleep(20 * minute)
		}
	})
}

// TestEveryFirstUseCounts checks that every method counts as use.
func TestEveryFirstUseCounts(t *testing.T) {
	for use, f := range first {
		switch use {
		case "Login", `Login("")`, "Logout":
			continue // these end the session, or fail
		}
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			b := newBrowser(t, m.Handler(routes{"/login": clockRoutes["/login"], "/look": clockRoutes["/look"],
				"/first": func(w http.ResponseWriter, r *http.Request, s *session.Session) { f(s) }}))
			b.get("/login")
			time.Sleep(15 * minute)
			b.get("/first")
			time.Sleep(15 * minute)
			if got := body(b.get("/look")); got != "alice" && got != "afteralice" {
				t.Errorf("%s: logged in as %q 15 minutes later", use, got)
			}
		})
	}
}

// TestFailingTouchIsAnEvent checks that a touch that fails, or finds no record, is an event and
// has no other effect.
func TestFailingTouchIsAnEvent(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(spy *spyStore, id string) error
		want   session.EventKind
		err    error
	}{
		{"fails", func(*spyStore, string) error { return errDown }, session.EventStoreFailed, session.ErrStore},
		{"finds nothing", func(spy *spyStore, id string) error { return spy.Store.Delete(context.Background(), id) }, session.EventDropped, session.ErrEnded},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told events
			inBubble(t, session.Options{OnEvent: told.on}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(clockRoutes))
				b.get("/set")
				time.Sleep(10 * minute)
				spy.hook(func(_ context.Context, call, id string) error {
					if call == "Touch" || call == "Save" {
						return c.before(spy, id)
					}
					return nil
				})
				was := len(told.all)
				if resp := b.get("/look"); resp.StatusCode != http.StatusOK || body(resp) != "value" {
					t.Fatalf("the response is %v", resp)
				}
				if spy.count("Touch") != 1 || len(told.all) != was+1 || told.all[was].Kind != c.want || !errors.Is(told.all[was].Err, c.err) {
					t.Fatalf("events %+v, want one %s", told.all[was:], c.want)
				}
			})
		})
	}
}

// TestTombstonesLastAMinute checks that a tombstone lasts a minute, so that in-flight requests
// learn of the end, and has no user and no values.
func TestTombstonesLastAMinute(t *testing.T) {
	for path, want := range map[string]error{"/bob": session.ErrReplaced, "/logout": nil} {
		t.Run(path, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(clockRoutes))
				b.get("/login")
				b.get("/set")
				id, old := body(b.get("/id")), b.replay(b.cookie())
				b.get(path)
				rec, err := spy.Store.Load(t.Context(), id)
				if err != nil || rec.User != "" || !rec.Expires.Equal(time.Now().Add(minute)) || !rec.Deadline.Equal(rec.Expires) {
					t.Fatalf("the tombstone is %+v, %v", rec, err)
				}
				time.Sleep(minute - time.Millisecond)
				if got := body(old.get("/err")); got != fmt.Sprint(want) {
					t.Errorf("within the minute: %s, want %v", got, want)
				}
				time.Sleep(time.Millisecond)
				if got := body(old.get("/err")); got != fmt.Sprint(error(nil)) {
					t.Errorf("after the minute: %s", got)
				}
				if _, err := spy.Store.Load(t.Context(), id); !errors.Is(err, session.ErrNotFound) {
					t.Errorf("after the minute the store returns %v", err)
				}
			})
		})
	}
}

// TestRemembered checks that Remembered returns true before and after the commit of a Remember,
// for as long as its end applies.
func TestRemembered(t *testing.T) {
	remember := func(s *session.Session) { s.Remember(30 * day) }
	login := func(user string) func(*session.Session) { return func(s *session.Session) { s.Login(user) } }
	clearAll := func(s *session.Session) { s.Clear() }
	logout := func(s *session.Session) { s.Logout() }
	set := func(s *session.Session) { name.Set(s, "value") }
	renew := func(s *session.Session) { s.Renew() }
	type steps []func(*session.Session)
	for what, c := range map[string]struct {
		steps
		want bool
	}{
		"nothing":                          {nil, false},
		"a value":                          {steps{set}, false},
		"a Login":                          {steps{login("alice")}, false},
		"Remember":                         {steps{set, remember}, true},
		"Login, Remember":                  {steps{login("alice"), remember}, true},
		"Remember, values":                 {steps{login("alice"), remember, set}, true},
		"Remember, Clear":                  {steps{login("alice"), remember, clearAll}, true},
		"Remember, Renew":                  {steps{login("alice"), remember, renew}, true},
		"Remember, Login of the same user": {steps{login("alice"), remember, login("alice")}, true},
		"Remember, Login of another user":  {steps{login("alice"), remember, login("bob")}, false},
		"anonymous, Remember, Login":       {steps{set, remember, login("alice")}, false},
		"Remember, Logout":                 {steps{login("alice"), remember, logout}, false},
		"Remember, Logout, a value":        {steps{login("alice"), remember, logout, set}, false},
	} {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.visitor()
			pending := false
			for _, step := range c.steps {
				d.do(b, func(s *session.Session) { step(s); pending = s.Remembered() })
			}
			d.do(b, func(s *session.Session) {
				if got := s.Remembered(); got != c.want || pending != c.want {
					t.Errorf("%s: %v before the last commit, then %v; want %v", what, pending, got, c.want)
				}
			})
		})
	}
	// A request with the previous token sees that the session's end has moved, as Expires does.
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		d.do(b, remember)
		d.do(old, func(s *session.Session) {
			if !s.Remembered() || time.Until(s.Expires()) < 29*day {
				t.Errorf("in the grace: %v, expires at %v", s.Remembered(), s.Expires())
			}
		})
	})
}

// TestRemember checks that the end of a Remember replaces both clocks.
func TestRemember(t *testing.T) {
	const d = 30 * day
	for _, c := range []struct {
		name  string
		steps []any // paths, and the durations between them
		ends  time.Duration
	}{
		{"beyond Lifetime, unused", []any{"/remember"}, d},
		{"used, which does not move the end", []any{"/remember", 10 * day, "/look", 10 * day, "/look"}, 10 * day},
		{"changed, which does not move the end", []any{"/remember", 10 * day, "/set"}, 20 * day},
		{"an existing session", []any{"/set", 10 * minute, "/remember"}, d},
		{"sooner than both clocks", []any{"/remember-twice"}, 5 * minute},
		{"sooner than both clocks, used", []any{"/remember-twice", 4 * minute, "/look"}, 1 * minute},
		{"again", []any{"/remember", 10 * day, "/remember"}, d},
		{"renewed", []any{"/remember", 10 * day, "/renew"}, 20 * day},
		{"with a login before it", []any{"/login+remember"}, d},
		{"with a login after it", []any{"/remember+login"}, d},
		{"with a login, and renewed", []any{"/login+remember", 10 * day, "/renew"}, 20 * day},
		{"kept by a later login of the same user", []any{"/login+remember", 10 * day, "/login"}, 20 * day},
		{"ended by a later login of another", []any{"/login+remember", 10 * day, "/bob"}, 20 * minute},
		{"ended by a later login, anonymous before", []any{"/remember", 10 * day, "/login"}, 20 * minute},
		{"after a login that ended it", []any{"/login+remember", 10 * day, "/bob", "/login+remember"}, d},
		{"ended by a logout", []any{"/login+remember", 10 * day, "/logout"}, 0},
		{"not for the next session", []any{"/remember", 10 * day, "/logout", "/set"}, 20 * minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(clockRoutes))
				var cookie *http.Cookie // the last cookie that was set
				var set time.Time
				for _, step := range c.steps {
					switch step := step.(type) {
					case string:
						for _, got := range b.get(step).Cookies() {
							cookie, set = got, time.Now()
						}
					case time.Duration:
						time.Sleep(step)
					}
				}
				if c.ends == 0 {
					if b.cookie() != "" || body(b.get("/look")) != "" {
						t.Fatal("the session has not ended")
					}
					return
				}
				// A persistent cookie is sent with the token, and lasts until the session's end.
				want := int(time.Since(set)/time.Second) + int(c.ends/time.Second)
				if c.ends == 20*minute {
					want = 0
				}
				if cookie.MaxAge != want {
					t.Errorf("Max-Age is %d, want %d", cookie.MaxAge, want)
				}
				held := b.cookie()
				time.Sleep(c.ends - time.Millisecond)
				spy.hook(noUse)
				if got := body(b.get("/id")); got == "" {
					t.Error("ended at least a millisecond early")
				}
				time.Sleep(time.Millisecond)
				if got := body(b.replay(held).get("/id")); got != "" {
					t.Error("outlived its end")
				}
			})
		})
	}
}

// TestStoreTimeout checks that a store that hangs delays a request by Options.StoreTimeout, and
// causes a 503.
func TestStoreTimeout(t *testing.T) {
	const timeout = 3 * time.Second
	hang := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for _, c := range []struct {
		name, path string
		before     func(ctx context.Context, call string) error
		status     int
		takes      time.Duration
	}{
		{"loading", "/look", func(ctx context.Context, call string) error { return hang(ctx) }, 503, timeout},
		{"saving", "/set", func(ctx context.Context, call string) error {
			if call == "Save" {
				return hang(ctx)
			}
			return nil
		}, 503, timeout},
		{"all calls of a commit together", "/login", func(ctx context.Context, call string) error {
			switch call {
			case "Create":
				time.Sleep(timeout / 2)
			case "Save":
				return hang(ctx)
			}
			return nil
		}, 503, timeout},
		{"a load and a commit", "/set", func(ctx context.Context, call string) error {
			if call == "Load" {
				time.Sleep(timeout / 2)
				return nil
			}
			return hang(ctx)
		}, 503, timeout + timeout/2},
		{"a touch", "/look", func(ctx context.Context, call string) error {
			if call == "Touch" || call == "Save" {
				return hang(ctx)
			}
			return nil
		}, 200, timeout},
		{"the undoing of a create, which has a limit of its own", "/login", func(ctx context.Context, call string) error {
			if call == "Save" || call == "Delete" {
				return hang(ctx)
			}
			return nil
		}, 503, 2 * timeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, session.Options{StoreTimeout: timeout}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(clockRoutes))
				b.get("/set")
				time.Sleep(10 * minute)
				spy.hook(func(ctx context.Context, call, _ string) error { return c.before(ctx, call) })
				start := time.Now()
				resp := b.get(c.path)
				if took := time.Since(start); resp.StatusCode != c.status || took != c.takes {
					t.Errorf("%d after %v, want %d after %v", resp.StatusCode, took, c.status, c.takes)
				}
				if len(resp.Cookies()) > 0 {
					t.Error("a cookie was sent")
				}
			})
		})
	}
}

// TestNearerDeadline checks that Save, Reload, Take and UpdateNow end with the deadline of
// their context if it is earlier, and ignore its cancellation.
func TestNearerDeadline(t *testing.T) {
	hang := func(ctx context.Context, _, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	inBubble(t, session.Options{StoreTimeout: 3 * time.Second}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{"/set": clockRoutes["/set"], "/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			for name, call := range map[string]func(context.Context) error{
				"Save": s.Save, "Reload": s.Reload,
				"Take": func(ctx context.Context) error { _, _, err := visits.Take(ctx, s); return err },
				"UpdateNow": func(ctx context.Context) error {
					_, err := visits.UpdateNow(ctx, s, func(n int) int { return n + 1 })
					return err
				},
			} {
				for wait, deadline := range map[time.Duration]time.Duration{time.Second: time.Second, 3 * time.Second: minute} {
					visits.Set(s, 1)
					ctx, cancel := context.WithTimeout(r.Context(), deadline)
					spy.hook(hang)
					start := time.Now()
					if err := call(ctx); !errors.Is(err, session.ErrStore) || time.Since(start) != wait {
						t.Errorf("%s returned %v after %v, want a failure after %v", name, err, time.Since(start), wait)
					}
					cancel()
					spy.hook(nil)
					if err := s.Reload(r.Context()); err != nil {
						t.Errorf("Reload after the outage: %v", err)
					}
				}
			}
			visits.Set(s, 2)
			cancelled, cancel := context.WithCancel(r.Context())
			cancel()
			if n, err := visits.UpdateNow(cancelled, s, func(n int) int { return n }); err != nil || n != 2 {
				t.Errorf("UpdateNow in a context that was cancelled: %v", err)
			}
			if err := s.Save(cancelled); err != nil {
				t.Errorf("Save in a context that was cancelled: %v", err)
			}
			if err := s.Reload(cancelled); err != nil || visits.Get(s) != 2 {
				t.Errorf("Reload in a context that was cancelled: %v", err)
			}
		}}))
		b.get("/set")
		if resp := b.get("/"); resp.StatusCode != http.StatusOK {
			t.Errorf("the response is %d", resp.StatusCode)
		}
	})
}

// TestFailedSaveIsUse checks that a request counts as use even if a Save or an UpdateNow of its
// handler has failed, unless the store failed.
func TestFailedSaveIsUse(t *testing.T) {
	for name, save := range map[string]func(ctx context.Context, s *session.Session) error{
		"Save": func(ctx context.Context, s *session.Session) error {
			name.Set(s, strings.Repeat("x", 1000))
			return s.Save(ctx)
		},
		"UpdateNow": func(ctx context.Context, s *session.Session) error {
			_, err := name.UpdateNow(ctx, s, func(string) string { return strings.Repeat("x", 1000) })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, session.Options{MaxDataSize: 100}, func(t *testing.T, _ *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(routes{"/login": clockRoutes["/login"], "/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					fmt.Fprint(w, s.User())
					if err := save(r.Context(), s); s.User() != "" && !errors.Is(err, session.ErrTooLarge) {
						t.Errorf("the error is %v", err)
					}
				}}))
				b.get("/login")
				for _, pause := range []time.Duration{9 * minute, 15 * minute} { // after half of the idle timeout the load touches
					time.Sleep(pause)
					if got := body(b.get("/")); got != "alice" {
						t.Errorf("the user is %q, want alice", got)
					}
				}
			})
		})
	}
}

// TestMaxPerUser checks that after a login the user's least recently used other sessions beyond
// Options.MaxPerUser end.
func TestMaxPerUser(t *testing.T) {
	var told events
	inBubble(t, session.Options{MaxPerUser: 2, OnEvent: told.on}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		h := m.Handler(routes{
			"/alice": clockRoutes["/login"],
			"/bob":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("bob") },
			"/renew": clockRoutes["/renew"],
			"/user":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.User()) },
		})
		phone, laptop, tablet, bob := newBrowser(t, h), newBrowser(t, h), newBrowser(t, h), newBrowser(t, h)
		step := func(b *browser, path string) {
			t.Helper()
			if resp := b.get(path); resp.StatusCode != http.StatusOK {
				t.Fatalf("GET %s: %d", path, resp.StatusCode)
			}
			time.Sleep(2 * minute)
		}
		expect := func(revoked int, users ...string) {
			t.Helper()
			for i, b := range []*browser{phone, laptop, tablet, bob} {
				if got := body(b.get("/user")); got != users[i] {
					t.Errorf("browser %d: %q, want %q", i, got, users[i])
				}
				time.Sleep(2 * minute)
			}
			if n := told.count(session.EventRevoked); n != revoked {
				t.Errorf("%d revoked, want %d", n, revoked)
			}
		}
		step(bob, "/bob")
		step(phone, "/alice")
		step(laptop, "/alice")
		step(phone, "/user") // now the laptop is the least recently used
		step(tablet, "/alice")
		expect(1, "alice", "", "alice", "bob")
		step(phone, "/alice") // a second login in the same browser: there are still two sessions
		step(phone, "/renew")
		expect(1, "alice", "", "alice", "bob")

		spy.hook(func(_ context.Context, call, _ string) error {
			if call == "List" {
				return errDown
			}
			return nil
		})
		step(laptop, "/alice") // the login succeeds even if the list fails
		if n := told.count(session.EventStoreFailed); n != 1 {
			t.Errorf("%d events of a failing store, want 1", n)
		}
		expect(1, "alice", "alice", "alice", "bob")
		spy.hook(nil)
		step(laptop, "/alice")
		expect(2, "", "alice", "alice", "bob")
	})
}

// TestBurstTouchesOnce: promise 11. A burst of concurrent requests touches its session once,
// including requests that had loaded the session before and end later. The next use touches it
// again.
func TestBurstTouchesOnce(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{
			"/login": clockRoutes["/login"],
			"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.User()
				time.Sleep(10 * time.Second)
			},
		}))
		b.get("/login")
		for range 3 {
			time.Sleep(2 * minute)
			slowStore(spy, 50*time.Millisecond)
			touches := spy.count("Touch")
			if got := atOnceGet(b, 50, "/look"); got[200] != 50 {
				t.Errorf("statuses %v", got)
			}
			spy.hook(nil)
			if n := spy.count("Touch") - touches; n != 1 {
				t.Errorf("%d touches for a burst of 50", n)
			}
		}
	})
}

// TestFailedTouchIsTriedAgain checks that after a touch that fails, or whose store panics, the
// next request touches again.
func TestFailedTouchIsTriedAgain(t *testing.T) {
	for what, fails := range map[string]func(context.Context, string, string) error{
		"fails": failing("Touch", errDown), "is indeterminate": failing("Touch", session.ErrIndeterminate), "panics": panicking("Touch"),
	} {
		for _, wait := range []time.Duration{2 * minute, 15 * minute} { // the touch is after the handler, or at the load
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(clockRoutes))
				b.get("/login")
				time.Sleep(wait)
				spy.hook(fails)
				func() {
					defer func() { recover() }()
					b.get("/look")
				}()
				spy.hook(nil)
				touches := spy.count("Touch")
				if got := body(b.get("/look")); got != "alice" || spy.count("Touch")-touches != 1 {
					t.Errorf("after a touch that %s: logged in as %q, %d touches", what, got, spy.count("Touch")-touches)
				}
			})
		}
	}
}

// TestLongRequestOverTheIdleEnd: promise 11. A request that begins when more than half of the
// idle time has passed, and takes longer than the rest, keeps its session. A passive request,
// and one that does not use its session, do not.
func TestLongRequestOverTheIdleEnd(t *testing.T) {
	for what, c := range map[string]struct {
		begins func(s *session.Session)
		keeps  bool
	}{
		"a read":   {func(s *session.Session) { s.User() }, true},
		"a change": {func(s *session.Session) { name.Set(s, "x") }, true},
		"passive":  {func(s *session.Session) { s.MarkPassive(); s.User() }, false},
		"unused":   {func(s *session.Session) {}, false},
	} {
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			b := newBrowser(t, m.Handler(routes{
				"/login": clockRoutes["/login"],
				"/look":  clockRoutes["/look"],
				"/upload": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					c.begins(s)
					time.Sleep(10 * minute)
					visits.Update(s, func(n int) int { return n + 1 })
					fmt.Fprint(w, s.User(), visits.Get(s))
				},
			}))
			b.get("/login")
			time.Sleep(11 * minute)
			got, after := body(b.get("/upload")), body(b.get("/look"))
			if keeps := strings.HasSuffix(after, "alice"); keeps != c.keeps || keeps && got != "alice1" {
				t.Errorf("%s: the upload was answered %q, the next page %q", what, got, after)
			}
		})
	}
}

// TestCanceledContext checks that List obeys the cancellation of its context, without an
// EventStoreFailed, and that calls that end sessions ignore it.
func TestCanceledContext(t *testing.T) {
	spy := newSpy()
	var log events
	m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
	b := newBrowser(t, m.Handler(clockRoutes))
	b.get("/login")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all, err := m.List(ctx, "alice"); err == nil {
		t.Errorf("List: %d sessions", len(all))
	}
	hung, stop := context.WithCancel(t.Context())
	spy.hook(func(ctx context.Context, call, id string) error {
		if call == "List" {
			stop()
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	if _, err := m.List(hung, "alice"); err == nil {
		t.Error("List over a store that hangs: no error")
	}
	spy.hook(nil)
	if n := log.count(session.EventStoreFailed); n > 0 {
		t.Errorf("%d times EventStoreFailed", n)
	}
	if err := m.RevokeAll(ctx, "alice"); err != nil || body(b.get("/look")) != "" {
		t.Errorf("RevokeAll: %v", err)
	}
}

// deployments runs a test over one store on a fake clock. deploy replaces the process by one
// with other options.
func deployments(t *testing.T, rs routes, f func(t *testing.T, b *browser, deploy func(idle, lifetime time.Duration))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := &strictStore{Store: session.NewMemoryStore(nil), t: t}
		var h http.Handler
		deploy := func(idle, lifetime time.Duration) {
			h = newManager(t, session.Options{Store: store, IdleTimeout: idle, Lifetime: lifetime}).Handler(rs)
		}
		f(t, newBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) })), deploy)
	})
}

// strictStore fails the test if a record expires after its Deadline.
type strictStore struct {
	session.Store
	t *testing.T
}

func (s *strictStore) Create(ctx context.Context, r *session.Record) error {
	s.check(r)
	return s.Store.Create(ctx, r)
}

func (s *strictStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	s.check(r)
	return s.Store.Save(ctx, r, old)
}

func (s *strictStore) check(r *session.Record) {
	if r.Expires.After(r.Deadline) {
		s.t.Errorf("the record expires %v after its deadline", r.Expires.Sub(r.Deadline))
	}
}

// TestLongerIdleTimeout checks that a session in use does not end by the idle timeout from
// before a deployment with a longer one, even if a twentieth of the new timeout is longer than
// the old one.
func TestLongerIdleTimeout(t *testing.T) {
	deployments(t, clockRoutes, func(t *testing.T, b *browser, deploy func(idle, lifetime time.Duration)) {
		deploy(20*minute, 7*day)
		b.get("/login")
		deploy(12*time.Hour, 7*day)
		time.Sleep(10 * minute)
		for i := range 4 {
			if got := body(b.get("/look")); got != "alice" {
				t.Fatalf("use %d: %q, want alice", i, got)
			}
			time.Sleep(11 * time.Hour)
		}
	})
}

// TestLongerIdleTimeoutInRequest checks that a request that lasts beyond the idle end from
// before the deployment counts as use.
func TestLongerIdleTimeoutInRequest(t *testing.T) {
	rs := routes{
		"/login": clockRoutes["/login"],
		"/look":  clockRoutes["/look"],
		"/long": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			time.Sleep(5 * minute)
		},
	}
	deployments(t, rs, func(t *testing.T, b *browser, deploy func(idle, lifetime time.Duration)) {
		deploy(20*minute, 7*day)
		b.get("/login")
		deploy(12*time.Hour, 7*day)
		time.Sleep(18 * minute)
		b.get("/long")
		if got := body(b.get("/look")); got != "alice" {
			t.Errorf("%q, want alice", got)
		}
	})
}

// TestShorterLifetime checks that a Login after a deployment with a shorter Lifetime ends by
// that, not by the earlier idle end.
func TestShorterLifetime(t *testing.T) {
	deployments(t, clockRoutes, func(t *testing.T, b *browser, deploy func(idle, lifetime time.Duration)) {
		deploy(12*time.Hour, day)
		b.get("/login")
		time.Sleep(minute)
		deploy(20*minute, time.Hour)
		b.get("/login")
		time.Sleep(time.Hour - time.Millisecond)
		if got := body(b.get("/look")); got != "alice" {
			t.Errorf("before the end of the lifetime: %q, want alice", got)
		}
		time.Sleep(time.Millisecond)
		if got := body(b.get("/look")); got != "" {
			t.Errorf("after the end of the lifetime: %q", got)
		}
	})
}

// setBack sets back all clocks: the times of all records are later then.
func (spy *spyStore) setBack(d time.Duration) {
	session.SetBack(spy.Store.(*session.MemoryStore), d, func(data []byte) []byte { return simulate.Later(data, d) })
}

// Promise 2: a request that arrives later than its session was ended may begin another, also if
// the clocks were set back since. Else no page could keep anything before a login.
func TestAnewAfterTheClocksWereSetBack(t *testing.T) {
	for _, back := range []time.Duration{10 * time.Second, minute, 3 * time.Hour} {
		t.Run(back.String(), func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				if err := d.m.RevokeAll(t.Context(), "alice"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * time.Second)
				d.spy.setBack(back)
				if !d.do(b, func(s *session.Session) { name.Set(s, "anonymous") }) {
					t.Error("no session is begun")
				}
			})
		})
	}
}

// Promise 17: a lease whose holder has died ends, also if the clocks were set back since: not
// hours later.
func TestLeaseAfterTheClocksWereSetBack(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		d.f = func(s *session.Session) {
			name.Refresh(context.Background(), s, func(v string) bool { return false }, func(context.Context, string) (string, error) {
				d.spy.down.Store(true) // so that the lease cannot be given back
				return "", errors.New("the issuer does not answer")
			})
		}
		b.get("/")
		d.spy.down.Store(false)
		d.spy.setBack(3 * time.Hour)
		began := time.Now()
		d.do(b, func(s *session.Session) {
			_, err := name.Refresh(context.Background(), s, func(v string) bool { return v == "fresh" }, func(context.Context, string) (string, error) { return "fresh", nil })
			if err != nil {
				t.Error(err)
			}
		})
		if took := time.Since(began); took > minute {
			t.Errorf("Refresh waits for %v", took)
		}
	})
}
