package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// decorate prepares a response as a handler does that expects success.
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

// expectReplaced fails the test unless a response is that of the default ErrorHandler.
func expectReplaced(t *testing.T, resp *http.Response, status int) {
	t.Helper()
	h := resp.Header
	if text := body(resp); resp.StatusCode != status || strings.TrimSpace(text) != http.StatusText(status) {
		t.Errorf("the response is %d %q", resp.StatusCode, text)
	}
	if h.Get("Cache-Control") != "no-store" || h.Get("Vary") != "Cookie" || setsCookie(resp) {
		t.Error("wrong headers for caches and browsers:", h)
	}
	for _, name := range []string{"Content-Encoding", "Content-Disposition", "Content-Range", "Etag", "Last-Modified", "Location"} {
		if h.Get(name) != "" {
			t.Error("a header of the handler was sent:", name, h.Get(name))
		}
	}
	if ct := h.Get("Content-Type"); ct != "text/plain; charset=utf-8" {
		t.Error("Content-Type:", ct)
	}
}

// answers contains the calls with which a handler learns that its response was replaced.
var answers = map[string]func(w http.ResponseWriter) error{
	"Write":       func(w http.ResponseWriter) error { _, err := w.Write([]byte("paid!")); return err },
	"WriteHeader": func(w http.ResponseWriter) error { w.WriteHeader(201); _, err := w.Write([]byte("paid!")); return err },
	"Flush":       func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	"Hijack": func(w http.ResponseWriter) error {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			conn.Close()
		}
		return err
	},
	"nothing": nil,
}

// TestFailingStoreIsNotALoggedOutUser: promise 7. While the store cannot be read the user only
// seems logged out: the handler learns it from Err, or cannot write, and its response is
// replaced.
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
				if s.User() != "" || name.Get(s) != "" || s.ID() != "" || len(s.Names()) > 0 {
					t.Error("the request sees", s.User(), name.Get(s), s.ID(), s.Names())
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
			if resp.Header.Get("X-Request-Id") != "" || resp.Header.Get("Content-Security-Policy") == "" || resp.Header.Get("Retry-After") == "" {
				t.Error("the header of the error response:", resp.Header)
			}
			if log.count(session.EventStoreFailed) != 1 || spy.count("Create")+spy.count("Save") != 1 { // the login was the only write
				t.Error("calls", spy.calls, "events", log.all)
			}
			spy.down.Store(false)
			if got := body(b.get("/user")); got != "alice before" || b.cookie() != held {
				t.Errorf("afterwards logged in as %q", got)
			}
		})
	}
}

// saving contains operations on a session, and the store call of each that fails.
var saving = []struct {
	name, call string
	cookie     bool // whether the operation needs a cookie
	do         func(s *session.Session)
}{
	{"changed", "Save", false, func(s *session.Session) { name.Set(s, "after") }},
	{"Logout", "Save", false, func(s *session.Session) { s.Logout() }},
	{"Remember", "Save", true, func(s *session.Session) { s.Remember(1e15) }},
	{"Login as another, first step", "Create", true, func(s *session.Session) { s.Login("bob") }},
	{"Login as another, second step", "Save", true, func(s *session.Session) { s.Login("bob") }},
	{"Login again", "Save", true, func(s *session.Session) { s.Login("alice") }},
	{"Renew", "Save", true, func(s *session.Session) { s.Renew() }},
	{"Logout and a new session", "Create", true, func(s *session.Session) { s.Logout(); name.Set(s, "new") }},
}

