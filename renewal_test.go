package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

const second = time.Second

// asks are the ways to ask for another token.
var asks = map[string]func(s *session.Session){
	"Renew":       func(s *session.Session) { s.Renew() },
	"Remember":    func(s *session.Session) { s.Remember(30 * day) },
	"Login again": func(s *session.Session) { s.Login("alice") },
}

// A desk runs what a test wants in the sessions of browsers.
type desk struct {
	t   *testing.T
	spy *spyStore
	m   *session.Manager
	log events
	f   func(s *session.Session)
}

// atDesk runs a test on a fake clock.
func atDesk(t *testing.T, o session.Options, f func(d *desk)) {
	t.Helper()
	d := &desk{}
	o.OnEvent = d.log.on
	inBubble(t, o, func(t *testing.T, spy *spyStore, m *session.Manager) {
		d.t, d.spy, d.m = t, spy, m
		f(d)
	})
}

// visitor returns a browser without cookies.
func (d *desk) visitor() *browser {
	return newBrowser(d.t, d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.f(session.From(r.Context()))
	})))
}

// browser returns one that is logged in as alice, and has the name "before".
func (d *desk) browser() *browser {
	b := d.visitor()
	d.do(b, func(s *session.Session) {
		s.Login("alice")
		name.Set(s, "before")
	})
	return b
}

// do runs f as the handler of a request, and tells whether that set a cookie.
func (d *desk) do(b *browser, f func(s *session.Session)) (cookie bool) {
	d.t.Helper()
	d.f = f
	resp := b.get("/")
	if resp.StatusCode != 200 {
		d.t.Errorf("answers %s", resp.Status)
	}
	return setsCookie(resp)
}

// expect fails the test unless a request of b is alice's and reads this name.
func (d *desk) expect(b *browser, want string) {
	d.t.Helper()
	d.do(b, func(s *session.Session) {
		if got := name.Get(s); s.User() != "alice" || got != want || s.Err() != nil {
			d.t.Errorf("in as %q, reads %q, want %q; Err: %v", s.User(), got, want, s.Err())
		}
	})
}

// expectReplaced fails the test unless b's token is nobody's.
func (d *desk) expectReplaced(b *browser) {
	d.t.Helper()
	d.do(b, func(s *session.Session) {
		if s.User() != "" || s.ID() != "" || name.Get(s) != "" || s.Err() != session.ErrReplaced {
			d.t.Errorf("in as %q, ID %q, reads %q, Err: %v", s.User(), s.ID(), name.Get(s), s.Err())
		}
	})
}

// expectReplacedAfter lets that time pass first.
func (d *desk) expectReplacedAfter(b *browser, wait time.Duration) {
	d.t.Helper()
	time.Sleep(wait)
	d.expectReplaced(b)
}

// Promise 3. For ten seconds the token before a renewal that was asked for sees
// the session as it was, and no more; what it changes is kept, and it sets no
// cookie. Then it is nobody's.
func TestTokenBeforeARenewalThatWasAskedFor(t *testing.T) {
	for how, ask := range asks {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				time.Sleep(minute)
				old := b.replay(b.cookie())
				var id string
				var authenticated time.Time
				d.do(b, func(s *session.Session) { id, authenticated = s.ID(), s.AuthTime() })
				if !d.do(b, func(s *session.Session) { ask(s); name.Set(s, "after") }) {
					t.Fatal("no new cookie")
				}
				for _, wait := range []time.Duration{0, 10*second - time.Millisecond} {
					time.Sleep(wait)
					if d.do(old, func(s *session.Session) {
						if s.ID() != id || !s.AuthTime().Equal(authenticated) {
							t.Errorf("sees %s, authenticated %v, want %s, %v", s.ID(), s.AuthTime(), id, authenticated)
						}
						name.Update(s, func(v string) string { return v + "!" })
						visits.Update(s, func(n int) int { return n + 1 })
						if name.Get(s) != "before!" {
							t.Errorf("reads %q", name.Get(s))
						}
						if err := s.Save(t.Context()); err != nil || name.Get(s) != "before!" || !s.AuthTime().Equal(authenticated) {
							t.Errorf("Save: %v; reads %q, authenticated %v", err, name.Get(s), s.AuthTime())
						}
						s.AddFlash("", "hello")
					}) {
						t.Error("it sets a cookie")
					}
					d.expect(old, "before")
				}
				d.expect(b, "after!!")
				d.do(b, func(s *session.Session) {
					if visits.Get(s) != 2 || len(s.Flashes()) != 2 || s.ID() != id {
						t.Errorf("kept: %d visits", visits.Get(s))
					}
				})
				time.Sleep(time.Millisecond)
				d.expectReplaced(old)
				d.expect(b, "after!!")
				if d.log.count(session.EventReplayed) != 1 || d.log.count(session.EventDropped) != 0 {
					t.Errorf("events %+v", d.log.all)
				}
			})
		})
	}
}

// Promise 3. Within the grace the previous token's Renew does nothing, its Remember
// is dropped and reported. Its Login is an authentication: it makes a key, also when
// the answer to another Login was lost, and then sees the session as it is.
func TestPreviousTokenAsksForARenewal(t *testing.T) {
	for first, one := range asks {
		for second, other := range asks {
			t.Run(first+", "+second, func(t *testing.T) {
				atDesk(t, session.Options{}, func(d *desk) {
					b := d.browser()
					old := b.replay(b.cookie())
					d.do(b, func(s *session.Session) { one(s); name.Set(s, "after") })
					var ends, authenticated time.Time
					look := func(s *session.Session) { ends, authenticated = s.Expires(), s.AuthTime() }
					d.do(b, look)
					wasEnd, was := ends, authenticated
					time.Sleep(5 * time.Second)
					isLogin, dropped := second == "Login again", 0
					if d.do(old, func(s *session.Session) {
						s.User()
						other(s)
						err := s.Save(t.Context())
						if (err != nil) != (second == "Remember") {
							t.Errorf("Save: %v", err)
						}
						if got := name.Get(s); (got == "after") != isLogin {
							t.Errorf("reads %q", got)
						}
					}) != isLogin {
						t.Errorf("it sets a cookie: %v", !isLogin)
					}
					if second == "Remember" {
						dropped = 1
						d.do(old, func(s *session.Session) { // at the first byte
							other(s)
							visits.Set(s, 1)
						})
						dropped++
					}
					if n := d.log.count(session.EventDropped); n != dropped {
						t.Errorf("%d dropped, want %d", n, dropped)
					}
					last := b
					if isLogin {
						last = old
					}
					d.do(last, look)
					if moved := !authenticated.Equal(was); moved != isLogin {
						t.Errorf("AuthTime moved: %v", moved)
					}
					if first == "Remember" && !ends.Equal(wasEnd) || ends.After(wasEnd.Add(minute)) {
						t.Errorf("it ends at %v, was %v", ends, wasEnd)
					}
					time.Sleep(10 * time.Second)
					if isLogin {
						d.expectReplaced(b)
					} else {
						d.expectReplaced(old)
					}
					d.expect(last, "after")
				})
			})
		}
	}
}

// Promise 3. A Remember of a request with the previous token fails no response, and
// Err tells of it afterwards.
func TestDroppedRememberIsReported(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		d.do(b, func(s *session.Session) { s.Renew() })
		var late *session.Session
		d.do(old, func(s *session.Session) { s.Remember(day); late = s })
		if err := late.Err(); err == nil || !strings.Contains(err.Error(), "Remember") || errors.Is(err, session.ErrStore) {
			t.Errorf("Err: %v", err)
		}
	})
}

