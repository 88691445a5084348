package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// A deed is what a handler does with its session, before and after the first
// byte of the response, and what must come of it.
type deed struct {
	name     string
	from     string // whose session the request carries; "": no cookie
	do, late func(s *session.Session)
	calls    string // of the store
	cookie   string // "", "set" or "deleted"
	vary     string
	cache    string // Cache-Control
	opens    string // what the cookie opens that the browser holds afterwards
	old      string // what the one opens that it sent; "": the same
}

const (
	guest  = "guest" // holds an anonymous session
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

// A way is how a handler answers "hello".
type way struct {
	name            string
	answer          func(w http.ResponseWriter, r *http.Request)
	buffered        bool                            // the first byte leaves after the handler
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
			io.Copy(w, io.LimitReader(strings.NewReader("hello"), 5)) // by ReadFrom where there is one
		}},
		{name: "ServeFile", answer: func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }},
		{name: "TimeoutHandler inside", answer: hello, buffered: true, inside: timeout},
		{name: "TimeoutHandler outside", answer: hello, outside: timeout},
	}
}

// around builds the chain that a way asks for. Ended gets the session's Err
// when the Manager's Handler is through with a request: a client may have read
// the whole response before that.
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

// Whichever way a handler answers, over both protocols: the same is stored,
// and the same headers leave.
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
						d.vary, d.cache = "Cookie", "no-store" // it is not late at all
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

// check compares what came of a deed with what had to.
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

// Hijack commits first. Whoever hijacks writes the header, so what needs a
// cookie is reported by the name of the call, and nothing of it is stored.
func TestHijackCommitsFirst(t *testing.T) {
	for _, c := range []struct {
		name, from string
		do, late   func(s *session.Session)
		calls      string
		opens      string // what the cookie opens afterwards that was sent
		err        string // names this call
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

// After the first byte a session that the browser holds is changed as before;
// what needs a cookie is reported, and the rest of the same request is kept.
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

// A Login that came too late does not stand in the way of a Logout: what else
// could a handler do about it that finds the wrong user signed in?
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

// expectCall checks that an error names a call, or that there is none.
func expectCall(t *testing.T, err error, call string) {
	t.Helper()
	if call == "" && err != nil || call != "" && (err == nil || !strings.Contains(err.Error(), " "+call+":")) {
		t.Errorf("Err is %v, want one that names %q", err, call)
	}
}

// A panic drops what was not saved, carries out a Logout, and goes on as it is.
// The server cuts the connection.
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
						t.Error("the response came to a good end")
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

// A middleware that recovers writes the response, and the header tells what
// became of the session: what was stored has its cookie, what was dropped none.
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
				t.Errorf("%s, down %v: %s: the response was not left to who recovers", c.name, down, resp.Status)
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

// The handler outlives its response. What it did before is stored with the 503,
// what it does afterwards only by a Save.
func TestTimeoutInside(t *testing.T) {
	m := newManager(t, session.Options{})
	answered, done := make(chan struct{}), make(chan struct{})
	h := m.Handler(http.TimeoutHandler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		defer close(done)
		name.Set(s, "before")
		<-r.Context().Done()
		<-answered
		visits.Set(s, 1)
		if name.Get(s) != "before" || visits.Get(s) != 1 {
			t.Error("reading does not work any more")
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
}

// The response is gone before the handler is through: no cookie can leave, and
// what it did to a session the browser holds is kept.
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
			t.Errorf("kept %q and %d", name.Get(s), visits.Get(s))
		}
	}})).replay(sent).get("/")
}

// startServer starts a TLS server that speaks one protocol.
func startServer(t testing.TB, protocol string, h http.Handler) *httptest.Server {
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = protocol == "HTTP/2.0"
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // panics are expected
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

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

// open returns the cookie of a session of user that holds the name "old".
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
		t.Fatal("no cookie to begin with")
	}
	return b.cookie()
}

// opens tells what is in the session that a cookie opens.
func opens(t testing.TB, m *session.Manager, cookie string) string {
	return body(newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		if s.IsNew() {
			fmt.Fprint(w, closed)
			return
		}
		fmt.Fprintf(w, "%s of %s", name.Get(s), s.User())
	}})).replay(cookie).get("/"))
}

// ourCookie tells what a response does to our cookie, and what the browser
// that sent one holds afterwards.
func ourCookie(t testing.TB, resp *http.Response, sent string) (kind, held string) {
	t.Helper()
	held = sent
	for _, c := range resp.Cookies() {
		switch {
		case c.Name != "__Host-Http-session":
		case kind != "":
			t.Errorf("more than one Set-Cookie of our name: %q", resp.Header["Set-Cookie"])
		case c.MaxAge < 0:
			kind, held = "deleted", ""
		default:
			kind, held = "set", c.Name+"="+c.Value
		}
	}
	return kind, held
}

// forget starts the counts anew.
func (s *spyStore) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.calls)
}

// summary names the methods that were called, each with its count unless that is 1.
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
