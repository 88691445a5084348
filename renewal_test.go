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

// asks are the explicit renewals.
var asks = map[string]func(s *session.Session){
	"Renew":       func(s *session.Session) { s.Renew() },
	"Remember":    func(s *session.Session) { s.Remember(30 * day) },
	"Login again": func(s *session.Session) { s.Login("alice") },
}

// desk runs functions as handlers in the sessions of browsers.
type desk struct {
	t   *testing.T
	spy *spyStore
	m   *session.Manager
	log events
	f   func(s *session.Session)
}

// atDesk runs a test with a desk on a fake clock.
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

// browser returns a browser that is logged in as alice, with the name "before".
func (d *desk) browser() *browser {
	b := d.visitor()
	d.do(b, func(s *session.Session) {
		s.Login("alice")
		name.Set(s, "before")
	})
	return b
}

// do runs f as the handler of a request, and reports whether the response sets a cookie.
func (d *desk) do(b *browser, f func(s *session.Session)) (cookie bool) {
	d.t.Helper()
	d.f = f
	resp := b.get("/")
	if resp.StatusCode != 200 {
		d.t.Errorf("the status is %s", resp.Status)
	}
	return setsCookie(resp)
}

// expect fails the test unless a request of b is in as alice and reads this name.
func (d *desk) expect(b *browser, want string) {
	d.t.Helper()
	d.do(b, func(s *session.Session) {
		if got := name.Get(s); s.User() != "alice" || got != want || s.Err() != nil {
			d.t.Errorf("logged in as %q, reads %q, want %q; Err: %v", s.User(), got, want, s.Err())
		}
	})
}

// expectReplaced fails the test unless b's token has been replaced.
func (d *desk) expectReplaced(b *browser) {
	d.t.Helper()
	d.do(b, func(s *session.Session) {
		if s.User() != "" || s.ID() != "" || name.Get(s) != "" || s.Err() != session.ErrReplaced {
			d.t.Errorf("logged in as %q, ID %q, reads %q, Err: %v", s.User(), s.ID(), name.Get(s), s.Err())
		}
	})
}

// expectReplacedAfter is expectReplaced after a time.
func (d *desk) expectReplacedAfter(b *browser, wait time.Duration) {
	d.t.Helper()
	time.Sleep(wait)
	d.expectReplaced(b)
}

