package session_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// deed is what a handler does with its session, before and after the first byte of the
// response, and the expected result.
type deed struct {
	name     string
	from     string // user of the session whose cookie the request has; "": no cookie
	do, late func(s *session.Session)
	calls    string // expected store calls
	cookie   string // "", "set" or "deleted"
	vary     string
	cache    string // Cache-Control
	opens    string // what the browser's cookie opens afterwards
	old      string // what the cookie of the request opens afterwards; "": the same as opens
}

const (
	guest  = "guest" // stands for an anonymous session
	closed = "nothing"
)

func read(s *session.Session)   { name.Get(s) }
func write(s *session.Session)  { name.Set(s, "new") }
func logOut(s *session.Session) { s.Logout() }

var deeds = []deed{
	{name: "untouched", from: "alice", opens: "old of alice"},
	{name: "read", from: "alice", do: read, calls: "Load", vary: "Cookie", cache: "no-store", opens: "old of alice"},
	{name: "read, anonymous", from: guest, do: read, calls: "Load", vary: "Cookie", cache: "private", opens: "old of "},
	{name: "read nothing", do: read, vary: "Cookie", opens: closed},
	{name: "new session", do: write, calls: "Create", cookie: "set", vary: "Cookie", cache: "no-store", opens: "new of "},
	{name: "new session, saved early", calls: "Create", cookie: "set", vary: "Cookie", cache: "no-store", opens: "new of ",
		do: func(s *session.Session) { write(s); s.Save(context.Background()) }},
	{name: "changed", from: "alice", do: write, calls: "Load Save", vary: "Cookie", cache: "no-store", opens: "new of alice"},
	{name: "first Login", do: func(s *session.Session) { s.Login("bob") },
		calls: "Create", cookie: "set", vary: "Cookie", cache: "no-store", opens: " of bob"},
	{name: "Login", from: guest, do: func(s *session.Session) { s.Login("bob") },
		calls: "Load Create Save", cookie: "set", vary: "Cookie", cache: "no-store", opens: "old of bob", old: closed},
	{name: "Renew", from: "alice", do: func(s *session.Session) { s.Renew() },
		calls: "Load Save", cookie: "set", vary: "Cookie", cache: "no-store", opens: "old of alice", old: "old of alice"},
	{name: "Login again", from: "alice", do: func(s *session.Session) { s.Login("alice") },
		calls: "Load Save", cookie: "set", vary: "Cookie", cache: "no-store", opens: "old of alice", old: "old of alice"},
	{name: "Remember", from: "alice", do: func(s *session.Session) { s.Remember(time.Hour) },
		calls: "Load Save", cookie: "set", vary: "Cookie", cache: "no-store", opens: "old of alice", old: "old of alice"},
	{name: "Logout", from: "alice", do: logOut, calls: "Load Save", cookie: "deleted", vary: "Cookie", cache: "no-store", opens: closed, old: closed},
	{name: "Logout of nothing", do: logOut, vary: "Cookie", opens: closed},
	{name: "Logout, new session", from: "alice", do: func(s *session.Session) { s.Logout(); write(s) },
		calls: "Load Create Save", cookie: "set", vary: "Cookie", cache: "no-store", opens: "new of ", old: closed},
	{name: "changed late", from: "alice", do: read, late: write,
		calls: "Load Save", vary: "Cookie", cache: "no-store", opens: "new of alice"},
	{name: "first used late", from: "alice", late: write, calls: "Load Save", opens: "new of alice"},
}

// way is a way in which a handler responds with "hello".
type way struct {
	name            string
	answer          func(w http.ResponseWriter, r *http.Request)
	buffered        bool                            // whether the first byte is sent after the handler
	inside, outside func(http.Handler) http.Handler // of the Manager's Handler
}

func ways(t *testing.T) []way {
	file := filepath.Join(t.TempDir(), "hello.txt")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	hello := func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello")) }
	timeout := func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "too late") }
	return []way{
		{name: "nothing", answer: func(http.ResponseWriter, *http.Request) {}, buffered: true},
		{name: "Write", answer: hello},
		{name: "WriteString", answer: func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }},
		{name: "WriteHeader", answer: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201); hello(w, r) }},
		{name: "WriteHeader only", answer: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }},
		{name: "Flush", answer: func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); hello(w, r) }},
		{name: "ResponseController", answer: func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			soon := time.Now().Add(time.Minute)
			if err := errors.Join(rc.SetReadDeadline(soon), rc.SetWriteDeadline(soon), rc.EnableFullDuplex(), rc.Flush()); err != nil && !errors.Is(err, session.ErrStore) {
				t.Error(err)
			}
			hello(w, r)
		}},
		{name: "103", answer: func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(200)
			hello(w, r)
		}},
		{name: "Copy", answer: func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, io.LimitReader(strings.NewReader("hello"), 5)) // uses ReadFrom if the writer has it
		}},
		{name: "ServeFile", answer: func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }},
		{name: "TimeoutHandler inside", answer: hello, buffered: true, inside: timeout},
		{name: "TimeoutHandler outside", answer: hello, outside: timeout},
	}
}

// around returns the chain of handlers of y. ended receives the session's Err when the
// Manager's Handler has finished a request, because a client may have read the whole response
// before that.
func (y way) around(m *session.Manager, ended chan<- error, h http.HandlerFunc) http.Handler {
	var err error
	var in http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err = nil
		h(w, r)
		if r.Header.Get("Untouched") == "" {
			err = session.From(r.Context()).Err()
		}
	})
	if y.inside != nil {
		in = y.inside(in)
	}
	managed := m.Handler(in)
	var out http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- err }()
		managed.ServeHTTP(w, r)
	})
	if y.outside != nil {
		out = y.outside(out)
	}
	return out
}

