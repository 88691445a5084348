package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// overTheWire returns a handler that forwards to h over a real server: TLS, a socket and a
// goroutine for each request.
func overTheWire(t testing.TB, h http.Handler) http.Handler {
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	to, _ := url.Parse(server.URL)
	wire := httputil.NewSingleHostReverseProxy(to)
	wire.Transport = server.Client().Transport
	return wire
}

// together sends n concurrent requests and returns their responses.
func together(b *browser, n int, path func(i int) string) []*http.Response {
	all := make([]*http.Response, n)
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i] = b.get(path(i)) })
	}
	wg.Wait()
	return all
}

// gate stops a handler: the test waits until the handler is there, and lets it continue.
type gate struct{ there, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}), make(chan struct{})} }

func (g *gate) pass() {
	close(g.there)
	<-g.open
}

// during sends a request that stops at the gate, calls meanwhile, and returns the response.
func (g *gate) during(b *browser, path string, meanwhile func()) *http.Response {
	slow := make(chan *http.Response)
	go func() { slow <- b.get(path) }()
	<-g.there
	meanwhile()
	close(g.open)
	return <-slow
}

// last returns the latest event of a kind, or the zero Event.
func (e *events) last(kind session.EventKind) (found session.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.Kind == kind {
			found = ev
		}
	}
	return found
}

// setsCookie reports whether a response sets a cookie of any name.
func setsCookie(resp *http.Response) bool { return resp.Header.Get("Set-Cookie") != "" }

// TestNoLostUpdate: promise 1. All requests have read the same record before the first one
// saves.
func TestNoLostUpdate(t *testing.T) {
	const n = 50
	spy := newSpy()
	var log events
	m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
	odd := session.NewKey[json.RawMessage]("odd")
	var loaded sync.WaitGroup
	loaded.Add(n)
	b := newBrowser(t, overTheWire(t, m.Handler(routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("alice")
			odd.Set(s, json.RawMessage(`[1.50e+01,{"b":"\u0041","a":-0}]`))
		},
		"/write": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
			loaded.Done()
			loaded.Wait()
			session.NewKey[string]("own "+r.URL.RawQuery).Set(s, r.URL.RawQuery)
			s.AddFlash("", r.URL.RawQuery)
		},
		"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			own := 0
			for _, key := range s.Names() {
				if who, ok := strings.CutPrefix(key, "own "); ok && session.NewKey[string](key).Get(s) == who {
					own++
				}
			}
			shown := map[session.Flash]bool{}
			for _, f := range s.Flashes() {
				shown[f] = true
			}
			fmt.Fprint(w, own, visits.Get(s), len(shown), string(odd.Get(s)))
		},
	})))
	b.get("/login")
	for _, resp := range together(b, n, func(i int) string { return fmt.Sprint("/write?", i) }) {
		if resp.StatusCode != 200 || setsCookie(resp) {
			t.Error(resp.Status, resp.Header)
		}
	}
	// Values that no request changed are kept byte for byte.
	if got, want := body(b.get("/look")), fmt.Sprint(n, n, n, `[1.50e+01,{"b":"\u0041","a":-0}]`); got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	if log.count(session.EventConflict) < n-1 {
		t.Error("too few conflicts: only", log.count(session.EventConflict), "conflicts")
	}
}

// TestFlashAddedWhileOthersAreShown: promise 1. A page that shows the flashes removes those,
// and not an equal one that another request has added meanwhile.
func TestFlashAddedWhileOthersAreShown(t *testing.T) {
	m := newManager(t, session.Options{})
	g := newGate()
	b := newBrowser(t, m.Handler(routes{
		"/add": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.AddFlash("info", "saved") },
		"/show": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			shown := s.Flashes()
			g.pass()
			fmt.Fprint(w, len(shown))
		},
		"/after": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.Flashes()) },
	}))
	b.get("/add")
	if got := body(g.during(b, "/show", func() { b.get("/add") })); got != "1" {
		t.Error("shown:", got)
	}
	if got := body(b.get("/after")); got != "[{info saved}]" {
		t.Error("after:", got)
	}
}

// slowly contains what a request may do to a session that it has loaded before the end of the
// session.
var slowly = map[string]func(w http.ResponseWriter, r *http.Request, s *session.Session){
	"reads":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, name.Get(s)) },
	"sets":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "slow") },
	"deletes": func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Delete(s) },
	"clears":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Clear() },
	"updates": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		visits.Update(s, func(n int) int { return n + 1 })
	},
	"flashes":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.AddFlash("", "slow") },
	"renews":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
	"remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Remember(1e15) },
	"saves": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		name.Set(s, "slow")
		if err := s.Save(r.Context()); err != nil && !errors.Is(err, session.ErrEnded) && !errors.Is(err, session.ErrReplaced) {
			http.Error(w, fmt.Sprint("Save: ", err), 500)
		}
	},
	"sets late": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprint(w, "the first byte")
		name.Set(s, "slow")
	},
}