// TestTokenBeforeAnExplicitRenewal: promise 3. For ten seconds after an explicit renewal a
// request with the previous token sees the session as it was. Its changes are kept, and it sets
// no cookie. After that the token has been replaced.
func TestTokenBeforeAnExplicitRenewal(t *testing.T) {
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
							t.Errorf("the request sees %s, authenticated %v, want %s, %v", s.ID(), s.AuthTime(), id, authenticated)
						}
						name.Update(s, func(v string) string { return v + "!" })
						visits.Update(s, func(n int) int { return n + 1 })
						if name.Get(s) != "before!" {
							t.Errorf("the request reads %q", name.Get(s))
						}
						if err := s.Save(t.Context()); err != nil || name.Get(s) != "before!" || !s.AuthTime().Equal(authenticated) {
							t.Errorf("Save: %v; reads %q, authenticated %v", err, name.Get(s), s.AuthTime())
						}
						s.AddFlash("", "hello")
					}) {
						t.Error("the response sets a cookie")
					}
					d.expect(old, "before")
				}
				d.expect(b, "after!!")
				d.do(b, func(s *session.Session) {
					if visits.Get(s) != 2 || len(s.Flashes()) != 2 || s.ID() != id {
						t.Errorf("%d visits were kept", visits.Get(s))
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

// TestRenewalWithThePreviousToken: promise 3. Within the grace the Renew of a request with the
// previous token does nothing, and its Remember is dropped and reported. Its Login is an
// authentication: it creates a key, even if the response to another Login was lost, and then
// sees the current session.
func TestRenewalWithThePreviousToken(t *testing.T) {
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
							t.Errorf("the request reads %q", got)
						}
					}) != isLogin {
						t.Errorf("the response sets a cookie: %v", !isLogin)
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
						t.Errorf("the session ends at %v, before the call at %v", ends, wasEnd)
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

// TestDroppedRememberIsReported: promise 3. A Remember of a request with the previous token
// does not fail the response, and Err returns an error afterwards.
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

// TestAnswersOfTwoLoginsArriveInAnyOrder: promise 3. Keys of Logins that were not presented are
// valid for a minute, whatever keys other Logins create, because responses arrive in any order.
// A request with such a key gets another.
func TestAnswersOfTwoLoginsArriveInAnyOrder(t *testing.T) {
	for _, cold := range []bool{false, true} { // whether the newer key was presented before
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

// TestUnpresentedKeyOfALoginEnds checks that the key of a Login that was not presented ends a
// minute after it was issued if that of another Login was presented.
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

// TestRenewReplacesKeysOfLogins checks that an explicit renewal other than a Login also
// replaces keys of Logins that were not presented.
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

// TestPreviousTokenLogsOut: promises 2 and 3. The Logout of a request with the previous token
// ends the session and does not change the newer cookie. Changes after it have no session.
func TestPreviousTokenLogsOut(t *testing.T) {
	for how, ask := range asks {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				old := b.replay(b.cookie())
				d.do(b, ask)
				if d.do(old, func(s *session.Session) { s.Logout(); name.Set(s, "new") }) {
					t.Error("the response sets a cookie")
				}
				for _, b := range []*browser{b, old} {
					d.do(b, func(s *session.Session) {
						if s.User() != "" || !s.IsNew() {
							t.Errorf("still logged in as %q", s.User())
						}
					})
				}
			})
		})
	}
}

// TestLogoutOverlapsARenewal checks the same for a request that loaded its session before the
// renewal.
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

// TestRenewalsInARow makes two explicit renewals within ten seconds: each previous token sees
// the session as it was before its own renewal.
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

// TestAutomaticRenewal: promise 3. A logged-in session that is used gets another token when the
// current one is older than RenewAfter. The previous token has full access until ten seconds
// after the new one was first presented.
func TestAutomaticRenewal(t *testing.T) {
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
		time.Sleep(5 * time.Second) // before the new token is presented
		saves := d.spy.count("Save")
		// Concurrent requests with the old token set no cookie, and lose no change.
		if d.do(old, func(s *session.Session) { name.Set(s, "old") }) {
			t.Error("another cookie for the old token within ten seconds")
		}
		if d.do(b, read) {
			t.Error("a cookie for the new token")
		}
		d.expect(b, "old")
		if n := d.spy.count("Save") - saves; n != 2 {
			t.Errorf("%d Saves, want one for the change and one that records the first use of the new token", n)
		}
		d.do(b, func(s *session.Session) { name.Set(s, "new") })
		time.Sleep(10*second - time.Millisecond)
		if d.do(old, read) {
			t.Error("another cookie for the old token after the new one was presented")
		}
		d.expect(old, "new") // sees the newer value
		time.Sleep(time.Millisecond)
		d.expectReplaced(old)
		d.expect(b, "new")
		if n := d.log.count(session.EventReplayed); n != 1 {
			t.Errorf("%d times EventReplayed", n)
		}
	})
}

// TestLostResponsesOfAnAutomaticRenewal: promise 3. While the new token has not been presented
// the previous one keeps full access, and a request with it gets another: ten seconds after the
// last was issued, or one second after it if two or more have not been presented. The response
// may have been lost, or a laptop may have been suspended. A token whose response was only slow
// is valid too.
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
					t.Fatalf("key number %d was issued %v after the previous one", i+1, gap)
				}
				time.Sleep(time.Millisecond)
			}
			deaf := b.replay(b.cookie()) // a copy of b whose responses are lost for b
			if !d.do(deaf, read) {
				t.Fatalf("key number %d was not issued", i+1)
			}
			lost = append(lost, deaf)
		}
		d.expect(lost[3], "before") // its response was slow, not lost
		d.expect(lost[2], "before") // so was this one's
		d.expect(b, "before")
		time.Sleep(10 * time.Second)
		d.expectReplaced(b)
		d.expect(lost[3], "before")
	})
}

