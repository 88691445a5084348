package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/dashboard"
)

// overTheWire returns a handler that forwards to h over a real server: TLS, a socket and a
// goroutine for each request.
func overTheWire(t testing.TB, h http.Handler) http.Handler {
	server := startServer(t, "HTTP/1.1", h)
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
					t.Errorf("the browser is logged in as %q, want %q", got, want)
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
							t.Error("the request sees", s.User(), s.Names(), s.ID(), s.Err())
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
		t.Errorf("the browser is logged in as %q", got)
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

// script decides which of two operations takes the next step. Running it repeatedly produces
// every interleaving.
type script struct {
	picks []int // the decisions of this run
	at    int
}

func (s *script) pick() int {
	if s.at == len(s.picks) {
		s.picks = append(s.picks, 0)
	}
	s.at++
	return s.picks[s.at-1]
}

// next prepares another run, and reports whether there is one.
func (s *script) next() bool {
	for len(s.picks) > 0 && s.picks[len(s.picks)-1] == 1 {
		s.picks = s.picks[:len(s.picks)-1]
	}
	if len(s.picks) == 0 {
		return false
	}
	s.picks[len(s.picks)-1], s.at = 1, 0
	return true
}

type actor struct{} // context key of the operation that the context belongs to

type answered struct{} // context key of a function that a browser calls before it handles a response

// perform runs two operations on one store, in the order of the script, in a bubble. The steps
// of an operation are its begin and each store call; concurrent calls are steps one after the
// other. Only one operation moves at a time, and an operation that waits for the other has no
// step. A browser handles its response immediately.
// perform returns the steps in order: "0 begins", "1 begins", "0 Load", ...
func perform(spy *spyStore, s *script, ops [2]func(context.Context)) (steps []string) {
	var next [2]atomic.Value // name of the step before which an operation waits, or ""
	turn := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	waiting := [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)} // full while a goroutine of the operation waits
	step := func(i int, name string) {
		waiting[i] <- struct{}{}
		next[i].Store(name)
		<-turn[i]
		<-waiting[i]
	}
	spy.hook(func(ctx context.Context, call, _ string) error {
		if i, ok := ctx.Value(actor{}).(int); ok {
			step(i, call)
		}
		return nil
	})
	defer spy.hook(nil)
	const isAnswered, hasEnded = "is answered", "has ended"
	for i, op := range ops {
		go func() {
			step(i, "begins")
			ctx := context.WithValue(context.Background(), actor{}, i)
			op(context.WithValue(ctx, answered{}, func() { step(i, isAnswered) }))
			next[i].Store(hasEnded)
		}()
	}
	for {
		synctest.Wait()
		waits := func(i int) bool { return next[i].Load() != "" && next[i].Load() != hasEnded }
		i := 0
		switch {
		case next[0].Load() == hasEnded && next[1].Load() == hasEnded:
			return steps
		case next[0].Load() == isAnswered:
		case next[1].Load() == isAnswered:
			i = 1
		case waits(0) && waits(1):
			i = s.pick()
		case waits(1):
			i = 1
		case !waits(0):
			time.Sleep(time.Millisecond)
			continue
		}
		time.Sleep(time.Millisecond) // so that no two steps have the same time
		if name := next[i].Load(); name != isAnswered {
			steps = append(steps, fmt.Sprint(i, " ", name))
		}
		next[i].Store("")
		turn[i] <- struct{}{}
	}
}

// scene is alice, logged in on two devices, before an operation on the session of the phone.
type scene struct {
	*testing.T
	spy           *spyStore
	m             *session.Manager
	log           events
	phone, laptop *browser
	before        *browser         // the phone with its cookie from before a renewal
	ofPhone       *session.Session // Session of the request that logged in on the phone
	cookies       []string         // all cookies that were sent, in order
	logins        []string         // the cookies that Logins as alice created
	answers       map[string]*http.Response
}