// TestFailingSaveReplacesTheResponse: promise 7. If saving fails before the first byte the
// response is replaced and no cookie is sent. The user is logged in as before.
func TestFailingSaveReplacesTheResponse(t *testing.T) {
	for _, c := range saving {
		for how, answer := range answers {
			if how == "Hijack" && c.cookie {
				continue // a hijacked response can set no cookie, so this is refused before the store call
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
					want = " " // the first step was done
				}
				if got := body(b.get("/user")); got != want {
					t.Errorf("afterwards logged in as %q, want %q", got, want)
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

// lost returns an after hook for a method whose writes are applied and never acknowledged. As
// some clients do, it wraps the error of the last try.
func lost(method string) func(context.Context, string, string, error) error {
	return func(_ context.Context, call, _ string, err error) error {
		if call == method && err == nil {
			return fmt.Errorf("%w: %w", session.ErrIndeterminate, session.ErrConflict)
		}
		return err
	}
}

// TestFailureAfterTheFirstByte: promise 7. After the first byte a failure is reported by event,
// log and Err.
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

// TestErrorHandler: promise 7. ErrorHandler writes the response, which is never cached. It may
// use the session, and is not called when a session ends.
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
			t.Error(what, "the Location of ErrorHandler was lost")
		}
	}
	stale := b.replay(b.cookie())
	b.get("/bob")
	if calls = 0; stale.get("/renew").StatusCode != 200 || calls != 0 {
		t.Error("ErrorHandler was called for a token that was replaced")
	}
}

// TestErrorHandlersStatus checks that an error page has the first status that ErrorHandler
// writes, and is never cached.
func TestErrorHandlersStatus(t *testing.T) {
	var page func(w http.ResponseWriter)
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { page(w) }})
	sent := open(t, m, "alice")
	spy.down.Store(true)
	for _, c := range []struct {
		page func(w http.ResponseWriter)
		want string
	}{
		{func(w http.ResponseWriter) {}, "[503]"},
		{func(w http.ResponseWriter) { w.Write(ok) }, "[503]"},
		{func(w http.ResponseWriter) { w.WriteHeader(418); w.Write(ok) }, "[418]"},
		{func(w http.ResponseWriter) { w.WriteHeader(200); w.Write(ok) }, "[200]"},
		{func(w http.ResponseWriter) { w.WriteHeader(103); w.WriteHeader(418); w.Write(ok) }, "[103 418]"},
		{func(w http.ResponseWriter) { w.WriteHeader(103) }, "[103 503]"},
	} {
		page = c.page
		w := &statusWriter{ResponseWriter: httptest.NewRecorder()}
		r := httptest.NewRequest("GET", "https://localhost/", nil)
		r.Header.Set("Cookie", sent)
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { read(session.From(r.Context())) })).ServeHTTP(w, r)
		if got := fmt.Sprint(w.all); got != c.want || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("statuses %s, want %s; header %v", got, c.want, w.Header())
		}
	}
}

// statusWriter records the calls of WriteHeader.
type statusWriter struct {
	http.ResponseWriter
	all []int
}

func (w *statusWriter) WriteHeader(status int) { w.all = append(w.all, status) }

// TestErrorOfAnExplicitSaveIsTheCallers: promise 7. The caller of Save decides what its error
// means for the response.
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
					name.Set(s, "after") // loads the session, so that only the save fails
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

// TestIndeterminateSaveIsNeverRepeated: promise 7. A write that may have been applied is never
// repeated with the changes reapplied, because an Update would count twice. Reload finds the
// outcome.
func TestIndeterminateSaveIsNeverRepeated(t *testing.T) {
	for what, c := range map[string]struct {
		then   func(w http.ResponseWriter, r *http.Request, s *session.Session)
		status int
		visits int
	}{
		"the response's own": {func(http.ResponseWriter, *http.Request, *session.Session) {}, 503, 1},
		"after the first byte": {func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			w.(http.Flusher).Flush()
			s.Err()
		}, 503, 1},
		"Save twice": {func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			for range 2 {
				if err := s.Save(r.Context()); !errors.Is(err, session.ErrIndeterminate) || !errors.Is(err, session.ErrStore) {
					t.Error("Save:", err)
				}
			}
		}, 200, 1},
		"Save, change, respond": {func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Save(r.Context())
			name.Set(s, "more")
		}, 200, 1},
		"Save, Reload, Update": {func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Save(r.Context())
			if err := s.Reload(r.Context()); err != nil || visits.Get(s) != 1 {
				t.Error("Reload:", err, visits.Get(s))
			}
			visits.Update(s, func(n int) int { return n + 1 })
		}, 503, 2},
	} {
		t.Run(what, func(t *testing.T) {
			spy := newSpy()
			m := newManager(t, session.Options{Store: spy})
			shop := slowRoutes(nil)
			shop["/count"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				visits.Update(s, func(n int) int { return n + 1 })
				c.then(w, r, s)
			}
			shop["/visits"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				fmt.Fprint(w, s.User(), visits.Get(s))
			}
			b := newBrowser(t, m.Handler(shop))
			b.get("/login")
			spy.after = lost("Save")
			if resp := b.get("/count"); resp.StatusCode != c.status || setsCookie(resp) {
				t.Error(resp.Status, resp.Header)
			}
			spy.after = nil
			if got, want := body(b.get("/visits")), fmt.Sprint("alice", c.visits); got != want || spy.count("Save") != c.visits {
				t.Errorf("%q after %d calls of Save, want %q", got, spy.count("Save"), want)
			}
		})
	}
}

