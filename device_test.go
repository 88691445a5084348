package session_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

const period = 10 * time.Minute

// deviceRoutes are an app with every call that issues a token.
var deviceRoutes = routes{
	"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprintf(w, "%s %v %v", s.User(), s.DeviceBound(), s.Err())
	},
	"/login":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login(r.URL.RawQuery) },
	"/logout":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
	"/renew":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
	"/remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Remember(30 * 24 * time.Hour) },
	"/write": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		visits.Update(s, func(n int) int { return n + 1 })
	},
	"/read": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprintf(w, "%s %d", s.User(), visits.Get(s))
	},
	"/clear": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Clear() },
	"/cart":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "book") },
}

const (
	loggedIn = "alice false <nil>"
	bound    = "alice true <nil>"
	noUser   = " false <nil>"
)

var unproven = " false " + session.ErrUnproven.Error()

// A boundSite is an app with DeviceBound, and a browser that can bind sessions.
type boundSite struct {
	t    *testing.T
	o    session.Options
	m    *session.Manager
	spy  *spyStore
	told *events
	h    http.Handler
	b    *boundBrowser
}

// atBoundSite calls f in a bubble of synctest. If o.DeviceBound is 0, it is period,
// and if negative it is 0.
func atBoundSite(t *testing.T, o session.Options, f func(s *boundSite)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &boundSite{t: t, spy: newSpy(), told: &events{}}
		o.Store, o.OnEvent = s.spy, s.told.on
		o.DeviceBound = max(0, cmp.Or(o.DeviceBound, period))
		s.o, s.m = o, newManager(t, o)
		s.h = s.m.Handler(deviceRoutes)
		s.b = newBoundBrowser(t, s.h)
		f(s)
	})
}

// logIn logs alice in, refreshes, and waits until her session is bound.
func (s *boundSite) logIn() {
	s.t.Helper()
	s.b.get("/login?alice")
	s.expect(s.b, loggedIn) // refreshes beside it, because the first cookie lasts a minute
	s.expect(s.b, bound)
	time.Sleep(10 * time.Second)
	if got := s.told.count(session.EventDeviceBound); got != 1 {
		s.t.Errorf("%d times %s", got, session.EventDeviceBound)
	}
}

// A visitor is one of the browsers of the tests.
type visitor interface {
	get(path string) *http.Response
}

// expect checks what a page says of the session.
func (s *boundSite) expect(b visitor, want string) {
	s.t.Helper()
	if got := body(b.get("/")); got != want {
		s.t.Errorf("the session is %q, want %q", got, want)
	}
}

// Promise 18. From 10 seconds after the browser first proved its key, the session cookie alone opens
// nothing: with both algorithms, and with headers of Chromium and of the draft.
func TestDeviceBinding(t *testing.T) {
	for _, quoted := range []bool{false, true} {
		for alg, newKey := range map[string]func(testing.TB) *deviceKey{"ES256": newES256, "RS256": newRS256} {
			t.Run(fmt.Sprintf("%s, quoted %v", alg, quoted), func(t *testing.T) {
				newKey(t)
				atBoundSite(t, session.Options{}, func(s *boundSite) {
					s.b.newKey, s.b.isQuoted = newKey, quoted
					s.b.get("/login?alice")
					s.expect(s.b.thief(), loggedIn)
					if s.told.count(session.EventDeviceBound) > 0 || len(s.b.legs) != 1 {
						t.Fatalf("after the registration: %v, %d legs", s.told.all, len(s.b.legs))
					}
					s.expect(s.b, loggedIn)
					if s.told.count(session.EventDeviceBound) != 1 || len(s.b.legs) != 2 {
						t.Fatalf("after the first refresh: %v, %d legs", s.told.all, len(s.b.legs))
					}
					time.Sleep(10*time.Second - time.Millisecond)
					s.expect(s.b.thief(s.b.cookieName()), bound)
					time.Sleep(time.Millisecond)
					s.expect(s.b.thief(s.b.cookieName()), unproven)
					s.expect(s.b, bound)
					for range 50 { // the browser refreshes when it should, and in one leg
						time.Sleep(time.Minute)
						s.expect(s.b, bound)
					}
					if n := len(s.b.legs); n != 2+50/8 && n != 2+50/8+1 {
						t.Errorf("%d legs in 50 minutes", n)
					}
					if s.told.count(session.EventDeviceBound) != 1 {
						t.Error("it was bound again")
					}
				})
			})
		}
	}
}

// cookieName is the name of the session cookie.
func (b *boundBrowser) cookieName() string {
	name, _, _ := strings.Cut(b.cookie(), "=")
	return name
}

// Promise 18. A copy of all cookies opens nothing after DeviceBound, whatever is done with it.
func TestDeviceThiefOfAllCookies(t *testing.T) {
	for _, path := range []string{"/", "/write", "/renew", "/remember", "/clear", "/login?alice"} {
		t.Run(path, func(t *testing.T) {
			atBoundSite(t, session.Options{RenewAfter: time.Minute}, func(s *boundSite) {
				s.logIn()
				thief := s.b.thief()
				began := time.Now()
				for time.Since(began) < period-time.Second {
					thief.get(path)
					s.expect(thief, bound)
					time.Sleep(30 * time.Second)
				}
				time.Sleep(time.Until(began.Add(period)))
				s.expect(thief, unproven)
				if got := body(thief.get("/read")); got != " 0" {
					t.Errorf("the thief reads %q", got)
				}
			})
		})
	}
}

// Promise 18. Only the holder of the private key gets another proof cookie: what a thief of all
// cookies, of the identifier and of an earlier proof can send is refused, and the user notices nothing.
func TestDeviceThiefAtTheEndpoint(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		time.Sleep(9 * time.Minute)
		s.expect(s.b, bound) // refreshes
		is, own := s.b.sessions[0], newES256(t)
		used := s.b.legs[len(s.b.legs)-1].proof
		offered := s.b.legs[0].proof
		time.Sleep(11 * time.Second)
		other := newBoundBrowser(t, s.h)
		other.get("/login?mallory")
		foreign := other.sessions[0]
		ask := func(proof string) *leg {
			l := s.b.newLeg(is, proof)
			l.request.Header.Set("Sec-Secure-Session-Id", is.identifier)
			s.b.send(l)
			return l
		}
		made := challenge.FindStringSubmatch(ask("").header.Get("Secure-Session-Challenge"))[1]
		for what, proof := range map[string]string{
			"no proof":                           "",
			"garbage":                            "a.b.c",
			"another key":                        own.proof(is.challenge, false),
			"another key, in the proof":          own.proof(is.challenge, true),
			"a fresh challenge, another key":     own.proof(made, true),
			"the proof of the last refresh":      used,
			"the proof of the registration":      offered,
			"the challenge of another":           is.key.proof(foreign.challenge, false),
			"another's proof":                    foreign.key.proof(foreign.challenge, false),
			"a challenge that was not made here": is.key.proof("x"+is.challenge[1:], false),
			"the cookie as a challenge":          is.key.proof(s.b.value(is.cookie), false),
			"the identifier as a challenge":      is.key.proof(is.identifier, false),
			"a challenge with something else":    is.key.proof(is.challenge+"x", false),
		} {
			l := ask(proof)
			if l.status != http.StatusForbidden || len(l.header["Set-Cookie"]) > 0 || l.header.Get("Secure-Session-Challenge") == "" || l.header.Get("Secure-Session-Registration") != "" {
				t.Errorf("%s: %d %v", what, l.status, l.header)
			}
		}
		for what, proof := range map[string]string{ // without the identifier it is a registration
			"a refresh as a registration":       used,
			"a challenge of a refresh, own key": own.proof(is.challenge, true),
			"own key, made-up challenge":        own.proof(is.identifier, true),
		} {
			l := s.b.newLeg(is, proof)
			if s.b.send(l); l.status != http.StatusForbidden || len(l.header["Set-Cookie"]) > 0 || l.header.Get("Secure-Session-Registration") != "" {
				t.Errorf("%s: %d %v", what, l.status, l.header)
			}
		}
		s.expect(s.b, bound)
		time.Sleep(time.Hour / 2)
		s.expect(s.b, bound)
	})
}