// TestIssuedKeysAreBounded checks that an issued key is removed when 16 newer ones have been
// issued, and that the key of the requests that cause this is kept.
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

// TestIssuedKeysLastUntilTheyCanArrive checks that an attacker who requests a key every second
// does not cause the removal of the owner's new key before its response can arrive, and neither
// does a slow connection.
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
			t.Fatalf("the attacker gets only %d keys", issued)
		}
		d.expect(owner, "before")
		time.Sleep(11 * second)
		d.expectReplaced(thief)
	})
}

// TestKeysOfLoginsAreBounded checks that the number of keys in a record is bounded for any
// number of logins.
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

// TestAttackerCannotPreventRenewal: promise 3. An attacker who requests a key with a stolen token
// whenever one can be issued, and discards it, does not prevent the owner's renewal. The stolen
// token then gives no access, and its use is an EventReplayed.
func TestAttackerCannotPreventRenewal(t *testing.T) {
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
					t.Error("the stolen token was replaced, without an EventReplayed")
				}
				return
			}
		}
		t.Error("the stolen token is still valid after five minutes")
	})
}

// TestSlowRequestDoesNotEndALaterKey: promise 3. During a slow request that has presented a
// key, a slow response with an older key arrives. The browser now has the older key, which is
// presented later. The slow request must not end that key, even if it loads the session again,
// or if the store fails as it begins and as it saves.
func TestSlowRequestDoesNotEndALaterKey(t *testing.T) {
	for name, atEnd := range map[string]func(*desk, *session.Session){
		"nothing": func(*desk, *session.Session) {},
		"Reload":  func(_ *desk, s *session.Session) { _ = s.Reload(t.Context()) },
		"a Save that fails, and a change": func(d *desk, s *session.Session) {
			d.spy.hook(failing("Save", errDown))
			_ = s.Save(t.Context()) // drops the maintenance of the key
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
					d.expect(late, "before") // gets a key with a slow response
					time.Sleep(11 * second)
					d.expect(b, "before") // gets a newer key
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
					d.expect(again, "before") // a request that a proxy sends a second time
					for range 30 {
						d.expect(late, "before")
						time.Sleep(3 * second)
					}
				})
			})
		}
	}
}

// TestLateKeyOfASlowRequest: promise 3. The key of a Login is presented by a request that takes
// longer than the time that the key has left: its presentation is recorded nevertheless.
func TestLateKeyOfASlowRequest(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		late := b.replay(b.cookie())
		d.do(late, func(s *session.Session) { s.Login("alice") })
		d.do(b, func(s *session.Session) { s.Login("alice") })
		d.expect(b, "before") // limits the late key to a minute after it was issued
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

// TestUnknownRenewalOfASessionThatIsReplaced checks that a renewal with an unknown outcome sets
// no cookie if the session is replaced before the Reload that would find the outcome, because
// the browser has a newer cookie, even if the store fails afterwards.
func TestUnknownRenewalOfASessionThatIsReplaced(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		other := b.replay(b.cookie())
		h := d.m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Renew()
			d.spy.hook(func(_ context.Context, call, _ string) error {
				if call == "Save" {
					return session.ErrIndeterminate // the write was not applied
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
			t.Errorf("the response sets a cookie: %v", resp.Header["Set-Cookie"])
		}
	})
}

// TestCookieOfAnAutomaticRenewalInAnOutage covers a Save that renews the token automatically,
// and a Login by another request before the response. If the store then cannot say whether that
// cookie is still the newest, it is not sent: the browser has one that is at least as new.
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

// TestSlowRequestUnderAttack covers an attacker who requests a key every second while a slow
// request presents the owner's new key. The presentation counts from the arrival of the
// request: the key is not removed, and the attacker's key ends ten seconds later.
func TestSlowRequestUnderAttack(t *testing.T) {
	for _, newer := range []int{0, 20} { // keys that the attacker has been issued before
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

// TestKeyIsRecordedDespiteOtherWrites: promise 3. Another request writes the session while a slow
// request records that it has presented a key: the key is recorded nevertheless, unless the
// session has ended.
func TestKeyIsRecordedDespiteOtherWrites(t *testing.T) {
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
						t.Errorf("logged in as %q, Ended: %v, Err: %v", s.User(), s.Ended(), s.Err())
					}
					if time.Sleep(10 * second); isIn {
						d.expectReplaced(old)
					}
				})
			})
		})
	}
}