// Promise 3. Keys that Logins made and that were not presented are good for a
// minute, whatever other Logins make: the answers arrive in any order. A request
// that brings one gets another.
func TestAnswersOfTwoLoginsArriveInAnyOrder(t *testing.T) {
	for _, cold := range []bool{false, true} { // was the newer one presented before?
		for _, wait := range []time.Duration{0, 59 * second} {
			t.Run(fmt.Sprint("newer presented: ", cold, ", after ", wait), func(t *testing.T) {
				atDesk(t, session.Options{}, func(d *desk) {
					b := d.browser()
					time.Sleep(minute)
					again := func(s *session.Session) { s.Login("alice") }
					one, other := b.replay(b.cookie()), b.replay(b.cookie())
					if !d.do(one, again) || !d.do(other, again) {
						t.Fatal("a Login sets no cookie")
					}
					if cold {
						d.expect(other, "before")
					}
					time.Sleep(wait)
					held := one.cookie()
					if d.expect(one, "before"); one.cookie() == held {
						t.Error("the request with the key of the first Login gets no other")
					}
					d.expectReplacedAfter(b, 10*second)
					d.expect(one, "before")
					time.Sleep(15 * minute)
					d.expect(one, "before")
				})
			})
		}
	}
}

// The key of a Login that was overtaken by another one ends a minute after it was
// issued, if it was not presented.
func TestUnpresentedKeyOfALoginEnds(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		again := func(s *session.Session) { s.Login("alice") }
		one := b.replay(b.cookie())
		d.do(one, again)
		d.do(b, again)
		d.expect(b, "before")
		time.Sleep(minute)
		d.expectReplaced(one)
		d.expect(b, "before")
	})
}

// An explicit renewal that is no Login replaces the unpresented keys of Logins too.
func TestRenewReplacesKeysOfLogins(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		one := b.replay(b.cookie())
		d.do(one, func(s *session.Session) { s.Login("alice") })
		d.do(b, func(s *session.Session) { s.Login("alice") })
		d.do(b, func(s *session.Session) { s.Renew(); name.Set(s, "after") })
		d.expect(one, "before")
		d.expectReplacedAfter(one, 10*second)
		d.expect(b, "after")
	})
}

// Promises 2 and 3. Its Logout ends the session, and leaves the newer cookie
// alone; what is set after it has no session.
func TestTokenBeforeLogsOut(t *testing.T) {
	for how, ask := range asks {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				old := b.replay(b.cookie())
				d.do(b, ask)
				if d.do(old, func(s *session.Session) { s.Logout(); name.Set(s, "new") }) {
					t.Error("it sets a cookie")
				}
				for _, b := range []*browser{b, old} {
					d.do(b, func(s *session.Session) {
						if s.User() != "" || !s.IsNew() {
							t.Errorf("still in as %q", s.User())
						}
					})
				}
			})
		})
	}
}

// The same of a request that loaded its session before the renewal, which it
// keeps for as long as it lasts.
func TestLogoutOverlapsARenewal(t *testing.T) {
	for how, ask := range asks {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			if d.do(b.replay(b.cookie()), func(s *session.Session) {
				s.User()
				d.do(b, ask)
				time.Sleep(minute)
				s.Logout()
			}) {
				t.Errorf("%s: the Logout sets a cookie", how)
			}
			d.do(b, func(s *session.Session) {
				if s.User() != "" {
					t.Errorf("%s: still in", how)
				}
			})
		})
	}
}

// Two renewals within ten seconds: the token before the first one still sees
// what was before the first, the second's what was before the second.
func TestRenewalsInARow(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		var old []*browser
		for i := range 3 {
			old = append(old, b.replay(b.cookie()))
			d.do(b, func(s *session.Session) { s.Renew(); name.Set(s, fmt.Sprint("after ", i)) })
			time.Sleep(3 * time.Second)
		}
		for i, want := range []string{"before", "after 0", "after 1"} {
			d.expect(old[i], want)
		}
		d.expect(b, "after 2")
		time.Sleep(time.Second)
		d.expectReplaced(old[0])
		d.expect(old[1], "after 0")
		time.Sleep(10 * time.Second)
		d.expectReplaced(old[2])
		d.expect(b, "after 2")
	})
}

// Promise 3. A logged-in session that is used gets another token when its own is
// old. The one before it is good without restriction until ten seconds after
// the new one came.
func TestRenewalByAge(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: 5 * minute}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		read := func(s *session.Session) { name.Get(s) }
		time.Sleep(5*minute - time.Millisecond)
		if d.do(b, read) {
			t.Fatal("a new cookie before its time")
		}
		time.Sleep(time.Millisecond)
		if !d.do(b, read) || d.log.count(session.EventRenewed) != 1 {
			t.Fatalf("no new cookie; events %v", d.log.all)
		}
		time.Sleep(5 * time.Second) // before the new one comes
		saves := d.spy.count("Save")
		// As twenty requests at once are: no cookie for them, and nothing lost.
		if d.do(old, func(s *session.Session) { name.Set(s, "old") }) {
			t.Error("another cookie for the old token within ten seconds")
		}
		if d.do(b, read) {
			t.Error("a cookie for the new token")
		}
		d.expect(b, "old")
		if n := d.spy.count("Save") - saves; n != 2 {
			t.Errorf("%d Saves, want the one of the change and one that the new token has come", n)
		}
		d.do(b, func(s *session.Session) { name.Set(s, "new") })
		time.Sleep(10*second - time.Millisecond)
		if d.do(old, read) {
			t.Error("another cookie for the old token although the new one has come")
		}
		d.expect(old, "new") // it sees what is new
		time.Sleep(time.Millisecond)
		d.expectReplaced(old)
		d.expect(b, "new")
		if n := d.log.count(session.EventReplayed); n != 1 {
			t.Errorf("%d times EventReplayed", n)
		}
	})
}

// Promise 3. While the new token has not been presented the previous one keeps full
// access, and a request with it gets another: ten seconds after the last was issued,
// or one second after it if two or more have not been presented. A response may have
// been lost, or a laptop slept. A token whose response was only slow is good too.
func TestLostResponsesOfAnAutomaticRenewal(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		b := d.browser()
		read := func(s *session.Session) { name.Get(s) }
		time.Sleep(minute)
		var lost []*browser
		for i, gap := range []time.Duration{0, 10 * second, second, second, 15 * minute} {
			time.Sleep(gap)
			if i > 0 && gap <= 10*second {
				if d.do(b.replay(b.cookie()), read) {
					t.Fatalf("the key number %d is issued %v after the one before", i+1, gap)
				}
				time.Sleep(time.Millisecond)
			}
			deaf := b.replay(b.cookie()) // whose responses b does not see
			if !d.do(deaf, read) {
				t.Fatalf("the key number %d is not issued", i+1)
			}
			lost = append(lost, deaf)
		}
		d.expect(lost[3], "before") // slow, not lost
		d.expect(lost[2], "before") // likewise
		d.expect(b, "before")
		time.Sleep(10 * time.Second)
		d.expectReplaced(b)
		d.expect(lost[3], "before")
	})
}

// An issued key is forgotten when 16 newer ones have been issued, and the one with
// which a client asks for them is not.
func TestIssuedKeysAreBounded(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		b := d.browser()
		time.Sleep(minute)
		var issued []*browser
		for len(issued) < 40 {
			time.Sleep(11 * time.Second)
			deaf := b.replay(b.cookie())
			if d.do(deaf, func(s *session.Session) { s.User() }) {
				issued = append(issued, deaf)
			}
		}
		d.expectReplaced(issued[23])
		d.expect(issued[24], "before")
		d.expect(b, "before")
	})
}

// A thief who asks for a key each second does not push out the one that the owner has
// got, before it can arrive: nor does a slow link on which responses take that long.
func TestIssuedKeysLastUntilTheyCanArrive(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		owner := d.browser()
		thief := owner.replay(owner.cookie())
		time.Sleep(minute)
		if !d.do(owner, func(s *session.Session) { s.User() }) {
			t.Fatal("the owner gets no key")
		}
		got, issued := time.Now(), 0
		for time.Since(got) < minute-2*second {
			time.Sleep(100 * time.Millisecond)
			if d.do(thief.replay(thief.cookie()), func(s *session.Session) { s.User() }) {
				issued++
			}
		}
		if issued < 40 {
			t.Fatalf("the thief gets %d keys only", issued)
		}
		d.expect(owner, "before")
		time.Sleep(11 * second)
		d.expectReplaced(thief)
	})
}