// TestIndeterminateTokenIsTakenBack checks that a create or swap with an unknown outcome leaves
// no record whose token no client has. After a swap the store is asked for the outcome: a lost
// reply signs out no user.
func TestIndeterminateTokenIsTakenBack(t *testing.T) {
	for _, c := range []struct{ path, call string }{
		{"/first", "Create"}, {"/bob", "Create"}, {"/bob", "Save"},
	} {
		for _, applied := range []bool{true, false} {
			t.Run(fmt.Sprint(c.path, " ", c.call, " applied=", applied), func(t *testing.T) {
				spy := newSpy()
				shop := slowRoutes(nil)
				shop["/first"] = shop["/login"]
				b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(shop))
				if c.path != "/first" {
					b.get("/login")
				}
				held := b.cookie()
				if applied {
					spy.after = lost(c.call)
				} else {
					spy.hook(failing(c.call, session.ErrIndeterminate))
				}
				resp := b.get(c.path)
				spy.after = nil
				spy.hook(nil)
				if c.call == "Save" && applied {
					if got := body(b.get("/user")); resp.StatusCode != 200 || b.cookie() == held || got != "bob before" {
						t.Errorf("%s, logged in as %q", resp.Status, got)
					}
					return
				}
				expectReplaced(t, resp, 503)
				want := 1 // the old record
				if c.path == "/first" {
					want = 0
				}
				all, err := spy.List(t.Context(), "alice")
				if len(all) != want || err != nil || b.cookie() != held {
					t.Errorf("%d records are left (%v), want %d", len(all), err, want)
				}
			})
		}
	}
}

// TestStoreAnswersWithAnotherRecord checks that a store that returns no record, or another one,
// has failed.
func TestStoreAnswersWithAnotherRecord(t *testing.T) {
	spy := newSpy()
	b := newBrowser(t, newManager(t, session.Options{Store: &swapped{spy, nil}}).Handler(slowRoutes(nil)))
	b.get("/login")
	expectReplaced(t, b.get("/user"), 503)

	other := newBrowser(t, b.h)
	other.get("/login")
	all, _ := spy.List(t.Context(), "alice")
	for _, rec := range all {
		m := newManager(t, session.Options{Store: &swapped{spy, rec}})
		statuses := fmt.Sprint(newBrowser(t, m.Handler(slowRoutes(nil))).replay(b.cookie()).get("/user").StatusCode,
			newBrowser(t, m.Handler(slowRoutes(nil))).replay(other.cookie()).get("/user").StatusCode)
		if statuses != "200 503" && statuses != "503 200" {
			t.Error("the two browsers got", statuses)
		}
	}
}

// swapped is a store that returns one record for every Load.
type swapped struct {
	session.Store
	rec *session.Record
}

func (s *swapped) Load(context.Context, string) (*session.Record, error) { return s.rec, nil }