// TestSlowRequestRenewsAfterALogin: promise 3. A slow request has presented the key of a Login
// when another Login of the user replaces it. The Renew of the slow request does nothing,
// because its client does not have the newer key.
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
			t.Error("the Renew creates a key")
		}
		time.Sleep(11 * second)
		d.expect(other, "before")
	})
}

// TestSlowResponseOfAnAutomaticRenewal: promise 3. A slow response with the key of an automatic
// renewal replaces a newer cookie that was presented. The next request with that key gets
// another key. The key that was replaced in the browser gets no other and ends.
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

// TestOvertakenKeyGetsNoOther checks that a presented key that the client has replaced by an
// older one gets no other key, while the older one gets as many as are lost.
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

// TestOvertakenRequestGetsNoKey: promise 3. A request that has presented a key gets no other if
// an older key with a slow response was presented while it was in flight, because the client
// now has the older key.
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

// TestOvertakenKeyThatIsNotTheNewest: promise 3. Of three keys with slow responses the second
// was presented, and then the first, which gets another. The second, which was not the newest,
// gets no other.
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

// TestSlowReportRenews does the same over net/http: a report writes its first line, which
// renews the token, and works for 15 seconds, while the page polls.
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
		slow := b.replay(b.cookie()) // its response arrives when the report is done
		done := make(chan *http.Response)
		go func() { done <- slow.get("/report") }()
		<-started
		for i := range 20 {
			if i == 8 {
				b.jar.SetCookies(origin, (<-done).Cookies())
			}
			time.Sleep(2 * second)
			if got := body(b.get("/poll")); got != "alice" {
				t.Errorf("%d s after the report began the poll is logged in as %q", 2*(i+1), got)
			}
		}
	})
}

// TestRequestDoesNotPresentItsOwnKey: promise 3. The request that creates the key of an
// automatic renewal does not present it, whatever it saves later: if its response is lost, the
// previous key stays valid.
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
				if !setsCookie(lost.get("/")) { // the response is lost for b
					t.Fatal("no automatic renewal")
				}
				time.Sleep(11 * time.Second)
				d.do(b, func(s *session.Session) {
					if s.User() != "alice" {
						t.Errorf("the response was lost, and 11 s later the browser is logged in as %q: %v", s.User(), s.Err())
					}
				})
			})
		})
	}
}

// TestOldTokenHasFullAccess: promise 3. A request with the previous token of an
// automatic renewal may do everything: also renew explicitly, which replaces both tokens, and
// log out.
func TestOldTokenHasFullAccess(t *testing.T) {
	for _, come := range []bool{true, false} { // whether the new token was presented
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
					same := b.replay(old.cookie()) // a concurrent request with the old token
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
				t.Error("the cookie was not deleted")
			}
			d.do(b, func(s *session.Session) {
				if s.User() != "" {
					t.Error("still logged in")
				}
			})
		})
	}
}

