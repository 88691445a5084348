package session_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
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

// perform runs two operations on one store in the order of the script. Their
// steps are their beginning and each call of the store, and only one of them
// moves at a time. It returns the steps as they were taken: "0 begins",
// "1 begins", "0 Load", ...
func perform(spy *spyStore, s *script, ops [2]func(context.Context)) (steps []string) {
	turn := [2]chan struct{}{make(chan struct{}), make(chan struct{})}
	stopped := make(chan bool) // before the next step, or true: it has ended
	step := func(i int, name string) {
		<-turn[i]
		time.Sleep(time.Millisecond) // no two steps at one time
		steps = append(steps, fmt.Sprint(i, " ", name))
	}
	spy.hook(func(ctx context.Context, call, _ string) error {
		if i, ok := ctx.Value(actor{}).(int); ok {
			stopped <- false
			step(i, call)
		}
		return nil
	})
	defer spy.hook(nil)
	for i, op := range ops {
		go func() {
			step(i, "begins")
			op(context.WithValue(context.Background(), actor{}, i))
			stopped <- true
		}()
	}
	var ended [2]bool
	for !ended[0] || !ended[1] {
		i := 0
		if ended[0] {
			i = 1
		} else if !ended[1] {
			i = s.pick()
		}
		turn[i] <- struct{}{}
		ended[i] = <-stopped
	}
	return steps
}

// A scene is alice, signed in on two devices, and what is about to happen to
// the session on her phone.
type scene struct {
	*testing.T
	spy           *spyStore
	m             *session.Manager
	log           events
	phone, laptop *browser
	listed        *session.Session // the phone's, as List returned it
	cookies       []string         // all that were ever sent, in order
	answers       map[string]*http.Response
}

func newScene(t *testing.T) *scene {
	sc := &scene{T: t, spy: newSpy(), answers: map[string]*http.Response{}}
	sc.m = newManager(t, session.Options{Store: sc.spy, OnEvent: sc.log.on})
	h := sc.m.Handler(routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/renew": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
		"/set":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "set") },
		"/count": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
		},
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
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
	all, err := sc.m.List(t.Context(), "alice")
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	sc.listed = all[0]
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
			}
		}
		sc.answers[path] = resp
	}
}

// alive tells in which order the cookies were sent that are good: 0 is the
// phone's, 1 the laptop's, 2 and so on came later. No session may be listed
// whose cookie nobody has.
func (sc *scene) alive() (good []int) {
	for i, c := range sc.cookies {
		if strings.HasPrefix(body(sc.phone.replay(c).get("/look")), "alice") {
			good = append(good, i)
		}
	}
	if all, err := sc.m.List(sc.Context(), "alice"); len(all) != len(good) || err != nil {
		sc.Errorf("%d sessions are listed (%v), %d cookies are good", len(all), err, len(good))
	}
	return good
}

// everyOrder plays a scene in every order of the steps of two operations.
func everyOrder(t *testing.T, ops func(sc *scene) [2]func(context.Context), check func(sc *scene, steps []string)) {
	synctest.Test(t, func(t *testing.T) { // the clock must not make plays differ
		plays := 0
		for s := new(script); plays == 0 || s.next(); plays++ {
			sc := newScene(t)
			steps := perform(sc.spy, s, ops(sc))
			if check(sc, steps); t.Failed() {
				t.Fatalf("in this order: %q", steps)
			}
		}
		t.Log(plays, "orders")
	})
}

// endings are the ways to end the session on the phone, and the cookies that
// are good afterwards.
var endings = []struct {
	name string
	op   func(sc *scene) func(context.Context)
	left []int
}{
	{"Logout", func(sc *scene) func(context.Context) { return sc.visit(sc.phone, "/logout") }, []int{1}},
	{"Logout of a listed session", func(sc *scene) func(context.Context) {
		return func(ctx context.Context) {
			sc.listed.Logout()
			if err := sc.listed.Save(ctx); err != nil {
				sc.Error(err)
			}
		}
	}, []int{1}},
	{"Revoke", func(sc *scene) func(context.Context) {
		return func(ctx context.Context) {
			if err := sc.m.Revoke(ctx, "alice", sc.listed.ID()); err != nil {
				sc.Error(err)
			}
		}
	}, []int{1}},
	{"RevokeAll", func(sc *scene) func(context.Context) {
		return func(ctx context.Context) {
			if err := sc.m.RevokeAll(ctx, "alice"); err != nil {
				sc.Error(err)
			}
		}
	}, nil},
	{"RevokeOthers", func(sc *scene) func(context.Context) { return sc.visit(sc.laptop, "/others") }, []int{1}},
}

// Promise 2. No renewal survives an ending that it overlaps.
func TestNoRenewalSurvivesAnEnding(t *testing.T) {
	for _, e := range endings {
		t.Run(e.name, func(t *testing.T) {
			everyOrder(t, func(sc *scene) [2]func(context.Context) {
				return [2]func(context.Context){e.op(sc), sc.visit(sc.phone, "/renew")}
			}, func(sc *scene, steps []string) {
				if got := sc.alive(); !slices.Equal(got, e.left) {
					sc.Errorf("cookies %v are good, want %v", got, e.left)
				}
			})
		})
	}
}

