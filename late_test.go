package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// A mistake of the program that follows a Logout must not undo it, although the
// response has left and can no longer be an error.
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

// A handler that ignores the error of a Save and writes its page has missed the
// time for a cookie. A later Save says so; to try again would make a session
// whose cookie nobody gets, or end the one that the browser holds.
func TestSaveIsNotRepeatedWithoutItsCookie(t *testing.T) {
	for _, c := range []struct {
		name, from string
		do         func(s *session.Session)
		call       string // that the error names
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

// A Remember whose cookie has left with the header is done: a change after it
// is only a change.
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

// The call that came too late is reported by the first Save after it. The
// second has nothing to report.
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
