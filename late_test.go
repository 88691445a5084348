package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// TestLateLogoutBeforeAMistake checks that a mistake of the program after a Logout does not
// undo the Logout, although the header was sent and the response can no longer be an error.
func TestLateLogoutBeforeAMistake(t *testing.T) {
	for mistake, f := range map[string]func(s *session.Session){
		"unencodable value": func(s *session.Session) { session.NewKey[chan int]("odd").Set(s, nil) },
		"no user":           func(s *session.Session) { s.Login("") },
		"no duration":       func(s *session.Session) { s.Remember(0) },
	} {
		var told events
		m := newManager(t, session.Options{OnEvent: told.on})
		sent := open(t, m, "alice")
		newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, "first byte")
			s.Logout()
			if f(s); s.Err() == nil {
				t.Errorf("%s: Err is nil", mistake)
			}
		}})).replay(sent).get("/")
		if got := opens(t, m, sent); got != closed {
			t.Errorf("%s: the cookie still opens %q", mistake, got)
		}
		if n := told.count(session.EventDropped); n != 1 {
			t.Errorf("%s: %d times EventDropped, want once", mistake, n)
		}
	}
}

// TestSaveIsNotRepeatedWithoutItsCookie checks a handler that ignores the error of a Save and
// writes its page. A later Save returns an error: a retry would create a session whose cookie
// cannot be sent, or end the session that the browser has.
func TestSaveIsNotRepeatedWithoutItsCookie(t *testing.T) {
	for _, c := range []struct {
		name, from string
		do         func(s *session.Session)
		call       string // the call that the error names
		opens      string
	}{
		{"new session", "", write, "Set", closed},
		{"Login", "alice", func(s *session.Session) { s.Login("alice") }, "Login", "old of alice"},
		{"Login as another", "alice", func(s *session.Session) { s.Login("bob") }, "Login", "old of alice"},
		{"Renew", "alice", func(s *session.Session) { s.Renew() }, "Renew", "old of alice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spy := newSpy()
			m := newManager(t, session.Options{Store: spy})
			sent := open(t, m, c.from)
			b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				c.do(s)
				spy.down.Store(true)
				if err := s.Save(r.Context()); !errors.Is(err, errDown) {
					t.Error("Save before the first byte:", err)
				}
				spy.down.Store(false)
				spy.forget()
				fmt.Fprint(w, "first byte")
				expectCall(t, s.Save(r.Context()), c.call)
			}})).replay(sent)
			b.get("/")
			if got := spy.summary(); got != "" {
				t.Errorf("the store was called again: %q", got)
			}
			if got := opens(t, m, sent); got != c.opens || b.cookie() != sent {
				t.Errorf("the cookie opens %q, want %q", got, c.opens)
			}
		})
	}
}

// TestLateChangeAfterARemember checks that after a Remember whose cookie was sent, a later
// change is only a change.
func TestLateChangeAfterARemember(t *testing.T) {
	var told events
	m := newManager(t, session.Options{OnEvent: told.on})
	sent := open(t, m, "alice")
	resp := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Remember(100 * time.Hour)
		fmt.Fprint(w, "first byte")
		write(s)
		if err := s.Err(); err != nil {
			t.Error("Err:", err)
		}
		if err := s.Save(r.Context()); err != nil {
			t.Error("Save:", err)
		}
	}})).replay(sent).get("/")
	if c := issued(t, resp); c.MaxAge < 99*60*60 {
		t.Errorf("Max-Age is %d seconds", c.MaxAge)
	}
	if n := told.count(session.EventDropped); n != 0 {
		t.Errorf("%d times EventDropped", n)
	}
	if _, held := ourCookie(t, resp, sent); opens(t, m, held) != "new of alice" {
		t.Errorf("the cookie opens %q", opens(t, m, held))
	}
}

// TestLateCallIsReportedOnce checks that the first Save after a late call reports the call, and
// the second does not.
func TestLateCallIsReportedOnce(t *testing.T) {
	for call, f := range map[string]func(s *session.Session){
		"Login":    func(s *session.Session) { s.Login("alice") },
		"Renew":    func(s *session.Session) { s.Renew() },
		"Remember": func(s *session.Session) { s.Remember(time.Hour) },
	} {
		m := newManager(t, session.Options{})
		sent := open(t, m, "alice")
		newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, "first byte")
			write(s)
			f(s)
			expectCall(t, s.Save(context.Background()), call)
			if err := s.Save(context.Background()); err != nil {
				t.Errorf("the second Save after a late %s: %v", call, err)
			}
			if err := s.Err(); err != nil {
				t.Errorf("Err after it: %v", err)
			}
		}})).replay(sent).get("/")
		if got := opens(t, m, sent); got != "new of alice" {
			t.Errorf("late %s: the cookie opens %q", call, got)
		}
	}
}