// TestEveryAnswer checks that whichever way a handler responds, over both protocols, the same
// records are stored and the same headers are sent.
func TestEveryAnswer(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, way := range ways(t) {
			t.Run(protocol+" "+way.name, func(t *testing.T) {
				spy := newSpy()
				m := newManager(t, session.Options{Store: spy})
				ended := make(chan error, 1)
				var d deed
				srv := startServer(t, protocol, way.around(m, ended, func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					if d.do != nil {
						d.do(s)
					}
					way.answer(w, r)
					if d.late != nil {
						d.late(s)
					}
				}))
				for _, d = range deeds {
					if way.buffered && d.do == nil && d.late != nil {
						d.vary, d.cache = "Cookie", "no-store" // with a buffered response the change is not late
					}
					sent := open(t, m, d.from)
					spy.forget()
					r := request(t, srv.URL, sent)
					if d.do == nil && d.late == nil {
						r.Header.Set("Untouched", "yes")
					}
					resp, err := srv.Client().Do(r)
					if err != nil {
						t.Fatal(err)
					}
					text := body(resp)
					if err := <-ended; err != nil {
						t.Errorf("%s: Err is %v", d.name, err)
					}
					if resp.Proto != protocol || resp.StatusCode > 299 || text != "hello" && way.name != "nothing" && resp.StatusCode != 204 {
						t.Errorf("%s: %s %s %q", d.name, resp.Proto, resp.Status, text)
					}
					d.check(t, m, spy, sent, resp)
				}
			})
		}
	}
}

// check compares the result of a deed with the expected one.
func (d deed) check(t *testing.T, m *session.Manager, spy *spyStore, sent string, resp *http.Response) {
	t.Helper()
	if got := spy.summary(); got != d.calls {
		t.Errorf("%s: the store was called: %q, want %q", d.name, got, d.calls)
	}
	kind, held := ourCookie(t, resp, sent)
	if kind != d.cookie {
		t.Errorf("%s: the cookie was %q, want %q", d.name, kind, d.cookie)
	}
	if got := strings.Join(resp.Header["Vary"], ", "); got != d.vary {
		t.Errorf("%s: Vary is %q, want %q", d.name, got, d.vary)
	}
	if got := strings.Join(resp.Header["Cache-Control"], ", "); got != d.cache {
		t.Errorf("%s: Cache-Control is %q, want %q", d.name, got, d.cache)
	}
	if got := opens(t, m, held); got != d.opens {
		t.Errorf("%s: the browser's cookie opens %q, want %q", d.name, got, d.opens)
	}
	if got := opens(t, m, sent); d.old != "" && got != d.old {
		t.Errorf("%s: the old cookie opens %q, want %q", d.name, got, d.old)
	}
}

// TestHijackCommitsFirst checks that Hijack commits first. The handler then writes the header
// itself, so a call that needs a cookie is reported by name, and its changes are not stored.
func TestHijackCommitsFirst(t *testing.T) {
	for _, c := range []struct {
		name, from string
		do, late   func(s *session.Session)
		calls      string
		opens      string // what the cookie of the request opens afterwards
		err        string // the call that Err names
	}{
		{name: "untouched", from: "alice", opens: "old of alice"},
		{name: "read", from: "alice", do: read, calls: "Load", opens: "old of alice"},
		{name: "changed", from: "alice", do: write, calls: "Load Save", opens: "new of alice"},
		{name: "changed after", from: "alice", do: read, late: write, calls: "Load Save", opens: "new of alice"},
		{name: "first used after", from: "alice", late: write, calls: "Load Save", opens: "new of alice"},
		{name: "Logout", from: "alice", do: logOut, calls: "Load Save", opens: closed},
		{name: "Logout after", from: "alice", late: logOut, calls: "Load Save", opens: closed},
		{name: "new session", do: write, opens: closed, err: "Set"},
		{name: "new session after", late: write, opens: closed, err: "Set"},
		{name: "saved early", do: func(s *session.Session) { write(s); s.Save(context.Background()) }, calls: "Create", opens: closed, err: "Save"},
		{name: "Login", from: guest, do: func(s *session.Session) { write(s); s.Login("bob") }, calls: "Load Save", opens: "new of ", err: "Login"},
		{name: "Login as another", from: "alice", do: func(s *session.Session) { s.Login("bob"); write(s) }, calls: "Load", opens: "old of alice", err: "Login"},
		{name: "Login after", from: guest, late: func(s *session.Session) { s.Login("bob") }, calls: "Load", opens: "old of ", err: "Login"},
		{name: "Renew", from: "alice", do: func(s *session.Session) { s.Renew() }, calls: "Load", opens: "old of alice", err: "Renew"},
		{name: "Remember", from: "alice", do: func(s *session.Session) { s.Remember(time.Hour) }, calls: "Load", opens: "old of alice", err: "Remember"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spy := newSpy()
			m := newManager(t, session.Options{Store: spy})
			ended := make(chan error, 1)
			srv := startServer(t, "HTTP/1.1", way{}.around(m, ended, func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if c.do != nil {
					c.do(s)
				}
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
				conn.Close()
				if c.late != nil {
					c.late(s)
				}
			}))
			sent := open(t, m, c.from)
			spy.forget()
			r := request(t, srv.URL, sent)
			if c.do == nil && c.late == nil {
				r.Header.Set("Untouched", "yes")
			}
			resp, err := srv.Client().Do(r)
			if err != nil {
				t.Fatal(err)
			}
			if text := body(resp); text != "hello" {
				t.Errorf("the response is %q", text)
			}
			expectCall(t, <-ended, c.err)
			if got := spy.summary(); got != c.calls {
				t.Errorf("the store was called: %q, want %q", got, c.calls)
			}
			if got := opens(t, m, sent); got != c.opens {
				t.Errorf("the cookie opens %q, want %q", got, c.opens)
			}
		})
	}
}