// value returns the value of a cookie.
func (b *browser) value(name string) string {
	for _, c := range b.jar.Cookies(origin) {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// Promise 18. An attacker who holds only cookies cannot bind a session: no call but Login offers it.
func TestDeviceIsOfferedByLoginOnly(t *testing.T) {
	atBoundSite(t, session.Options{RenewAfter: time.Minute}, func(s *boundSite) {
		b := newBrowser(t, s.h) // never registers
		if resp := b.get("/cart"); resp.Header.Get("Secure-Session-Registration") != "" {
			t.Error("an anonymous session may be bound")
		}
		if resp := b.get("/login?alice"); resp.Header.Get("Secure-Session-Registration") == "" {
			t.Error("a login offers no registration")
		}
		for _, path := range []string{"/", "/write", "/renew", "/remember", "/clear", "/logout"} {
			time.Sleep(2 * time.Minute) // RenewAfter
			resp := b.get(path)
			if resp.Header.Get("Secure-Session-Registration") != "" || resp.Header.Get("Secure-Session-Challenge") != "" {
				t.Errorf("%s: %v", path, resp.Header)
			}
		}
	})
}

// Promise 18. The first key counts: the challenge of a registration is good for it, and once more
// while the browser may not have got an answer, for 5 minutes.
func TestDeviceSecondRegistration(t *testing.T) {
	offer := func(s *boundSite) string {
		s.b.register = func() bool { return false }
		resp := s.b.get("/login?alice")
		return registration.FindStringSubmatch(resp.Header.Get("Secure-Session-Registration"))[3]
	}
	send := func(s *boundSite, key *deviceKey, challenge string) int {
		l := s.b.newLeg(&boundSession{url: "/.session/device/__Host-Http-session"}, key.proof(challenge, true))
		s.b.send(l)
		return l.status
	}
	expect := func(s *boundSite, what string, got, want int) {
		if got != want {
			s.t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	t.Run("keys", func(t *testing.T) {
		atBoundSite(t, session.Options{}, func(s *boundSite) {
			challenge, first, second := offer(s), newES256(t), newES256(t)
			expect(s, "the first key", send(s, first, challenge), 200)
			expect(s, "another key", send(s, second, challenge), 403)
			time.Sleep(5*time.Minute - time.Millisecond)
			expect(s, "the same key", send(s, first, challenge), 200)
			time.Sleep(2 * time.Millisecond)
			expect(s, "too late", send(s, first, challenge), 403)
			s.expect(s.b, loggedIn)
		})
	})
	t.Run("late", func(t *testing.T) {
		atBoundSite(t, session.Options{}, func(s *boundSite) {
			challenge := offer(s)
			time.Sleep(5*time.Minute + time.Millisecond)
			expect(s, "a key", send(s, newES256(t), challenge), 403)
			s.expect(s.b, loggedIn)
		})
	})
	t.Run("a later login", func(t *testing.T) {
		atBoundSite(t, session.Options{}, func(s *boundSite) {
			old := offer(s)
			expect(s, "a key whose browser gave up", send(s, newES256(t), old), 200)
			time.Sleep(time.Second)
			again := offer(s)
			expect(s, "a key of the earlier login", send(s, newES256(t), old), 403)
			expect(s, "the newer key", send(s, newES256(t), again), 200)
			expect(s, "the earlier login again", send(s, newES256(t), old), 403)
		})
	})
	t.Run("a later login, bound by the earlier one", func(t *testing.T) {
		atBoundSite(t, session.Options{}, func(s *boundSite) {
			s.b.get("/login?alice")
			time.Sleep(time.Second)
			s.b.noProactive = true
			again := offer(s)
			s.b.refresh(s.b.sessions[0])
			expect(s, "the key of the later login", send(s, newES256(t), again), 403)
			time.Sleep(11 * time.Second)
			s.expect(s.b, bound)
			s.b.refresh(s.b.sessions[0])
			s.expect(s.b, bound)
		})
	})
	t.Run("bound", func(t *testing.T) {
		atBoundSite(t, session.Options{}, func(s *boundSite) {
			s.logIn()
			l := s.b.newLeg(s.b.sessions[0], s.b.legs[0].proof)
			s.b.send(l)
			expect(s, "the registration again, after the first proof", l.status, 403)
			s.expect(s.b, bound)
		})
	})
}

// Promise 19. A browser without the feature sees one response header at the login and nothing else,
// ever, and the store the same calls and the same data.
func TestDeviceUnsupported(t *testing.T) {
	type answer struct {
		status int
		header http.Header
	}
	visit := func(o session.Options) (all []answer, calls string) {
		atBoundSite(t, o, func(s *boundSite) {
			b := newBrowser(t, s.h)
			for _, path := range []string{"/", "/cart", "/login?alice", "/", "/write", "/renew", "/login?alice", "/login?bob", "/remember", "/clear", "/logout", "/"} {
				resp := b.get(path)
				for _, values := range resp.Header["Set-Cookie"] {
					if name, _, _ := strings.Cut(values, "="); name != "__Host-Http-session" {
						t.Errorf("%s sets the cookie %s", path, name)
					}
				}
				resp.Header.Del("Set-Cookie")
				all = append(all, answer{resp.StatusCode, resp.Header})
				time.Sleep(3 * time.Minute)
			}
			calls = s.spy.summary()
		})
		return all, calls
	}
	with, calls := visit(session.Options{})
	without, callsWithout := visit(session.Options{DeviceBound: -1})
	if calls != callsWithout {
		t.Errorf("the store got %s, and without the option %s", calls, callsWithout)
	}
	offers := 0
	for i, a := range with {
		if a.header.Get("Secure-Session-Registration") != "" {
			offers++
			a.header.Del("Secure-Session-Registration")
		}
		if !maps.EqualFunc(a.header, without[i].header, slices.Equal) || a.status != without[i].status {
			t.Errorf("response %d is %v, and without the option %v", i, a, without[i])
		}
	}
	if offers != 3 {
		t.Errorf("%d offers at 3 logins", offers)
	}
}

// Promise 19. Answers of the endpoint are lost: the browser repeats, or gives up, and the user stays
// logged in.
func TestDeviceLostAnswers(t *testing.T) {
	for what, c := range map[string]struct {
		lost func(n int) bool // whether the answer to leg n, from 0, is lost
		want string
	}{
		"the registration, repeated":         {func(n int) bool { return n == 0 }, bound},
		"the registration, given up":         {func(n int) bool { return n <= 1 }, loggedIn},
		"the first refresh":                  {func(n int) bool { return n == 1 }, bound},
		"the first refreshes":                {func(n int) bool { return n >= 1 && n <= 3 }, bound},
		"registration and refresh":           {func(n int) bool { return n == 0 || n == 2 }, bound},
		"a later refresh":                    {func(n int) bool { return n == 2 }, bound},
		"all later refreshes of ten minutes": {func(n int) bool { return n >= 2 && n <= 5 }, bound},
		"every third one":                    {func(n int) bool { return n%3 == 1 }, bound},
	} {
		t.Run(what, func(t *testing.T) {
			atBoundSite(t, session.Options{}, func(s *boundSite) {
				n := -1
				s.b.deliver = func(*leg) bool { n++; return !c.lost(n) }
				s.b.get("/login?alice")
				for range 30 {
					s.b.get("/")
					time.Sleep(time.Minute)
				}
				s.b.deliver = nil
				s.expect(s.b, c.want)
				time.Sleep(9 * time.Minute)
				s.expect(s.b, c.want)
			})
		})
	}
}

// Promise 19. While no proof gets through, the session is ErrUnproven and nothing is overwritten, and
// afterwards it is as before.
func TestDeviceUnprovenTouchesNothing(t *testing.T) {
	atBoundSite(t, session.Options{IdleTimeout: 2 * time.Hour}, func(s *boundSite) {
		s.logIn()
		s.b.get("/write")
		s.b.deliver = func(*leg) bool { return false }
		time.Sleep(period)
		before := s.record()
		for _, path := range []string{"/", "/write", "/renew", "/remember", "/clear", "/cart", "/read"} {
			resp := s.b.get(path)
			if len(resp.Header["Set-Cookie"]) > 0 || resp.StatusCode != 200 {
				t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
			}
			if path == "/" && body(resp) != unproven {
				t.Errorf("the session is not unproven")
			}
		}
		if after := s.record(); string(withoutDevice(after.Data)) != string(withoutDevice(before.Data)) || !after.LastSeen.Equal(before.LastSeen) {
			t.Errorf("the record was %s and is %s", before.Data, after.Data)
		}
		for _, e := range s.told.all {
			if e.Kind == session.EventUnproven && (!errors.Is(e.Err, session.ErrUnproven) || !strings.HasSuffix(e.Err.Error(), ": it says unreachable") || e.User != "alice" || e.ID == "") {
				t.Errorf("%+v", e)
			}
		}
		if got := s.told.count(session.EventUnproven); got != 7 {
			t.Errorf("%d times %s, want 7", got, session.EventUnproven)
		}
		if got := s.told.count(session.EventDropped); got != 4 { // Clear has nothing to remove
			t.Errorf("%d changes were dropped, want 4", got)
		}
		s.b.deliver = nil
		s.expect(s.b, bound)
		if got := body(s.b.get("/read")); got != "alice 1" {
			t.Errorf("afterwards: %q", got)
		}
	})
}

// record returns alice's only session as it is stored.
func (s *boundSite) record() *session.Record {
	s.t.Helper()
	all, err := s.spy.Store.List(context.Background(), "alice")
	if err != nil || len(all) != 1 {
		s.t.Fatalf("alice has %d sessions, %v", len(all), err)
	}
	return all[0]
}

// boundFrom returns data of a bound session, with another time from which on it needs proofs.
func boundFrom(data []byte, from time.Time) []byte {
	before, rest, _ := bytes.Cut(data, []byte(`"from":`))
	_, after, _ := bytes.Cut(rest, []byte(","))
	return fmt.Appendf(nil, `%s"from":%d,%s`, before, from.UnixMilli(), after)
}

// withoutDevice removes the binding from Record.Data.
func withoutDevice(data []byte) []byte {
	before, rest, _ := strings.Cut(string(data), `"session.device":{`)
	_, after, _ := strings.Cut(rest, "}")
	return []byte(before + after)
}

// What Save, Reload and their like return without a proof; and what RequireUser does.
func TestDeviceUnprovenErrors(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		thief := s.b.thief(s.b.cookieName())
		thief.h = s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			is := session.From(r.Context())
			is.MarkPassive()
			_, _, err := name.Take(r.Context(), is)
			_, err2 := visits.UpdateNow(r.Context(), is, func(n int) int { return n + 1 })
			_, err3 := visits.Refresh(r.Context(), is, func(int) bool { return false }, func(context.Context, int) (int, error) { return 1, nil })
			for i, err := range []error{is.Err(), is.Save(r.Context()), is.Reload(r.Context()), err, err2, err3} {
				if err != session.ErrUnproven {
					t.Errorf("%d: %v", i, err)
				}
			}
			if is.Ended() || is.ID() != "" || is.User() != "" || !is.IsNew() || is.DeviceBound() || len(is.Names()) > 0 || !is.AuthTime().IsZero() {
				t.Error("the session is not empty")
			}
			select {
			case <-is.Done():
			default:
				t.Error("Done is open")
			}
		}))
		thief.get("/")
		thief.h = s.m.Handler(s.m.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("let in") }), nil))
		if resp := thief.get("/"); resp.StatusCode != http.StatusUnauthorized || len(resp.Header["Set-Cookie"]) > 0 {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
		s.expect(s.b, bound)
	})
}

