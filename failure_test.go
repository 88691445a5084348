package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// decorate prepares a response as a handler does that is sure of success.
func decorate(h http.Header) {
	for _, line := range []string{
		"Content-Type: text/csv", "Content-Length: 5", "Content-Encoding: br", "Content-Disposition: attachment",
		"Content-Range: bytes 0-4/5", "Etag: x", "Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT", "Location: /paid",
		"Cache-Control: public", "Set-Cookie: paid=yes", "Content-Security-Policy: default-src 'self'", "X-Request-Id: 7",
	} {
		name, value, _ := strings.Cut(line, ": ")
		h.Set(name, value)
	}
}

// expectReplaced fails the test unless a response is the default ErrorHandler's.
func expectReplaced(t *testing.T, resp *http.Response, status int) {
	t.Helper()
	h := resp.Header
	if text := body(resp); resp.StatusCode != status || strings.TrimSpace(text) != http.StatusText(status) {
		t.Errorf("answers %d %q", resp.StatusCode, text)
	}
	if h.Get("Cache-Control") != "no-store" || h.Get("Vary") != "Cookie" || setsCookie(resp) {
		t.Error("for caches and browsers:", h)
	}
	for _, name := range []string{"Content-Encoding", "Content-Disposition", "Content-Range", "Etag", "Last-Modified", "Location"} {
		if h.Get(name) != "" {
			t.Error("still there:", name, h.Get(name))
		}
	}
	if ct := h.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
		t.Error("Content-Type:", ct)
	}
}

// Ways to find out that the response is not the handler's any more.
var answers = map[string]func(w http.ResponseWriter) error{
	"Write":       func(w http.ResponseWriter) error { _, err := w.Write([]byte("paid!")); return err },
	"WriteHeader": func(w http.ResponseWriter) error { w.WriteHeader(201); _, err := w.Write([]byte("paid!")); return err },
	"Flush":       func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	"Hijack":      func(w http.ResponseWriter) error { _, _, err := http.NewResponseController(w).Hijack(); return err },
	"nothing":     nil,
}

// Promise 7. While the store cannot be read the user only looks logged out: the
// handler learns it from Err, or is stopped, and the response is not its own.
func TestFailingStoreIsNotALoggedOutUser(t *testing.T) {
	for how, answer := range answers {
		t.Run(how, func(t *testing.T) {
			spy := newSpy()
			var log events
			m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
			shop := slowRoutes(nil)
			shop["/pay"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				decorate(w.Header())
				name.Set(s, "changed")
				s.Login("mallory")
				s.Renew()
				s.AddFlash("", "changed")
				if s.User() != "" || name.Get(s) != "" || s.ID() != "" || len(s.Keys()) > 0 {
					t.Error("sees", s.User(), name.Get(s), s.ID(), s.Keys())
				}
				if err := s.Err(); !errors.Is(err, session.ErrStore) || !errors.Is(err, errDown) {
					t.Error("Err:", err)
				}
				if answer == nil {
					return
				}
				if err := answer(w); !errors.Is(err, session.ErrStore) || !errors.Is(err, errDown) {
					t.Errorf("%s returns %v", how, err)
				}
				if _, err := w.Write([]byte("paid!")); !errors.Is(err, session.ErrStore) {
					t.Error("a later Write returns", err)
				}
			}
			b := newBrowser(t, overTheWire(t, m.Handler(shop)))
			b.get("/login")
			held := b.cookie()
			spy.down.Store(true)
			resp := b.get("/pay")
			expectReplaced(t, resp, 503)
			if resp.Header.Get("X-Request-Id") != "7" || resp.Header.Get("Content-Security-Policy") == "" {
				t.Error("what is not about the content is gone:", resp.Header)
			}
			if log.count(session.EventStoreFailed) != 1 || spy.count("Create")+spy.count("Save") != 1 { // the login
				t.Error("calls", spy.calls, "events", log.all)
			}
			spy.down.Store(false)
			if got := body(b.get("/user")); got != "alice before" || b.cookie() != held {
				t.Errorf("afterwards in as %q", got)
			}
		})
	}
}