// However many times somebody logs in, the record holds a bounded number of keys.
func TestKeysOfLoginsAreBounded(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		for range 1000 {
			d.do(b.replay(b.cookie()), func(s *session.Session) { s.Login("alice") })
		}
		if records, _ := d.spy.List(t.Context(), "alice"); len(records) != 1 || len(records[0].Data) > 8<<10 {
			t.Errorf("%d records; %d bytes", len(records), len(records[0].Data))
		}
	})
}

// Promise 3. A thief who asks with a stolen token whenever a key may be issued, and
// discards it, does not keep the owner from renewing. The stolen token is worthless
// then, and the attempt is EventReplayed.
func TestThiefCannotHoldOffRenewal(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		owner := d.browser()
		stolen := owner.cookie()
		begin := time.Now()
		asks, uses := begin.Add(minute), begin.Add(7*second)
		for time.Since(begin) < 5*minute {
			time.Sleep(min(time.Until(asks), time.Until(uses)))
			if !time.Now().Before(uses) {
				d.expect(owner, "before")
				uses = time.Now().Add(7 * second)
				continue
			}
			in := false
			asks = time.Now().Add(time.Millisecond)
			if d.do(owner.replay(stolen), func(s *session.Session) { in = s.User() != "" }) {
				asks = time.Now().Add(10*second + 2*time.Millisecond)
			}
			if !in {
				if d.log.count(session.EventReplayed) != 1 {
					t.Error("the stolen token is worthless, and no EventReplayed")
				}
				return
			}
		}
		t.Error("the stolen token is good for five minutes")
	})
}

// Promise 3. A slow request presents a key and meanwhile the slow response with an older
// one arrives: the older key, which the browser has now, was presented later. The slow
// request does not end it, also if it reads the store again, or if the store fails as the
// request begins and as it saves.
func TestSlowRequestDoesNotEndWhatCameLater(t *testing.T) {
	for name, atEnd := range map[string]func(*desk, *session.Session){
		"nothing": func(*desk, *session.Session) {},
		"Reload":  func(_ *desk, s *session.Session) { _ = s.Reload(t.Context()) },
		"a Save that fails, and a change": func(d *desk, s *session.Session) {
			d.spy.hook(failing("Save", errDown))
			_ = s.Save(t.Context()) // drops what is due
			d.spy.hook(nil)
			visits.Set(s, 1)
		},
	} {
		for _, fails := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " fails: ", fails), func(t *testing.T) {
				atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
					b := d.browser()
					time.Sleep(minute)
					late := b.replay(b.cookie())
					d.expect(late, "before") // gets a key, and its response is slow
					time.Sleep(11 * second)
					d.expect(b, "before") // gets a newer one
					begun, again := make(chan struct{}), b.replay(b.cookie())
					if fails {
						d.spy.hook(failing("Save", errDown))
					}
					var all sync.WaitGroup
					all.Go(func() {
						d.do(b.replay(b.cookie()), func(s *session.Session) {
							s.User()
							close(begun)
							time.Sleep(3 * second)
							atEnd(d, s)
						})
					})
					<-begun
					d.spy.hook(nil)
					time.Sleep(second)
					d.expect(late, "before")
					all.Wait()
					d.expect(again, "before") // sent once more by a proxy
					for range 30 {
						d.expect(late, "before")
						time.Sleep(3 * second)
					}
				})
			})
		}
	}
}

// Promise 3. A key of a Login that arrives late is presented by a request that takes
// longer than the key has left: it is presented nevertheless.
func TestLateKeyOfASlowRequest(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		late := b.replay(b.cookie())
		d.do(late, func(s *session.Session) { s.Login("alice") })
		d.do(b, func(s *session.Session) { s.Login("alice") })
		d.expect(b, "before") // ends the late key, a minute after it was issued
		time.Sleep(50 * second)
		begun := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			d.do(late.replay(late.cookie()), func(s *session.Session) {
				s.User()
				close(begun)
				time.Sleep(minute)
			})
		})
		<-begun
		time.Sleep(20 * second)
		d.expect(late, "before")
		all.Wait()
		d.expect(late, "before")
	})
}

// A renewal whose outcome is unknown, and whose session gives its place to another before
// the Reload that would find out, sets no cookie: the browser has a newer one. A store
// that fails afterwards cannot say so once more.
func TestUnknownRenewalOfASessionThatIsReplaced(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		other := b.replay(b.cookie())
		h := d.m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Renew()
			d.spy.hook(func(_ context.Context, call, _ string) error {
				if call == "Save" {
					return session.ErrIndeterminate // and it was not applied
				}
				return errDown
			})
			if err := s.Save(r.Context()); !errors.Is(err, session.ErrIndeterminate) {
				t.Errorf("Save: %v", err)
			}
			d.spy.hook(nil)
			d.do(other, func(s *session.Session) { s.Login("bob") })
			if err := s.Reload(r.Context()); err != session.ErrReplaced {
				t.Errorf("Reload: %v", err)
			}
			d.spy.down.Store(true)
		}})
		if resp := (&browser{t, h, b.jar}).get("/"); setsCookie(resp) {
			t.Errorf("it sets a cookie: %v", resp.Header["Set-Cookie"])
		}
	})
}

// A Save renews the token by its age, and another request logs in before the response.
// If the store then cannot say whether that cookie is still the newest it does not leave:
// the browser has one that is as good, or better.
func TestCookieOfAnAutomaticRenewalInAnOutage(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		b := d.browser()
		time.Sleep(minute)
		h := d.m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			d.do(b, func(s *session.Session) { s.Login("alice") })
			d.spy.down.Store(true)
		}})
		if resp := (&browser{t, h, b.jar}).get("/"); setsCookie(resp) || resp.StatusCode != http.StatusOK {
			t.Errorf("%s, cookies %v", resp.Status, resp.Cookies())
		}
		d.spy.down.Store(false)
		time.Sleep(minute)
		d.expect(b, "before")
	})
}

// An attacker asks for a key each second while a slow request presents the one that the
// owner has got. It was presented as the request arrived: it is not among those that are
// forgotten, and the attacker's ends ten seconds later.
func TestSlowRequestUnderAttack(t *testing.T) {
	for _, newer := range []int{0, 20} { // keys that the attacker has got before that
		t.Run(fmt.Sprint("newer keys: ", newer), func(t *testing.T) {
			atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
				owner := d.browser()
				thief := owner.replay(owner.cookie())
				time.Sleep(minute)
				d.expect(owner, "before") // gets a key
				asks := func(n int) {
					for range n {
						time.Sleep(1100 * time.Millisecond)
						d.do(thief.replay(thief.cookie()), func(s *session.Session) { s.User() })
					}
				}
				asks(newer)
				begun := make(chan struct{})
				var all sync.WaitGroup
				all.Go(func() {
					d.do(owner.replay(owner.cookie()), func(s *session.Session) {
						s.User()
						close(begun)
						time.Sleep(2 * minute)
					})
				})
				<-begun
				asks(9)
				d.expect(thief.replay(thief.cookie()), "before")
				asks(1)
				d.expectReplaced(thief)
				asks(90)
				all.Wait()
				d.expect(owner, "before")
			})
		})
	}
}