// newScene returns a scene in which the phone's token has this age. renewed is whether the
// token was then renewed automatically, with a new token that was not presented.
func newScene(t *testing.T, age time.Duration, renewed bool) *scene {
	sc := &scene{T: t, spy: newSpy(), answers: map[string]*http.Response{}}
	sc.m = newManager(t, session.Options{Store: sc.spy, OnEvent: sc.log.on, RenewAfter: minute})
	h := sc.m.Handler(routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("alice")
			if sc.ofPhone == nil {
				sc.ofPhone = s
			}
		},
		"/bob":      func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("bob") },
		"/renew":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
		"/remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Remember(100 * day) },
		"/set":      func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "set") },
		"/count": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
		},
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
		"/id":     func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.ID()) },
		"/others": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if err := sc.m.RevokeOthers(r.Context(), s); err != nil {
				http.Error(w, err.Error(), 500)
			}
		},
		"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, s.User(), " ", name.Get(s), " ", visits.Get(s))
		},
	})
	sc.phone, sc.laptop = newBrowser(t, h), newBrowser(t, h)
	sc.visit(sc.phone, "/login")(t.Context())
	time.Sleep(age)
	sc.before = sc.phone.replay(sc.phone.cookie())
	if renewed {
		sc.visit(sc.phone, "/look")(t.Context())
	}
	time.Sleep(time.Millisecond)
	sc.visit(sc.laptop, "/login")(t.Context())
	return sc
}

// visit returns an operation: a request with the current cookies of the device, which may be
// outdated when it is sent.
func (sc *scene) visit(b *browser, path string) func(context.Context) {
	r := b.request(path)
	return func(ctx context.Context) {
		resp := b.do(r.WithContext(ctx))
		if resp.StatusCode != 200 {
			sc.Error(path, resp.Status, body(resp))
		}
		for _, c := range resp.Cookies() {
			if c.MaxAge >= 0 {
				sc.cookies = append(sc.cookies, c.Name+"="+c.Value)
				if path == "/login" {
					sc.logins = append(sc.logins, c.Name+"="+c.Value)
				}
			}
		}
		sc.answers[path] = resp
	}
}

// alive returns the valid cookies after all responses have arrived, each once: only the newest
// valid one of each session. Every listed session must have a cookie that was sent.
func (sc *scene) alive() (good []string) {
	looks := func(c string) bool { return !strings.HasPrefix(body(sc.phone.replay(c).get("/look")), " ") }
	for _, c := range slices.Backward(sc.cookies) { // the newest first, which presents it
		looks(c)
	}
	time.Sleep(11 * time.Second)
	for _, c := range sc.cookies {
		if looks(c) {
			good = append(good, c)
		}
	}
	listed := 0
	for _, user := range []string{"alice", "bob"} {
		all, err := sc.m.List(sc.Context(), user)
		if listed += len(all); err != nil {
			sc.Error(err)
		}
	}
	ids := map[string]bool{}
	for _, c := range good {
		ids[body(sc.phone.replay(c).get("/id"))] = true
	}
	if listed != len(ids) {
		sc.Errorf("%d sessions are listed, the cookies of %d are valid", listed, len(ids))
	}
	return good
}

// expectAlive fails the test unless exactly these cookies are valid.
func (sc *scene) expectAlive(want ...string) {
	sc.Helper()
	if got := sc.alive(); !slices.Equal(got, want) {
		number := func(cookies []string) (n []int) {
			for _, c := range cookies {
				n = append(n, slices.Index(sc.cookies, c))
			}
			return n
		}
		sc.Errorf("of %d cookies %v are valid, want %v", len(sc.cookies), number(got), number(want))
	}
}

// everyOrder runs a scene in every interleaving of two operations.
func everyOrder(t *testing.T, begin func(t *testing.T) *scene, ops func(sc *scene) [2]func(context.Context), check func(sc *scene, steps []string)) {
	synctest.Test(t, func(t *testing.T) { // the fake clock makes runs repeatable
		plays := 0
		for s := new(script); plays == 0 || s.next(); plays++ {
			sc := begin(t)
			steps := perform(sc.spy, s, ops(sc))
			if check(sc, steps); t.Failed() {
				t.Fatalf("in this order: %q", steps)
			}
		}
		t.Log(plays, "orders")
	})
}