// TestLateChangesAreKept checks that after the first byte a session that the browser has can be
// changed as before. A call that needs a cookie is reported, and the other changes of the
// request are kept.
func TestLateChangesAreKept(t *testing.T) {
	for _, c := range []struct {
		name, from string
		late       func(s *session.Session)
		opens      string
		err        string
	}{
		{"Set", "alice", write, "new of alice", ""},
		{"Update", "alice", func(s *session.Session) { name.Update(s, func(v string) string { return v + "er" }) }, "older of alice", ""},
		{"Delete", "alice", func(s *session.Session) { name.Delete(s) }, " of alice", ""},
		{"Clear", "alice", func(s *session.Session) { s.Clear() }, " of alice", ""},
		{"anonymous", guest, write, "new of ", ""},
		{"Save", "alice", func(s *session.Session) { write(s); s.Save(context.Background()) }, "new of alice", ""},
		{"Logout", "alice", logOut, closed, ""},
		{"Logout, Set", "alice", func(s *session.Session) { s.Logout(); write(s) }, closed, "Set"},
		{"Set, Logout", "alice", func(s *session.Session) { write(s); s.Logout() }, closed, ""},
		{"new session by Set", "", write, closed, "Set"},
		{"new session by Update", "", func(s *session.Session) { name.Update(s, func(string) string { return "x" }) }, closed, "Update"},
		{"new session by AddFlash", "", func(s *session.Session) { s.AddFlash("", "hi") }, closed, "AddFlash"},
		{"new session by Login", "", func(s *session.Session) { s.Login("bob") }, closed, "Login"},
		{"Login", guest, func(s *session.Session) { s.Login("bob") }, "old of ", "Login"},
		{"Set, Login", guest, func(s *session.Session) { write(s); s.Login("bob") }, "new of ", "Login"},
		{"Login, Set", guest, func(s *session.Session) { s.Login("bob"); write(s) }, "new of ", "Login"},
		{"Set, Login as another", "alice", func(s *session.Session) { write(s); s.Login("bob") }, "new of alice", "Login"},
		{"Login as another, Set", "alice", func(s *session.Session) { s.Login("bob"); write(s) }, "old of alice", "Login"},
		{"Renew of nothing", "", func(s *session.Session) { s.Renew() }, closed, ""},
		{"Renew", "alice", func(s *session.Session) { write(s); s.Renew() }, "new of alice", "Renew"},
		{"Remember", "alice", func(s *session.Session) { write(s); s.Remember(time.Hour) }, "new of alice", "Remember"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spy, told := newSpy(), &events{}
			m := newManager(t, session.Options{Store: spy, OnEvent: told.on, ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
				t.Errorf("ErrorHandler was given %v, after the first byte", err)
			}})
			sent := open(t, m, c.from)
			spy.forget()
			b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				read(s)
				w.Write([]byte("first byte"))
				c.late(s)
				expectCall(t, s.Err(), c.err)
			}})).replay(sent)
			resp := b.get("/")
			if kind, _ := ourCookie(t, resp, sent); kind != "" || b.cookie() != sent {
				t.Errorf("the cookie was %s", kind)
			}
			if n := spy.count("Create"); n != 0 {
				t.Errorf("%d records were created that no cookie opens", n)
			}
			if got := opens(t, m, sent); got != c.opens {
				t.Errorf("the cookie opens %q, want %q", got, c.opens)
			}
			if n := told.count(session.EventDropped); (n > 0) != (c.err != "") {
				t.Errorf("%d times EventDropped", n)
			}
		})
	}
}

// TestLateLogoutAfterALateLogin checks that a Logout works after a Login that came too late,
// because it is the only remedy for a handler that finds the wrong user logged in.
func TestLateLogoutAfterALateLogin(t *testing.T) {
	for _, user := range []string{"alice", "bob"} {
		m := newManager(t, session.Options{})
		sent := open(t, m, "alice")
		newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			w.Write([]byte("first byte"))
			if s.Login(user); s.Err() != nil {
				s.Logout()
			}
		}})).replay(sent).get("/")
		if got := opens(t, m, sent); got != closed {
			t.Errorf("Login(%q), Logout: the cookie still opens %q", user, got)
		}
	}
}

// expectCall checks that an error names a call, or for "" that there is no error.
func expectCall(t *testing.T, err error, call string) {
	t.Helper()
	if call == "" && err != nil || call != "" && (err == nil || !strings.Contains(err.Error(), " "+call+":")) {
		t.Errorf("Err is %v, want one that names %q", err, call)
	}
}

