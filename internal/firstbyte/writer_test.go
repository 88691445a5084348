package firstbyte_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coatcheck/session/internal/firstbyte"
)

// hook records its calls and sets a header field.
type hook struct {
	writer firstbyte.Writer
	header http.Header
	runs   []bool // the argument of each call
	err    error
}

func (h *hook) BeforeFirstByte(hijack bool) error {
	h.runs = append(h.runs, hijack)
	h.header.Set("Hook", fmt.Sprint(len(h.runs)))
	return h.err
}

func wrap(to http.ResponseWriter, err error) (*hook, http.ResponseWriter) {
	h := &hook{header: to.Header(), err: err}
	return h, h.writer.Wrap(to, h)
}

// server is a recorder with all optional methods, which does not take a 1xx status for the
// response.
type server struct {
	*httptest.ResponseRecorder
	hijackErr error
}

func (s server) WriteHeader(status int) {
	if status >= 200 {
		s.ResponseRecorder.WriteHeader(status)
	}
}

func (s server) ReadFrom(r io.Reader) (int64, error) { return io.Copy(s.ResponseRecorder, r) }
func (s server) CloseNotify() <-chan bool            { return make(chan bool) }
func (s server) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return nil, nil, s.hijackErr
}

// ways are the ways in which a handler can send the first byte.
var ways = map[string]func(w http.ResponseWriter) error{
	"Write":       func(w http.ResponseWriter) error { _, err := w.Write([]byte("text")); return err },
	"WriteString": func(w http.ResponseWriter) error { _, err := io.WriteString(w, "text"); return err },
	"ReadFrom": func(w http.ResponseWriter) error {
		_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("text"))
		return err
	},
	"Flush":  func(w http.ResponseWriter) error { return http.NewResponseController(w).Flush() },
	"Hijack": func(w http.ResponseWriter) error { _, _, err := w.(http.Hijacker).Hijack(); return err },
	"WriteHeader": func(w http.ResponseWriter) error {
		w.WriteHeader(http.StatusOK)
		_, err := w.Write(nil)
		return err
	},
}

// TestHookRunsOnce checks that the hook runs once before the first byte, whichever way it is
// sent.
func TestHookRunsOnce(t *testing.T) {
	for name, first := range ways {
		to := server{ResponseRecorder: httptest.NewRecorder()}
		h, w := wrap(to, nil)
		for range 2 {
			if err := first(w); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, _ = w.Write([]byte("more"))
		if err := h.writer.Begin(); err != nil || !h.writer.Began() || len(h.runs) != 1 || h.runs[0] != (name == "Hijack") {
			t.Errorf("%s: the hook ran with %v, %v", name, h.runs, err)
		}
		if to.Result().Header.Get("Hook") != "1" {
			t.Errorf("%s: the header was sent before the hook ran", name)
		}
	}
}

// TestInformational checks that 101 is the response and other informational statuses are not.
func TestInformational(t *testing.T) {
	for status := 100; status < 200; status++ {
		h, w := wrap(server{ResponseRecorder: httptest.NewRecorder()}, nil)
		if w.WriteHeader(status); h.writer.Began() != (status == http.StatusSwitchingProtocols) {
			t.Errorf("%d: the hook ran with %v", status, h.runs)
		}
	}
}

// TestErrorOfTheHook checks that after an error of the hook nothing of the handler's response
// is sent.
func TestErrorOfTheHook(t *testing.T) {
	broken := errors.New("broken")
	for name, first := range ways {
		to := server{ResponseRecorder: httptest.NewRecorder()}
		h, w := wrap(to, broken)
		for range 2 {
			if err := first(w); err != broken {
				t.Errorf("%s: %v, want the hook's error", name, err)
			}
		}
		w.Header().Set("Late", "yes")
		if len(h.runs) != 1 || h.writer.Err() != broken || to.Body.Len() > 0 || to.Flushed || to.Header().Get("Late") != "" || w.Header().Get("Late") != "yes" {
			t.Errorf("%s: the hook ran with %v; the header is %v, the body %q", name, h.runs, to.Header(), to.Body)
		}
	}
}

// TestHijackFails checks that a handler whose Hijack fails can send a response with the header
// that the hook has set.
func TestHijackFails(t *testing.T) {
	refused := errors.New("refused")
	to := server{httptest.NewRecorder(), refused}
	h, w := wrap(to, nil)
	if _, _, err := w.(http.Hijacker).Hijack(); err != refused {
		t.Error(err)
	}
	fmt.Fprint(w, "text")
	if got := to.Result().Header.Get("Hook"); got != "1" || to.Body.String() != "text" {
		t.Errorf("hook %q, body %q, %v", got, to.Body, h.runs)
	}
}

// TestWrapAllocatesNothing checks that Wrap does not allocate: the Writer is a field of a
// struct that exists already.
func TestWrapAllocatesNothing(t *testing.T) {
	for name, to := range map[string]http.ResponseWriter{
		"all methods": server{ResponseRecorder: httptest.NewRecorder()},
		"Flush":       httptest.NewRecorder(),
		"none":        struct{ http.ResponseWriter }{httptest.NewRecorder()},
	} {
		hooks := make([]hook, 200)
		if n := testing.AllocsPerRun(100, func() {
			h := &hooks[0]
			hooks = hooks[1:]
			h.writer.Wrap(to, h)
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