// renewal is an operation that gives the session on the phone another token, or presents a
// token for the first time.
type renewal struct {
	name  string
	begin func(t *testing.T) *scene
	path  string // route that the phone requests
	asked bool
}

func fresh(t *testing.T) *scene { return newScene(t, 0, false) }
func aged(t *testing.T) *scene  { return newScene(t, minute, false) }

var renewals = []renewal{
	{"Renew", fresh, "/renew", true},
	{"Login again", fresh, "/login", true},
	{"Remember", fresh, "/remember", true},
	{"automatic", aged, "/look", false},
	{"automatic, with a change", aged, "/count", false},
	{"first use", func(t *testing.T) *scene { return newScene(t, minute, true) }, "/look", false},
}

// endings are the operations that end the session on the phone, and whether the session on the
// laptop continues.
var endings = []struct {
	name  string
	op    func(sc *scene) func(context.Context)
	spare bool
}{
	{"Logout", func(sc *scene) func(context.Context) { return sc.visit(sc.phone, "/logout") }, true},
	{"Logout with the previous token", func(sc *scene) func(context.Context) { return sc.visit(sc.before, "/logout") }, true},
	{"EndBy in an Edit", func(sc *scene) func(context.Context) {
		return func(ctx context.Context) {
			err := sc.m.Edit(ctx, "alice", sc.ofPhone.ID(), func(s *session.Session) { s.EndBy(time.Now()) })
			if err != nil && err != session.ErrEnded { // a Login as another user also ends the session
				sc.Error(err)
			}
		}
	}, true},
	{"Revoke", func(sc *scene) func(context.Context) {
		return func(ctx context.Context) {
			if err := sc.m.Revoke(ctx, "alice", sc.ofPhone.ID()); err != nil {
				sc.Error(err)
			}
		}
	}, true},
	{"RevokeAll", func(sc *scene) func(context.Context) {
		return func(ctx context.Context) {
			if err := sc.m.RevokeAll(ctx, "alice"); err != nil {
				sc.Error(err)
			}
		}
	}, false},
	{"RevokeOthers", func(sc *scene) func(context.Context) { return sc.visit(sc.laptop, "/others") }, true},
}

// TestNoRenewalSurvivesAnEnding: promise 2. No renewal survives a concurrent end of the
// session. Only a Login that finds the session ended creates another session, because the user
// has authenticated for it. RevokeAll also ends that session if it was called later and saw it.
func TestNoRenewalSurvivesAnEnding(t *testing.T) {
	for _, e := range endings {
		for _, r := range renewals {
			t.Run(e.name+" "+r.name, func(t *testing.T) {
				everyOrder(t, r.begin, func(sc *scene) [2]func(context.Context) {
					return [2]func(context.Context){e.op(sc), sc.visit(sc.phone, r.path)}
				}, func(sc *scene, steps []string) {
					var want []string
					if e.spare {
						want = append(want, sc.laptop.cookie())
					}
					if created := slices.Index(steps, "1 Create"); created >= 0 {
						seen := lastIndex(steps, "0 List") > created
						called := slices.Index(steps, "1 Load") < slices.Index(steps, "0 begins")
						if !seen || !called && slices.Contains(sc.alive(), sc.phone.cookie()) {
							want = append(want, sc.phone.cookie())
						}
					}
					sc.expectAlive(want...)
				})
			})
		}
	}
}

func lastIndex(steps []string, step string) int {
	for i, s := range slices.Backward(steps) {
		if s == step {
			return i
		}
	}
	return -1
}