// The recipe "A copied cookie" signs out the attacker and the owner, and not a browser that says why it
// has no proof.
func TestDeviceRecipeCopiedCookie(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		var m *session.Manager
		o := s.o
		o.OnEvent = func(ctx context.Context, e session.Event) {
			if e.Kind == session.EventUnproven && e.Err == session.ErrUnproven {
				m.Revoke(ctx, e.User, e.ID)
			}
		}
		m = newManager(t, o)
		s.b.h = m.Handler(deviceRoutes)
		time.Sleep(period)
		s.b.deliver = func(*leg) bool { return false }
		s.expect(s.b, unproven)
		s.b.deliver = nil
		s.expect(s.b, bound)
		thief := s.b.thief(s.b.cookieName())
		s.expect(thief, unproven)
		s.expect(s.b, noUser)
	})
}

// Promise 19. Login and Logout are obeyed by a request without a proof: the browser has lost its key,
// and so can never prove itself again. The old session ends.
func TestDeviceKeyIsLost(t *testing.T) {
	for _, user := range []string{"alice", "bob"} {
		t.Run("Login of "+user, func(t *testing.T) {
			atBoundSite(t, session.Options{}, func(s *boundSite) {
				s.logIn()
				s.b.get("/write")
				s.b.sessions = nil // a 429 of a proxy, for example
				time.Sleep(period)
				s.expect(s.b, unproven)
				old := s.record().ID
				s.b.get("/login?" + user)
				s.expect(s.b, user+" false <nil>")
				s.expect(s.b, user+" true <nil>")
				if got := body(s.b.get("/read")); got != user+" 0" {
					t.Errorf("the new session is %q: an unproven request has no values to keep", got)
				}
				all, _ := s.m.List(t.Context(), user)
				if len(all) != 1 || all[0].ID == old || !all[0].DeviceBound {
					t.Errorf("%s has %+v", user, all)
				}
				if all, _ := s.m.List(t.Context(), "alice"); user == "bob" && len(all) > 0 {
					t.Errorf("alice has %+v", all)
				}
			})
		})
	}
	t.Run("Login sent twice", func(t *testing.T) {
		atBoundSite(t, session.Options{}, func(s *boundSite) {
			s.logIn()
			s.b.sessions = nil
			time.Sleep(period)
			first, second := s.b.thief(), s.b.thief()
			first.get("/login?alice")
			second.get("/login?alice")
			if all, _ := s.m.List(t.Context(), "alice"); len(all) != 1 {
				t.Errorf("alice has %+v", all)
			}
			s.expect(second, loggedIn)
		})
	})
	t.Run("Logout", func(t *testing.T) {
		atBoundSite(t, session.Options{}, func(s *boundSite) {
			s.logIn()
			s.b.sessions = nil
			time.Sleep(period)
			s.expect(s.b, unproven)
			s.b.get("/logout")
			s.expect(s.b, noUser)
			if s.b.cookie() != "" {
				t.Error("the cookie stays")
			}
			if all, _ := s.m.List(t.Context(), "alice"); len(all) > 0 {
				t.Errorf("alice has %+v", all)
			}
			if s.told.count(session.EventLoggedOut) != 1 {
				t.Errorf("%v", s.told.all)
			}
		})
	})
	t.Run("a store that fails", func(t *testing.T) {
		for _, call := range []string{"Load", "Create", "Save"} {
			atBoundSite(t, session.Options{}, func(s *boundSite) {
				s.logIn()
				is := s.b.sessions
				s.b.sessions = nil
				time.Sleep(period)
				s.spy.hook(func(_ context.Context, c, _ string) error {
					if c == call {
						return errDown
					}
					return nil
				})
				if resp := s.b.get("/login?alice"); resp.StatusCode != 503 || len(resp.Header["Set-Cookie"]) > 0 {
					t.Errorf("%s: %d %v", call, resp.StatusCode, resp.Header)
				}
				s.spy.hook(nil)
				s.b.sessions = is // the key was not lost after all
				s.expect(s.b, bound)
				if all, _ := s.m.List(t.Context(), "alice"); len(all) != 1 {
					t.Errorf("%s: alice has %+v", call, all)
				}
			})
		}
	})
}

// Promises 19 and 20. A store that fails at a registration or a refresh: 503, and the user stays
// logged in.
func TestDeviceStoreFails(t *testing.T) {
	for _, call := range []string{"Load", "Save"} {
		for _, failure := range []error{errDown, session.ErrIndeterminate} {
			for _, applied := range []bool{false, true} { // whether the call had its effect
				t.Run(fmt.Sprintf("%s, %v, %v", call, failure, applied), func(t *testing.T) {
					atBoundSite(t, session.Options{}, func(s *boundSite) {
						isDown, n := false, 0
						answer := func(c string, err error) error {
							if isDown && c == call {
								n++
								return failure
							}
							return err
						}
						if applied {
							s.spy.hookAfter(func(_ context.Context, c, _ string, err error) error { return answer(c, err) })
						} else {
							s.spy.hook(func(_ context.Context, c, _ string) error { return answer(c, nil) })
						}
						// The registration fails: not bound, logged in.
						s.b.register = func() bool { isDown = true; return true }
						s.b.get("/login?alice")
						isDown = false
						if l := s.b.legs[0]; l.status != 503 || l.header.Get("Retry-After") == "" || len(l.header["Set-Cookie"]) > 0 {
							t.Errorf("registration: %d %v", l.status, l.header)
						}
						time.Sleep(time.Hour / 2)
						s.expect(s.b, loggedIn)
						// The next login binds.
						s.b.register = nil
						s.b.get("/login?alice")
						s.expect(s.b, loggedIn)
						s.expect(s.b, bound)
						// Refreshes fail for a while.
						time.Sleep(period)
						isDown = true
						s.b.get("/none") // uses no session
						isDown = false
						if l := s.b.legs[len(s.b.legs)-1]; l.status != 503 || len(l.header["Set-Cookie"]) > 0 {
							t.Errorf("refresh: %d %v", l.status, l.header)
						}
						if n < 2 || s.told.count(session.EventStoreFailed) != n {
							t.Errorf("%d failures, %d events", n, s.told.count(session.EventStoreFailed))
						}
						s.expect(s.b, bound)
						time.Sleep(time.Hour / 2)
						s.expect(s.b, bound)
					})
				})
			}
		}
	}
}