// TestEndlessConflict checks that a commit that always conflicts gives up at its deadline.
func TestEndlessConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		b := newBrowser(t, newManager(t, session.Options{Store: spy, StoreTimeout: time.Second}).Handler(slowRoutes(nil)))
		b.get("/login")
		all, _ := spy.List(t.Context(), "alice")
		spy.hook(func(_ context.Context, call, id string) error {
			if call == "Save" && id == all[0].ID {
				return session.ErrConflict // as if another request had just saved
			}
			return nil
		})
		for _, path := range []string{"/logout", "/renew", "/login", "/bob"} {
			start := time.Now()
			expectReplaced(t, b.get(path), 503)
			if took := time.Since(start); took != time.Second {
				t.Error(path, "took", took)
			}
		}
		spy.hook(nil)
		if all, err := spy.List(t.Context(), "alice"); len(all) != 1 || err != nil {
			t.Error("records left in the store:", len(all), err)
		}
	})
}

// TestFailingEndings checks that calls that end sessions return the error of the store.
func TestFailingEndings(t *testing.T) {
	var log events
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
	b := newBrowser(t, m.Handler(slowRoutes(nil)))
	b.get("/login")
	all, err := m.List(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	spy.down.Store(true)
	for i, err := range []error{
		m.Edit(t.Context(), "alice", all[0].ID, func(s *session.Session) { t.Error("the function is called") }),
		m.Revoke(t.Context(), "alice", "an id"),
		m.RevokeAll(t.Context(), "alice"),
		func() error { _, err := m.List(t.Context(), "alice"); return err }(),
	} {
		if !errors.Is(err, session.ErrStore) || !errors.Is(err, errDown) {
			t.Error(i, err)
		}
	}
	if log.count(session.EventStoreFailed) != 4 {
		t.Error("events", log.all)
	}
}

// TestLostConnectionLosesNoWrite: promise 8. The changes of a request are stored although its
// client has closed the connection, and its context was cancelled before the session was
// loaded.
func TestLostConnectionLosesNoWrite(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(w http.ResponseWriter, r *http.Request, m *session.Manager)
		want string // what the browser's cookie opens
		live int    // number of sessions of alice
	}{
		{"changed", func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
			name.Set(session.From(r.Context()), "after")
		}, "alice after", 1},
		{"changed and saved", func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
			name.Set(session.From(r.Context()), "after")
			if err := session.From(r.Context()).Save(r.Context()); err != nil {
				t.Error("Save:", err)
			}
		}, "alice after", 1},
		{"changed late", func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
			w.(http.Flusher).Flush()
			name.Set(session.From(r.Context()), "after")
		}, "alice after", 1},
		{"Logout", func(w http.ResponseWriter, r *http.Request, _ *session.Manager) { session.From(r.Context()).Logout() }, " ", 0},
		{"Renew", func(w http.ResponseWriter, r *http.Request, _ *session.Manager) { session.From(r.Context()).Renew() }, "alice before", 1},
		{"Login", func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
			session.From(r.Context()).Login("alice")
		}, "alice before", 1},
		{"Login as another", func(w http.ResponseWriter, r *http.Request, _ *session.Manager) {
			session.From(r.Context()).Login("bob")
		}, " ", 0},
		{"RevokeAll", func(w http.ResponseWriter, r *http.Request, m *session.Manager) {
			if err := m.RevokeAll(r.Context(), "alice"); err != nil {
				t.Error("RevokeAll:", err)
			}
		}, " ", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			spy := newSpy()
			m := newManager(t, session.Options{Store: spy})
			arrived, done := make(chan bool), make(chan bool)
			shop := m.Handler(slowRoutes(nil))
			slow := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(arrived)
				<-r.Context().Done()
				c.do(w, r, m)
			}))
			b := newBrowser(t, overTheWire(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/slow" {
					shop.ServeHTTP(w, r)
					return
				}
				defer close(done)
				slow.ServeHTTP(w, r)
			})))
			b.get("/login")
			spy.hook(func(ctx context.Context, _, _ string) error { // checks the context as a driver does
				ctx, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				return ctx.Err()
			})
			ctx, hangUp := context.WithCancel(t.Context())
			go b.do(b.request("/slow").WithContext(ctx))
			<-arrived
			hangUp()
			<-done
			if got := body(b.get("/user")); got != c.want {
				t.Errorf("the cookie opens %q, want %q", got, c.want)
			}
			if all, err := spy.List(t.Context(), "alice"); len(all) != c.live || err != nil {
				t.Errorf("%d sessions (%v), want %d", len(all), err, c.live)
			}
		})
	}
}