// Promise 3. Another request writes the session while a slow one notes that it has
// presented a key: the key is noted nevertheless, unless the session has ended.
func TestKeyIsNotedBesideOtherWrites(t *testing.T) {
	for how, meanwhile := range map[string]func(s *session.Session){
		"a change": func(s *session.Session) { visits.Set(s, 1) },
		"a Logout": func(s *session.Session) { s.Logout() },
	} {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
				b := d.browser()
				time.Sleep(minute)
				old := b.replay(b.cookie())
				d.expect(b, "before") // gets a key
				other := old.replay(old.cookie())
				d.spy.hook(once(d.spy, "Save", func(context.Context) { d.do(other, meanwhile) }))
				d.do(b, func(s *session.Session) {
					isIn := s.User() == "alice" && name.Get(s) == "before" && visits.Get(s) == 1
					if isEnded := how == "a Logout"; isIn == isEnded || s.Ended() != isEnded || s.Err() != nil {
						t.Errorf("in as %q, Ended: %v, Err: %v", s.User(), s.Ended(), s.Err())
					}
					if time.Sleep(10 * second); isIn {
						d.expectReplaced(old)
					}
				})
			})
		})
	}
}

// Promise 3. A slow request has presented the key of a Login when another Login of the
// user replaces that. The Renew of the slow request does nothing, and its client is not
// the one that has the newer key.
func TestSlowRequestRenewsAfterALogin(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		other := b.replay(b.cookie())
		d.do(b, func(s *session.Session) { s.Login("alice") })
		if d.do(b.replay(b.cookie()), func(s *session.Session) {
			s.User()
			d.do(other, func(s *session.Session) { s.Login("alice") })
			s.Renew()
		}) {
			t.Error("the Renew makes a key")
		}
		time.Sleep(11 * second)
		d.expect(other, "before")
	})
}

// Promise 3. A response that brings the key of an automatic renewal is slow and
// overwrites a newer one that was presented. The request that brings it gets
// another, and the key that it has overtaken gets no other and ends.
func TestSlowResponseOfAnAutomaticRenewal(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		b := d.browser()
		time.Sleep(minute)
		slow := b.replay(b.cookie())
		d.expect(slow, "before") // K1 is issued
		time.Sleep(11 * time.Second)
		if !d.do(b, func(s *session.Session) { s.User() }) {
			t.Fatal("no second key")
		}
		d.expect(b, "before") // K2 is presented
		time.Sleep(time.Second)
		d.expect(slow, "before") // K1 is presented
		overtaken := b.replay(b.cookie())
		for i := range 30 {
			time.Sleep(2 * time.Second)
			held := slow.cookie()
			d.expect(slow, "before")
			if i < 4 && slow.cookie() != held {
				t.Errorf("another key %v after the last", time.Duration(2*i+3)*time.Second)
			}
			if i < 5 {
				if d.do(overtaken, func(s *session.Session) { s.User() }) {
					t.Error("the overtaken key gets another")
				}
			}
		}
		d.expectReplaced(overtaken)
		if n := d.log.count(session.EventReplayed); n != 1 {
			t.Errorf("%d times EventReplayed", n)
		}
	})
}

// A presented key that was overtaken gets no other, while the one that overtook it
// gets as many as are lost.
func TestOvertakenKeyGetsNoOther(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		read := func(s *session.Session) { s.User() }
		b := d.browser()
		time.Sleep(minute)
		slow := b.replay(b.cookie())
		d.do(slow, read)
		time.Sleep(11 * time.Second)
		d.do(b, read)
		d.expect(b, "before")
		d.expect(slow, "before") // has overtaken b's key
		late := slow.cookie()
		for i := range 3 {
			time.Sleep(11 * time.Second)
			if lost := slow.replay(late); !d.do(lost, read) {
				t.Errorf("no key number %d for the request that brings the late one", i+1)
			}
			time.Sleep(11 * time.Second)
			if d.do(b.replay(b.cookie()), read) {
				t.Error("the overtaken key gets another")
			}
		}
		d.expect(b, "before")
		d.expect(slow, "before")
		d.expect(slow, "before")
		d.expectReplacedAfter(b, 10*second)
	})
}

// Promise 3. A request that has presented a key gets no other if an older one, whose
// response was slow, was presented while it was in flight: the client has that now.
func TestOvertakenRequestGetsNoKey(t *testing.T) {
	change := func(s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) }
	for how, begin := range map[string]func(d *desk, b *browser) (late *browser){
		"automatic renewals": func(d *desk, b *browser) *browser {
			time.Sleep(minute)
			late := b.replay(b.cookie())
			d.expect(late, "before")
			time.Sleep(11 * second)
			d.expect(b, "before")
			return late
		},
		"Logins": func(d *desk, b *browser) *browser {
			late := b.replay(b.cookie())
			d.do(late, func(s *session.Session) { s.Login("alice") })
			d.do(b, func(s *session.Session) { s.Login("alice") })
			return late
		},
	} {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
				b := d.browser()
				late := begin(d, b)
				if d.do(b.replay(b.cookie()), func(s *session.Session) {
					s.User()
					time.Sleep(second)
					d.expect(late, "before")
					time.Sleep(2 * minute)
					change(s)
				}) {
					t.Error("the overtaken key gets another")
				}
				d.expect(late, "before")
			})
		})
	}
}

// Promise 3. Of three keys whose responses were slow the second was presented, and then
// the first, which gets another. The second, which was not the newest, gets no other.
func TestOvertakenKeyThatIsNotTheNewest(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		read := func(s *session.Session) { s.User() }
		b := d.browser()
		time.Sleep(minute)
		var late []*browser
		for range 3 {
			time.Sleep(11 * second)
			late = append(late, b.replay(b.cookie()))
			if !d.do(late[len(late)-1], read) {
				t.Fatal("no key")
			}
		}
		d.expect(late[1].replay(late[1].cookie()), "before")
		time.Sleep(11 * second)
		if !d.do(late[0], read) {
			t.Fatal("the late key gets no other")
		}
		for range 3 {
			time.Sleep(11 * second)
			if d.do(late[1].replay(late[1].cookie()), read) {
				t.Error("the overtaken key gets another")
			}
		}
		d.expect(late[0], "before")
		d.expectReplacedAfter(late[1], 10*second)
	})
}

// The same over net/http: a report writes its first line, which renews, and works for
// 15 seconds, while the page polls.
func TestSlowReportRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Options{RenewAfter: minute})
		started := make(chan bool)
		h := m.Handler(routes{
			"/login": clockRoutes["/login"],
			"/poll":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.User()) },
			"/report": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				fmt.Fprintln(w, s.User())
				close(started)
				time.Sleep(15 * second)
			},
		})
		b := newBrowser(t, h)
		b.get("/login")
		time.Sleep(minute)
		slow := b.replay(b.cookie()) // whose response arrives when the report is done
		done := make(chan *http.Response)
		go func() { done <- slow.get("/report") }()
		<-started
		for i := range 20 {
			if i == 8 {
				b.jar.SetCookies(origin, (<-done).Cookies())
			}
			time.Sleep(2 * second)
			if got := body(b.get("/poll")); got != "alice" {
				t.Errorf("%d s after the report began the poll is answered as %q", 2*(i+1), got)
			}
		}
	})
}