// TestNoAutomaticRenewal checks that there is no automatic renewal if no cookie can be sent, or
// if no user is logged in.
func TestNoAutomaticRenewal(t *testing.T) {
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

// TestLongRequest: promise 3. A request keeps the session that it loaded, however long it
// lasts. After automatic renewals it sees newer values. After an explicit one it sees the
// values that it saw before, and its changes are kept, also after the grace.
func TestLongRequest(t *testing.T) {
	atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
		b := d.browser()
		ctx := t.Context()
		slow := b.replay(b.cookie())
		h := d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.User()
			for i := range 4 { // automatic renewals, each presented
				time.Sleep(minute)
				value := fmt.Sprint("by age ", i)
				if !d.do(b, func(s *session.Session) { name.Set(s, value) }) {
					t.Error("no automatic renewal")
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
				t.Errorf("Reload: %v; logged in as %q", err, s.User())
			}
			if n := d.log.count(session.EventReplayed); n != 0 {
				t.Errorf("%d times EventReplayed, want none: a Reload is not a replay", n)
			}
		}))
		if resp := newBrowser(t, h).replay(slow.cookie()).get("/"); resp.StatusCode != 200 || setsCookie(resp) {
			t.Error(resp.Status, resp.Header)
		}
		d.do(b, func(s *session.Session) {
			if name.Get(s) != "asked" || visits.Get(s) != 5 {
				t.Errorf("values kept: %q, %d", name.Get(s), visits.Get(s))
			}
		})
	})
}

// TestReloadAfterAnExplicitRenewal checks that after an explicit renewal by another request a
// Reload behaves as a new request with the previous token.
func TestReloadAfterAnExplicitRenewal(t *testing.T) {
	for how, ask := range asks {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			d.do(b.replay(b.cookie()), func(s *session.Session) {
				s.User()
				d.do(b, func(s *session.Session) { ask(s); name.Set(s, "after") })
				if err := s.Reload(t.Context()); err != nil || s.User() != "alice" || name.Get(s) != "before" {
					t.Errorf("%s: immediate Reload: %v, logged in as %q, reads %q", how, err, s.User(), name.Get(s))
				}
				time.Sleep(10 * time.Second)
				for range 2 {
					if err := s.Reload(t.Context()); err != session.ErrReplaced || s.User() != "" || name.Get(s) != "" {
						t.Errorf("%s: Reload later: %v, logged in as %q, reads %q", how, err, s.User(), name.Get(s))
					}
				}
			})
			d.expect(b, "after")
		})
	}
}

// TestRenewalThatWasSavedEarly checks that a request that has saved a renewal, and then takes
// time, sets no cookie if the browser has, or may have, a newer one by then.
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
		"an automatic renewal": {func(s *session.Session) {}, func(d *desk, old *browser) {
			time.Sleep(11 * time.Second)
			d.expect(old, "before")
			d.expect(old, "before")
		}, false},
		"nothing, automatic": {func(s *session.Session) {}, func(*desk, *browser) { time.Sleep(minute / 2) }, true},
		"a login elsewhere":  {func(s *session.Session) { s.Login("alice") }, func(d *desk, _ *browser) { d.browser() }, true},

		// The key of a Login keeps full access, whatever keys other Logins create.
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
		"a login after an automatic renewal": {func(s *session.Session) {}, func(d *desk, old *browser) {
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

// TestLoginsInTwoTabsAfterASave: promise 3. A request saves, which renews its token
// automatically, and then logs in. Another tab logs in before the store replies to that Login.
// Both responses set a cookie.
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

// TestRenewalInALongRequest: promise 3. A long-lived request whose key was replaced
// automatically and has ended keeps its session. Its Login creates a key, and a Remember with
// it works. Without a Login its Renew or Remember is dropped, and reported. While its key is
// still valid all three work.
func TestRenewalInALongRequest(t *testing.T) {
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
							t.Errorf("the response sets a cookie: %v, %d times EventDropped", sets, d.log.count(session.EventDropped))
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

// TestAutomaticRenewalMeetsAChange checks that an automatic renewal that conflicts with another
// change is retried.
func TestAutomaticRenewalMeetsAChange(t *testing.T) {
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

// TestReplacedTokenLogsOut checks that a replaced token gives no access to the session, not
// even to end it.
func TestReplacedTokenLogsOut(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		d.do(b, func(s *session.Session) { s.Renew() })
		time.Sleep(10 * time.Second)
		if d.do(old, func(s *session.Session) { s.Logout(); name.Set(s, "new") }) {
			t.Error("the response sets a cookie")
		}
		d.expect(b, "before")
		d.expectReplaced(old)
	})
}

// TestReplayedTokenSignsOut runs the recipe with which a replayed token signs out both the
// attacker and the owner.
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
			t.Fatalf("logged in as %q", got)
		}
		thief.get("/look")
		if got := body(b.get("/look")); got != "" {
			t.Errorf("the owner is still logged in as %q", got)
		}
	})
}