// TestContextValuesReachTheStore: promise 8. The store is called with the values of the
// request's context, or of the context that Save is given.
func TestContextValuesReachTheStore(t *testing.T) {
	type mark struct{}
	spy := newSpy()
	b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(routes{
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "one")
			if err := s.Save(context.WithValue(r.Context(), mark{}, "Save's")); err != nil {
				t.Error(err)
			}
			name.Set(s, "two")
		},
	}))
	var seen []any
	b.get("/")
	spy.hook(func(ctx context.Context, call, _ string) error {
		seen = append(seen, call, ctx.Value(mark{}))
		return nil
	})
	r := b.request("/")
	b.do(r.WithContext(context.WithValue(r.Context(), mark{}, "the request's")))
	if got, want := fmt.Sprint(seen), "[Load the request's Save Save's Save the request's]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestHeaderOfAReplacedResponse: promise 7. A response that is replaced keeps the headers that
// were set when Handler was entered, with their values at that time. Headers that were added
// since are removed, in any spelling, except for a Content-Security-Policy.
func TestHeaderOfAReplacedResponse(t *testing.T) {
	store := newSpy()
	m := newManager(t, session.Options{Store: store})
	inner := m.Handler(routes{
		"/login": clockRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			h := w.Header()
			h["Access-Control-Allow-Origin"][0] = "*"
			h.Add("Strict-Transport-Security", "max-age=0")
			h.Set("X-Request-Id", "the handler's")
			h.Del("X-Frame-Options")
			for _, name := range []string{
				"X-Accel-Redirect", "X-Sendfile", "Refresh", "HX-Redirect", "HX-Location", "X-Inertia-Location", "Clear-Site-Data",
				"WWW-Authenticate", "Trailer", "ETag", "Location", "Set-Cookie", "Session-Token", "Link", "X-Powered-By", "Vary",
			} {
				h.Set(name, "x")
				h[name], h[strings.ToLower(name)] = []string{"x"}, []string{"x"}
			}
			h["cache-control"], h["content-length"], h["content-type"] = []string{"public"}, []string{"5"}, []string{"image/png"}
			h.Set("Content-Security-Policy", "default-src 'self'")
			h.Set("Content-Security-Policy-Report-Only", "default-src 'none'")
			if _, err := w.Write([]byte("hello")); !errors.Is(err, session.ErrStore) {
				t.Error("Write:", err)
			}
			w.Header().Set("X-Late", "x")
			w.Header().Set(http.TrailerPrefix+"X-Late", "x")
		},
	})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{
			"Access-Control-Allow-Origin": "https://app.test", "Strict-Transport-Security": "max-age=31536000", "X-Request-Id": "7",
			"X-Frame-Options": "DENY", "Cache-Control": "public", "Content-Length": "5", "Vary": "Origin",
		} {
			w.Header().Set(name, value)
		}
		w.Header()["x-odd"] = []string{"1", "2"}
		w.Header()["cache-control"] = []string{"public"}
		w.Header().Set("Content-Security-Policy-Report-Only", "default-src https:")
		if r.URL.Path == "/login" {
			w.Header().Del("Content-Length")
		}
		inner.ServeHTTP(w, r)
	})
	b := newBrowser(t, h)
	b.get("/login")
	store.down.Store(true)
	r, w := b.request("/"), httptest.NewRecorder()
	h.ServeHTTP(w, r)
	want := http.Header{
		"Access-Control-Allow-Origin": {"https://app.test"}, "Strict-Transport-Security": {"max-age=31536000"}, "X-Request-Id": {"7"},
		"X-Frame-Options": {"DENY"}, "x-odd": {"1", "2"}, "Vary": {"Cookie", "Origin"},
		"Content-Security-Policy": {"default-src 'self'"}, "Content-Security-Policy-Report-Only": {"default-src https:"},
		"Cache-Control": {"no-store"}, "Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}, "Retry-After": {"5"},
	}
	for name := range want {
		if !slices.Equal(w.Header()[name], want[name]) {
			t.Errorf("%s: %q, want %q", name, w.Header()[name], want[name])
		}
	}
	for name, values := range w.Header() {
		if want[name] == nil {
			t.Errorf("%s: %q is in the header of the %d", name, values, w.Code)
		}
	}
}