// Promise 3. The request that makes the key of an automatic renewal does not present
// it, whatever it saves later: if its response is lost, the previous key stays good.
func TestRequestDoesNotPresentItsOwnKey(t *testing.T) {
	for how, h := range map[string]func(d *desk, w http.ResponseWriter, r *http.Request, s *session.Session, meanwhile func()){
		"a late change": func(d *desk, w http.ResponseWriter, r *http.Request, s *session.Session, meanwhile func()) {
			fmt.Fprint(w, s.User())
			meanwhile()
			visits.Update(s, func(n int) int { return n + 1 })
		},
		"a late change alone": func(d *desk, w http.ResponseWriter, r *http.Request, s *session.Session, meanwhile func()) {
			fmt.Fprint(w, s.User())
			visits.Update(s, func(n int) int { return n + 1 })
		},
		"an early Save": func(d *desk, w http.ResponseWriter, r *http.Request, s *session.Session, meanwhile func()) {
			s.User()
			s.Save(r.Context())
			meanwhile()
			visits.Update(s, func(n int) int { return n + 1 })
		},
		"two Saves": func(d *desk, w http.ResponseWriter, r *http.Request, s *session.Session, meanwhile func()) {
			s.User()
			s.Save(r.Context())
			visits.Update(s, func(n int) int { return n + 1 })
			s.Save(r.Context())
		},
		"a Refresh": func(d *desk, w http.ResponseWriter, r *http.Request, s *session.Session, meanwhile func()) {
			grants.Refresh(r.Context(), s, grant.fresh, func(context.Context, grant) (grant, error) {
				meanwhile()
				return grant{1, time.Now().Add(time.Hour)}, nil
			})
		},
		"a Reload": func(d *desk, w http.ResponseWriter, r *http.Request, s *session.Session, meanwhile func()) {
			s.User()
			s.Save(r.Context())
			s.Reload(r.Context())
		},
		"a Reload after an unknown outcome": func(d *desk, w http.ResponseWriter, r *http.Request, s *session.Session, meanwhile func()) {
			s.User()
			d.spy.after = lost("Save")
			d.spy.hook(failing("Load", errDown))
			s.Save(r.Context())
			d.spy.after = nil
			d.spy.hook(nil)
			s.Reload(r.Context())
			visits.Update(s, func(n int) int { return n + 1 })
		},
	} {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
				b := d.browser()
				time.Sleep(minute)
				lost := newBrowser(t, d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					h(d, w, r, session.From(r.Context()), func() {
						d.do(b, func(s *session.Session) { name.Set(s, "after") })
					})
				}))).replay(b.cookie())
				if !setsCookie(lost.get("/")) { // and its response is lost
					t.Fatal("no automatic renewal")
				}
				time.Sleep(11 * time.Second)
				d.do(b, func(s *session.Session) {
					if s.User() != "alice" {
						t.Errorf("the response was lost, and 11 s later the browser is %q: %v", s.User(), s.Err())
					}
				})
			})
		})
	}
}

// Promise 3. The old token may do all that the new one may: also renew, when
// both go the way of a renewal that was asked for, and sign out.
func TestOldTokenIsGoodWithoutRestriction(t *testing.T) {
	for _, come := range []bool{true, false} { // has the new one?
		for how, ask := range asks {
			t.Run(fmt.Sprint(how, " come=", come), func(t *testing.T) {
				atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
					b := d.browser()
					time.Sleep(minute)
					old := b.replay(b.cookie())
					d.expect(b, "before")
					if come {
						d.expect(b, "before")
					}
					same := b.replay(old.cookie()) // another of twenty requests at once
					if !d.do(old, func(s *session.Session) { ask(s); name.Set(s, "after") }) {
						t.Fatal("no cookie")
					}
					d.expect(b, "before")
					d.expect(same, "before")
					time.Sleep(10 * time.Second)
					d.expectReplaced(b)
					d.expectReplaced(same)
					d.expect(old, "after")
				})
			})
		}
		atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
			b := d.browser()
			time.Sleep(minute)
			old := b.replay(b.cookie())
			d.expect(b, "before")
			if come {
				d.expect(b, "before")
			}
			if !d.do(old, func(s *session.Session) { s.Logout() }) || old.cookie() != "" {
				t.Error("no deletion")
			}
			d.do(b, func(s *session.Session) {
				if s.User() != "" {
					t.Error("still in")
				}
			})
		})
	}
}

// By age only what a cookie can leave for, and only who is logged in.
func TestNoRenewalByAge(t *testing.T) {
	for what, o := range map[string]session.Options{"anonymous": {RenewAfter: minute}, "not asked for": {}, "after the first byte": {RenewAfter: minute}, "not used": {RenewAfter: minute}} {
		t.Run(what, func(t *testing.T) {
			var log events
			o.OnEvent = log.on
			inBubble(t, o, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(routes{"/login": clockRoutes["/login"], "/set": clockRoutes["/set"],
					"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						switch what {
						case "not used":
							return
						case "after the first byte":
							fmt.Fprint(w, "first byte")
						}
						name.Get(s)
						visits.Update(s, func(n int) int { return n + 1 })
					}}))
				if b.get("/set"); what != "anonymous" {
					b.get("/login")
				}
				for range 5 {
					time.Sleep(2 * minute)
					if setsCookie(b.get("/look")) || log.count(session.EventRenewed) > 0 {
						t.Error("a renewal")
					}
				}
			})
		})
	}
}

// Promise 3. A request keeps the session that it loaded, however long it lasts:
// over renewals by age it sees what is new; over one that was asked for it sees
// what it saw, and what it changes is kept, also after the ten seconds.
func TestLongRequest(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		b := d.browser()
		ctx := t.Context()
		slow := b.replay(b.cookie())
		h := d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.User()
			for i := range 4 { // by age, all used
				time.Sleep(minute)
				value := fmt.Sprint("by age ", i)
				if !d.do(b, func(s *session.Session) { name.Set(s, value) }) {
					t.Error("no renewal by age")
				}
				d.expect(b, value)
				time.Sleep(11 * time.Second)
				if err := s.Reload(ctx); err != nil || name.Get(s) != value || s.User() != "alice" {
					t.Errorf("Reload: %v; reads %q, want %q", err, name.Get(s), value)
				}
				visits.Update(s, func(n int) int { return n + 1 })
				if err := s.Save(ctx); err != nil || s.User() != "alice" {
					t.Errorf("Save: %v", err)
				}
			}
			d.do(b, func(s *session.Session) { s.Renew(); name.Set(s, "asked") })
			time.Sleep(minute)
			visits.Update(s, func(n int) int { return n + 1 })
			if err := s.Save(ctx); err != nil || name.Get(s) != "by age 3" || s.User() != "alice" || visits.Get(s) != 5 {
				t.Errorf("Save: %v; reads %q", err, name.Get(s))
			}
			if err := s.Reload(ctx); err != session.ErrReplaced || s.User() != "" || s.Err() != session.ErrReplaced {
				t.Errorf("Reload: %v; in as %q", err, s.User())
			}
			if n := d.log.count(session.EventReplayed); n != 0 {
				t.Errorf("%d times EventReplayed: a Reload is no replay", n)
			}
		}))
		if resp := newBrowser(t, h).replay(slow.cookie()).get("/"); resp.StatusCode != 200 || setsCookie(resp) {
			t.Error(resp.Status, resp.Header)
		}
		d.do(b, func(s *session.Session) {
			if name.Get(s) != "asked" || visits.Get(s) != 5 {
				t.Errorf("kept: %q, %d", name.Get(s), visits.Get(s))
			}
		})
	})
}

// A Reload treats the token as any request with it, if somebody asked for a
// renewal since.
func TestReloadAfterARenewalThatWasAskedFor(t *testing.T) {
	for how, ask := range asks {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			d.do(b.replay(b.cookie()), func(s *session.Session) {
				s.User()
				d.do(b, func(s *session.Session) { ask(s); name.Set(s, "after") })
				if err := s.Reload(t.Context()); err != nil || s.User() != "alice" || name.Get(s) != "before" {
					t.Errorf("%s: Reload at once: %v, in as %q, reads %q", how, err, s.User(), name.Get(s))
				}
				time.Sleep(10 * time.Second)
				for range 2 {
					if err := s.Reload(t.Context()); err != session.ErrReplaced || s.User() != "" || name.Get(s) != "" {
						t.Errorf("%s: Reload later: %v, in as %q, reads %q", how, err, s.User(), name.Get(s))
					}
				}
			})
			d.expect(b, "after")
		})
	}
}