// TestPanicDropsUnsavedChanges checks that a panic drops unsaved changes, except a Logout, and
// is passed on unchanged. The server closes the connection.
func TestPanicDropsUnsavedChanges(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, c := range []struct {
			name, from string
			do         func(s *session.Session)
			opens      string
		}{
			{"untouched", "alice", func(*session.Session) {}, "old of alice"},
			{"changed", "alice", write, "old of alice"},
			{"changed and saved", "alice", func(s *session.Session) { write(s); s.Save(context.Background()) }, "new of alice"},
			{"new session", "", write, closed},
			{"Login", guest, func(s *session.Session) { s.Login("bob") }, "old of "},
			{"Renew", "alice", func(s *session.Session) { s.Renew() }, "old of alice"},
			{"Logout", "alice", logOut, closed},
			{"Logout, new session", "alice", func(s *session.Session) { s.Logout(); write(s) }, closed},
		} {
			for _, late := range []bool{false, true} {
				t.Run(fmt.Sprint(protocol, " ", c.name, " late=", late), func(t *testing.T) {
					m := newManager(t, session.Options{})
					sent := open(t, m, c.from)
					ended := make(chan any, 1)
					h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if late {
							w.(http.Flusher).Flush()
						}
						c.do(session.From(r.Context()))
						panic(http.ErrAbortHandler)
					}))
					srv := startServer(t, protocol, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						defer func() {
							p := recover()
							ended <- p
							panic(p)
						}()
						h.ServeHTTP(w, r)
					}))
					resp, err := srv.Client().Do(request(t, srv.URL, sent))
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						resp.Body.Close()
					}
					if err == nil {
						t.Error("the response was completed")
					}
					if p := <-ended; p != http.ErrAbortHandler {
						t.Errorf("the panic became %v", p)
					}
					if got := opens(t, m, sent); got != c.opens {
						t.Errorf("the cookie opens %q, want %q", got, c.opens)
					}
				})
			}
		}
	}
}

// TestRecoveredPanicHasTheRightHeader checks that in the response of a middleware that
// recovers, the header is correct for the session: it sets the cookie if the session was
// stored, and none if changes were dropped.
func TestRecoveredPanicHasTheRightHeader(t *testing.T) {
	for _, c := range []struct {
		name, from    string
		do            func(s *session.Session)
		cookie, cache string
	}{
		{"read", "alice", read, "", "no-store"},
		{"changed", "alice", write, "", "no-store"},
		{"new session", "", write, "", ""},
		{"new session, saved", "", func(s *session.Session) { write(s); s.Save(context.Background()) }, "set", "no-store"},
		{"Login", guest, func(s *session.Session) { s.Login("bob") }, "", "private"},
		{"Logout", "alice", logOut, "deleted", "no-store"},
	} {
		for _, down := range []bool{false, true} {
			spy := newSpy()
			m := newManager(t, session.Options{Store: spy})
			sent := open(t, m, c.from)
			h := m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				c.do(s)
				panic("a bug of the program")
			}})
			spy.down.Store(down)
			resp := newBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer func() {
					recover()
					w.WriteHeader(http.StatusTeapot)
				}()
				h.ServeHTTP(w, r)
			})).replay(sent).get("/")
			if resp.StatusCode != http.StatusTeapot {
				t.Errorf("%s, down %v: %s: the response is not that of the middleware", c.name, down, resp.Status)
			}
			kind, _ := ourCookie(t, resp, sent)
			switch {
			case down && kind != "":
				t.Errorf("%s: Set-Cookie from a store that is down", c.name)
			case !down && (kind != c.cookie || resp.Header.Get("Cache-Control") != c.cache || resp.Header.Get("Vary") != "Cookie"):
				t.Errorf("%s: cookie %q, want %q; header %v", c.name, kind, c.cookie, resp.Header)
			}
		}
	}
}

// TestTimeoutInside covers a handler that outlives its response. Changes before the timeout are
// stored with the 503, changes after it only with a Save.
func TestTimeoutInside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		answered, done := make(chan struct{}), make(chan struct{})
		h := m.Handler(http.TimeoutHandler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			defer close(done)
			name.Set(s, "before")
			<-r.Context().Done()
			<-answered
			visits.Set(s, 1)
			if name.Get(s) != "before" || visits.Get(s) != 1 {
				t.Error("reading no longer works")
			}
			if r.URL.RawQuery == "save" {
				if err := s.Save(context.Background()); err != nil {
					t.Error(err)
				}
			}
			w.Write([]byte("hello"))
		}}, time.Millisecond, "too late"))
		count := func(b *browser) (n int) {
			newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				n = visits.Get(s)
			}})).replay(b.cookie()).get("/")
			return n
		}
		for _, c := range []struct {
			path   string
			visits int
		}{{"/", 0}, {"/?save", 1}} {
			answered, done = make(chan struct{}), make(chan struct{})
			b := newBrowser(t, h)
			resp := b.get(c.path)
			if resp.StatusCode != 503 || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %s %v", c.path, resp.Status, resp.Header)
			}
			close(answered)
			<-done
			if got := opens(t, m, b.cookie()); got != "before of " || count(b) != c.visits {
				t.Errorf("%s: the cookie opens %q and %d visits, want %d", c.path, got, count(b), c.visits)
			}
		}
	})
}