// TestHeaderHeldFromBeforeAReplacedResponse: promise 7. A handler that has kept the header from
// before its response was replaced cannot add to the other response: neither trailers, nor to a
// header that a middleware around it sends later. Additions of ErrorHandler are kept.
func TestHeaderHeldFromBeforeAReplacedResponse(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
		w.Header().Set("X-Error", "error")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, strings.Repeat("x", 10_000)) // more than net/http buffers
		w.Header().Set(http.TrailerPrefix+"X-Error-Trailer", "error")
	}})
	app := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		session.From(r.Context()).User()
		if _, err := w.Write([]byte("hello")); !errors.Is(err, session.ErrStore) {
			t.Error("Write:", err)
		}
		h["X-Error"][0] = "handler"
		h.Set("X-Accel-Redirect", "handler")
		h.Set("Set-Cookie", "a=handler")
		h.Set("X-Around", "handler")
		h.Set(http.TrailerPrefix+"X-Late", "handler")
		if r.URL.Path == "/panic" {
			panic(http.ErrAbortHandler)
		}
	}))
	around := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { recover() }()
		w.Header().Set("Trailer", "X-Around")
		app.ServeHTTP(w, r)
	})
	cookie := open(t, m, "ann")
	spy.down.Store(true)
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for where, h := range map[string]http.Handler{"": around, "in http.TimeoutHandler: ": http.TimeoutHandler(around, time.Hour, "")} {
			for _, path := range []string{"/", "/panic"} {
				srv := startServer(t, protocol, h)
				resp, err := srv.Client().Do(request(t, srv.URL+path, cookie))
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("X-Error") != "error" || resp.Trailer.Get("X-Error-Trailer") != "error" {
					t.Errorf("%s%s %s: %s without what ErrorHandler added: %v %v", where, protocol, path, resp.Status, resp.Header, resp.Trailer)
				}
				if all := fmt.Sprint(resp.Header, resp.Trailer); strings.Contains(all, "handler") {
					t.Errorf("%s%s %s: the handler added to the response: %s", where, protocol, path, all)
				}
			}
		}
	}
}

// returns runs f and returns the value with which f panicked. It fails the test if f does not
// return, for example because a panic has left a mutex locked.
func returns(t *testing.T, f func()) (panicked any) {
	t.Helper()
	done := make(chan any, 1)
	go func() {
		defer func() { done <- recover() }()
		f()
	}()
	select {
	case panicked = <-done:
	case <-time.After(time.Minute):
		t.Fatal("f does not return")
	}
	return panicked
}

// first contains methods that load the session on first use.
var first = map[string]func(s *session.Session){
	"User":     func(s *session.Session) { s.User() },
	"Names":    func(s *session.Session) { s.Names() },
	"Err":      func(s *session.Session) { s.Err() },
	"Set":      func(s *session.Session) { name.Set(s, "after") },
	"Update":   func(s *session.Session) { name.Update(s, func(string) string { return "after" }) },
	"AddFlash": func(s *session.Session) { s.AddFlash("", "after") },
	"Take":     func(s *session.Session) { name.Take(context.Background(), s) },
	"UpdateNow": func(s *session.Session) {
		name.UpdateNow(context.Background(), s, func(string) string { return "after" })
	},
	"Login":     func(s *session.Session) { s.Login("alice") },
	`Login("")`: func(s *session.Session) { s.Login("") },
	"Logout":    func(s *session.Session) { s.Logout() },
	"Save":      func(s *session.Session) { s.Save(context.Background()) },
	"Reload":    func(s *session.Session) { s.Reload(context.Background()) },
}

