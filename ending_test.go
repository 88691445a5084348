package session_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// A script decides which of two operations takes the next step. Played again
// and again it comes up with every order there is: interleavings.
type script struct {
	picks []int // of this play, where both could go on
	at    int
}

func (s *script) pick() int {
	if s.at == len(s.picks) {
		s.picks = append(s.picks, 0)
	}
	s.at++
	return s.picks[s.at-1]
}

// next prepares another play, or tells that there is none.
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

type actor struct{} // in a context: which of the two operations it belongs to

type answered struct{} // likewise: what a browser calls before it takes a response

// perform runs two operations on one store in the order of the script, in a bubble.
// Their steps are their beginning and each call of the store. Only one of them moves
// at a time, and one that waits for the other has no step to take. Who is answered
// takes the response at once. It returns the steps as they were taken: "0 begins",
// "1 begins", "0 Load", ...
func perform(spy *spyStore, s *script, ops [2]func(context.Context)) (steps []string) {
	var next [2]atomic.Value // the name of the step before which an operation waits, or ""
	turn := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	step := func(i int, name string) {
		next[i].Store(name)
		<-turn[i]
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
		time.Sleep(time.Millisecond) // no two steps at one time
		if name := next[i].Load(); name != isAnswered {
			steps = append(steps, fmt.Sprint(i, " ", name))
		}
		next[i].Store("")
		turn[i] <- struct{}{}
	}
}

// A scene is alice, signed in on two devices, and what is about to happen to
// the session on her phone.
type scene struct {
	*testing.T
	spy           *spyStore
	m             *session.Manager
	log           events
	phone, laptop *browser
	before        *browser         // the phone as it was, where its cookie has been renewed since
	ofPhone       *session.Session // of the request that logged in on the phone
	cookies       []string         // all that were ever sent, in order
	logins        []string         // of them those that Logins as alice made
	answers       map[string]*http.Response
}

// newScene returns a scene in which the phone's token is of this age; renewed is
// whether it was renewed by age then, and the new one has not come yet.
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

// visit is an operation: a request with the cookies that the device has now,
// be they stale by the time it is sent.
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

// alive returns the cookies that are good when all that had time to come has
// come, each once: only of the newest of a session that is so. No session may be
// listed whose cookie nobody has.
func (sc *scene) alive() (good []string) {
	looks := func(c string) bool { return !strings.HasPrefix(body(sc.phone.replay(c).get("/look")), " ") }
	for _, c := range slices.Backward(sc.cookies) { // the newest first: then it has come
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
		sc.Errorf("%d sessions are listed, the cookies of %d are good", listed, len(ids))
	}
	return good
}

// expectAlive fails the test unless these are good, and no other cookies.
func (sc *scene) expectAlive(want ...string) {
	sc.Helper()
	if got := sc.alive(); !slices.Equal(got, want) {
		number := func(cookies []string) (n []int) {
			for _, c := range cookies {
				n = append(n, slices.Index(sc.cookies, c))
			}
			return n
		}
		sc.Errorf("of %d cookies %v are good, want %v", len(sc.cookies), number(got), number(want))
	}
}

// everyOrder plays a scene in every order of the steps of two operations.
func everyOrder(t *testing.T, begin func(t *testing.T) *scene, ops func(sc *scene) [2]func(context.Context), check func(sc *scene, steps []string)) {
	synctest.Test(t, func(t *testing.T) { // the clock must not make plays differ
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

// A renewal is a way to get another token for the session on the phone, or to be
// the first who uses one.
type renewal struct {
	name  string
	begin func(t *testing.T) *scene
	path  string // on the phone
	asked bool
}

func fresh(t *testing.T) *scene { return newScene(t, 0, false) }
func aged(t *testing.T) *scene  { return newScene(t, minute, false) }

var renewals = []renewal{
	{"Renew", fresh, "/renew", true},
	{"Login again", fresh, "/login", true},
	{"Remember", fresh, "/remember", true},
	{"by age", aged, "/look", false},
	{"by age, with a change", aged, "/count", false},
	{"first use", func(t *testing.T) *scene { return newScene(t, minute, true) }, "/look", false},
}

// endings are the ways to end the session on the phone, and whether the laptop's
// goes on.
var endings = []struct {
	name  string
	op    func(sc *scene) func(context.Context)
	spare bool
}{
	{"Logout", func(sc *scene) func(context.Context) { return sc.visit(sc.phone, "/logout") }, true},
	{"Logout with the token before", func(sc *scene) func(context.Context) { return sc.visit(sc.before, "/logout") }, true},
	{"EndBy in an Edit", func(sc *scene) func(context.Context) {
		return func(ctx context.Context) {
			err := sc.m.Edit(ctx, "alice", sc.ofPhone.ID(), func(s *session.Session) { s.EndBy(time.Now()) })
			if err != nil && err != session.ErrEnded { // which a Login as another user ends too
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

// Promise 2. No renewal survives an ending that it overlaps. Only a Login that
// finds the session ended begins another: it has asked for a password of its
// own. RevokeAll ends that too if it was called later and saw it.
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

// Promise 2. A Login as somebody else is obeyed whatever it overlaps; the
// session that it was called on is dead, and so is the new one if the ending
// found it in its place.
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
				// to the one that took its place: the others end what is alice's.
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

// RevokeOthers spares the session it is called on, also if that is renewed
// meanwhile.
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

// Promise 3. Whatever two renewals do to each other, the phone stays signed in. A
// Login always makes a key, and the keys of two Logins are good whichever arrives
// last. Of other explicit renewals with one token one makes a key, and a Remember
// that comes second is reported; an automatic one adds at most another.
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
							sc.Errorf("%d cookies were sent beside the two logins', want %d", made, want)
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

// Promise 3. A Login as somebody else begins a new session, whatever renewal it
// overlaps: the old one is dead, and the browser has the newest cookie. A Login
// of the first user is obeyed too: of two, both are.
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
					sc.Error("the phone has another cookie than bob's")
				}
				slices.SortFunc(want, func(a, b string) int { return slices.Index(sc.cookies, a) - slices.Index(sc.cookies, b) })
				sc.expectAlive(want...)
			})
		})
	}
}

// Promise 1. Two requests that change values both have their way, in every
// order, also if one of them or both renew the token, and whichever token the
// other has.
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

// Promise 1. Only a Login that changes the user ends what is under way, and
// reports what is lost.
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

// A slow Logout finds its session ended. If another Logout did that, the browser may
// have logged in since, and keeps its cookie; if it was revoked, here or elsewhere,
// the cookie is deleted, and what is set after the Logout begins a session.
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
			t.Errorf("%s meanwhile: afterwards the browser is %q, want %q", what, got, c.want)
		}
	}
}

// Promise 2. A Login in another tab replaces the session that a request has loaded. Its
// Logout ends the successor too, whatever Reloads have told it before.
func TestLogoutAfterReloads(t *testing.T) {
	for _, fails := range []bool{false, true} { // the first Reload
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
