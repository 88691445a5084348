package session_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// TestCachesAreTold checks the headers for caches: Vary whenever the session was used. If there
// is a session and the handler has not set Cache-Control, no-store for a logged-in user and
// private for others. no-store with the session's Set-Cookie, whatever the handler has set.
func TestCachesAreTold(t *testing.T) {
	m := newManager(t, session.Options{})
	for _, c := range []struct {
		name, from  string
		do          func(s *session.Session)
		vary, cache []string // headers that the handler sets
		wantVary    []string
		wantCache   []string
	}{
		{name: "untouched", from: "alice", vary: []string{"Accept"}, cache: []string{"public"},
			wantVary: []string{"Accept"}, wantCache: []string{"public"}},
		{name: "used", do: read, wantVary: []string{"Cookie"}},
		{name: "used, public", do: read, cache: []string{"public"}, wantVary: []string{"Cookie"}, wantCache: []string{"public"}},
		{name: "forged cookie", from: "forged", do: read, wantVary: []string{"Cookie"}},
		{name: "found", from: "alice", do: read, wantVary: []string{"Cookie"}, wantCache: []string{"no-store"}},
		{name: "found, anonymous", from: guest, do: read, wantVary: []string{"Cookie"}, wantCache: []string{"private"}},
		{name: "found, only Err called", from: "alice", do: func(s *session.Session) { s.Err() },
			wantVary: []string{"Cookie"}, wantCache: []string{"no-store"}},
		{name: "found, private", from: "alice", do: read, cache: []string{"private"},
			wantVary: []string{"Cookie"}, wantCache: []string{"private"}},
		{name: "found, public", from: "alice", do: read, cache: []string{"public, max-age=60"},
			wantVary: []string{"Cookie"}, wantCache: []string{"public, max-age=60"}},
		{name: "found, no-cache", from: "alice", do: read, cache: []string{"no-cache", "must-revalidate"},
			wantVary: []string{"Cookie"}, wantCache: []string{"no-cache", "must-revalidate"}},
		{name: "changed", from: "alice", do: write, wantVary: []string{"Cookie"}, wantCache: []string{"no-store"}},
		{name: "Set-Cookie", do: write, wantVary: []string{"Cookie"}, wantCache: []string{"no-store"}},
		{name: "Set-Cookie, public", do: write, cache: []string{"public", "max-age=60"},
			wantVary: []string{"Cookie"}, wantCache: []string{"no-store"}},
		{name: "deletion, public", from: "alice", do: logOut, cache: []string{"public"},
			wantVary: []string{"Cookie"}, wantCache: []string{"no-store"}},
		{name: "another Vary", from: "alice", do: read, vary: []string{"Accept", "Origin"},
			wantVary: []string{"Accept", "Cookie", "Origin"}, wantCache: []string{"no-store"}},
		{name: "Vary: Cookie already", from: "alice", do: read, vary: []string{"cookie"},
			wantVary: []string{"cookie"}, wantCache: []string{"no-store"}},
		{name: "Vary: *", from: "alice", do: read, vary: []string{"*"}, wantVary: []string{"*"}, wantCache: []string{"no-store"}},
	} {
		sent := open(t, m, c.from)
		if c.from == "forged" {
			sent = sent[:len(sent)-4] + "AAAA"
		}
		resp := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			for _, v := range c.vary {
				w.Header().Add("Vary", v)
			}
			for _, v := range c.cache {
				w.Header().Add("Cache-Control", v)
			}
			if c.do != nil {
				c.do(session.From(r.Context()))
			}
		}))).replay(sent).get("/")
		vary := slices.Sorted(slices.Values(resp.Header["Vary"]))
		if !slices.Equal(vary, c.wantVary) {
			t.Errorf("%s: Vary is %q, want %q", c.name, vary, c.wantVary)
		}
		if got := resp.Header["Cache-Control"]; !slices.Equal(got, c.wantCache) {
			t.Errorf("%s: Cache-Control is %q, want %q", c.name, got, c.wantCache)
		}
	}
}

