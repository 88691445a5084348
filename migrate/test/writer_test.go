package migrate_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// A bare writer has none of the optional methods.
type bare struct{ header http.Header }

func (w bare) Header() http.Header         { return w.header }
func (w bare) Write(b []byte) (int, error) { return len(b), nil }
func (w bare) WriteHeader(int)             {}

// A fileTaker implements the optional methods of the writer of net/http, and records the reader
// that ReadFrom gets.
type fileTaker struct {
	bare
	from io.Reader
}

func (w *fileTaker) Flush() {}
func (w *fileTaker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, errors.ErrUnsupported
}
func (w *fileTaker) ReadFrom(from io.Reader) (int64, error) {
	w.from = from
	return io.Copy(io.Discard, from)
}

// methods returns the names of the optional methods of a writer.
func methods(w http.ResponseWriter) string {
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
	if _, ok := w.(interface{ CloseNotify() <-chan bool }); ok {
		all = append(all, "CloseNotify")
	}
	return strings.Join(all, " ")
}

// TestOptionalMethodsDuringATakeover checks that a handler finds exactly the optional methods that
// the writer of the server has.
func TestOptionalMethodsDuringATakeover(t *testing.T) {
	var found string
	look := func(w http.ResponseWriter, _ *http.Request) { found = methods(w) }
	a := newApps(t)
	for name, c := range map[string]struct {
		w    http.ResponseWriter
		want string
	}{
		"bare":             {bare{http.Header{}}, ""},
		"ResponseRecorder": {httptest.NewRecorder(), "Flush"},
		"HTTP/1.1":         {&fileTaker{bare: bare{http.Header{}}}, "Flush Hijack ReadFrom"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Cookie", a.login("ann"))
		a.serve(look).ServeHTTP(c.w, r)
		if found != c.want {
			t.Errorf("%s: the handler found %q, want %q", name, found, c.want)
		}
		if lines := c.w.Header()["Set-Cookie"]; len(lines) != 2 {
			t.Errorf("%s: cookies %q", name, lines)
		}
	}
}

// TestSendfileDuringATakeover checks that a file that is served during a takeover reaches ReadFrom
// of the server, which uses sendfile, and that the response sets the cookies.
func TestSendfileDuringATakeover(t *testing.T) {
	a := newApps(t)
	w, r := &fileTaker{bare: bare{http.Header{}}}, httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", a.login("ann"))
	a.serve(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "go.mod") }).ServeHTTP(w, r)
	limited, ok := w.from.(*io.LimitedReader)
	if !ok {
		t.Fatalf("ReadFrom got a %T", w.from)
	}
	if _, ok := limited.R.(*os.File); !ok {
		t.Errorf("ReadFrom got an io.LimitedReader of a %T", limited.R)
	}
	if lines := w.header["Set-Cookie"]; len(lines) != 2 {
		t.Errorf("cookies %q", lines)
	}
}