// slowRoutes are the routes of a shop whose slow pages stop at a gate with the session loaded,
// and then do what the query says.
func slowRoutes(g *gate) routes {
	return routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "before")
			s.Login("alice")
		},
		"/bob": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("bob")
			name.Set(s, "before")
		},
		"/renew":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
		"/user": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, s.User(), " ", name.Get(s))
		},
		"/slow": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Err()
			g.pass()
			what, _ := url.QueryUnescape(r.URL.RawQuery)
			slowly[what](w, r, s)
		},
	}
}

// TestLogoutWins: promise 2. Whatever a slow request does after a logout during it, the old
// token stays invalid, in other processes too.
func TestLogoutWins(t *testing.T) {
	for what := range slowly {
		t.Run(what, func(t *testing.T) {
			spy, g := newSpy(), newGate()
			var log events
			m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
			b := newBrowser(t, overTheWire(t, m.Handler(slowRoutes(g))))
			b.get("/login")
			old := b.cookie()
			resp := g.during(b, "/slow?"+url.QueryEscape(what), func() { b.get("/logout") })
			if resp.StatusCode != 200 || setsCookie(resp) {
				t.Error("the slow response:", resp.Status, resp.Header)
			}
			if b.cookie() != "" {
				t.Error("the slow response has set a cookie")
			}
			another := newManager(t, session.Options{Store: spy}).Handler(slowRoutes(g))
			for _, h := range []http.Handler{b.h, another} {
				if got := body(newBrowser(t, h).replay(old).get("/user")); got != " " {
					t.Errorf("the old cookie opens %q", got)
				}
			}
			if writes := what != "reads"; writes != (log.count(session.EventDropped) == 1) {
				t.Error("dropped:", log.count(session.EventDropped))
			}
		})
	}
}

// TestStaleResponseNeverOverwritesNewerCookie: promises 1 and 3. Whatever a slow request does
// after a renewal during it is kept, and does not replace the newer cookie. After a login as
// another user it is dropped.
func TestStaleResponseNeverOverwritesNewerCookie(t *testing.T) {
	for _, newer := range []string{"/login", "/renew", "/bob"} {
		for what := range slowly {
			t.Run(newer+" "+what, func(t *testing.T) {
				g := newGate()
				var log events
				m := newManager(t, session.Options{OnEvent: log.on})
				b := newBrowser(t, overTheWire(t, m.Handler(slowRoutes(g))))
				b.get("/login")
				var fresh string
				resp := g.during(b, "/slow?"+url.QueryEscape(what), func() {
					b.get(newer)
					fresh = b.cookie()
				})
				if resp.StatusCode != 200 || setsCookie(resp) || b.cookie() != fresh {
					t.Error("the slow response:", resp.Status, resp.Header)
				}
				want, dropped := "alice before", 0
				switch {
				case newer == "/bob":
					want, dropped = "bob before", 1
					if what == "reads" {
						dropped = 0
					}
				case what == "remember":
					dropped = 1
				case what == "sets" || what == "saves" || what == "sets late":
					want = "alice slow"
				case what == "deletes" || what == "clears":
					want = "alice "
				}
				if got := body(b.get("/user")); got != want {
					t.Errorf("the browser is in as %q, want %q", got, want)
				}
				if got := log.count(session.EventDropped); got != dropped {
					t.Error("dropped:", got)
				}
			})
		}
	}
}

