package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// members returns pages behind RequireUser, after before. Each says which handler answered.
func members(m *session.Manager, before func(s *session.Session), otherwise http.Handler) http.Handler {
	page := m.RequireUser(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "next ", session.From(r.Context()).User())
	}), otherwise)
	return m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before != nil {
			before(session.From(r.Context()))
		}
		page.ServeHTTP(w, r)
	}))
}

// tellWhy is a handler for otherwise.
var tellWhy = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusForbidden)
	s := session.From(r.Context())
	fmt.Fprintf(w, "otherwise %v %v", s.Err(), s.Ended())
})

// TestRequireUser checks that RequireUser calls next for a logged-in user, also by a pending
// Login, and otherwise for all others.
func TestRequireUser(t *testing.T) {
	alice := func(s *session.Session) { s.Login("alice") }
	logout := func(s *session.Session) { s.Logout() }
	for what, c := range map[string]struct {
		earlier, before func(s *session.Session) // run in an earlier request, and before RequireUser
		wait            time.Duration
		want            string
	}{
		"a first visit":               {nil, nil, 0, "otherwise <nil> false"},
		"anonymous":                   {write, nil, 0, "otherwise <nil> false"},
		"a user":                      {alice, nil, 0, "next alice"},
		"a user, before the idle end": {alice, nil, 19 * minute, "next alice"},
		"an ended session":            {alice, nil, 21 * minute, "otherwise <nil> true"},
		"a pending Login":             {nil, alice, 0, "next alice"},
		"a Login as another":          {alice, func(s *session.Session) { s.Login("bob") }, 0, "next bob"},
		"a pending Logout":            {alice, logout, 0, "otherwise <nil> false"},
		"a mistake and a user":        {alice, func(s *session.Session) { s.Login("") }, 0, "Internal Server Error\n"},
		"a mistake and no user":       {nil, func(s *session.Session) { s.Login("") }, 0, "Internal Server Error\n"},
		"a Logout, then a Login":      {alice, func(s *session.Session) { s.Logout(); s.Login("bob") }, 0, "next bob"},
	} {
		inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
			b := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.earlier != nil {
					c.earlier(session.From(r.Context()))
				}
			})))
			b.get("/")
			time.Sleep(c.wait)
			b.h = members(m, c.before, tellWhy)
			if got := body(b.get("/")); got != c.want {
				t.Errorf("%s: %q, want %q", what, got, c.want)
			}
		})
	}
}

// TestRequireUserAfterARenewal checks that a request with a replaced token is passed to
// otherwise.
func TestRequireUserAfterARenewal(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		old := b.replay(b.cookie())
		d.do(b, func(s *session.Session) { s.Renew() })
		old.h = members(d.m, nil, tellWhy)
		if got := body(old.get("/")); got != "next alice" {
			t.Errorf("in the grace: %q", got)
		}
		time.Sleep(11 * second)
		if got := body(old.get("/")); got != "otherwise "+session.ErrReplaced.Error()+" false" {
			t.Errorf("after the grace: %q", got)
		}
		old.h = members(d.m, nil, nil)
		if resp := old.get("/"); resp.StatusCode != 401 {
			t.Errorf("after the grace, without otherwise: %s", resp.Status)
		}
	})
}

// TestRequireUserWithoutOtherwise checks that without otherwise the response is 401 with an
// empty body, and with Bearer has a challenge.
func TestRequireUserWithoutOtherwise(t *testing.T) {
	for _, isBearer := range []bool{false, true} {
		m := newManager(t, session.Options{Bearer: isBearer})
		for _, before := range []func(*session.Session){nil, write} {
			w := httptest.NewRecorder()
			members(m, before, nil).ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/", nil))
			challenge := w.Header()["Www-Authenticate"]
			if w.Code != 401 || w.Body.Len() > 0 || isBearer != (fmt.Sprint(challenge) == "[Bearer]") || !isBearer && challenge != nil {
				t.Errorf("Bearer %v: %d %q %q", isBearer, w.Code, w.Body, challenge)
			}
			if stored := w.Header()["Set-Cookie"] != nil || w.Header()["Session-Token"] != nil; stored != (before != nil) {
				t.Errorf("Bearer %v: the value that was set before is stored: %v", isBearer, stored)
			}
		}
	}
}