// TestLoginAsAnotherOverlapsAnEnding: promise 2. A Login as another user takes effect in every
// interleaving. The session on which it was called has ended, and so has the new one if the
// other operation found it in its place.
func TestLoginAsAnotherOverlapsAnEnding(t *testing.T) {
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			everyOrder(t, fresh, func(sc *scene) [2]func(context.Context) {
				return [2]func(context.Context){e.op(sc), sc.visit(sc.phone, "/bob")}
			}, func(sc *scene, steps []string) {
				var want []string
				if e.spare {
					want = append(want, sc.laptop.cookie())
				}
				// Only a Logout of a request that had loaded the session before follows
				// to the session in its place: the others end sessions of alice.
				took, called := slices.Index(steps, "1 Save"), slices.Index(steps, "0 Save")
				follows := strings.HasPrefix(e.name, "Logout") && slices.Index(steps, "0 Load") < took
				if !follows || called >= 0 && called < took || took < 0 {
					want = append(want, sc.cookies[2])
				}
				sc.expectAlive(want...)
			})
		})
	}
}

// TestRevokeOthersOverlapsItsOwnRenewal checks that RevokeOthers keeps the session on which it
// is called, even if the session is renewed meanwhile.
func TestRevokeOthersOverlapsItsOwnRenewal(t *testing.T) {
	for _, r := range renewals {
		t.Run(r.name, func(t *testing.T) {
			everyOrder(t, r.begin, func(sc *scene) [2]func(context.Context) {
				return [2]func(context.Context){func(ctx context.Context) {
					if err := sc.m.RevokeOthers(ctx, sc.ofPhone); err != nil {
						sc.Error(err)
					}
				}, sc.visit(sc.phone, r.path)}
			}, func(sc *scene, steps []string) { sc.expectAlive(sc.phone.cookie()) })
		})
	}
}

// TestRenewalsOverlap: promise 3. After two concurrent renewals the phone is logged in. A Login
// always creates a key, and the keys of two Logins are valid in any order of arrival. Of other
// explicit renewals with one token one creates a key, and a Remember that is second is
// reported. An automatic renewal adds at most one key.
func TestRenewalsOverlap(t *testing.T) {
	for _, one := range renewals {
		for _, other := range renewals {
			t.Run(one.name+", "+other.name, func(t *testing.T) {
				begin := one.begin
				if !other.asked {
					begin = other.begin
				}
				everyOrder(t, begin, func(sc *scene) [2]func(context.Context) {
					return [2]func(context.Context){sc.visit(sc.phone, one.path), sc.visit(sc.phone, other.path)}
				}, func(sc *scene, steps []string) {
					first, second := one, other
					if i := slices.IndexFunc(steps, func(s string) bool { return strings.HasSuffix(s, " Save") }); i >= 0 && steps[i] == "1 Save" {
						first, second = other, one
					}
					if first.asked && second.asked {
						want := 1
						if second.path == "/login" {
							want = 2
						}
						if made := len(sc.cookies) - 2; made != want {
							sc.Errorf("%d cookies were sent beside those of the two logins, want %d", made, want)
						}
					}
					want := 0
					if first.asked && second.path == "/remember" {
						want = 1
					}
					if n := sc.log.count(session.EventDropped); n != want {
						sc.Errorf("%d times EventDropped, want %d", n, want)
					}
					alive := []string{sc.laptop.cookie(), sc.phone.cookie()}
					if again := sc.logins[2:]; len(again) > 0 {
						alive = append(again, sc.laptop.cookie())
					}
					slices.SortFunc(alive, func(a, b string) int { return slices.Index(sc.cookies, a) - slices.Index(sc.cookies, b) })
					sc.expectAlive(alive...)
				})
			})
		}
	}
}