// TestStaleArrival: promise 3. A request that arrives after its session has ended, was given to
// another user, or was renewed a while ago sees an anonymous session, and its changes are
// dropped.
func TestStaleArrival(t *testing.T) {
	for _, c := range []struct {
		ending   string
		after    time.Duration
		err      error // error of Err
		dropped  error // error of the event and of Save
		replayed bool
	}{
		{"/renew", 10 * time.Second, session.ErrReplaced, session.ErrReplaced, true},
		{"/login", 10 * time.Second, session.ErrReplaced, session.ErrReplaced, true},
		{"/remember", 10 * time.Second, session.ErrReplaced, session.ErrReplaced, true},
		{"/bob", 0, session.ErrReplaced, session.ErrReplaced, false},
		{"/logout", 0, nil, session.ErrEnded, false},
	} {
		for what := range slowly {
			t.Run(c.ending+" "+what, func(t *testing.T) {
				inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, _ *session.Manager) {
					var log events
					m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
					shop := slowRoutes(nil)
					shop["/remember"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Remember(day) }
					shop["/stale"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						if s.User() != "" || len(s.Names()) > 0 || !s.IsNew() || s.Err() != c.err || !s.AuthTime().IsZero() {
							t.Error("sees", s.User(), s.Names(), s.ID(), s.Err())
						}
						slowly[what](w, r, s)
					}
					b := newBrowser(t, m.Handler(shop))
					b.get("/login")
					stale := b.replay(b.cookie())
					b.get(c.ending)
					time.Sleep(c.after)
					writes := spy.count("") - spy.count("Load")
					resp := stale.get("/stale")
					if resp.StatusCode != 200 || setsCookie(resp) {
						t.Error("the stale response:", resp.Status, resp.Header, body(resp))
					}
					if spy.count("")-spy.count("Load") != writes {
						t.Error("the stale request wrote to the store")
					}
					want := c.dropped
					if what == "reads" || what == "deletes" || what == "clears" {
						want = nil // deleting an absent value is no change
					}
					if got := log.last(session.EventDropped).Err; got != want {
						t.Errorf("dropped: %v, want %v", got, want)
					}
					e, live := log.last(session.EventReplayed), log.last(session.EventLoggedIn)
					if got := log.count(session.EventReplayed); (got == 1) != c.replayed || c.replayed && (e.User != "alice" || e.ID != live.ID) {
						t.Errorf("%d times EventReplayed: %+v", got, e)
					}
				})
			})
		}
	}
}

// TestLoginOnStaleSession: promise 3. A Login takes effect, however old the session is on which
// it is called. The values of the session that replaced it are taken over if that is of the
// same user, because the form was sent twice.
func TestLoginOnStaleSession(t *testing.T) {
	for _, ending := range []string{"/renew", "/login", "/bob", "/logout"} {
		for _, when := range []string{"arrives after", "overlaps"} {
			t.Run(when+" "+ending, func(t *testing.T) {
				g := newGate()
				shop := slowRoutes(g)
				shop["/again"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					s.Err()
					if when == "overlaps" {
						g.pass()
					}
					s.Login("bob")
					if s.Err() != nil {
						t.Error("Err after Login:", s.Err())
					}
				}
				b := newBrowser(t, overTheWire(t, newManager(t, session.Options{}).Handler(shop)))
				b.get("/login")
				old := b.replay(b.cookie())
				if when == "overlaps" {
					g.during(old, "/again", func() { b.get(ending) })
				} else {
					b.get(ending)
					old.get("/again")
				}
				want := "bob "
				if ending == "/bob" {
					want = "bob before"
				}
				if got := body(old.get("/user")); got != want {
					t.Errorf("logged in as %q, want %q", got, want)
				}
			})
		}
	}
}

// TestParallelRenewals: promise 3. Of many concurrent renewals exactly one creates a key.
func TestParallelRenewals(t *testing.T) {
	const n = 20
	spy := newSpy()
	var log events
	m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
	shop := slowRoutes(nil)
	var loaded sync.WaitGroup
	loaded.Add(n)
	shop["/renew"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Renew()
		loaded.Done()
		loaded.Wait()
	}
	b := newBrowser(t, overTheWire(t, m.Handler(shop)))
	b.get("/login")
	cookies := 0
	for _, resp := range together(b, n, func(int) string { return "/renew" }) {
		if resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
		if setsCookie(resp) {
			cookies++
		}
	}
	live, err := spy.List(t.Context(), "alice")
	if cookies != 1 || len(live) != 1 || err != nil || log.count(session.EventRenewed) != 1 || log.count(session.EventDropped) != 0 {
		t.Errorf("%d cookies, %d live records (%v), events %v", cookies, len(live), err, log.all)
	}
	if got := body(b.get("/user")); got != "alice before" {
		t.Errorf("the browser is in as %q", got)
	}
}

// TestLoginTakesOverlappingWrites: promises 1 and 3. Values that other requests save between
// the two steps of a login belong to the new session.
func TestLoginTakesOverlappingWrites(t *testing.T) {
	const n = 20
	spy, g := newSpy(), newGate()
	shop := slowRoutes(nil)
	shop["/write"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		session.NewKey[bool](r.URL.RawQuery).Set(s, true)
	}
	shop["/count"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprint(w, s.User(), len(s.Names()))
	}
	b := newBrowser(t, overTheWire(t, newManager(t, session.Options{Store: spy}).Handler(shop)))
	b.get("/write?first")
	spy.hook(func(_ context.Context, call, _ string) error {
		if call == "Create" { // the next call of the login is the swap
			spy.hook(nil)
			g.pass()
		}
		return nil
	})
	g.during(b, "/login", func() {
		for _, resp := range together(b, n, func(i int) string { return fmt.Sprint("/write?", i) }) {
			if resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
		}
	})
	if got, want := body(b.get("/count")), fmt.Sprint("alice", n+2); got != want { // and the values first and name
		t.Errorf("%s values, want %s", got, want)
	}
}
