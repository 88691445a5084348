package session_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	"time"

	"github.com/coatcheck/session"
)

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
		t.Errorf("left: %q", files)
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

// TestTypeAssertionsTellTheTruth checks that a handler finds exactly the optional methods that
// work on the wrapped writer.
func TestTypeAssertionsTellTheTruth(t *testing.T) {
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

// TestControllerHearsTheTruth checks that an http.ResponseController gets the results of the
// wrapped writer.
func TestControllerHearsTheTruth(t *testing.T) {
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

// TestReadFromGoesAroundNobody checks that a middleware between the Manager and net/http
// without ReadFrom sees every byte.
func TestReadFromGoesAroundNobody(t *testing.T) {
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