// A request that saved a renewal and then takes its time sends no cookie if the
// browser has, or may have, a newer one by then.
func TestRenewalThatWasSavedEarly(t *testing.T) {
	for what, c := range map[string]struct {
		early     func(s *session.Session)
		meanwhile func(d *desk, old *browser)
		sends     bool
	}{
		"nothing happens": {func(s *session.Session) { s.Renew() }, func(*desk, *browser) {}, true},
		"a change":        {func(s *session.Session) { s.Renew() }, func(d *desk, old *browser) { d.do(old, func(s *session.Session) { visits.Set(s, 1) }) }, true},
		"another user":    {func(s *session.Session) { s.Renew() }, func(d *desk, old *browser) { d.do(old, func(s *session.Session) { s.Login("bob") }) }, false},
		"a logout":        {func(s *session.Session) { s.Renew() }, func(d *desk, old *browser) { d.do(old, func(s *session.Session) { s.Logout() }) }, false},
		"a renewal by age": {func(s *session.Session) {}, func(d *desk, old *browser) {
			time.Sleep(11 * time.Second)
			d.expect(old, "before")
			d.expect(old, "before")
		}, false},
		"nothing, by age":   {func(s *session.Session) {}, func(*desk, *browser) { time.Sleep(minute / 2) }, true},
		"a login elsewhere": {func(s *session.Session) { s.Login("alice") }, func(d *desk, _ *browser) { d.browser() }, true},

		// A Login's key keeps full access, whatever keys other Logins make.
		"a login in another tab": {func(s *session.Session) { s.Login("alice") }, func(d *desk, old *browser) {
			d.do(old, func(s *session.Session) { s.Login("alice") })
		}, true},
		"a login in another tab, whose key is presented": {func(s *session.Session) { s.Login("alice") }, func(d *desk, old *browser) {
			d.do(old, func(s *session.Session) { s.Login("alice") })
			time.Sleep(minute - time.Millisecond)
			d.expect(old, "before")
		}, true},
		"a login in another tab, whose key was presented a minute ago": {func(s *session.Session) { s.Login("alice") }, func(d *desk, old *browser) {
			d.do(old, func(s *session.Session) { s.Login("alice") })
			d.expect(old, "before")
			time.Sleep(minute)
		}, false},
		"a login in another tab, whose key is renewed": {func(s *session.Session) { s.Login("alice") }, func(d *desk, old *browser) {
			d.do(old, func(s *session.Session) { s.Login("alice") })
			d.do(old, func(s *session.Session) { s.Renew() })
		}, false},
		"a login after a renewal": {func(s *session.Session) { s.Renew() }, func(d *desk, old *browser) {
			d.do(old, func(s *session.Session) { s.Login("alice") })
		}, false},
		"a login after a renewal by age": {func(s *session.Session) {}, func(d *desk, old *browser) {
			d.do(old, func(s *session.Session) { s.Login("alice") })
		}, false},
	} {
		for how, save := range map[string]func(d *desk, s *session.Session) error{
			"by Save": func(d *desk, s *session.Session) error { return s.Save(t.Context()) },
			"by a Save whose outcome only a Reload knows": func(d *desk, s *session.Session) error {
				d.spy.hook(failing("Load", errDown))
				d.spy.hookAfter(lost("Save"))
				s.Save(t.Context())
				d.spy.hook(nil)
				d.spy.hookAfter(nil)
				return s.Reload(t.Context())
			},
		} {
			t.Run(what+", "+how, func(t *testing.T) {
				atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
					b := d.browser()
					time.Sleep(minute)
					old := b.replay(b.cookie())
					if got := d.do(b, func(s *session.Session) {
						c.early(s)
						s.User()
						if err := save(d, s); err != nil {
							t.Error(err)
						}
						c.meanwhile(d, old)
					}); got != c.sends {
						t.Errorf("a cookie: %v", got)
					}
					if c.sends {
						d.expect(b, "before")
					}
				})
			})
		}
	}
}

// Promise 3. A request saves, which renews its token by age, and then logs in. Another
// tab logs in while the store answers that Login. Both responses bring a token.
func TestLoginsInTwoTabsAfterASave(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		b := d.browser()
		time.Sleep(minute)
		tab := b.replay(b.cookie())
		if !d.do(b, func(s *session.Session) {
			s.User()
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
			s.Login("alice")
			d.spy.hookAfter(func(_ context.Context, call, _ string, err error) error {
				if call == "Save" {
					d.spy.hookAfter(nil)
					if !d.do(tab, func(s *session.Session) { s.Login("alice") }) {
						t.Error("no cookie for the Login of the other tab")
					}
				}
				return err
			})
		}) {
			t.Error("no cookie for the Login")
		}
		time.Sleep(minute - time.Millisecond)
		d.expect(b, "before")
		d.expect(tab, "before")
	})
}

// Promise 3. A long request whose key was replaced by age, and has ended, keeps its
// session. Its Login makes a key, and a Remember beside it works; alone its Renew or
// Remember is dropped, and reported. While its key is still accepted all three work.
func TestLongRequestAsksForARenewal(t *testing.T) {
	for how, ask := range map[string]func(s *session.Session){
		"Renew": asks["Renew"], "Remember": asks["Remember"], "Login": asks["Login again"],
		"Login and Remember": func(s *session.Session) { s.Login("alice"); s.Remember(30 * day) },
	} {
		for _, saves := range []bool{true, false} {
			for _, wait := range []time.Duration{9 * second, 11 * second} {
				t.Run(fmt.Sprint(how, " after ", wait, ", saves: ", saves), func(t *testing.T) {
					atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
						b := d.browser()
						slow := b.replay(b.cookie())
						isLogin := strings.HasPrefix(how, "Login")
						works := isLogin || wait < 10*second
						sets := d.do(slow, func(s *session.Session) {
							s.User()
							time.Sleep(minute)
							d.expect(b, "before")
							d.expect(b, "before")
							time.Sleep(wait)
							ask(s)
							name.Set(s, "after")
							if saves {
								if err := s.Save(t.Context()); (err == nil) != works {
									t.Errorf("Save: %v", err)
								}
							}
						})
						if sets != works || d.log.count(session.EventDropped) == 0 != works {
							t.Errorf("sets a cookie: %v, %d times EventDropped", sets, d.log.count(session.EventDropped))
						}
						last := b
						if works {
							d.expect(b, "before")
							last = slow
						}
						time.Sleep(11 * time.Second)
						d.expect(last, "after")
						d.do(last, func(s *session.Session) {
							remembered := time.Until(s.Expires()) > 29*day
							if want := works && strings.Contains(how, "Remember"); remembered != want {
								t.Errorf("expires at %v", s.Expires())
							}
						})
						if works {
							d.expectReplaced(b)
						}
					})
				})
			}
		}
	}
}

// A renewal by age that meets a newer record, which is no renewal, still is one.
func TestRenewalByAgeMeetsAChange(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		b := d.browser()
		all, err := d.m.List(t.Context(), "alice")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		time.Sleep(minute)
		d.spy.hook(once(d.spy, "Save", func(ctx context.Context) {
			if err := d.m.Edit(ctx, "alice", all[0].ID, func(s *session.Session) { name.Set(s, "edited") }); err != nil {
				t.Error(err)
			}
		}))
		if !d.do(b, func(s *session.Session) { s.User() }) {
			t.Error("no new cookie")
		}
		d.expect(b, "edited")
	})
}

// A token that was replaced has no power over the session, not even to end it.
func TestReplacedTokenLogsOut(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		d.do(b, func(s *session.Session) { s.Renew() })
		time.Sleep(10 * time.Second)
		if d.do(old, func(s *session.Session) { s.Logout(); name.Set(s, "new") }) {
			t.Error("it sets a cookie")
		}
		d.expect(b, "before")
		d.expectReplaced(old)
	})
}

// The README's recipe: a replayed token signs out both thief and owner.
func TestReplayedTokenSignsOut(t *testing.T) {
	var m *session.Manager
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, _ *session.Manager) {
		m = newManager(t, session.Options{Store: spy, OnEvent: func(ctx context.Context, e session.Event) {
			if e.Kind == session.EventReplayed && e.User != "" {
				m.Revoke(ctx, e.User, e.ID)
			}
		}})
		b := newBrowser(t, m.Handler(clockRoutes))
		b.get("/login")
		thief := b.replay(b.cookie())
		b.get("/renew")
		time.Sleep(11 * time.Second)
		if got := body(b.get("/look")); got != "alice" {
			t.Fatalf("in as %q", got)
		}
		thief.get("/look")
		if got := body(b.get("/look")); got != "" {
			t.Errorf("the owner is still in as %q", got)
		}
	})
}