// TestRequireUserWhileTheStoreFails: promise 7. While the store fails neither handler runs: the
// response is that of ErrorHandler, also if Save or Reload has returned the error before, and
// whatever a middleware in between adds.
func TestRequireUserWhileTheStoreFails(t *testing.T) {
	own := func(w http.ResponseWriter, r *http.Request, err error) {
		if !errors.Is(err, session.ErrStore) {
			t.Errorf("ErrorHandler gets %v", err)
		}
		w.WriteHeader(http.StatusInsufficientStorage)
		fmt.Fprint(w, "own")
	}
	failed := 0
	for what, before := range map[string]func(s *session.Session){
		"nothing before":     func(s *session.Session) {},
		"Reload":             func(s *session.Session) { s.Reload(t.Context()) },
		"Save":               func(s *session.Session) { s.Save(t.Context()) },
		"a value and a Save": func(s *session.Session) { name.Set(s, "x"); s.Save(t.Context()) },
		"a Login and a Save": func(s *session.Session) { s.Login("bob"); s.Save(t.Context()) },
		"a Logout":           func(s *session.Session) { s.Logout(); s.Save(t.Context()) },
	} {
		for _, call := range []string{"Load", "Save", "Create"} { // the call that fails
			for _, handler := range []func(http.ResponseWriter, *http.Request, error){nil, own} {
				spy, isFailing, seen := newSpy(), false, new(accessLog)
				m := newManager(t, session.Options{Store: spy, ErrorHandler: handler})
				b := newBrowser(t, m.Handler(reception))
				b.get("/login?alice")
				page := members(m, func(s *session.Session) {
					before(s)
					isFailing = errors.Is(s.Err(), session.ErrStore)
				}, tellWhy)
				b.h = m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					seen.ResponseWriter = w
					page.ServeHTTP(seen, r)
					fmt.Fprint(w, "and a footer")
				}))
				spy.hook(func(_ context.Context, c, _ string) error {
					if c == call {
						return errDown
					}
					return nil
				})
				resp := b.get("/")
				got := fmt.Sprint(resp.StatusCode, body(resp), setsCookie(resp))
				want := "503Service Unavailable\nfalse"
				if handler != nil {
					want = "507ownfalse"
				}
				switch {
				case isFailing && (got != want || seen.status != 503):
					t.Errorf("%s, %s fails: %q, want %q; a middleware sees %d", what, call, got, want, seen.status)
				case isFailing:
					failed++
				case call == "Load" || seen.status == 503:
					t.Errorf("%s, %s fails: %q", what, call, got)
				}
			}
		}
	}
	if failed < 18 {
		t.Errorf("the store failed %d times", failed)
	}
}

// TestRequireUserOfItsManager checks that RequireUser uses its own Manager if several are
// nested, and panics outside of Handler.
func TestRequireUserOfItsManager(t *testing.T) {
	outer := newManager(t, session.Options{Cookie: session.CookieOptions{Name: "__Host-outer"}})
	inner := newManager(t, session.Options{})
	both := func(h http.Handler) http.Handler { return outer.Handler(inner.Handler(h)) }
	b := newBrowser(t, both(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		outer.From(r.Context()).Login("alice")
	})))
	b.get("/")
	for m, want := range map[*session.Manager]int{outer: 200, inner: 401} {
		b.h = both(m.RequireUser(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil))
		if resp := b.get("/"); resp.StatusCode != want {
			t.Errorf("%s, want %d", resp.Status, want)
		}
	}
	defer func() {
		if v := fmt.Sprint(recover()); !strings.Contains(v, "this Manager's Handler") {
			t.Errorf("outside Handler: %s", v)
		}
	}()
	inner.RequireUser(tellWhy, tellWhy).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
}

// accessLog is the writer of a middleware that records the status.
type accessLog struct {
	http.ResponseWriter
	status int
}

func (w *accessLog) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