// TestCachesAreToldOfASessionThatEnds checks that a page that was made for a user is not
// stored, whatever happens to the session before the header is sent.
func TestCachesAreToldOfASessionThatEnds(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	asBob := func(s *session.Session) { s.Login("bob") }
	fails := func(t *testing.T, s *session.Session) {
		t.Helper()
		if err := s.Save(t.Context()); !errors.Is(err, session.ErrStore) || s.User() != "bob" {
			t.Errorf("Save: %v, in as %q", err, s.User())
		}
		spy.hook(nil)
	}
	for name, c := range map[string]struct {
		from string
		do   func(t *testing.T, s *session.Session, inAnotherTab func(func(*session.Session)))
	}{
		"a Logout in another tab": {"alice", func(t *testing.T, s *session.Session, inAnotherTab func(func(*session.Session))) {
			inAnotherTab(logOut)
			write(s) // the commit detects the end
		}},
		"a Login in another tab": {"alice", func(t *testing.T, s *session.Session, inAnotherTab func(func(*session.Session))) {
			inAnotherTab(asBob)
			if err := s.Reload(t.Context()); err != session.ErrReplaced {
				t.Errorf("Reload: %v", err)
			}
		}},
		"a Logout in both tabs": {"alice", func(t *testing.T, s *session.Session, inAnotherTab func(func(*session.Session))) {
			inAnotherTab(logOut)
			if err := s.Reload(t.Context()); err != session.ErrEnded {
				t.Errorf("Reload: %v", err)
			}
			s.Logout()
		}},
		"a Reload, and the store fails": {"alice", func(t *testing.T, s *session.Session, _ func(func(*session.Session))) {
			spy.hook(failing("Load", errDown))
			s.Reload(t.Context())
			if err := s.Save(t.Context()); !errors.Is(err, session.ErrStore) { // the response remains the handler's
				t.Errorf("Save: %v", err)
			}
			spy.hook(nil)
		}},
		"Logins in two tabs, and the store fails": {"alice", func(t *testing.T, s *session.Session, inAnotherTab func(func(*session.Session))) {
			inAnotherTab(asBob)
			s.Login("bob")
			loads := 0
			spy.hook(func(_ context.Context, call, _ string) error {
				if call == "Load" {
					loads++
				}
				if loads == 2 { // the load of the session that the other tab has created
					return errDown
				}
				return nil
			})
			fails(t, s)
		}},
		"a Login that begins a session, and the store fails": {"", func(t *testing.T, s *session.Session, _ func(func(*session.Session))) {
			s.Login("bob")
			spy.hook(failing("Create", errDown))
			fails(t, s)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			sent := open(t, m, c.from)
			b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				read(s)
				c.do(t, s, func(f func(*session.Session)) {
					tab := newBrowser(t, m.Handler(routes{"/": func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { f(s) }}))
					tab.replay(sent).get("/")
				})
			}}))
			resp := b.replay(sent).get("/")
			if got := resp.Header.Get("Cache-Control"); resp.StatusCode != http.StatusOK || setsCookie(resp) || got != "no-store" {
				t.Errorf("%s, a cookie: %v, Cache-Control is %q, want no-store", resp.Status, setsCookie(resp), got)
			}
		})
	}
}

// TestCachesAreToldEachResponseForItself checks that the headers of one response do not change
// the slices of another, nor those of the handler.
func TestCachesAreToldEachResponseForItself(t *testing.T) {
	m := newManager(t, session.Options{})
	shared := []string{"Accept", "", ""}[:1] // with free capacity that an append would use
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Vary"] = shared
		read(session.From(r.Context()))
		w.WriteHeader(200)
		w.Header().Add("Vary", "Late")
		w.Header().Add("Cache-Control", "late")
	}))
	for range 2 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/", nil))
		if got := strings.Join(w.Result().Header["Vary"], ", "); got != "Cookie, Accept" && got != "Accept, Cookie" {
			t.Errorf("Vary is %q", got)
		}
	}
	if all := shared[:3]; all[0] != "Accept" || all[1] != "" || all[2] != "" {
		t.Errorf("the handler's slice was changed to %q", all)
	}
}

// TestNestedManagersTellCachesOnce checks that nested Managers, each with a cookie of its own,
// set each header for caches once.
func TestNestedManagersTellCachesOnce(t *testing.T) {
	outer := newManager(t, session.Options{})
	inner := newManager(t, session.Options{Cookie: session.CookieOptions{Name: "__Host-shop"}})
	for _, c := range []struct {
		name       string
		do         func(outer, inner *session.Session)
		setCookies int
	}{
		{"both new", func(o, i *session.Session) { write(o); write(i) }, 2},
		{"the outer new", func(o, i *session.Session) { write(o); read(i) }, 1},
		{"the inner new", func(o, i *session.Session) { read(o); write(i) }, 1},
	} {
		w := httptest.NewRecorder()
		outer.Handler(inner.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.do(outer.From(r.Context()), inner.From(r.Context()))
			w.Write(ok)
		}))).ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/", nil))
		h := w.Result().Header
		if len(h["Set-Cookie"]) != c.setCookies || !slices.Equal(h["Vary"], []string{"Cookie"}) || !slices.Equal(h["Cache-Control"], []string{"no-store"}) {
			t.Errorf("%s: %v", c.name, h)
		}
	}
}

// TestFirstUseTooLateIsLoggedOnce checks that a first use after the first byte, which cannot
// set headers for caches, is logged once, with the fix.
func TestFirstUseTooLateIsLoggedOnce(t *testing.T) {
	logged := captureLog(t)
	m := newManager(t, session.Options{})
	sent := open(t, m, "alice")
	var held *session.Session // kept by a goroutine that outlives its request
	b := newBrowser(t, m.Handler(routes{
		"/early":     func(w http.ResponseWriter, r *http.Request, s *session.Session) { read(s); w.Write(ok); read(s) },
		"/untouched": func(w http.ResponseWriter, r *http.Request, s *session.Session) { w.Write(ok) },
		"/late":      func(w http.ResponseWriter, r *http.Request, s *session.Session) { w.Write(ok); read(s) },
		"/after": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			w.Write(ok)
			held = s
		},
	})).replay(sent)
	b.get("/early")
	b.get("/untouched")
	b.get("/after")
	if name.Get(held) != "old" {
		t.Error("reading after the request does not work")
	}
	if logged.Len() > 0 {
		t.Fatalf("unexpected log line: %s", logged)
	}
	for range 3 {
		if resp := b.get("/late"); resp.Header["Vary"] != nil || resp.Header["Cache-Control"] != nil {
			t.Errorf("the header was changed after it was sent: %v", resp.Header)
		}
	}
	text := logged.String()
	if strings.Count(text, "\n") != 1 || !strings.Contains(text, "after the first byte") || !strings.Contains(text, "before writing") {
		t.Errorf("logged %q, want one line with the fix", text)
	}
}