// Promise 2. A login has asked for a password of its own. One that overlaps an
// ending is obeyed, and the session it was called on is dead. It ends too if it
// had taken the session's place, or for RevokeAll and RevokeOthers if its
// record was there, when the ending began.
func TestLoginOverlapsAnEnding(t *testing.T) {
	for _, e := range endings {
		goesOn := func(steps []string) bool { // the ending does
			return slices.ContainsFunc(steps, func(step string) bool { return step[0] == '0' })
		}
		covered := "1 Save"
		if strings.HasPrefix(e.name, "RevokeAll") || strings.HasPrefix(e.name, "RevokeOthers") {
			covered = "1 Create"
		}
		t.Run(e.name, func(t *testing.T) {
			everyOrder(t, func(sc *scene) [2]func(context.Context) {
				return [2]func(context.Context){e.op(sc), sc.visit(sc.phone, "/login")}
			}, func(sc *scene, steps []string) {
				if len(sc.cookies) != 3 {
					sc.Error("the login got no cookie")
				}
				ending, login, taken := slices.Index(steps, "0 begins"), slices.Index(steps, "1 begins"), slices.Index(steps, covered)
				over := !goesOn(steps[login:])
				// Login was called right after the load. RevokeAll looks again
				// until it finds nothing: its last step is a look.
				called := slices.Index(steps, "1 Load") < ending
				there := goesOn(steps[slices.Index(steps, "1 Create"):])
				got := sc.alive()
				switch in := slices.Contains(got, 2); {
				case taken >= 0 && taken < ending && in:
					sc.Error("a login of before the ending is alive")
				case e.name == "RevokeAll" && called && there && in:
					sc.Error("a login of before RevokeAll was there before its last look, and is alive")
				case over && !in:
					sc.Error("a login of after the ending is dead")
				}
				if got = slices.DeleteFunc(got, func(i int) bool { return i == 2 }); !slices.Equal(got, e.left) {
					sc.Errorf("cookies %v are good, want %v", got, e.left)
				}
			})
		})
	}
}

// RevokeOthers spares the session it is called on, also if that is renewed
// meanwhile. Only if it lists when the renewal is half done, it cannot tell the
// successor from a stranger, and ends it rather than spare a stranger
// (promise 2: no renewal that overlaps a Revoke… survives it).
func TestRevokeOthersOverlapsItsOwnRenewal(t *testing.T) {
	everyOrder(t, func(sc *scene) [2]func(context.Context) {
		return [2]func(context.Context){func(ctx context.Context) {
			if err := sc.m.RevokeOthers(ctx, sc.listed); err != nil {
				sc.Error(err)
			}
		}, sc.visit(sc.phone, "/renew")}
	}, func(sc *scene, steps []string) {
		created, swapped := slices.Index(steps, "1 Create"), slices.Index(steps, "1 Save")
		half := created >= 0 && slices.Contains(steps[created:max(created, swapped)], "0 List")
		got := sc.alive()
		if half && len(got) == 0 {
			return
		}
		if !slices.Equal(got, []int{2}) || sc.phone.cookie() != sc.cookies[2] {
			sc.Errorf("cookies %v are good, want the one on the phone", got)
		}
	})
}

// Promise 3. Of two renewals exactly one token lives, and the other sends none.
func TestRenewalsOverlap(t *testing.T) {
	everyOrder(t, func(sc *scene) [2]func(context.Context) {
		return [2]func(context.Context){sc.visit(sc.phone, "/renew"), sc.visit(sc.phone, "/renew")}
	}, func(sc *scene, steps []string) {
		if got := sc.alive(); !slices.Equal(got, []int{1, 2}) || len(sc.cookies) != 3 {
			sc.Errorf("cookies %v of %d are good, want the one of the one renewal", got, len(sc.cookies))
		}
	})
}

// Promise 1. Two requests that change values both have their way, in every
// order; and if the other is a Login or Renew, what is lost is reported.
func TestChangesOverlap(t *testing.T) {
	for _, c := range []struct{ one, other, want string }{
		{"/set", "/count", "alice set 1"},
		{"/count", "/count", "alice  2"},
		{"/set", "/renew", "alice set 0"},
		{"/count", "/login", "alice  1"},
	} {
		t.Run(c.one+" "+c.other, func(t *testing.T) {
			everyOrder(t, func(sc *scene) [2]func(context.Context) {
				return [2]func(context.Context){sc.visit(sc.phone, c.one), sc.visit(sc.phone, c.other)}
			}, func(sc *scene, steps []string) {
				got, want := body(sc.phone.get("/look")), c.want
				if sc.log.count(session.EventDropped) == 1 && len(sc.cookies) == 3 {
					want = "alice  0"
				}
				if got != want {
					sc.Errorf("the phone reads %q, want %q", got, want)
				}
			})
		})
	}
}