// A renewal whose Save was applied, or not, and nobody knows: the record tells,
// at once or by a Reload. Nobody is signed out by it.
func TestIndeterminateRenewal(t *testing.T) {
	for how, ask := range asks {
		for _, applied := range []bool{true, false} {
			for _, loads := range []bool{true, false} { // the store, after it
				t.Run(fmt.Sprint(how, " applied=", applied, " loads=", loads), func(t *testing.T) {
					atDesk(t, session.Options{}, func(d *desk) {
						b := d.browser()
						h := d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							s := session.From(r.Context())
							ask(s)
							visits.Update(s, func(n int) int { return n + 1 })
							d.spy.hook(func(_ context.Context, call, _ string) error {
								if call == "Save" && !applied {
									return session.ErrIndeterminate
								}
								if call == "Load" && !loads {
									return errDown
								}
								return nil
							})
							if applied {
								d.spy.after = lost("Save")
							}
							err := s.Save(r.Context())
							d.spy.hook(nil)
							d.spy.after = nil
							if known := applied && loads; known != (err == nil) || !known && !errors.Is(err, session.ErrIndeterminate) {
								t.Errorf("Save: %v", err)
							}
							if err := s.Reload(r.Context()); err != nil || s.User() != "alice" {
								t.Errorf("Reload: %v, in as %q", err, s.User())
							}
						}))
						held := b.cookie()
						b.h = h
						if resp := b.get("/"); resp.StatusCode != 200 || setsCookie(resp) != applied || (b.cookie() != held) != applied {
							t.Errorf("%s, a cookie: %v", resp.Status, setsCookie(resp))
						}
						time.Sleep(11 * time.Second)
						b.h = d.m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
							if got := visits.Get(s); s.User() != "alice" || (got == 1) != applied {
								t.Errorf("in as %q, %d visits", s.User(), got)
							}
						}})
						b.get("/")
					})
				})
			}
		}
	}
}

// The answer of the store to a Login is lost, and another tab logs in before the store is
// asked what became of the first Login. The record has both keys: both Logins are answered.
func TestIndeterminateLoginAndAnother(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		tab := b.replay(b.cookie())
		if !d.do(b, func(s *session.Session) {
			s.Login("alice")
			visits.Update(s, func(n int) int { return n + 1 })
			d.spy.hookAfter(func(_ context.Context, call, _ string, err error) error {
				if call != "Save" {
					return err
				}
				d.spy.hookAfter(nil)
				d.do(tab, func(s *session.Session) {
					s.Login("alice")
					visits.Update(s, func(n int) int { return n + 1 })
				})
				return session.ErrIndeterminate
			})
		}) {
			t.Error("no cookie")
		}
		for _, b := range []*browser{b, tab} {
			d.expect(b, "before")
			d.do(b, func(s *session.Session) {
				if got := visits.Get(s); got != 2 {
					t.Errorf("%d visits, want 2", got)
				}
			})
		}
	})
}

// What nobody asked for fails no request: neither a renewal by age nor the note
// that the new token has come.
func TestFailingUpkeepIsAnEvent(t *testing.T) {
	for _, cause := range []error{errDown, session.ErrIndeterminate} {
		atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
			b := d.browser()
			time.Sleep(minute)
			old := b.replay(b.cookie())
			for _, what := range []string{"renewal by age", "first use"} {
				d.spy.hook(failing("Save", cause))
				if d.do(b, func(s *session.Session) {
					if s.User() != "alice" || s.Err() != nil {
						t.Errorf("in as %q, Err: %v", s.User(), s.Err())
					}
				}) {
					t.Errorf("%s: a cookie of a token that was not stored", what)
				}
				d.spy.hook(nil)
				if e := d.log.last(session.EventStoreFailed); !errors.Is(e.Err, cause) || e.User != "alice" {
					t.Errorf("%s: event %+v", what, e)
				}
				d.expect(b, "before")
				d.expect(old, "before")
			}
		})
	}
}

// Promises 3 and 11. A request whose changes cannot be stored, although the store does not
// fail, presents its key and uses the session like any other. Its response brings another
// key if that is due, unless the header has left or ErrorHandler answers.
func TestRequestWhoseChangesAreRefused(t *testing.T) {
	tooLarge := func(s *session.Session) { visits.Set(s, 1) } // the session is full
	notJSON := func(s *session.Session) { session.NewKey[any]("bad").Set(s, func() {}) }
	for what, c := range map[string]struct {
		f      func(w http.ResponseWriter, s *session.Session)
		status int
		renews bool
	}{
		"too large":       {func(_ http.ResponseWriter, s *session.Session) { tooLarge(s) }, 500, false},
		"too large, Save": {func(_ http.ResponseWriter, s *session.Session) { tooLarge(s); _ = s.Save(t.Context()) }, 200, true},
		"too large, UpdateNow": {func(_ http.ResponseWriter, s *session.Session) {
			_, _ = visits.UpdateNow(t.Context(), s, func(int) int { return 1 })
		}, 200, true},
		"too large, late": {func(w http.ResponseWriter, s *session.Session) { w.WriteHeader(200); tooLarge(s) }, 200, false},
		"too large, late Save": {func(w http.ResponseWriter, s *session.Session) {
			w.WriteHeader(200)
			tooLarge(s)
			_ = s.Save(t.Context())
		}, 200, false},
		"no JSON":                {func(_ http.ResponseWriter, s *session.Session) { notJSON(s) }, 500, false},
		"no JSON, Save":          {func(_ http.ResponseWriter, s *session.Session) { notJSON(s); _ = s.Save(t.Context()) }, 200, true},
		"no JSON, late":          {func(w http.ResponseWriter, s *session.Session) { w.WriteHeader(200); notJSON(s) }, 200, false},
		"the user's name":        {func(_ http.ResponseWriter, s *session.Session) { s.Login(strings.Repeat("x", 2000)) }, 500, false},
		"another user too large": {func(_ http.ResponseWriter, s *session.Session) { s.Login("bob"); name.Set(s, strings.Repeat("x", 50)) }, 500, false},
	} {
		t.Run(what, func(t *testing.T) {
			atDesk(t, session.Options{RenewAfter: 5 * minute, MaxDataSize: len(`"name":"before"`) + 5}, func(d *desk) {
				b := d.browser()
				refusing := newBrowser(t, d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.f(w, session.From(r.Context())) })))
				refusing.jar = b.jar
				refused := func() (isRenewed bool) {
					t.Helper()
					resp := refusing.get("/")
					if resp.StatusCode != c.status {
						t.Errorf("answers %s", resp.Status)
					}
					return setsCookie(resp)
				}
				time.Sleep(5 * minute)
				old := b.replay(b.cookie())
				d.expect(b, "before") // gets a key
				refused()             // presents it
				time.Sleep(10 * second)
				d.expectReplaced(old)
				time.Sleep(5 * minute)
				if got := refused(); got != c.renews {
					t.Errorf("another key: %v, want %v", got, c.renews)
				}
				d.expect(b, "before")
				time.Sleep(9 * minute)
				refused()
				time.Sleep(19 * minute)
				d.expect(b, "before")
			})
		})
	}
}

// None of what a record knows of its keys counts against MaxDataSize, nor is it
// among the keys of the values, and Clear leaves it.
func TestKeysAreNoValues(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute, MaxDataSize: 40}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		d.do(b, func(s *session.Session) { s.Renew() })
		d.do(b, func(s *session.Session) { s.Renew() })
		time.Sleep(minute)
		d.expect(b, "before")
		d.do(b, func(s *session.Session) {
			if keys := s.Names(); len(keys) != 1 {
				t.Errorf("keys %q", keys)
			}
			s.Clear()
			name.Set(s, "0123456789")
		})
		d.expect(b, "0123456789")
		d.expectReplaced(old)
	})
}