// TestTimeoutOutside covers a response that is sent before the handler has returned: no cookie
// can be set, and changes of a session that the browser has are kept.
func TestTimeoutOutside(t *testing.T) {
	m := newManager(t, session.Options{})
	sent, answered, done := open(t, m, "alice"), make(chan struct{}), make(chan struct{})
	managed := m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		name.Set(s, "new")
		<-r.Context().Done()
		<-answered
		if _, err := w.Write([]byte("hello")); err != http.ErrHandlerTimeout {
			t.Error(err)
		}
		visits.Set(s, 1)
	}})
	h := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		managed.ServeHTTP(w, r)
	}), time.Millisecond, "too late")
	resp := newBrowser(t, h).replay(sent).get("/")
	close(answered)
	<-done
	if resp.StatusCode != 503 || resp.Header["Set-Cookie"] != nil {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		if name.Get(s) != "new" || visits.Get(s) != 1 {
			t.Errorf("values kept: %q and %d", name.Get(s), visits.Get(s))
		}
	}})).replay(sent).get("/")
}

// startServer starts a TLS server for one protocol.
func startServer(t testing.TB, protocol string, h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = protocol == "HTTP/2.0"
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // panics are expected
	srv.TLS = &tls.Config{Rand: ownRandom}
	srv.StartTLS()
	srv.Client().Transport.(*http.Transport).TLSClientConfig.Rand = ownRandom
	t.Cleanup(srv.Close)
	return srv
}

// ownRandom is for TLS. A handshake may outlast its test, and must not read the variable
// rand.Reader while TestSimulate sets it.
var ownRandom = rand.Reader

// request prepares a request for a real server.
func request(t testing.TB, url, cookie string) *http.Request {
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	return r
}

// open returns the cookie of a session of user with the name "old".
func open(t testing.TB, m *session.Manager, user string) string {
	b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		if user != "" {
			name.Set(s, "old")
		}
		if user != "" && user != guest {
			s.Login(user)
		}
	}}))
	b.get("/")
	if user != "" && b.cookie() == "" {
		t.Fatal("the session has set no cookie")
	}
	return b.cookie()
}

// opens returns the contents of the session that a cookie opens.
func opens(t testing.TB, m *session.Manager, cookie string) string {
	return body(newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		if s.IsNew() {
			fmt.Fprint(w, closed)
			return
		}
		fmt.Fprintf(w, "%s of %s", name.Get(s), s.User())
	}})).replay(cookie).get("/"))
}

// ourCookie returns what a response does with the session's cookie, and which cookie the
// browser has afterwards.
func ourCookie(t testing.TB, resp *http.Response, sent string) (kind, held string) {
	t.Helper()
	held = sent
	for _, c := range resp.Cookies() {
		switch {
		case c.Name != "__Host-Http-session":
		case kind != "":
			t.Errorf("more than one Set-Cookie of the session's name: %q", resp.Header["Set-Cookie"])
		case c.MaxAge < 0:
			kind, held = "deleted", ""
		default:
			kind, held = "set", c.Name+"="+c.Value
		}
	}
	return kind, held
}

// forget resets the counts.
func (s *spyStore) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
}

// summary lists the methods that were called, each with its count if that is not 1.
func (s *spyStore) summary() string {
	var all []string
	for _, call := range []string{"Load", "Create", "Save", "Touch", "Delete", "List"} {
		switch n := s.count(call); n {
		case 0:
		case 1:
			all = append(all, call)
		default:
			all = append(all, fmt.Sprint(call, "×", n))
		}
	}
	return strings.Join(all, " ")
}

// TestStoredBeforeTheCookieLeaves checks that when the client has the header, while the handler
// still runs, the session that its cookie opens is stored.
func TestStoredBeforeTheCookieLeaves(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		for _, d := range deeds {
			if d.cookie == "" {
				continue
			}
			t.Run(protocol+" "+d.name, func(t *testing.T) {
				spy := newSpy()
				m := newManager(t, session.Options{Store: spy})
				read := make(chan struct{})
				srv := startServer(t, protocol, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					d.do(session.From(r.Context()))
					w.(http.Flusher).Flush()
					<-read
				})))
				defer close(read) // runs before the server waits for the handler
				sent := open(t, m, d.from)
				spy.forget()
				resp, err := srv.Client().Do(request(t, srv.URL, sent))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				d.check(t, m, spy, sent, resp)
			})
		}
	}
}

// TestNoCookieWithoutARecord checks that if the store fails no cookie is sent, whichever way
// the handler responds.
func TestNoCookieWithoutARecord(t *testing.T) {
	for _, way := range ways(t) {
		t.Run(way.name, func(t *testing.T) {
			spy := newSpy()
			m := newManager(t, session.Options{Store: spy})
			ended := make(chan error, 1)
			srv := startServer(t, "HTTP/1.1", way.around(m, ended, func(w http.ResponseWriter, r *http.Request) {
				name.Set(session.From(r.Context()), "new")
				way.answer(w, r)
			}))
			spy.down.Store(true)
			resp, err := srv.Client().Do(request(t, srv.URL, ""))
			if err != nil {
				t.Fatal(err)
			}
			text := body(resp)
			if resp.StatusCode != 503 || strings.Contains(text, "hello") || resp.Header["Set-Cookie"] != nil {
				t.Errorf("%s %q %q", resp.Status, text, resp.Header["Set-Cookie"])
			}
			<-ended
		})
	}
}