// Promise 19. A login that comes back from another site, and a link from one: neither the registration
// nor the refresh has a cookie.
func TestDeviceCrossSite(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.b.get("/cart")
		s.b.postFromOtherSite("/login?alice") // SAML
		if l := s.b.legs[0]; l.status != 200 || l.request.Header.Get("Cookie") != "" {
			t.Errorf("registration: %d, with the cookies %q", l.status, l.request.Header.Get("Cookie"))
		}
		s.expect(s.b, loggedIn)
		s.expect(s.b, bound)
		time.Sleep(20 * time.Minute)
		if got := body(s.b.getFromOtherSite("/")); got != bound {
			t.Errorf("a link from another site: %q", got)
		}
		if l := s.b.legs[len(s.b.legs)-1]; l.status != 200 || l.request.Header.Get("Cookie") != "" {
			t.Errorf("refresh: %d, with the cookies %q", l.status, l.request.Header.Get("Cookie"))
		}
		s.b.getFromOtherSite("/login?bob") // OpenID Connect
		s.expect(s.b, "bob false <nil>")
		s.expect(s.b, "bob true <nil>")
	})
}

// Promise 20. Ended sessions get continue:false, whatever ended them, and the next login is well.
func TestDeviceEndings(t *testing.T) {
	for what, end := range map[string]func(s *boundSite){
		"Logout":    func(s *boundSite) { s.b.get("/logout") },
		"Revoke":    func(s *boundSite) { s.m.Revoke(s.t.Context(), "alice", s.record().ID) },
		"RevokeAll": func(s *boundSite) { s.m.RevokeAll(s.t.Context(), "alice") },
		"idle":      func(s *boundSite) { time.Sleep(2 * time.Hour) },
		"absolute":  func(s *boundSite) { time.Sleep(25 * time.Hour) },
		"EndBy": func(s *boundSite) {
			s.m.Edit(s.t.Context(), "alice", s.record().ID, func(e *session.Session) { e.EndBy(time.Now()) })
		},
		"Login of another": func(s *boundSite) { s.b.get("/login?bob") },
		"deleted":          func(s *boundSite) { s.spy.Store.Delete(s.t.Context(), s.record().ID) },
	} {
		t.Run(what, func(t *testing.T) {
			atBoundSite(t, session.Options{}, func(s *boundSite) {
				s.logIn()
				is := s.b.sessions[0]
				registered := s.b.legs[0].proof
				end(s)
				s.b.sessions = slices.DeleteFunc(s.b.sessions, func(o *boundSession) bool { return o == is })
				for range 2 { // with a challenge and without, at once and when the tombstone is gone
					for _, proof := range []string{"", is.key.proof(is.challenge, false)} {
						l := s.b.newLeg(is, proof)
						l.request.Header.Set("Sec-Secure-Session-Id", is.identifier)
						s.b.send(l)
						if want := `{"session_identifier":"` + is.identifier + `","continue":false}`; l.status != 200 || l.body != want || len(l.header["Set-Cookie"]) > 0 {
							t.Errorf("%d %s %v", l.status, l.body, l.header)
						}
					}
					l := s.b.newLeg(is, registered)
					if s.b.send(l); l.status != 200 && l.status != 403 || len(l.header["Set-Cookie"]) > 0 {
						t.Errorf("a registration: %d %v", l.status, l.header)
					}
					time.Sleep(2 * time.Minute)
				}
				s.b.get("/login?carol")
				s.expect(s.b, "carol false <nil>")
				s.expect(s.b, "carol true <nil>")
			})
		})
	}
}

// The time that counts is that of the request's arrival, however long the store takes to answer.
func TestDeviceAtASlowStore(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		s.spy.hook(func(context.Context, string, string) error {
			time.Sleep(time.Second)
			return nil
		})
		s.expect(s.b.thief(s.b.cookieName()), unproven)
	})
}

// Two Logins in one session offer two registrations, and the answer to the first registration comes
// last: the browser then has the key that is not registered. It forgets that key alone.
func TestDeviceAnswersInAnotherOrder(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.b.get("/cart")
		var answers []*http.Response
		for range 2 {
			answers = append(answers, s.b.browser.do(s.b.withCookies("/login?alice")))
			time.Sleep(time.Millisecond)
		}
		s.b.deliver = func(first *leg) bool { // its answer is late
			s.b.deliver = nil
			s.b.offered(answers[1])
			s.expect(s.b, loggedIn)
			s.expect(s.b, bound)
			return true
		}
		s.b.offered(answers[0])
		for range 30 {
			s.expect(s.b, bound)
			time.Sleep(time.Minute)
		}
		if len(s.b.sessions) != 1 {
			t.Errorf("the browser has %d keys, want 1", len(s.b.sessions))
		}
	})
}

// A Logout deletes both cookies, and is final although a refresh runs beside it.
func TestDeviceLogout(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		time.Sleep(9 * time.Minute) // a refresh is due beside the next request
		s.b.get("/logout")
		if c := s.b.jar.Cookies(origin); len(c) > 0 {
			t.Errorf("the browser has %v", c)
		}
		s.expect(s.b, noUser)
		if len(s.b.sessions) > 0 {
			t.Error("the browser still maintains the session")
		}
	})
}

// A Login of the user who is logged in and bound keeps the binding; a Login as another user begins
// another one, and the old one ends quietly.
func TestDeviceLoginAgain(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		id := s.record().ID
		if resp := s.b.get("/login?alice"); resp.Header.Get("Secure-Session-Registration") != "" {
			t.Error("a bound session is offered a registration")
		}
		s.expect(s.b, bound)
		time.Sleep(20 * time.Minute)
		s.expect(s.b, bound)
		if s.record().ID != id {
			t.Error("the session is another one")
		}
		s.b.get("/login?bob")
		s.expect(s.b, "bob false <nil>")
		s.expect(s.b, "bob true <nil>")
		for range 30 {
			time.Sleep(time.Minute)
			s.expect(s.b, "bob true <nil>")
		}
		if len(s.b.sessions) != 1 {
			t.Errorf("the browser maintains %d sessions", len(s.b.sessions))
		}
	})
}

// Promise 19. A restart of the browser: with a persistent cookie the user is logged in, after two
// legs; without one they are not, and the second cookie alone opens nothing.
func TestDeviceRestart(t *testing.T) {
	atBoundSite(t, session.Options{Cookie: session.CookieOptions{Persistent: true}}, func(s *boundSite) {
		s.logIn()
		s.b.restart(s.b.cookieName(), s.b.sessions[0].cookie)
		s.expect(s.b, bound)
		time.Sleep(30 * time.Minute)
		s.b.restart(s.b.cookieName())
		before := len(s.b.legs)
		s.expect(s.b, bound)
		if got := len(s.b.legs) - before; got != 2 {
			t.Errorf("%d legs, want 2", got)
		}
	})
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		s.b.restart(s.b.sessions[0].cookie)
		s.expect(s.b, noUser)
		time.Sleep(30 * time.Minute)
		s.expect(s.b, noUser) // the browser still has the key, and refreshes
		s.b.get("/login?bob")
		s.expect(s.b, "bob false <nil>")
		s.expect(s.b, "bob true <nil>")
	})
}

// Promise 19. A rotation of secrets, in two deployments over one store, with requests of both kinds of
// process in between.
func TestDeviceRotation(t *testing.T) {
	first, second := []byte("0123456789abcdef0123456789abcdef"), []byte("fedcba9876543210fedcba9876543210")
	atBoundSite(t, session.Options{Lifetime: 24 * time.Hour, IdleTimeout: 24 * time.Hour}, func(s *boundSite) {
		process := func(secrets ...[]byte) http.Handler {
			o := s.o
			o.Secrets = secrets
			return newManager(t, o).Handler(deviceRoutes)
		}
		s.logIn()
		for i, h := range []http.Handler{process(first), process(first, second), process(second, first), process(first, second), process(second, first)} {
			s.b.h = h
			s.expect(s.b, bound)
			time.Sleep(11 * time.Minute)
			s.expect(s.b, bound)
			if i == 3 {
				s.b.get("/renew")
			}
		}
		o := s.o
		o.Secrets = [][]byte{second, first}
		m := newManager(t, o)
		s.b.h = m.Handler(deviceRoutes)
		s.b.get("/login?alice") // gives the cookie the newer secret, and keeps the binding
		s.b.get("/")
		time.Sleep(11 * time.Minute)
		before := m.SecretUses()
		s.expect(s.b, bound)
		if after := m.SecretUses(); after[1] == before[1] {
			t.Errorf("the older secret has verified %d proofs, and before %d: SecretUses does not show that it is needed", after[1], before[1])
		}
		s.b.get("/login?bob") // by the newer secret, which is the only one in the end
		s.b.get("/")
		h := process(second)
		s.b.h = h
		for range 3 {
			time.Sleep(11 * time.Minute)
			s.expect(s.b, "bob true <nil>")
		}
	})
}

