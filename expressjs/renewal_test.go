package expressjs_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
)

// TestRenewals checks that in-flight requests in another process keep their changes when the user
// reauthenticates, or the session is renewed or remembered. The token stays, and there is one
// session.
func TestRenewals(t *testing.T) {
	for name, renew := range map[string]func(s *session.Session){
		"Renew":    (*session.Session).Renew,
		"Remember": func(s *session.Session) { s.Remember(30 * 24 * time.Hour) },
		"Login":    func(s *session.Session) { s.Login("ann") },
	} {
		onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
			const n = 20
			here, there := service(t, s.store, nil), service(t, s.store, nil)
			s.put(sid, annAtExpress, time.Hour)
			var loaded, done sync.WaitGroup
			loaded.Add(n)
			for i := range n {
				done.Go(func() {
					resp := in(t, []*session.Manager{here, there}[i%2], sid, func(s *session.Session) {
						s.User()
						loaded.Done()
						loaded.Wait()
						session.NewKey[int](fmt.Sprint("k", i)).Set(s, i)
						if i < 4 {
							renew(s)
						}
					})
					if resp.StatusCode != 200 {
						t.Errorf("%s: %s", name, resp.Status)
					}
					for _, c := range resp.Cookies() {
						if c.Value != cookieOf(t, sid) || name != "Remember" { // Remember makes the cookie persistent, also for the other requests
							t.Errorf("%s: request %d sets %v", name, i, c)
						}
					}
				})
			}
			done.Wait()
			in(t, there, sid, func(s *session.Session) {
				kept := 0
				for i := range n {
					if _, ok := session.NewKey[int](fmt.Sprint("k", i)).Lookup(s); ok {
						kept++
					}
				}
				if kept != n || s.User() != "ann" {
					t.Errorf("%s: %d of %d writes are kept, the user is %q", name, kept, n, s.User())
				}
			})
			if list, err := here.List(t.Context(), "ann"); err != nil || len(list) != 1 {
				t.Errorf("%s: %d sessions, %v", name, len(list), err)
			}
		})
	}
}

// TestLoginTakesAnotherID checks that a Login of an anonymous session, or as another user, changes
// the id, and that the old id is invalid at Go and at Express. A Login of the same user at Go keeps
// the id.
func TestLoginTakesAnotherID(t *testing.T) {
	anonymous := `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"x":1}`
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for name, c := range map[string]struct {
			record, user string
			isKept       bool
		}{
			"anonymous":    {anonymous, "ann", false},
			"another-user": {annAtExpress, "bob", false},
			"the-same":     {annAtExpress, "ann", true},
		} {
			s.put(name, c.record, time.Hour)
			resp := in(t, m, name, func(s *session.Session) { s.Login(c.user) })
			if got := len(resp.Cookies()) == 0; got != c.isKept {
				t.Errorf("%s: sets %v", name, resp.Cookies())
			}
			if record, _ := s.get(name); (record != "") != c.isKept {
				t.Errorf("%s: the record of the old id is %q", name, record)
			}
			in(t, m, name, func(s *session.Session) {
				user, err := map[bool]string{true: c.user}[c.isKept], map[bool]error{false: session.ErrReplaced}[c.isKept]
				if s.User() != user || s.Err() != err || c.isKept && time.Since(s.AuthTime()) > time.Minute {
					t.Errorf("%s: the user is %q since %v, error %v", name, s.User(), s.AuthTime(), s.Err())
				}
			})
		}
	})
}

// TestCookieIsSentAgain checks that the cookie of a session with a maxAge is sent again unchanged,
// for as long as the session lives: Express counts its maxAge from its last response, and may not
// have sent a response for hours. Options.Cookie.Persistent has no effect on it.
func TestCookieIsSentAgain(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		for isPersistent, record := range map[bool]string{
			true:  strings.Replace(annAtExpress, `"originalMaxAge":null`, `"originalMaxAge":86400000`, 1),
			false: annAtExpress,
		} {
			m := service(t, s.store, func(o *session.Options) { o.Cookie.Persistent = !isPersistent })
			for name, c := range map[string]struct {
				life   time.Duration // remaining life of the record, a day minus the time since the last use at Express
				do     func(s *session.Session)
				isSent bool
			}{
				"read-later":  {20 * time.Hour, func(s *session.Session) { s.User() }, true},
				"read-soon":   {24*time.Hour - time.Minute, func(s *session.Session) { s.User() }, false},
				"change-soon": {24*time.Hour - time.Minute, func(s *session.Session) { session.NewKey[int]("x").Set(s, 2) }, true},
				"Login-soon":  {24*time.Hour - time.Minute, func(s *session.Session) { s.Login("ann") }, true},
			} {
				name := fmt.Sprint(name, isPersistent)
				s.put(name, record, c.life)
				cookies := in(t, m, name, c.do).Cookies()
				if isSent := len(cookies) > 0; isSent != (c.isSent && isPersistent) {
					t.Errorf("%s, persistent %v: sets %v", name, isPersistent, cookies)
				} else if isSent && (cookies[0].Value != cookieOf(t, name) || cookies[0].MaxAge < 86000 || cookies[0].MaxAge > 86400) {
					t.Errorf("%s: sets %v", name, cookies)
				}
			}
		}
	})
}

// TestDoneOfWhatExpressDoes checks that Done is closed when Express changes the user of the
// session, logs the session out and keeps the id, or destroys it.
func TestDoneOfWhatExpressDoes(t *testing.T) {
	const none = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"x":1}`
	for what, record := range map[string]string{"another user": "bob", "logged out": "", "destroyed": "-"} {
		onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
			m := service(t, s.store, func(o *session.Options) { o.WatchEvery = 64 * time.Millisecond })
			s.put(sid, annAtExpress, time.Hour)
			in(t, m, sid, func(ses *session.Session) {
				done := ses.Done()
				select {
				case <-done:
					t.Errorf("%s: Done was closed before the change", what)
				default:
				}
				switch record {
				case "bob":
					s.put(sid, none[:len(none)-1]+`,"userId":"bob"}`, time.Hour)
				case "":
					s.put(sid, none, time.Hour)
				default:
					s.drop(sid)
				}
				select {
				case <-done:
				case <-time.After(time.Minute):
					t.Errorf("%s: Done was not closed", what)
				}
			})
		})
	}
}