// TestRenewalOverlapsALoginAsAnother: promise 3. A Login as another user creates a new session
// during any renewal: the old session has ended, and the browser has the newest cookie. A Login
// of the first user also takes effect: of two Logins, both do.
func TestRenewalOverlapsALoginAsAnother(t *testing.T) {
	for _, r := range renewals {
		t.Run(r.name, func(t *testing.T) {
			everyOrder(t, r.begin, func(sc *scene) [2]func(context.Context) {
				return [2]func(context.Context){sc.visit(sc.phone, r.path), sc.visit(sc.phone, "/bob")}
			}, func(sc *scene, steps []string) {
				bob := issued(t, sc.answers["/bob"])
				want := []string{sc.laptop.cookie(), bob.Name + "=" + bob.Value}
				if r.path == "/login" && slices.Contains(steps, "0 Create") {
					again := issued(t, sc.answers["/login"])
					want = append(want, again.Name+"="+again.Value)
				} else if sc.phone.cookie() != want[1] {
					sc.Error("the phone does not have the cookie of bob's session")
				}
				slices.SortFunc(want, func(a, b string) int { return slices.Index(sc.cookies, a) - slices.Index(sc.cookies, b) })
				sc.expectAlive(want...)
			})
		})
	}
}

// TestChangesOverlap: promise 1. The changes of two concurrent requests are both kept in every
// interleaving, also if one or both renew the token, and whichever token the other has.
func TestChangesOverlap(t *testing.T) {
	type pair struct {
		one, other, want string
		begin            func(t *testing.T) *scene
	}
	pairs := []pair{
		{"/set", "/count", "alice set 1", fresh},
		{"/count", "/count", "alice  2", fresh},
	}
	for _, r := range renewals {
		more := 0
		if r.path == "/count" {
			more = 1
		}
		pairs = append(pairs, pair{"/set", r.path, fmt.Sprint("alice set ", more), r.begin},
			pair{"/count", r.path, fmt.Sprint("alice  ", 1+more), r.begin})
	}
	for _, c := range pairs {
		for _, from := range []string{"the phone", "the phone before"} {
			t.Run(c.one+" "+c.other+" from "+from, func(t *testing.T) {
				everyOrder(t, c.begin, func(sc *scene) [2]func(context.Context) {
					b := sc.phone
					if from != "the phone" {
						b = sc.before
					}
					return [2]func(context.Context){sc.visit(b, c.one), sc.visit(sc.phone, c.other)}
				}, func(sc *scene, steps []string) {
					if got := body(sc.phone.get("/look")); got != c.want {
						sc.Errorf("the phone reads %q, want %q", got, c.want)
					}
					if n := sc.log.count(session.EventDropped); n > 0 {
						sc.Errorf("%d times EventDropped", n)
					}
				})
			})
		}
	}
}

// TestChangeOverlapsALoginAsAnother: promise 1. Only a Login that changes the user drops the
// changes of in-flight requests, and reports them.
func TestChangeOverlapsALoginAsAnother(t *testing.T) {
	for _, path := range []string{"/set", "/count", "/renew", "/remember"} {
		t.Run(path, func(t *testing.T) {
			everyOrder(t, fresh, func(sc *scene) [2]func(context.Context) {
				return [2]func(context.Context){sc.visit(sc.phone, path), sc.visit(sc.phone, "/bob")}
			}, func(sc *scene, steps []string) {
				if got := body(sc.phone.replay(sc.cookies[len(sc.cookies)-1]).get("/look")); got != "bob  0" {
					sc.Errorf("bob reads %q", got)
				}
				saved := slices.Index(steps, "0 Save") < slices.Index(steps, "1 Save")
				if saved = saved && slices.Contains(steps, "0 Save"); !saved != (sc.log.count(session.EventDropped) == 1) {
					sc.Errorf("%d times EventDropped, saved: %v", sc.log.count(session.EventDropped), saved)
				}
			})
		})
	}
}