// Promise 19. The option is switched off, which unbinds all, and on again, which binds the same.
func TestDeviceSwitchedOff(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		off := s.o
		off.DeviceBound = 0
		m := newManager(t, off)
		h := m.Handler(deviceRoutes)
		thief := s.b.thief(s.b.cookieName())
		thief.h = h
		s.expect(thief, loggedIn)
		thief.get("/write")
		if all, _ := m.List(t.Context(), "alice"); len(all) != 1 || all[0].DeviceBound {
			t.Errorf("%+v", all)
		}
		thief.h = s.h
		s.expect(thief, unproven)
		s.expect(s.b, bound)
		time.Sleep(20 * time.Minute)
		s.expect(s.b, bound)
		if got := body(s.b.get("/read")); got != "alice 1" {
			t.Errorf("%q", got)
		}
	})
}

// Sessions from before the option are not bound, and work.
func TestDeviceSessionsFromBefore(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		off := s.o
		off.DeviceBound = 0
		s.b.h = newManager(t, off).Handler(deviceRoutes)
		s.b.get("/login?alice")
		s.b.h = s.h
		s.expect(s.b, loggedIn)
		time.Sleep(30 * time.Minute)
		s.expect(s.b, loggedIn)
		s.b.get("/login?alice") // the next login binds
		s.expect(s.b, loggedIn)
		s.expect(s.b, bound)
	})
}

// Promise 20. What the endpoint answers to anything, and that it calls no store for what we did not
// make, sets no session cookie and reads none.
func TestDeviceEndpoint(t *testing.T) {
	const path = "/.session/device/__Host-Http-session"
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		cookies := s.b.request("/").Header.Get("Cookie")
		made := s.b.sessions[0].identifier
		forged := made[:len(made)-4] + "AAAA"
		own := newES256(t)
		s.spy.forget()
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "BREW"} {
			for what, c := range map[string]struct{ id, proof string }{
				"nothing":                        {},
				"a forged identifier":            {id: forged},
				"a forged identifier and proof":  {id: forged, proof: own.proof("x", false)},
				"an identifier of another shape": {id: "dbsc-1"},
				"an identifier with quotes":      {id: `"` + forged + `"`},
				"a malformed identifier":         {id: `"`},
				"a malformed proof":              {proof: "a.b"},
				"a proof without a challenge":    {proof: own.proof("", true)},
				"a made-up challenge":            {proof: own.proof(forged, true)},
				"an id as the challenge":         {proof: own.proof(made[:22]+strings.Repeat("A", 32), true)},
				"a long identifier":              {id: strings.Repeat("x", 10000)},
			} {
				r := httptest.NewRequest(method, "https://localhost"+path+"?x=y", strings.NewReader("body"))
				r.Header.Set("Cookie", cookies)
				if c.id != "" {
					r.Header.Set("Sec-Secure-Session-Id", c.id)
				}
				if c.proof != "" {
					r.Header.Set("Secure-Session-Response", c.proof)
				}
				w := httptest.NewRecorder()
				s.h.ServeHTTP(w, r)
				want, text := 403, ""
				if method == "POST" && c.id != "" && c.id != `"` && len(c.id) < 9000 {
					want, text = 200, `{"session_identifier":"`+strings.Trim(c.id, `"`)+`","continue":false}`
				}
				if w.Code != want || w.Body.String() != text {
					t.Errorf("%s, %s: %d %s, want %d %s", method, what, w.Code, w.Body, want, text)
				}
				h := w.Header()
				if h.Get("Cache-Control") != "no-store" || len(h["Set-Cookie"]) > 0 || h.Get("Secure-Session-Registration") != "" || h.Get("Secure-Session-Challenge") != "" || h.Get("Vary") != "" {
					t.Errorf("%s, %s: %v", method, what, h)
				}
			}
		}
		if got := s.spy.summary(); got != "" {
			t.Errorf("the store was called: %s", got)
		}
		for _, path := range []string{path + "/", path + "x", "/.session/device/", "/.session/device", "/.session"} {
			if resp := s.b.get(path); resp.StatusCode != 404 {
				t.Errorf("%s: %d, want the handler's answer", path, resp.StatusCode)
			}
		}
	})
}

// Promise 20. A refresh counts as no use: the clocks stay, and an idle session ends.
func TestDeviceRefreshIsNoUse(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		before := s.record()
		for range 5 {
			time.Sleep(9 * time.Minute)
			s.b.refresh(s.b.sessions[0])
		}
		after := s.record()
		if !after.LastSeen.Equal(before.LastSeen) || !after.Expires.Equal(before.Expires) || after.Version == before.Version {
			t.Errorf("seen %v, ends %v; it was %v, %v", after.LastSeen, after.Expires, before.LastSeen, before.Expires)
		}
		time.Sleep(time.Until(after.Expires))
		s.b.refresh(s.b.sessions[0])
		if len(s.b.sessions) > 0 {
			t.Error("the session goes on")
		}
		s.expect(s.b, noUser)
	})
}

// Promise 18. A challenge is good once, again for 10 seconds, for DeviceBound and a minute.
func TestDeviceChallenges(t *testing.T) {
	for what, c := range map[string]struct {
		at   []time.Duration // when the proof is sent, after the challenge was made
		want []int
	}{
		"once":           {[]time.Duration{0}, []int{200}},
		"again":          {[]time.Duration{time.Minute, time.Minute + 10*time.Second - time.Millisecond}, []int{200, 200}},
		"again, late":    {[]time.Duration{time.Minute, time.Minute + 10*time.Second}, []int{200, 403}},
		"many times":     {[]time.Duration{0, 5 * time.Second, 9 * time.Second, 14 * time.Second, 20 * time.Second}, []int{200, 200, 200, 403, 403}},
		"old":            {[]time.Duration{period + time.Minute}, []int{200}},
		"stale":          {[]time.Duration{period + time.Minute + time.Millisecond}, []int{403}},
		"old, and again": {[]time.Duration{period, period + 5*time.Second, period + 11*time.Second}, []int{200, 200, 403}},
	} {
		t.Run(what, func(t *testing.T) {
			atBoundSite(t, session.Options{Lifetime: time.Hour, IdleTimeout: time.Hour}, func(s *boundSite) {
				s.logIn()
				s.b.refresh(s.b.sessions[0])
				is, began := s.b.sessions[0], time.Now()
				proof := is.key.proof(is.challenge, false)
				for i, at := range c.at {
					time.Sleep(time.Until(began.Add(at)))
					l := s.b.newLeg(is, proof)
					l.request.Header.Set("Sec-Secure-Session-Id", is.identifier)
					if s.b.send(l); l.status != c.want[i] {
						t.Errorf("after %v: %d, want %d", at, l.status, c.want[i])
					}
					if isGood := len(l.header["Set-Cookie"]) == 1; isGood != (l.status == 200) || l.header.Get("Secure-Session-Challenge") == "" {
						t.Errorf("after %v: %v", at, l.header)
					}
				}
				s.expect(s.b, bound)
			})
		})
	}
	// A proof is answered again within 10 seconds, also if another one was used since.
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		is := s.b.sessions[0]
		s.b.refresh(is)
		proof := is.key.proof(is.challenge, false)
		for range 3 {
			time.Sleep(3 * time.Second)
			s.b.refresh(is)
		}
		l := s.b.newLeg(is, proof)
		l.request.Header.Set("Sec-Secure-Session-Id", is.identifier)
		if s.b.send(l); l.status != 200 {
			t.Errorf("a proof that was used 6 seconds ago: %d", l.status)
		}
	})
	// A challenge that was used is not good again because another one was used since.
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		is := s.b.sessions[0]
		s.b.refresh(is)
		proof := is.key.proof(is.challenge, false)
		s.b.refresh(is)
		for range 5 { // a refresh every 5 seconds
			time.Sleep(5 * time.Second)
			s.b.refresh(is)
		}
		l := s.b.newLeg(is, proof)
		l.request.Header.Set("Sec-Secure-Session-Id", is.identifier)
		if s.b.send(l); l.status != 403 {
			t.Errorf("a challenge that was used 25 seconds ago: %d", l.status)
		}
	})
}