// TestInformationalIsNotTheResponse checks that an informational response has no cookie and
// that a Login after it works. 101 is the final response.
func TestInformationalIsNotTheResponse(t *testing.T) {
	m := newManager(t, session.Options{})
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		name.Set(s, "new")
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusProcessing)
		w.WriteHeader(199)
		w.WriteHeader(http.StatusContinue)
		s.Login("alice")
	}))
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		var hints []http.Header
		trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			hints = append(hints, http.Header(h).Clone())
			return nil
		}})
		srv := startServer(t, protocol, h)
		resp, err := srv.Client().Do(request(t, srv.URL, "").WithContext(trace))
		if err != nil {
			t.Fatal(err)
		}
		body(resp)
		if len(hints) != 4 || hints[0].Get("Link") == "" {
			t.Errorf("%s: the client received %v, want 103, 102, 199 and 100", protocol, hints)
		}
		for _, h := range hints {
			if h["Set-Cookie"] != nil || h["Vary"] != nil || h["Cache-Control"] != nil {
				t.Errorf("%s: 1xx with %v", protocol, h)
			}
		}
		if _, held := ourCookie(t, resp, ""); opens(t, m, held) != "new of alice" {
			t.Errorf("%s: the cookie opens %q", protocol, opens(t, m, held))
		}
	}

	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name.Set(session.From(r.Context()), "new")
		w.WriteHeader(http.StatusSwitchingProtocols)
	})).ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/", nil))
	if kind, _ := ourCookie(t, w.Result(), ""); kind != "set" {
		t.Error("101 was sent without the cookie")
	}
}

// TestOneCookieOfOurName checks that a response has at most one Set-Cookie with the session's
// name, the last one, and keeps other cookies.
func TestOneCookieOfOurName(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		http.SetCookie(w, &http.Cookie{Name: "theme", Value: "dark"})
		http.SetCookie(w, &http.Cookie{Name: "__Host-Http-session", Value: "mine"})
		http.SetCookie(w, &http.Cookie{Name: "__Host-Http-session", Value: "mine too"})
		http.SetCookie(w, &http.Cookie{Name: "__Host-Http-session2", Value: "another"})
		name.Set(s, "new")
		s.Save(r.Context())
		s.Login("alice")
		s.Save(r.Context())
		s.Renew()
	}}))
	resp := b.get("/")
	var names []string
	for _, c := range resp.Cookies() {
		names = append(names, c.Name)
	}
	if want := []string{"theme", "__Host-Http-session2", "__Host-Http-session"}; !slices.Equal(names, want) {
		t.Errorf("cookies %q, want %q", names, want)
	}
	if _, held := ourCookie(t, resp, ""); opens(t, m, held) != "new of alice" {
		t.Errorf("the cookie opens %q", opens(t, m, held))
	}
}

// TestOtherSpellingsOfOurFields checks that header fields in another case do not remain beside
// those that the Manager sets.
func TestOtherSpellingsOfOurFields(t *testing.T) {
	m := newManager(t, session.Options{})
	h := m.Handler(routes{
		"/set": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			w.Header()["set-cookie"] = []string{"__Host-Http-session=mine; Path=/", "theme=dark"}
			w.Header()["cache-control"] = []string{"public, max-age=60"}
			w.Header()["vary"] = []string{"Accept"}
			name.Set(s, "value")
		},
		"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			w.Header()["cACHE-cONTROL"] = []string{"max-age=60"}
			w.Header()["VARY"] = []string{"cookie"}
			name.Get(s)
		},
	})
	b := newBrowser(t, h)
	for path, want := range map[string]http.Header{
		"/set":  {"Set-Cookie": nil, "Cache-Control": {"no-store"}, "Vary": {"Cookie", "Accept"}},
		"/look": {"Cache-Control": {"max-age=60"}, "Vary": {"cookie"}},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, b.request(path))
		if lines := w.Header()["Set-Cookie"]; path == "/set" && (len(lines) != 2 || lines[0] != "theme=dark" || strings.Contains(lines[1], "mine")) {
			t.Errorf("%s: Set-Cookie %q", path, lines)
		}
		for name, values := range w.Header() {
			if _, ok := want[name]; !ok || want[name] != nil && !slices.Equal(values, want[name]) {
				t.Errorf("%s: %s: %q, want %q", path, name, values, want[name])
			}
		}
	}
}

// TestWhatTheOuterRequestKeeps checks that fields that net/http reads from its own request are
// set when Handler returns or panics: the multipart form, whose temporary files net/http
// removes, and the pattern.
func TestWhatTheOuterRequestKeeps(t *testing.T) {
	m := newManager(t, session.Options{})
	for _, panics := range []bool{false, true} {
		mux := http.NewServeMux()
		mux.HandleFunc("POST /upload/{id}", func(w http.ResponseWriter, r *http.Request) {
			f, _, err := r.FormFile("file")
			if err != nil {
				t.Error(err)
				return
			}
			f.Close()
			if panics {
				panic("oh")
			}
			session.From(r.Context()).Login(r.FormValue("user"))
		})
		var form bytes.Buffer
		parts := multipart.NewWriter(&form)
		parts.WriteField("user", "alice")
		file, _ := parts.CreateFormFile("file", "picture")
		io.WriteString(file, strings.Repeat("x", 1<<20))
		parts.Close()
		r := httptest.NewRequest("POST", "https://localhost/upload/7", &form)
		r.Header.Set("Content-Type", parts.FormDataContentType())
		func() {
			defer func() { recover() }()
			m.Handler(mux).ServeHTTP(httptest.NewRecorder(), r)
		}()
		if r.MultipartForm == nil || len(r.MultipartForm.File["file"]) != 1 || r.Pattern != "POST /upload/{id}" {
			t.Errorf("panics: %v: form %v, pattern %q", panics, r.MultipartForm, r.Pattern)
		}
	}
}