// saving is what is done to a session, and the call of the store that fails.
var saving = []struct {
	name, call string
	cookie     bool // it needs one
	do         func(s *session.Session)
}{
	{"changed", "Save", false, func(s *session.Session) { name.Set(s, "after") }},
	{"Logout", "Save", false, func(s *session.Session) { s.Logout() }},
	{"Remember", "Save", true, func(s *session.Session) { s.Remember(1e15) }},
	{"Login, first step", "Create", true, func(s *session.Session) { s.Login("alice") }},
	{"Login, second step", "Save", true, func(s *session.Session) { s.Login("alice") }},
	{"Renew, first step", "Create", true, func(s *session.Session) { s.Renew() }},
	{"Renew, second step", "Save", true, func(s *session.Session) { s.Renew() }},
	{"Logout and a new session", "Create", true, func(s *session.Session) { s.Logout(); name.Set(s, "new") }},
}

// Promise 7. If saving fails before the first byte the response is replaced and
// no cookie leaves; the user is as logged in as before.
func TestFailingSaveReplacesTheResponse(t *testing.T) {
	for _, c := range saving {
		for how, answer := range answers {
			if how == "Hijack" && c.cookie {
				continue // refused before the store is asked: it can set no cookie
			}
			t.Run(c.name+" "+how, func(t *testing.T) {
				spy := newSpy()
				shop := slowRoutes(nil)
				shop["/do"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					decorate(w.Header())
					if c.do(s); answer != nil && !errors.Is(answer(w), errDown) {
						t.Error(how, "does not stop the handler")
					}
				}
				var log events
				m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
				b := newBrowser(t, overTheWire(t, m.Handler(shop)))
				b.get("/login")
				spy.hook(failing(c.call, errDown))
				resp := b.get("/do")
				spy.hook(nil)
				expectReplaced(t, resp, 503)
				if log.last(session.EventStoreFailed).Err == nil {
					t.Error("no event")
				}
				want := "alice before"
				if c.name == "Logout and a new session" {
					want = " " // the first half is done
				}
				if got := body(b.get("/user")); got != want {
					t.Errorf("afterwards in as %q, want %q", got, want)
				}
				if all, err := spy.List(t.Context(), "alice"); len(all) != len(strings.Fields(want))/2 || err != nil {
					t.Error("left in the store:", len(all), err)
				}
			})
		}
	}
}

// failing returns a hook that fails one of the store's methods.
func failing(method string, err error) func(context.Context, string, string) error {
	return func(_ context.Context, call, _ string) error {
		if call == method {
			return err
		}
		return nil
	}
}

// lost returns an after hook for a method's writes that are applied and never
// acknowledged. A client may wrap in it whatever it heard last.
func lost(method string) func(context.Context, string, string, error) error {
	return func(_ context.Context, call, _ string, err error) error {
		if call == method && err == nil {
			return fmt.Errorf("%w: %w", session.ErrIndeterminate, session.ErrConflict)
		}
		return err
	}
}

// Promise 7. After the first byte a failure is told by event, log and Err.
func TestFailureAfterTheFirstByte(t *testing.T) {
	for _, cause := range []error{errDown, session.ErrIndeterminate} {
		logged := captureLog(t)
		spy := newSpy()
		var log events
		m := newManager(t, session.Options{Store: spy, OnEvent: log.on, ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			t.Error("the ErrorHandler was called")
		}})
		var kept *session.Session
		shop := slowRoutes(nil)
		shop["/late"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			kept = s
			fmt.Fprint(w, "first byte")
			name.Set(s, "after")
		}
		b := newBrowser(t, m.Handler(shop))
		b.get("/login")
		spy.hook(failing("Save", cause))
		if resp := b.get("/late"); resp.StatusCode != 200 || body(resp) != "first byte" {
			t.Error("the response became", resp.Status)
		}
		if e := log.last(session.EventStoreFailed); !errors.Is(e.Err, cause) || e.User != "alice" || e.ID != kept.ID() {
			t.Error("event", e)
		}
		if !strings.Contains(logged.String(), cause.Error()) {
			t.Errorf("logged %q", logged)
		}
		if err := kept.Err(); !errors.Is(err, session.ErrStore) || !errors.Is(err, cause) {
			t.Error("Err:", err)
		}
	}
}