// Refreshes at the same time, at two processes over one store, all succeed: with the same challenge and
// with others, and a browser that has none needs no five rounds.
func TestDeviceParallelRefreshes(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		time.Sleep(9 * time.Minute)
		s.b.get("/write")
		second := newManager(t, s.o).Handler(deviceRoutes)
		is := s.b.sessions[0]
		const n = 16
		var wg sync.WaitGroup
		before := s.spy.count("")
		for i := range n {
			h := s.h
			if i%2 == 1 {
				h = second
			}
			b := newBoundBrowser(t, h)
			copied := *is
			b.sessions = []*boundSession{&copied}
			if i%4 >= 2 {
				copied.challenge = "" // asks first
			}
			wg.Go(func() {
				b.refresh(&copied)
				if len(b.sessions) != 1 || !b.has(&copied) || len(b.legs) > 2 {
					t.Errorf("refresh %d: %d sessions, %d legs", i, len(b.sessions), len(b.legs))
				}
			})
			wg.Go(func() { s.b.thief().get("/write") })
		}
		wg.Wait()
		if calls := s.spy.count("") - before; calls >= 5*(2*n+n/2) {
			t.Errorf("%d calls of the store", calls)
		}
		if got := body(s.b.get("/read")); got != fmt.Sprint("alice ", n+1) {
			t.Errorf("the writes beside: %q", got)
		}
		s.expect(s.b, bound)
	})
}

// The binding is one Save that merges with what runs beside it: a page that loads beside the
// registration, Edit, Clear, Renew, automatic renewals. Nothing of either is lost.
func TestDeviceBindingMerges(t *testing.T) {
	for what, beside := range map[string]func(s *boundSite, b *browser){
		"a write":  func(s *boundSite, b *browser) { b.get("/write") },
		"Renew":    func(s *boundSite, b *browser) { b.get("/renew") },
		"Remember": func(s *boundSite, b *browser) { b.get("/remember") },
		"Clear":    func(s *boundSite, b *browser) { b.get("/clear") },
		"Login":    func(s *boundSite, b *browser) { b.get("/login?alice") },
		"Edit": func(s *boundSite, b *browser) {
			s.m.Edit(s.t.Context(), "alice", s.record().ID, func(e *session.Session) { name.Set(e, "edited") })
		},
		"Edit EndBy": func(s *boundSite, b *browser) {
			s.m.Edit(s.t.Context(), "alice", s.record().ID, func(e *session.Session) { e.EndBy(time.Now().Add(time.Hour)) })
		},
	} {
		t.Run(what, func(t *testing.T) {
			atBoundSite(t, session.Options{RenewAfter: time.Minute}, func(s *boundSite) {
				saves, isBeside := 0, false
				s.spy.hook(func(_ context.Context, call, _ string) error {
					if call != "Save" || isBeside {
						return nil
					}
					if saves++; saves%2 == 1 { // between the load and the Save, and not again before the next Save
						isBeside = true
						beside(s, s.b.browser)
						isBeside = false
					}
					return nil
				})
				s.b.get("/login?alice")
				s.b.get("/write")
				s.b.get("/write")
				s.spy.hook(nil)
				time.Sleep(11 * time.Second)
				s.expect(s.b, bound)
				s.expect(s.b.thief(s.b.cookieName()), unproven)
				time.Sleep(20 * time.Minute)
				s.b.get("/clear")
				s.b.get("/renew")
				s.expect(s.b, bound)
			})
		})
	}
}

// Promise 19. What arrived before the session was bound keeps it, however late it looks at it, and so
// does a request that reloads after a long time.
func TestDeviceRequestsInFlight(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.b.get("/login?alice")
		var wg sync.WaitGroup
		slow := func(b *browser, f func(is *session.Session)) {
			h := s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) }))
			r := b.request("/")
			wg.Go(func() { h.ServeHTTP(httptest.NewRecorder(), r) })
		}
		expect := func(is *session.Session, what string) {
			if is.User() != "alice" || is.Err() != nil {
				t.Errorf("%s: %q, %v", what, is.User(), is.Err())
			}
		}
		cookieOnly := s.b.thief(s.b.cookieName())
		slow(cookieOnly, func(is *session.Session) {
			time.Sleep(30 * time.Minute) // an upload
			expect(is, "a request that came before the binding, and looks after it")
		})
		synctest.Wait()
		s.expect(s.b, loggedIn)
		time.Sleep(10*time.Second - time.Millisecond)
		slow(cookieOnly, func(is *session.Session) {
			time.Sleep(30 * time.Minute)
			expect(is, "a request that came within ten seconds, and looks later")
		})
		synctest.Wait()
		time.Sleep(time.Minute)
		slow(s.b.thief(), func(is *session.Session) {
			time.Sleep(20 * time.Minute)
			expect(is, "a request with a proof that has expired since")
			time.Sleep(20 * time.Minute)
			if err := is.Reload(t.Context()); err != nil {
				t.Errorf("Reload: %v", err)
			}
			visits.Set(is, 7)
			if err := is.Save(t.Context()); err != nil {
				t.Errorf("Save: %v", err)
			}
			is.Reload(t.Context())
			expect(is, "after a Reload")
		})
		wg.Wait()
		if s.told.count(session.EventUnproven) > 0 {
			t.Errorf("%v", s.told.all)
		}
		if got := body(s.b.get("/read")); got != "alice 7" {
			t.Errorf("%q", got)
		}
	})
}

// Promise 19. A Reload keeps the session that the request had, even if the clock of another process says
// that it is bound for longer than the request is there.
func TestDeviceReloadAfterTheBinding(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.b.get("/login?alice")
		b := s.b.thief(s.b.cookieName())
		b.h = s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			is := session.From(r.Context())
			if is.User() != "alice" {
				t.Errorf("before: %q", is.User())
			}
			s.expect(s.b, loggedIn)
			rec := s.record()
			old := rec.Version
			rec.Version++
			rec.Data = boundFrom(rec.Data, time.Now().Add(-time.Minute))
			if err := s.spy.Store.Save(t.Context(), rec, old); err != nil {
				t.Fatal(err)
			}
			if err := is.Reload(r.Context()); err != nil || is.User() != "alice" {
				t.Errorf("after: %q, %v", is.User(), err)
			}
		}))
		b.get("/")
		b.h = s.h
		s.expect(b, unproven)
	})
}

// A request with several session cookies: a live session counts, and of the others a Login or Logout ends
// the one that is unproven.
func TestDeviceAndOtherCookies(t *testing.T) {
	const second = "__Secure-session" // a browser may have several cookies of a name without __Host-
	setup := func(t *testing.T, f func(s *boundSite, copied, other *browser, get func(path string, cookies ...string) *http.Response)) {
		atBoundSite(t, session.Options{Cookie: session.CookieOptions{Name: second}}, func(s *boundSite) {
			s.logIn()
			other := newBrowser(t, s.h)
			other.get("/login?bob")
			get := func(path string, cookies ...string) *http.Response {
				r := httptest.NewRequest("GET", "https://localhost"+path, nil)
				r.Header.Set("Cookie", strings.Join(cookies, "; "))
				w := httptest.NewRecorder()
				s.h.ServeHTTP(w, r)
				return w.Result()
			}
			f(s, s.b.thief(second), other, get)
		})
	}
	all := func(s *boundSite, user string) int {
		list, err := s.m.List(s.t.Context(), user)
		if err != nil {
			s.t.Error(err)
		}
		return len(list)
	}
	setup(t, func(s *boundSite, copied, other *browser, get func(string, ...string) *http.Response) {
		for _, cookies := range [][]string{{copied.cookie(), other.cookie()}, {other.cookie(), copied.cookie()}} {
			if got := body(get("/", cookies...)); got != "bob false <nil>" {
				t.Errorf("beside a live session: %q", got)
			}
		}
		if n := s.told.count(session.EventUnproven); n > 0 {
			t.Errorf("%d events", n)
		}
	})
	setup(t, func(s *boundSite, copied, other *browser, get func(string, ...string) *http.Response) {
		stale := other.cookie()
		other.get("/renew")
		time.Sleep(11 * time.Second)
		if got := body(get("/", stale, copied.cookie())); got != unproven {
			t.Errorf("beside a replaced token: %q", got)
		}
		get("/logout", stale, copied.cookie())
		if all(s, "alice") != 0 || all(s, "bob") != 1 {
			t.Errorf("alice has %d sessions, bob %d", all(s, "alice"), all(s, "bob"))
		}
	})
	setup(t, func(s *boundSite, copied, other *browser, get func(string, ...string) *http.Response) {
		crowd := []string{copied.cookie(), other.cookie()}
		for range 4 {
			b := newBrowser(t, s.h)
			b.get("/login?carol")
			crowd = append(crowd, b.cookie())
		}
		get("/logout", crowd...)
		if all(s, "alice")+all(s, "bob")+all(s, "carol") != 0 {
			t.Error("sessions of a crowd are left")
		}
	})
}