// TestPanicOfTheStoreGoesOn checks that a panic of the store ends the request, as any panic
// does, and that neither this request nor a later one waits for a mutex.
func TestPanicOfTheStoreGoesOn(t *testing.T) {
	for use, f := range first {
		t.Run(use, func(t *testing.T) {
			t.Parallel()
			spy := newSpy()
			shop := slowRoutes(nil)
			shop["/first"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) { f(s) }
			b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(shop))
			b.get("/login")
			spy.hook(panicking("Load"))
			if p := returns(t, func() { b.get("/first") }); p != "a bug of the store" {
				t.Errorf("the panic became %v", p)
			}
			spy.hook(nil)
			if p := returns(t, func() {
				if got := body(b.get("/user")); got != "alice before" {
					t.Errorf("a later request is logged in as %q", got)
				}
			}); p != nil {
				t.Errorf("a later request panics: %v", p)
			}
		})
	}
}

// TestRecoveredPanicOfTheStore checks that a handler that recovers from a panic of the store
// has a session that is not loaded, and never one that looks logged out.
func TestRecoveredPanicOfTheStore(t *testing.T) {
	for use, f := range first {
		t.Run(use, func(t *testing.T) {
			t.Parallel()
			spy := newSpy()
			shop := slowRoutes(nil)
			shop["/first"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				func() {
					defer func() { recover() }()
					f(s)
				}()
				spy.hook(nil)
				// Reload loads once; the other methods load again.
				if s.User() != "alice" && (s.Err() == nil || use != "Reload") {
					t.Errorf("logged in as %q, Err is %v", s.User(), s.Err())
				}
			}
			b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(shop))
			b.get("/login")
			spy.hook(panicking("Load"))
			if p := returns(t, func() { b.get("/first") }); p != nil {
				t.Errorf("the request panics again: %v", p)
			}
		})
	}
}

// TestRecoveredPanicInAReload does the same for a session that the request has created, so that
// no cookie of the request leads to it.
func TestRecoveredPanicInAReload(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	check := func(what string, s *session.Session) {
		spy.hook(panicking("Load"))
		if p := returns(t, func() { s.Reload(context.Background()) }); p != "a bug of the store" {
			t.Errorf("%s: the panic became %v", what, p)
		}
		spy.hook(nil)
		if p := returns(t, func() {
			if s.User() != "alice" && s.Err() == nil {
				t.Errorf("%s: logged in as %q, and Err is nil", what, s.User())
			}
			if err := s.Reload(context.Background()); err != nil || s.User() != "alice" {
				t.Errorf("%s: the next Reload: %v, logged in as %q", what, err, s.User())
			}
		}); p != nil {
			t.Errorf("%s: the request panics again: %v", what, p)
		}
	}
	newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login("alice")
		s.Save(r.Context())
		check("just logged in", s)
	}})).get("/")
}

// panicking returns a hook that panics in one method of the store.
func panicking(method string) func(context.Context, string, string) error {
	return func(_ context.Context, call, _ string) error {
		if call == method {
			panic("a bug of the store")
		}
		return nil
	}
}

// TestStoreFailsAfterASavedLogin checks that if the store fails after an explicit Save of a
// login, the errors are the handler's to handle: the response is the handler's, with the cookie
// of the stored session.
func TestStoreFailsAfterASavedLogin(t *testing.T) {
	spy := newSpy()
	shop := slowRoutes(nil)
	shop["/try"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login("alice")
		if err := s.Save(r.Context()); err != nil {
			t.Error("Save:", err)
		}
		spy.down.Store(true)
		if err := s.Reload(r.Context()); !errors.Is(err, errDown) {
			t.Error("Reload of a store that is down:", err)
		}
		if err := s.Save(r.Context()); !errors.Is(err, errDown) {
			t.Error("Save after it:", err)
		}
		fmt.Fprint(w, "try later")
	}
	b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(shop))
	if p := returns(t, func() {
		if resp := b.get("/try"); resp.StatusCode != 200 || body(resp) != "try later" {
			t.Error("the response became", resp.Status)
		}
	}); p != nil {
		t.Error("panic:", p)
	}
	spy.down.Store(false)
	if got := body(b.get("/user")); got != "alice " {
		t.Errorf("afterwards logged in as %q", got)
	}
}