// TestChangeAfterTheHandler: promise 6. A change after the handler has returned is stored by
// Save only. The first such change of a Manager is logged, and each one that no Save follows
// within a second causes an event.
func TestChangeAfterTheHandler(t *testing.T) {
	saves := map[string]func(ctx context.Context, s *session.Session) error{
		"Save":   func(ctx context.Context, s *session.Session) error { return s.Save(ctx) },
		"Reload": func(ctx context.Context, s *session.Session) error { return s.Reload(ctx) },
		"UpdateNow": func(ctx context.Context, s *session.Session) error {
			_, err := visits.UpdateNow(ctx, s, func(n int) int { return n + 1 })
			return err
		},
		"Take": func(ctx context.Context, s *session.Session) error {
			_, _, err := voucher.Take(ctx, s)
			return err
		},
		"nothing": nil,
	}
	for change, f := range map[string]func(s *session.Session){
		"Set":      func(s *session.Session) { name.Set(s, "after") },
		"Delete":   func(s *session.Session) { name.Delete(s) },
		"Pop":      func(s *session.Session) { name.Pop(s) },
		"Update":   func(s *session.Session) { name.Update(s, func(string) string { return "after" }) },
		"AddFlash": func(s *session.Session) { s.AddFlash("", "after") },
		"Clear":    func(s *session.Session) { s.Clear() },
		"Logout":   func(s *session.Session) { s.Logout() },
	} {
		for save, f2 := range saves {
			for _, wait := range []time.Duration{0, 900 * time.Millisecond, 1100 * time.Millisecond} {
				t.Run(fmt.Sprint(change, " ", save, " after ", wait), func(t *testing.T) {
					atDesk(t, session.Options{}, func(d *desk) {
						logged := captureLog(t)
						b := d.browser()
						var kept *session.Session
						d.do(b, func(s *session.Session) { kept = s; s.User() })
						f(kept)
						if n := strings.Count(logged.String(), "level=WARN"); n != 1 || !strings.Contains(logged.String(), "Save") {
							t.Errorf("%d lines: %s", n, logged)
						}
						f(kept) // the second change is not logged
						time.Sleep(wait)
						if f2 != nil {
							if err := f2(t.Context(), kept); err != nil && change != "Logout" {
								t.Errorf("%s: %v", save, err)
							}
						}
						time.Sleep(2 * second)
						want, call := 0, strings.Replace(change, "Pop", "Delete", 1)
						if f2 == nil || wait > second {
							want = 2
							if call == "Delete" {
								want = 1 // the second Delete has nothing to delete
							}
						}
						if n := d.log.count(session.EventDropped); n != want {
							t.Errorf("%d EventDropped, want %d", n, want)
						}
						if e := d.log.last(session.EventDropped); want > 0 {
							expectCall(t, e.Err, call)
						}
						if n := strings.Count(logged.String(), "level=WARN"); n != 1 {
							t.Errorf("%d lines: %s", n, logged)
						}
					})
				})
			}
		}
	}
}

// TestChangeAfterTheHandlerOfAnEndedSession checks that the event is also sent if the session
// has ended and the handler knew it.
func TestChangeAfterTheHandlerOfAnEndedSession(t *testing.T) {
	for how, end := range map[string]func(d *desk, b *browser){
		"revoked":  func(d *desk, b *browser) { d.m.RevokeAll(t.Context(), "alice") },
		"replaced": func(d *desk, b *browser) { d.do(b.replay(b.cookie()), func(s *session.Session) { s.Login("bob") }) },
	} {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				logged := captureLog(t)
				b := d.browser()
				var kept *session.Session
				d.do(b, func(s *session.Session) {
					kept = s
					s.User()
					end(d, b)
					s.Reload(t.Context())
				})
				before := d.log.count(session.EventDropped)
				name.Set(kept, "after")
				time.Sleep(2 * second)
				if n := d.log.count(session.EventDropped) - before; n != 1 {
					t.Errorf("%d EventDropped, logged %s", n, logged)
				}
				expectCall(t, d.log.last(session.EventDropped).Err, "Set")
			})
		})
	}
}

// TestChangeAfterTheHandlerThatIsNone checks that changes while the handler still runs, and
// those that a Refresh saves after the handler, are not reported.
func TestChangeAfterTheHandlerThatIsNone(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		logged := captureLog(t)
		b := d.browser()
		var kept *session.Session
		b.h = d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			kept = session.From(r.Context())
			visits.Set(kept, 1)
			fmt.Fprint(w, "the first byte")
			visits.Set(kept, 2)
			kept.Save(r.Context())
			visits.Set(kept, 3)
		}))
		b.get("/")
		if _, err := name.Refresh(t.Context(), kept, func(v string) bool { return v == "fresh" }, func(context.Context, string) (string, error) { return "fresh", nil }); err != nil {
			t.Error(err)
		}
		if err := kept.Save(t.Context()); err != nil {
			t.Error(err)
		}
		kept.Save(t.Context())
		if name.Get(kept) != "fresh" || visits.Get(kept) != 3 {
			t.Errorf("%q, %d", name.Get(kept), visits.Get(kept))
		}
		time.Sleep(minute)
		if n := d.log.count(session.EventDropped); n != 0 || logged.Len() > 0 {
			t.Errorf("%d EventDropped, logged %s", n, logged)
		}
	})
}