// Of a Login whose token another call of the same request has replaced, the response still makes the offer.
func TestDeviceLoginThatIsSavedEarly(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.b.h = s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			is := session.From(r.Context())
			is.Login("alice")
			if err := is.Save(r.Context()); err != nil {
				t.Error(err)
			}
			is.Renew()
			if err := is.Save(r.Context()); err != nil {
				t.Error(err)
			}
			is.Remember(48 * time.Hour)
		}))
		s.b.get("/")
		s.b.h = s.h
		s.expect(s.b, loggedIn)
		s.expect(s.b, bound)
	})
}

// Within ten seconds of its end a second cookie that was sent in time still counts.
func TestDeviceCookieInFlight(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		s.b.noProactive = true
		s.b.refresh(s.b.sessions[0])
		is := s.b.sessions[0]
		if left := time.Until(is.expires); left != period-10*time.Second {
			t.Errorf("the browser keeps the cookie for %v", left)
		}
		late := s.b.thief()
		time.Sleep(period - time.Millisecond)
		s.expect(late, bound)
		time.Sleep(time.Millisecond)
		s.expect(late, unproven)
	})
}

// Two Managers of one host, one inside the other, bind their own sessions.
func TestDeviceTwoManagers(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		o := s.o
		o.Cookie.Name = "__Host-admin-session"
		admin := newManager(t, o)
		h := s.m.Handler(admin.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			outer, inner := s.m.From(r.Context()), admin.From(r.Context())
			if user, ok := strings.CutPrefix(r.URL.Path, "/in/"); ok {
				outer.Login(user)
			} else if user, ok := strings.CutPrefix(r.URL.Path, "/admin/"); ok {
				inner.Login(user)
			}
			fmt.Fprintf(w, "%s %v, %s %v", outer.User(), outer.DeviceBound(), inner.User(), inner.DeviceBound())
		})))
		b := newBoundBrowser(t, h)
		b.get("/in/alice")
		b.get("/")
		b.get("/admin/root")
		b.get("/")
		for range 20 {
			time.Sleep(time.Minute)
			if got, want := body(b.get("/")), "alice true, root true"; got != want {
				t.Fatalf("%q, want %q", got, want)
			}
		}
		if len(b.sessions) != 2 || b.sessions[0].url == b.sessions[1].url {
			t.Errorf("the browser maintains %d sessions", len(b.sessions))
		}
	})
}

// Protection against cross-site requests, inside and outside of Handler, lets the proofs pass.
func TestDeviceCrossOriginProtection(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		for _, h := range []http.Handler{
			http.NewCrossOriginProtection().Handler(s.m.Handler(deviceRoutes)),
			s.m.Handler(http.NewCrossOriginProtection().Handler(deviceRoutes)),
		} {
			b := newBoundBrowser(t, h)
			b.get("/login?alice")
			b.get("/")
			s.expect(b, bound)
			time.Sleep(20 * time.Minute)
			if got := body(b.getFromOtherSite("/")); got != bound {
				t.Errorf("%q", got)
			}
		}
	})
}

// MaxPerUser counts bound sessions as others, and ends them.
func TestDeviceMaxPerUser(t *testing.T) {
	atBoundSite(t, session.Options{MaxPerUser: 1}, func(s *boundSite) {
		s.logIn()
		other := newBoundBrowser(t, s.h)
		other.get("/login?alice")
		other.get("/")
		s.expect(other, bound)
		s.expect(s.b, noUser)
		time.Sleep(9 * time.Minute)
		s.expect(s.b, noUser)
		if len(s.b.sessions) > 0 {
			t.Error("the browser maintains a session that has ended")
		}
		s.expect(other, bound)
	})
}

// Adapt may give the cookie a Domain for some hosts: their sessions are not bound, which is logged
// once, and all else works.
func TestDeviceAdapt(t *testing.T) {
	for what, adapt := range map[string]func(r *http.Request, c *http.Cookie){
		"Domain":      func(r *http.Request, c *http.Cookie) { c.Domain = "localhost" },
		"Partitioned": func(r *http.Request, c *http.Cookie) { c.Partitioned = true },
	} {
		t.Run(what, func(t *testing.T) {
			log := new(bytes.Buffer)
			o := session.Options{Cookie: session.CookieOptions{Name: "__Secure-session", Adapt: adapt}, Logger: slog.New(slog.NewTextHandler(log, nil))}
			atBoundSite(t, o, func(s *boundSite) {
				for range 3 {
					if resp := s.b.get("/login?alice"); resp.Header.Get("Secure-Session-Registration") != "" {
						t.Error("offered")
					}
				}
				if strings.Count(log.String(), "session not bound") != 1 {
					t.Errorf("the log is %s", log)
				}
			})
		})
	}
	// SameSite=Strict, and a Path, go into the second cookie.
	adapt := func(r *http.Request, c *http.Cookie) { c.SameSite = http.SameSiteStrictMode }
	atBoundSite(t, session.Options{Cookie: session.CookieOptions{Adapt: adapt}}, func(s *boundSite) {
		s.logIn()
		if got := s.b.sessions[0].attributes; !strings.Contains(got, "SameSite=Strict") {
			t.Errorf("the attributes are %q", got)
		}
		time.Sleep(20 * time.Minute)
		s.expect(s.b, bound)
	})
}

// DevicePath is where a browser sends its proofs, with a prefix that is removed before Handler.
func TestDevicePath(t *testing.T) {
	for _, c := range []struct {
		path, name, want string
		strip            string
	}{
		{"", "", "/.session/device/__Host-Http-session", ""},
		{"/proof", "", "/proof", ""},
		{"/app/.session/device/__Host-Http-session", "", "/app/.session/device/__Host-Http-session", "/app"},
		{"/app/.session/device/__Host-Http-session", "", "/app/.session/device/__Host-Http-session", ""},
		{"", "a%#'*b", "/.session/device/a%25%23%27%2Ab", ""},
	} {
		atBoundSite(t, session.Options{DevicePath: c.path, Cookie: session.CookieOptions{Name: c.name}}, func(s *boundSite) {
			h := s.h
			s.b.h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/app/") {
					http.StripPrefix(c.strip, h).ServeHTTP(w, r)
					return
				}
				h.ServeHTTP(w, r)
			})
			s.b.get("/login?alice")
			s.b.get("/")
			if len(s.b.sessions) != 1 || s.b.sessions[0].url != c.want {
				t.Fatalf("%+v: %+v", c, s.b.sessions)
			}
			time.Sleep(20 * time.Minute)
			s.expect(s.b, bound)
		})
	}
}

// Values up to MaxDataSize leave room for the binding, which does not count.
func TestDeviceAndMaxDataSize(t *testing.T) {
	atBoundSite(t, session.Options{MaxDataSize: 1 << 10}, func(s *boundSite) {
		s.b.register = func() bool { return false }
		s.b.get("/login?alice")
		s.b.h = s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			is := session.From(r.Context())
			is.Login("alice")
			name.Set(is, strings.Repeat("x", 1000))
		}))
		s.b.register, s.b.newKey = nil, newRS256
		if resp := s.b.get("/"); resp.StatusCode != 200 {
			t.Fatalf("%d", resp.StatusCode)
		}
		s.b.h = s.h
		s.b.get("/")
		s.expect(s.b, bound)
		s.b.get("/write")
		if got := body(s.b.get("/read")); got != "alice 1" {
			t.Errorf("%q", got)
		}
	})
}

// EventDeviceBound is reported once, also if the reply of the store to the first proof is lost, and the
// browser has to repeat the proof. If the store cannot be asked either, it may be reported twice.
func TestDeviceBoundIsReported(t *testing.T) {
	for _, c := range []struct {
		isStored, isAsked bool // whether the Save had its effect, and whether the Load after it works
		most              int
	}{{true, true, 1}, {true, false, 1}, {false, true, 1}, {false, false, 2}} {
		t.Run(fmt.Sprintf("stored %v, asked %v", c.isStored, c.isAsked), func(t *testing.T) {
			atBoundSite(t, session.Options{}, func(s *boundSite) {
				s.b.get("/login?alice")
				hasFailed := false
				fail := func(call string, err error) error {
					if call == "Save" || hasFailed && !c.isAsked && call == "Load" {
						hasFailed = true
						return session.ErrIndeterminate
					}
					return err
				}
				if c.isStored {
					s.spy.hookAfter(func(_ context.Context, call, _ string, err error) error { return fail(call, err) })
				} else {
					s.spy.hook(func(_ context.Context, call, _ string) error { return fail(call, nil) })
				}
				if s.b.refresh(s.b.sessions[0]); s.b.legs[len(s.b.legs)-1].status != 503 {
					t.Errorf("the first proof: %d", s.b.legs[len(s.b.legs)-1].status)
				}
				s.spy.hook(nil)
				s.spy.hookAfter(nil)
				s.b.get("/")
				s.expect(s.b, bound)
				if got := s.told.count(session.EventDeviceBound); got < 1 || got > c.most {
					t.Errorf("%d times %s, want 1 to %d", got, session.EventDeviceBound, c.most)
				}
				for _, e := range s.told.all {
					if e.Kind == session.EventDeviceBound && (e.User != "alice" || e.ID != s.record().ID || e.Err != nil) {
						t.Errorf("%+v", e)
					}
				}
			})
		})
	}
}

