package session_test

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coatcheck/session"
)

// captureLog has slog write into the buffer that it returns, until the test ends.
func captureLog(t *testing.T) *bytes.Buffer {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	log := new(bytes.Buffer)
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	return log
}

// A Secure cookie that leaves on plain HTTP never comes back, which looks like a
// session that forgets; one without Secure is everybody's to read. Each is said
// once, where it is true, and where a proxy may do TLS the first is not said.
func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		what     string
		host     string
		header   string // name and value
		tls      bool
		secure   bool // is warned about a Secure cookie, and
		insecure bool // with Insecure, about one that is not
	}{
		{"another host", "example.com", "", false, true, true},
		{"another host and port", "example.com:8080", "", false, true, true},
		{"an address", "192.168.1.7:8080", "", false, true, true},
		{"an IPv6 address", "[2001:db8::1]:8080", "", false, true, true},
		{"no host", "", "", false, true, true},
		{"a name that begins so", "localhost.example.com", "", false, true, true},
		{"a name that ends so", "notlocalhost", "", false, true, true},
		{"an address that begins so", "127.0.0.1.example.com", "", false, true, true},

		{"localhost", "localhost", "", false, false, false},
		{"localhost and port", "localhost:8080", "", false, false, false},
		{"localhost in capitals", "LocalHost:8080", "", false, false, false},
		{"below localhost", "shop.localhost:8080", "", false, false, false},
		{"127.0.0.1", "127.0.0.1", "", false, false, false},
		{"127.0.0.1 and port", "127.0.0.1:8080", "", false, false, false},
		{"127.8.8.8", "127.8.8.8:80", "", false, false, false},
		{"::1", "[::1]", "", false, false, false},
		{"::1 and port", "[::1]:8080", "", false, false, false},

		{"TLS", "example.com", "", true, false, true},
		{"X-Forwarded-Proto", "example.com", "X-Forwarded-Proto: https", false, false, true},
		{"X-Forwarded-Proto of plain HTTP", "example.com", "X-Forwarded-Proto: http", false, false, true},
		{"Forwarded", "example.com", "Forwarded: for=192.0.2.43;proto=https", false, false, true},
		{"another proxy's header", "example.com", "X-Forwarded-For: 192.0.2.43", false, true, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, insecure := range []bool{false, true} {
				want, word := c.secure, "without TLS"
				if insecure {
					want, word = c.insecure, "without Secure"
				}
				log := captureLog(t)
				h := newManager(t, session.Options{Cookie: session.CookieOptions{Insecure: insecure}}).Handler(reception)
				for range 3 {
					r := httptest.NewRequest("GET", "http://localhost/set", nil)
					r.Host = c.host
					if name, value, ok := strings.Cut(c.header, ": "); ok {
						r.Header.Set(name, value)
					}
					if c.tls {
						r.TLS = &tls.ConnectionState{}
					}
					h.ServeHTTP(httptest.NewRecorder(), r)
				}
				lines := strings.Count(log.String(), "level=WARN")
				if want && (lines != 1 || !strings.Contains(log.String(), word) || !strings.Contains(log.String(), "Options.Cookie.Insecure")) {
					t.Errorf("Insecure %v: want one warning that says %q and names the option: %q", insecure, word, log)
				}
				if !want && log.Len() != 0 {
					t.Errorf("Insecure %v: %s", insecure, log)
				}
			}
		})
	}
}

// The warning waits for a cookie: a request that gets none has nothing to lose.
// It is one Manager's, and said once however many requests come at once.
func TestWarningIsOfACookieAndOnce(t *testing.T) {
	log := captureLog(t)
	h := newManager(t, session.Options{}).Handler(reception)
	visit := func(path string) {
		r := httptest.NewRequest("GET", "http://example.com"+path, nil)
		r.Header.Set("Cookie", "__Host-session=garbage")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	for _, path := range []string{"/", "/nowhere", "/logout"} { // the last one deletes
		if visit(path); log.Len() != 0 {
			t.Fatalf("GET %s: %s", path, log)
		}
	}
	var all sync.WaitGroup
	start := make(chan struct{})
	for range 20 {
		all.Go(func() { <-start; visit("/set") })
	}
	close(start)
	all.Wait()
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, log)
	}
	h = newManager(t, session.Options{}).Handler(reception)
	if visit("/set"); strings.Count(log.String(), "\n") != 2 {
		t.Errorf("another Manager is silent, or not: %s", log)
	}
}

// A token in a header has the same warning, where a Secure cookie would have it.
func TestWarningOfAHeader(t *testing.T) {
	log := captureLog(t)
	a := &app{h: newManager(t, session.Options{Bearer: true}).Handler(reception)}
	visit := func(url string, header ...string) {
		r := httptest.NewRequest("GET", url, nil)
		for _, name := range header {
			r.Header.Set(name, "https")
		}
		a.do(r)
	}
	visit("http://example.com/") // gets no token
	visit("http://localhost:8080/set")
	visit("https://example.com/set")
	visit("http://example.com/set", "X-Forwarded-Proto")
	visit("http://example.com/set", "Forwarded")
	if log.Len() != 0 {
		t.Error(log)
	}
	visit("http://example.com/set")
	visit("http://example.com/set")
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "without TLS") || strings.Contains(log.String(), a.token) {
		t.Errorf("%q", log)
	}
}

// Inside a framework that keeps its own writer, a middleware that hands on only
// the request loses every cookie. Where that writer tells that it was written,
// the developer is told, once, and no session is made that nobody can come back
// to; what is changed in a session that the browser holds is kept.
func TestResponsePastOurWriter(t *testing.T) {
	log := captureLog(t)
	var told events
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, OnEvent: told.on})
	sent := open(t, m, "alice")
	spy.forget()
	past := func(do func(s *session.Session)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			own := &writtenRecorder{ResponseWriter: w}
			m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { // c.Request = r; c.Next()
				do(session.From(r.Context()))
				own.Write(ok)
			})).ServeHTTP(own, r)
		})
	}
	newBrowser(t, past(func(*session.Session) {})).get("/")
	if log.Len() != 0 {
		t.Errorf("logged without need: %s", log)
	}
	for range 3 {
		if resp := newBrowser(t, past(write)).get("/"); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
	}
	if spy.count("") != 0 || told.count(session.EventDropped) != 3 {
		t.Errorf("calls of the store: %q, events %v", spy.summary(), told.all)
	}
	newBrowser(t, past(write)).replay(sent).get("/")
	if got := opens(t, m, sent); got != "new of alice" {
		t.Errorf("the cookie opens %q", got)
	}
	if text := log.String(); strings.Count(text, "sessions.Handler(engine)") != 1 {
		t.Errorf("logged %q", text)
	}
	log.Reset()
	for _, wrong := range []bool{false, true} { // our writer, and a writer that was not written
		b := newBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if write(session.From(r.Context())); !wrong {
					w.Write(ok)
				}
			})).ServeHTTP(&writtenRecorder{ResponseWriter: w}, r)
		}))
		b.get("/")
		if b.cookie() == "" {
			t.Errorf("no cookie; nothing was written: %v", wrong)
		}
	}
	if log.Len() != 0 {
		t.Errorf("logged without need: %s", log)
	}
}

// A writtenRecorder is a framework's writer, as gin's.
type writtenRecorder struct {
	http.ResponseWriter
	written bool
}

func (w *writtenRecorder) Write(p []byte) (int, error) {
	w.written = true
	return w.ResponseWriter.Write(p)
}

func (w *writtenRecorder) Written() bool { return w.written }