// TestUploadedFilesAreRemoved checks that the temporary files of an upload are removed after
// the response.
func TestUploadedFilesAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	handled := make(chan string, 1)
	m := newManager(t, session.Options{})
	srv := startServer(t, "HTTP/1.1", m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil { // all but one byte is written to a file
			t.Error(err)
		}
		files, _ := filepath.Glob(filepath.Join(os.TempDir(), "*"))
		handled <- fmt.Sprint(len(files))
	})))
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	file, _ := parts.CreateFormFile("file", "picture")
	io.WriteString(file, strings.Repeat("x", 11<<20)) // more than net/http keeps in memory in any case
	parts.Close()
	resp, err := srv.Client().Post(srv.URL, parts.FormDataContentType(), &form)
	if err != nil {
		t.Fatal(err)
	}
	body(resp)
	if n := <-handled; n != "1" {
		t.Fatalf("%s temporary files while it is handled: the test proves nothing", n)
	}
	srv.Close() // returns when the request has ended
	if files, _ := filepath.Glob(filepath.Join(os.TempDir(), "*")); len(files) > 0 {
		t.Errorf("files left: %q", files)
	}
}

// onlyUnwrap is the writer of a middleware that counts bytes and implements Unwrap for
// http.ResponseController.
type onlyUnwrap struct {
	http.ResponseWriter
	written *int
}

func (w onlyUnwrap) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w onlyUnwrap) Write(p []byte) (int, error) {
	*w.written += len(p)
	return w.ResponseWriter.Write(p)
}

// onlyFlushError implements FlushError, the newer form of Flush.
type onlyFlushError struct {
	http.ResponseWriter
	err error
}

func (w onlyFlushError) FlushError() error { return w.err }

// onlyCloseNotify has no optional method but CloseNotify.
type onlyCloseNotify struct{ http.ResponseWriter }

func (w onlyCloseNotify) CloseNotify() <-chan bool { return make(chan bool) }

// can lists the optional methods that a type assertion finds.
func can(w http.ResponseWriter) string {
	var all []string
	if _, ok := w.(http.Flusher); ok {
		all = append(all, "Flush")
	}
	if _, ok := w.(http.Hijacker); ok {
		all = append(all, "Hijack")
	}
	if _, ok := w.(io.ReaderFrom); ok {
		all = append(all, "ReadFrom")
	}
	if n, ok := w.(interface{ CloseNotify() <-chan bool }); ok {
		all = append(all, "CloseNotify")
		if n.CloseNotify() == nil {
			all = append(all, "of nothing")
		}
	}
	return strings.Join(all, " ")
}

// TestOptionalMethodsOfTheWriter checks that a handler finds exactly the optional methods that
// work on the wrapped writer.
func TestOptionalMethodsOfTheWriter(t *testing.T) {
	var found string
	look := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { found = can(w) })
	m := newManager(t, session.Options{})
	unwrap := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(onlyUnwrap{w, new(int)}, r)
		})
	}
	timeout := func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") }
	same := func(h http.Handler) http.Handler { return h }
	for _, c := range []struct {
		name, protocol string
		outside        func(http.Handler) http.Handler
		want           string
	}{
		{"HTTP/1.1", "HTTP/1.1", same, "Flush Hijack ReadFrom CloseNotify"},
		{"HTTP/2", "HTTP/2.0", same, "Flush CloseNotify"},
		{"Unwrap over HTTP/1.1", "HTTP/1.1", unwrap, "Flush Hijack ReadFrom CloseNotify"}, // ReadFrom copies through Write
		{"Unwrap over HTTP/2", "HTTP/2.0", unwrap, "Flush CloseNotify"},
		{"TimeoutHandler over HTTP/1.1", "HTTP/1.1", timeout, ""},
		{"TimeoutHandler over HTTP/2", "HTTP/2.0", timeout, ""},
	} {
		srv := startServer(t, c.protocol, c.outside(m.Handler(look)))
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		body(resp)
		if found != c.want {
			t.Errorf("%s: a handler finds %q, want %q", c.name, found, c.want)
		}
	}
	r := httptest.NewRequest("GET", "https://localhost/", nil)
	for _, c := range []struct {
		name string
		w    http.ResponseWriter
		want string
	}{
		{"ResponseRecorder", httptest.NewRecorder(), "Flush"},
		{"FlushError", onlyFlushError{&discard{http.Header{}}, nil}, "Flush"},
		{"bare", &discard{http.Header{}}, ""},
		{"CloseNotify", onlyCloseNotify{&discard{http.Header{}}}, "CloseNotify"},
		{"Unwrap of bare", onlyUnwrap{&discard{http.Header{}}, new(int)}, ""},
	} {
		if m.Handler(look).ServeHTTP(c.w, r); found != c.want {
			t.Errorf("%s: a handler finds %q, want %q", c.name, found, c.want)
		}
	}
}

// TestResponseControllerReachesTheWriter checks that an http.ResponseController gets the results of the
// wrapped writer.
func TestResponseControllerReachesTheWriter(t *testing.T) {
	m := newManager(t, session.Options{})
	broken := errors.New("broken pipe")
	for _, c := range []struct {
		name string
		w    http.ResponseWriter
		want error
	}{
		{"flushes", httptest.NewRecorder(), nil},
		{"fails", onlyFlushError{&discard{http.Header{}}, broken}, broken},
		{"cannot", &discard{http.Header{}}, http.ErrNotSupported},
	} {
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			if err := rc.Flush(); !errors.Is(err, c.want) {
				t.Errorf("%s: Flush: %v, want %v", c.name, err, c.want)
			}
			if err := rc.SetWriteDeadline(time.Now()); !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("%s: SetWriteDeadline: %v", c.name, err)
			}
		})).ServeHTTP(c.w, httptest.NewRequest("GET", "https://localhost/", nil))
	}
}