// Promise 7. ErrorHandler answers in its own words, never for a cache; it may
// ask for the session, and is not bothered with an ending.
func TestErrorHandler(t *testing.T) {
	spy := newSpy()
	calls := 0
	var page func(w http.ResponseWriter)
	m := newManager(t, session.Options{Store: spy, ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		calls++
		if !errors.Is(err, session.ErrStore) || !errors.Is(err, errDown) || session.From(r.Context()).Err() != err {
			t.Error("ErrorHandler was given", err)
		}
		page(w)
	}})
	b := newBrowser(t, m.Handler(slowRoutes(nil)))
	b.get("/login")
	for what, c := range map[string]struct {
		page   func(w http.ResponseWriter)
		status int
	}{
		"a page":           {func(w http.ResponseWriter) { w.WriteHeader(502); fmt.Fprint(w, "sorry") }, 502},
		"no status":        {func(w http.ResponseWriter) { fmt.Fprint(w, "sorry") }, 503},
		"a redirection":    {func(w http.ResponseWriter) { w.Header().Set("Location", "/sorry"); w.WriteHeader(302) }, 302},
		"nothing":          {func(w http.ResponseWriter) {}, 503},
		"a cacheable page": {func(w http.ResponseWriter) { w.Header().Set("Cache-Control", "public"); fmt.Fprint(w, "sorry") }, 503},
	} {
		page, calls = c.page, 0
		spy.down.Store(true)
		resp := b.get("/renew")
		spy.down.Store(false)
		if resp.StatusCode != c.status || resp.Header.Get("Cache-Control") != "no-store" || setsCookie(resp) || calls != 1 {
			t.Error(what, resp.Status, resp.Header, calls, "calls")
		}
		if c.status == 302 && resp.Header.Get("Location") != "/sorry" {
			t.Error(what, "lost its own Location")
		}
	}
	stale := b.replay(b.cookie())
	b.get("/renew")
	if calls = 0; stale.get("/renew").StatusCode != 200 || calls != 0 {
		t.Error("ErrorHandler was called for a token that was replaced")
	}
}

// Promise 7. Whoever calls Save decides what its error means for the response.
func TestErrorOfAnExplicitSaveIsTheCallers(t *testing.T) {
	for _, from := range []string{"/login", "/nowhere"} { // a stored session, and a new one
		for _, c := range []struct {
			name   string
			after  func(r *http.Request, s *session.Session)
			stored string
		}{
			{"gives up", func(*http.Request, *session.Session) {}, "before"},
			{"tries again", func(r *http.Request, s *session.Session) { s.Save(r.Context()) }, "after"},
			{"changes more", func(r *http.Request, s *session.Session) { visits.Set(s, 1) }, "after"},
		} {
			t.Run(from+" "+c.name, func(t *testing.T) {
				spy := newSpy()
				shop := slowRoutes(nil)
				shop["/save"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					name.Set(s, "after") // loads: what fails is the saving
					spy.down.Store(true)
					if err := s.Save(r.Context()); !errors.Is(err, session.ErrStore) || !errors.Is(err, errDown) || s.Err() != err {
						t.Error("Save:", err, "Err:", s.Err())
					}
					spy.down.Store(false)
					c.after(r, s)
					w.WriteHeader(409)
					if _, err := w.Write([]byte("mine")); err != nil {
						t.Error("Write:", err)
					}
				}
				b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(shop))
				b.get(from)
				had, want := b.cookie(), c.stored
				if had == "" && want == "before" {
					want = ""
				}
				resp := b.get("/save")
				if resp.StatusCode != 409 || body(resp) != "mine" || setsCookie(resp) != (had == "" && want != "") {
					t.Error("the response:", resp.Status, resp.Header)
				}
				if got := body(b.get("/user")); !strings.HasSuffix(got, " "+want) {
					t.Errorf("stored %q, want %q", got, want)
				}
			})
		}
	}
}