// TestIndeterminateRenewal covers a renewal whose Save has an unknown outcome: the record shows
// the outcome, immediately or with a Reload. No user is signed out.
func TestIndeterminateRenewal(t *testing.T) {
	for how, ask := range asks {
		for _, applied := range []bool{true, false} {
			for _, loads := range []bool{true, false} { // whether the store can load after the Save
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
								t.Errorf("Reload: %v, logged in as %q", err, s.User())
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
								t.Errorf("logged in as %q, %d visits", s.User(), got)
							}
						}})
						b.get("/")
					})
				})
			}
		}
	}
}

// TestIndeterminateLoginAndAnother covers a Login whose store reply is lost, and a Login of
// another tab before the store is asked for the outcome of the first. The record has both keys,
// and both responses set a cookie.
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

// TestFailingMaintenanceIsAnEvent checks that a failure of automatic maintenance fails no
// request: neither an automatic renewal nor the record of a key's first use.
func TestFailingMaintenanceIsAnEvent(t *testing.T) {
	for _, cause := range []error{errDown, session.ErrIndeterminate} {
		atDesk(t, session.Options{RenewAfter: minute}, func(d *desk) {
			b := d.browser()
			time.Sleep(minute)
			old := b.replay(b.cookie())
			for _, what := range []string{"automatic renewal", "first use"} {
				d.spy.hook(failing("Save", cause))
				if d.do(b, func(s *session.Session) {
					if s.User() != "alice" || s.Err() != nil {
						t.Errorf("logged in as %q, Err: %v", s.User(), s.Err())
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

// TestRequestWhoseChangesAreRefused: promises 3 and 11. A request whose changes cannot be
// stored, although the store works, presents its key and uses the session like any other. Its
// response sets a new key if one is due, unless the header was sent or ErrorHandler responds.
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
						t.Errorf("the status is %s", resp.Status)
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
					t.Errorf("the response sets a new key: %v, want %v", got, c.renews)
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

// TestKeysAreNoValues checks that the metadata of keys does not count against MaxDataSize, is
// not among the names of the values, and is kept by Clear.
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

// TestRenewGrace: promise 3. RenewGrace is the time for which the previous token shows the
// session as it was. If it is negative, a request that loads afterwards has no session, and one
// that had loaded before keeps its session.
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
							t.Errorf("Save of a request that had loaded: %v, logged in as %q, reads %q", err, s.User(), name.Get(s))
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

// TestWhatARenewalKeepsIsRemoved checks that the keys and values that a renewal keeps are
// removed by one save, when they ended a minute before and the session is used, and not
// earlier: a process whose clock is ahead ends them for its own requests only.
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
					t.Fatalf("the record keeps nothing: %s", data())
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

// TestReplayedTokenBesideOthers: promise 3. Every token in a request whose grace has ended is
// an EventReplayed, once for each session, whatever other cookies the request has, unless one
// of them opens the same session.
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

// TestOlderKeysAreBounded checks that the number of older keys in a record is bounded, however
// many renewals there were within ten seconds.
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
			d.t.Errorf("the record has %d renewals, want 3: %s", n, rs[0].Data)
		}
	})
}

// Promise 3. A browser asks every few seconds, often several times at once; responses
// take up to 20 seconds, arrive in any order, or are lost. No automatic renewal signs
// its user out, and its key is renewed all the same.
func TestAutomaticRenewalsAtRandom(t *testing.T) {
	t.Parallel()
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