// Promise 3. RenewGrace is for how long the previous token shows the session as it
// was. If it is negative a request that loads afterwards has none, and one that had
// loaded keeps its session.
func TestRenewGrace(t *testing.T) {
	for _, grace := range []time.Duration{time.Millisecond, 30 * second, minute, -1, -time.Hour} {
		for how, ask := range asks {
			t.Run(fmt.Sprint(how, " ", grace), func(t *testing.T) {
				atDesk(t, session.Options{RenewGrace: grace}, func(d *desk) {
					b := d.browser()
					old := b.replay(b.cookie())
					d.do(old, func(s *session.Session) {
						s.User()
						d.do(b, func(s *session.Session) { ask(s); name.Set(s, "after") })
						time.Sleep(max(grace, 0))
						visits.Set(s, 1)
						if err := s.Save(t.Context()); err != nil || s.User() != "alice" || name.Get(s) != "before" {
							t.Errorf("Save of a request that had loaded: %v, in as %q, reads %q", err, s.User(), name.Get(s))
						}
					})
					d.expectReplaced(old)
					d.do(b, func(s *session.Session) { ask(s); name.Set(s, "once more") })
					last := b.replay(b.cookie())
					d.do(b, func(s *session.Session) { s.Renew() })
					if grace < 0 {
						d.expectReplaced(last)
						return
					}
					time.Sleep(grace - time.Millisecond)
					d.expect(last, "once more")
					time.Sleep(time.Millisecond)
					d.expectReplaced(last)
				})
			})
		}
	}
}

// What a renewal keeps of keys and values is removed by one save when it has ended a
// minute before and the session is used, and by no save before that: a process
// whose clock is ahead ends them for itself only.
func TestWhatARenewalKeepsIsRemoved(t *testing.T) {
	for how, renew := range map[string]func(d *desk, b *browser){
		"explicit": func(d *desk, b *browser) { d.do(b, func(s *session.Session) { s.Clear(); s.Renew() }) },
		"automatic": func(d *desk, b *browser) {
			time.Sleep(2 * minute)
			d.do(b, func(s *session.Session) { s.User() })
			d.do(b, func(s *session.Session) { s.Clear() })
		},
	} {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{RenewAfter: 2 * minute}, func(d *desk) {
				b := d.browser()
				d.do(b, func(s *session.Session) { name.Set(s, "a card number") })
				data := func() string {
					all, err := d.spy.Store.List(t.Context(), "alice")
					if err != nil || len(all) != 1 {
						t.Fatal(all, err)
					}
					return string(all[0].Data)
				}
				renew(d, b)
				kept := func(data string) bool { return strings.Contains(data, `"until"`) }
				if !kept(data()) {
					t.Fatalf("keeps nothing: %s", data())
				}
				time.Sleep(70*second - time.Millisecond)
				d.do(b, func(s *session.Session) { visits.Set(s, 1) })
				if !kept(data()) {
					t.Errorf("removed within a minute after its end: %s", data())
				}
				time.Sleep(time.Millisecond)
				saves := d.spy.count("Save")
				for range 3 {
					d.do(b, func(s *session.Session) { s.User() })
				}
				if got := data(); kept(got) || strings.Contains(got, "card") {
					t.Errorf("a minute after its end: %s", got)
				}
				if n := d.spy.count("Save") - saves; n != 1 {
					t.Errorf("%d saves removed it, want 1", n)
				}
			})
		})
	}
}

// Promise 3. Every token in a request whose grace is over is EventReplayed, once for
// each session, whatever other cookies are there, unless one opens the same session.
func TestReplayedTokenBesideOthers(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		stolen := d.browser()
		var stale []string // two of one session
		for range 2 {
			stale = append(stale, stolen.cookie())
			d.do(stolen, func(s *session.Session) { s.Renew() })
		}
		mine, twin := d.browser(), d.browser()
		other := d.browser()
		replaced := other.cookie()
		d.do(other, func(s *session.Session) { s.Renew() })
		ended := d.browser()
		over := ended.cookie()
		d.do(ended, func(s *session.Session) { s.Logout() })
		time.Sleep(10 * second)
		d.f = func(s *session.Session) { s.User() }
		for what, c := range map[string]struct {
			cookies []string
			want    int
		}{
			"alone":                        {stale[:1], 1},
			"two of one session":           {stale, 1},
			"before a live one":            {[]string{stale[0], mine.cookie()}, 1},
			"after a live one":             {[]string{mine.cookie(), stale[0]}, 1},
			"after an ended one":           {[]string{over, stale[0]}, 1},
			"between two live ones":        {[]string{mine.cookie(), stale[0], twin.cookie()}, 1},
			"after two live ones":          {[]string{mine.cookie(), twin.cookie(), stale[0]}, 1},
			"two sessions'":                {[]string{stale[1], replaced}, 2},
			"before the one that opens it": {[]string{stale[0], stolen.cookie()}, 0},
			"after the one that opens it":  {[]string{stolen.cookie(), stale[0]}, 0},
		} {
			before := d.log.count(session.EventReplayed)
			present(stolen.h, "/", strings.Join(c.cookies, "; "))
			if n := d.log.count(session.EventReplayed) - before; n != c.want {
				t.Errorf("%s: %d times EventReplayed, want %d", what, n, c.want)
			}
		}
	})
}

// A record knows no more than a few of its older keys, however many there were
// within ten seconds.
func TestOlderKeysAreBounded(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		for range 20 {
			d.do(b, func(s *session.Session) { s.Renew() })
		}
		rs, err := d.spy.Store.List(d.t.Context(), "alice")
		if err != nil || len(rs) != 1 {
			d.t.Fatal(rs, err)
		}
		if n := strings.Count(string(rs[0].Data), `"until"`); n != 3 {
			d.t.Errorf("%d renewals are known, want 3: %s", n, rs[0].Data)
		}
	})
}

// Promise 3. A browser asks every few seconds, often several times at once; responses
// take up to 20 seconds, arrive in any order, or are lost. No automatic renewal signs
// its user out, and its key is renewed all the same.
func TestAutomaticRenewalsAtRandom(t *testing.T) {
	for seed := range uint64(200) {
		atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
			rng := rand.New(rand.NewPCG(seed, 0))
			b := d.browser()
			first := b.cookie()
			var all sync.WaitGroup
			defer all.Wait()
			began := time.Now()
			var history []string
			for time.Since(began) < 15*minute && !t.Failed() {
				time.Sleep(time.Duration(rng.IntN(10000))*time.Millisecond + 1)
				for range 1 + rng.IntN(3)*rng.IntN(2) {
					held := b.cookie()
					reads := func(s *session.Session) { s.User() }
					if rng.IntN(3) == 0 {
						reads = func(s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) }
					}
					in := ""
					d.f = func(s *session.Session) {
						reads(s)
						in = s.User()
					}
					w := httptest.NewRecorder()
					b.h.ServeHTTP(w, b.request("/"))
					delay, isLost := time.Duration(rng.IntN(20000))*time.Millisecond, rng.IntN(3) == 0
					if rng.IntN(2) == 0 {
						delay = 0
					}
					history = append(history, fmt.Sprintf("%v: with …%s as %q, sets a cookie: %v, lost %v, takes %v",
						time.Since(began), held[len(held)-6:], in, setsCookie(w.Result()), isLost, delay))
					if in != "alice" {
						for _, line := range history[max(0, len(history)-25):] {
							t.Log(line)
						}
						t.Errorf("seed %d: answered as %q", seed, in)
						return
					}
					if cookies := w.Result().Cookies(); len(cookies) > 0 && !isLost {
						all.Go(func() {
							time.Sleep(delay)
							b.jar.SetCookies(origin, cookies)
						})
					}
				}
			}
			time.Sleep(minute)
			if b.cookie() == first {
				t.Errorf("seed %d: the key was never renewed", seed)
			}
			d.expectReplaced(b.replay(first))
		})
	}
}