// A session that ends while its first proof is stored was never bound.
func TestDeviceBoundIsNotReportedAfterTheEnd(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.b.get("/login?alice")
		id := s.record().ID
		s.spy.hook(func(ctx context.Context, call, _ string) error {
			if call == "Save" {
				s.spy.hook(nil)
				return s.m.Revoke(ctx, "alice", id)
			}
			return nil
		})
		if s.b.refresh(s.b.sessions[0]); len(s.b.sessions) > 0 || s.told.count(session.EventDeviceBound) > 0 {
			t.Errorf("%d sessions, %v", len(s.b.sessions), s.told.all)
		}
	})
}

// Promise 19. A browser maintains the keys of two sessions that are both alive: it was closed and lost
// the cookie of the first one, or both tabs sent the login form. The user is logged in for as long as
// with one, whichever of them the browser refreshes first.
func TestDeviceTwoSessions(t *testing.T) {
	for what, log := range map[string]func(s *boundSite){
		"closed": func(s *boundSite) {
			s.logIn()
			s.b.restart(s.b.sessions[0].cookie)
		},
		"closed for half an hour": func(s *boundSite) {
			s.logIn()
			time.Sleep(30 * time.Minute)
			s.b.restart()
		},
		"two tabs": func(s *boundSite) {
			first := newBoundBrowser(s.t, s.h)
			first.get("/login?alice") // its Set-Cookie is overwritten by that of the second tab
			s.b.sessions = first.sessions
			for _, c := range first.jar.Cookies(origin) {
				if c.Name == first.sessions[0].cookie {
					s.b.jar.SetCookies(origin, []*http.Cookie{{Name: c.Name, Value: c.Value, Path: "/", Secure: true, MaxAge: 60}})
				}
			}
		},
	} {
		for _, isReversed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reversed %v", what, isReversed), func(t *testing.T) {
				atBoundSite(t, session.Options{}, func(s *boundSite) {
					log(s)
					s.b.get("/login?bob")
					if len(s.b.sessions) != 2 {
						t.Fatalf("the browser maintains %d sessions, so this test proves nothing", len(s.b.sessions))
					}
					if isReversed {
						slices.Reverse(s.b.sessions)
					}
					s.expect(s.b, "bob false <nil>")
					for range 90 {
						s.expect(s.b, "bob true <nil>")
						time.Sleep(time.Minute)
					}
					if len(s.b.sessions) != 1 {
						t.Errorf("the browser maintains %d sessions, although one has ended", len(s.b.sessions))
					}
					s.b.get("/logout")
					if c := s.b.jar.Cookies(origin); len(c) > 0 {
						t.Errorf("the browser has %v", c)
					}
				})
			})
		}
	}
}

// What docs/device-bound-sessions.md says of the cost, with default names: bytes, round trips, calls of the
// store.
func TestDeviceCost(t *testing.T) {
	type cost struct{ offer, registration, proof, identifier, answer, cookie, record int } // bytes
	for alg, c := range map[string]struct {
		newKey func(testing.TB) *deviceKey
		want   cost
	}{
		"ES256": {newES256, cost{155, 421, 214, 79, 633, 64, 222}},
		"RS256": {newRS256, cost{155, 1007, 470, 79, 633, 64, 478}},
	} {
		t.Run(alg, func(t *testing.T) {
			c.newKey(t)
			atBoundSite(t, session.Options{}, func(s *boundSite) {
				time.Sleep(26 * 365 * 24 * time.Hour) // times have 13 digits since 2001
				calls := func(what, want string) {
					t.Helper()
					if got := s.spy.summary(); got != want {
						t.Errorf("%s: the store got %q, want %q", what, got, want)
					}
					s.spy.forget()
				}
				line := func(h http.Header, name string) (n int) {
					for _, value := range h[name] {
						n += len(name + ": " + value + "\r\n")
					}
					return n
				}
				s.b.newKey = c.newKey
				var got cost
				got.offer = line(s.b.get("/login?alice").Header, "Secure-Session-Registration")
				calls("login and registration", "Load Create Save")
				got.registration = line(s.b.legs[0].request.Header, "Secure-Session-Response")
				for range 3 { // the record is complete after the third
					s.b.refresh(s.b.sessions[0])
					calls("a refresh", "Load Save")
					time.Sleep(11 * time.Second)
				}
				if len(s.b.legs) != 4 {
					t.Errorf("%d requests to the endpoint, want 4", len(s.b.legs))
				}
				last := s.b.legs[3]
				got.proof = line(last.request.Header, "Secure-Session-Response")
				got.identifier = line(last.request.Header, "Sec-Secure-Session-Id")
				got.answer = len(last.body)
				for name := range last.header {
					got.answer += line(last.header, name)
				}
				for _, second := range s.b.jar.Cookies(origin)[1:] {
					got.cookie += len("; " + second.Name + "=" + second.Value)
				}
				data := s.record().Data
				got.record = len(data) - len(withoutDevice(data)) + len(",")
				if got != c.want {
					t.Errorf("%+v, want %+v", got, c.want)
				}
				s.b.get("/")
				calls("a request", "Load")
			})
		})
	}
}

// Promise 18. In the grace period of an explicit renewal the previous session cookie alone opens nothing,
// the session as it was before the renewal neither.
func TestDeviceProofInTheGrace(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		copied, jar := s.b.thief(s.b.cookieName()), s.b.thief()
		s.b.get("/renew")
		s.expect(jar, bound)
		s.expect(copied, unproven)
	})
}

// The clock of the process that took the last proof was an hour ahead, or was set back since: the browser
// can refresh, and a proof that was used is not good for that hour.
func TestDeviceClockOfAnotherProcess(t *testing.T) {
	ahead := func(s *boundSite) {
		rec := s.record()
		old := rec.Version
		rec.Version++
		for _, member := range []string{`"used":`, `"at":`} {
			before, rest, _ := bytes.Cut(rec.Data, []byte(member))
			n := bytes.IndexAny(rest, ",}")
			ms, err := strconv.ParseInt(string(rest[:n]), 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			rec.Data = fmt.Appendf(nil, "%s%s%d%s", before, member, ms+time.Hour.Milliseconds(), rest[n:])
		}
		if err := s.spy.Store.Save(s.t.Context(), rec, old); err != nil {
			s.t.Fatal(err)
		}
	}
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		time.Sleep(time.Minute)
		is := s.b.sessions[0]
		used := is.key.proof(is.challenge, false)
		s.b.refresh(is)
		ahead(s)
		time.Sleep(11 * time.Second)
		l := s.b.newLeg(is, used)
		l.request.Header.Set("Sec-Secure-Session-Id", is.identifier)
		if s.b.send(l); l.status != 403 {
			t.Errorf("a proof that was used: %d", l.status)
		}
		for range 3 {
			before := len(s.b.legs)
			s.b.refresh(is)
			if n := len(s.b.legs) - before; len(s.b.sessions) != 1 || n > 2 || s.b.legs[len(s.b.legs)-1].status != 200 {
				t.Errorf("a refresh: %d sessions, %d legs", len(s.b.sessions), n)
			}
		}
		s.expect(s.b, bound)
	})
}

// The work for a request with many second cookies is bounded: 4 are verified, and a Logout deletes 64.
func TestDeviceManySecondCookies(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		second := s.b.sessions[0].cookie
		with := func(path string, n int) *http.Response {
			r := httptest.NewRequest("GET", "https://localhost"+path, nil)
			r.Header.Set("Cookie", strings.Repeat(second+"=x; ", n)+s.b.request("/").Header.Get("Cookie"))
			w := httptest.NewRecorder()
			s.h.ServeHTTP(w, r)
			return w.Result()
		}
		for n, want := range map[int]string{3: bound, 4: unproven} {
			if got := body(with("/", n)); got != want {
				t.Errorf("behind %d others: %q, want %q", n, got, want)
			}
		}
		if n := len(with("/logout", 100).Header["Set-Cookie"]); n != 1+64 {
			t.Errorf("%d cookies are deleted, want 65", n)
		}
	})
}