// TestLogoutOfAnEndedSession covers a slow Logout that finds its session ended. After another
// Logout the browser may have logged in again, and keeps its cookie. After a revocation, by
// this request or another, the cookie is deleted, and changes after the Logout create a
// session.
func TestLogoutOfAnEndedSession(t *testing.T) {
	m := newManager(t, session.Options{})
	var between func(s *session.Session)
	b := newBrowser(t, m.Handler(routes{
		"/login":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
		"/slow": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			between(s)
			s.Logout()
			if r.URL.RawQuery == "flash" {
				s.AddFlash("", "signed out everywhere")
			}
		},
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, s.User(), s.Flashes(), s.Ended())
		},
	}))
	for what, c := range map[string]struct {
		path, want string
		do         func(s *session.Session)
	}{
		"logged out, and in again": {"/slow", "alice[] false", func(*session.Session) { b.get("/logout"); b.get("/login") }},
		"revoked":                  {"/slow", "[] false", func(*session.Session) { m.RevokeAll(t.Context(), "alice") }},
		"revoked, a flash":         {"/slow?flash", "[{ signed out everywhere}] false", func(*session.Session) { m.RevokeAll(t.Context(), "alice") }},
		"revoked by itself":        {"/slow?flash", "[{ signed out everywhere}] false", func(s *session.Session) { m.Revoke(t.Context(), "alice", s.ID()) }},
		"revoked and saved":        {"/slow?flash", "[{ signed out everywhere}] false", func(s *session.Session) { m.RevokeAll(t.Context(), "alice"); name.Set(s, "x"); s.Save(t.Context()) }},
		"revoked and reloaded":     {"/slow?flash", "[{ signed out everywhere}] false", func(s *session.Session) { m.RevokeAll(t.Context(), "alice"); s.Reload(t.Context()) }},
	} {
		b.get("/login")
		between = c.do
		b.get(c.path)
		if got := body(b.get("/")); got != c.want {
			t.Errorf("%s meanwhile: afterwards the browser sees %q, want %q", what, got, c.want)
		}
	}
}

// TestLogoutAfterReloads: promise 2. A Login in another tab replaces the session that a request
// has loaded. The Logout of that request also ends the successor, whatever Reloads have
// returned before.
func TestLogoutAfterReloads(t *testing.T) {
	for _, fails := range []bool{false, true} { // whether the first Reload fails
		spy := newSpy()
		m := newManager(t, session.Options{Store: spy})
		sent := open(t, m, "alice")
		tab := newBrowser(t, m.Handler(routes{"/": func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { s.Login("bob") }})).replay(sent)
		newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			tab.get("/")
			if fails {
				spy.hook(failing("Load", errDown))
			}
			s.Reload(r.Context())
			spy.hook(nil)
			if err := s.Reload(r.Context()); err != session.ErrReplaced {
				t.Errorf("Reload: %v", err)
			}
			s.Logout()
		}})).replay(sent).get("/")
		if got := opens(t, m, tab.cookie()); got != closed {
			t.Errorf("a Reload fails: %v; after the Logout the tab's cookie opens %q", fails, got)
		}
	}
}

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
	t.Parallel()
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

// TestDashboardOnThreeProcesses runs a dashboard on three processes, with tokens that are
// renewed every minute. No request of a logged-in user is answered as anonymous, no request
// after a logout is answered as a user, and no write is lost. Module faults runs the same over
// Redis and PostgreSQL.
func TestDashboardOnThreeProcesses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := session.NewMemoryStore(nil)
		var log events
		end := time.Now().Add(6 * time.Minute)
		c := &dashboard.Crowd{
			Browsers: 100, Pause: time.Minute, Short: 2 * time.Second, Long: 4 * time.Minute,
			Again: func() bool { return time.Now().Before(end) },
		}
		for range 3 {
			m := newManager(t, session.Options{Store: store, RenewAfter: time.Minute, OnEvent: log.on})
			c.Processes = append(c.Processes, m.Handler(http.HandlerFunc(dashboard.Handler)))
		}
		c.Run(t)
		renewed, conflicts := log.count(session.EventRenewed), log.count(session.EventConflict)
		if renewed < 100 || conflicts < 100 || c.Lost.Load() < 1000 || c.Logouts.Load() < 110 {
			t.Error("too few renewals, conflicts or lost responses")
		}
		if n := log.count(session.EventDropped); n > 0 {
			t.Errorf("%d changes were dropped: %v", n, log.last(session.EventDropped))
		}
		t.Logf("%d requests, %d renewals, %d conflicts, %d responses lost, %d logouts", c.Requests.Load(), renewed, conflicts, c.Lost.Load(), c.Logouts.Load())
	})
}