// fileTaker is a writer that, like that of net/http, can send files, and records the reader
// that it is given.
type fileTaker struct {
	discard
	from io.Reader
}

func (w *fileTaker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.ErrUnsupported
}
func (w *fileTaker) Flush() {}
func (w *fileTaker) ReadFrom(src io.Reader) (int64, error) {
	w.from = src
	return io.Copy(io.Discard, src)
}

// TestFileReachesReadFrom checks that a file reaches ReadFrom of the wrapped writer in the
// io.LimitedReader of http.ServeFile, so that net/http can use sendfile.
func TestFileReachesReadFrom(t *testing.T) {
	m := newManager(t, session.Options{})
	w := &fileTaker{discard: discard{http.Header{}}}
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name.Set(session.From(r.Context()), "new")
		http.ServeFile(w, r, "go.mod")
	})).ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/", nil))
	limited, ok := w.from.(*io.LimitedReader)
	if !ok {
		t.Fatalf("ReadFrom got a %T", w.from)
	}
	if _, ok := limited.R.(*os.File); !ok {
		t.Errorf("ReadFrom got an io.LimitedReader of %T, want *os.File", limited.R)
	}
	if w.h["Set-Cookie"] == nil {
		t.Error("the file was sent without the cookie")
	}
}

// TestReadFromReachesMiddleware checks that a middleware between the Manager and net/http
// without ReadFrom sees every byte.
func TestReadFromReachesMiddleware(t *testing.T) {
	m, written := newManager(t, session.Options{}), 0
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.(io.ReaderFrom).ReadFrom(strings.NewReader("hello"))
	}))
	srv := startServer(t, "HTTP/1.1", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(onlyUnwrap{w, &written}, r)
	}))
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if text := body(resp); text != "hello" || written != len(text) {
		t.Errorf("the middleware saw %d bytes of %q", written, text)
	}
}

// TestFailedHijackLeavesTheResponse checks that after a failed Hijack the handler can respond,
// with a correct header.
func TestFailedHijackLeavesTheResponse(t *testing.T) {
	for _, d := range deeds {
		if d.do == nil || d.cookie == "set" {
			continue // Hijack commits first, and reports calls that need a cookie
		}
		spy := newSpy()
		m := newManager(t, session.Options{Store: spy})
		sent := open(t, m, d.from)
		spy.forget()
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "https://localhost/", nil)
		r.Header.Set("Cookie", sent)
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			d.do(s)
			if _, _, err := w.(http.Hijacker).Hijack(); err == nil {
				t.Error("Hijack succeeded")
			}
			w.Write([]byte("polling, then"))
			if d.late != nil {
				d.late(s)
			}
		})).ServeHTTP(struct {
			*httptest.ResponseRecorder
			http.Hijacker
		}{w, &fileTaker{}}, r)
		d.check(t, m, spy, sent, w.Result())
	}
}

// TestHTTP2HasNoHijack checks that a Hijack over HTTP/2, which fails, has no other effect.
func TestHTTP2HasNoHijack(t *testing.T) {
	m := newManager(t, session.Options{})
	srv := startServer(t, "HTTP/2.0", m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login("alice")
		if _, _, err := http.NewResponseController(w).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Error(err)
		}
	})))
	resp, err := srv.Client().Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, held := ourCookie(t, resp, ""); opens(t, m, held) != " of alice" {
		t.Error("the failed Hijack has dropped the login")
	}
}

// TestCookieOfAnEarlySaveFollows checks that an explicit Save with a cancelled context stores
// the session, and that the cookie is sent with the first byte.
func TestCookieOfAnEarlySaveFollows(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		name.Set(s, "new")
		if err := s.Save(ctx); err != nil {
			t.Error(err)
		}
	}}))
	b.get("/")
	if got := opens(t, m, b.cookie()); got != "new of " {
		t.Errorf("the cookie opens %q", got)
	}
}

// TestCacheHeaders checks the headers for caches: Vary whenever the session was used. If there
// is a session and the handler has not set Cache-Control, no-store for a logged-in user and
// private for others. no-store with the session's Set-Cookie, whatever the handler has set.
func TestCacheHeaders(t *testing.T) {
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

// TestCacheHeadersOfASessionThatEnds checks that a page that was made for a user is not
// stored, whatever happens to the session before the header is sent.
func TestCacheHeadersOfASessionThatEnds(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	asBob := func(s *session.Session) { s.Login("bob") }
	fails := func(t *testing.T, s *session.Session) {
		t.Helper()
		if err := s.Save(t.Context()); !errors.Is(err, session.ErrStore) || s.User() != "bob" {
			t.Errorf("Save: %v, logged in as %q", err, s.User())
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

// TestCacheHeadersOfEachResponse checks that the headers of one response do not change
// the slices of another, nor those of the handler.
func TestCacheHeadersOfEachResponse(t *testing.T) {
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

// TestCacheHeadersOfNestedManagers checks that nested Managers, each with a cookie of its own,
// set each header for caches once.
func TestCacheHeadersOfNestedManagers(t *testing.T) {
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
