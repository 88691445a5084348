package session_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coatcheck/session"
)

// captureLog redirects slog to the buffer that it returns, until the test ends.
func captureLog(t *testing.T) *bytes.Buffer {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	log := new(bytes.Buffer)
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	return log
}

// TestWarnings checks the warnings about TLS. A Secure cookie that is sent over plain HTTP is
// never sent back, so every session seems lost. A cookie without Secure can be read on the
// network, which is a mistake only if TLS is available. Each is logged once, in the right
// cases.
func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		what     string
		host     string
		header   string // name and value
		tls      bool
		secure   bool // whether a Secure cookie causes a warning
		insecure bool // whether, with Insecure, a cookie without Secure does
	}{
		{"another host", "example.com", "", false, true, false},
		{"another host and port", "example.com:8080", "", false, true, false},
		{"an address", "192.168.1.7:8080", "", false, true, false},
		{"an IPv6 address", "[2001:db8::1]:8080", "", false, true, false},
		{"no host", "", "", false, true, false},
		{"a name that begins so", "localhost.example.com", "", false, true, false},
		{"a name that ends so", "notlocalhost", "", false, true, false},
		{"an address that begins so", "127.0.0.1.example.com", "", false, true, false},

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
		{"X-Forwarded-Proto of plain HTTP", "example.com", "X-Forwarded-Proto: http", false, false, false},
		{"Forwarded", "example.com", "Forwarded: for=192.0.2.43;proto=https", false, false, true},
		{"Forwarded with quotes", "example.com", `Forwarded: for="[2001:db8::1]";proto="https"`, false, false, true},
		{"two proxies", "example.com", "X-Forwarded-Proto: https, http", false, false, true},
		{"two proxies, the first by plain HTTP", "example.com", "X-Forwarded-Proto: http, https", false, false, false},
		{"two proxies, Forwarded", "example.com", "Forwarded: proto=http, proto=https", false, false, false},
		{"another proxy's header", "example.com", "X-Forwarded-For: 192.0.2.43", false, true, false},
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
					t.Errorf("Insecure %v: want one warning with %q and the option: %q", insecure, word, log)
				}
				if !want && log.Len() != 0 {
					t.Errorf("Insecure %v: %s", insecure, log)
				}
			}
		})
	}
}

// TestAdaptSetsSecure checks that with Insecure, Adapt may set Secure for requests over TLS,
// and that without Insecure it cannot unset it.
func TestAdaptSetsSecure(t *testing.T) {
	log := captureLog(t)
	byRequest := func(r *http.Request, c *http.Cookie) { c.Secure = r.Header.Get("X-Forwarded-Proto") == "https" }
	for _, c := range []struct {
		insecure   bool
		proto      string
		wantSecure bool
	}{{true, "https", true}, {true, "", false}, {true, "http", false}, {false, "", true}, {false, "https", true}} {
		h := newManager(t, session.Options{Cookie: session.CookieOptions{Insecure: c.insecure, Adapt: byRequest}}).Handler(reception)
		for _, path := range []string{"/set", "/login?alice"} {
			r := httptest.NewRequest("GET", "http://localhost"+path, nil)
			r.Host = "nas"
			if r.Header.Set("X-Forwarded-Proto", c.proto); c.proto == "" && c.insecure {
				r.Header.Del("X-Forwarded-Proto")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			got := w.Result().Cookies()
			if w.Code != 200 || len(got) != 1 || got[0].Secure != c.wantSecure {
				t.Errorf("%+v: %d %v", c, w.Code, got)
			}
		}
	}
	if log.Len() > 0 {
		t.Error(log)
	}
}

// TestWarningOfAForeignDomain checks the warning about a Domain that is neither the host nor a
// parent of it, because browsers drop the cookie.
func TestWarningOfAForeignDomain(t *testing.T) {
	for _, c := range []struct {
		domain, host string
		warns        bool
	}{
		{"example.com", "example.com", false}, {"example.com", "shop.example.com:8443", false}, {".example.com", "SHOP.example.com", false},
		{"example.com", "127.0.0.1:8443", true}, {"example.com", "example.org", true}, {"example.com", "badexample.com", true},
		{"shop.example.com", "example.com", true}, {"example.com", "localhost", true}, {"192.168.1.1", "192.168.1.1:8443", false},
		{"1.1", "192.168.1.1", true},
	} {
		for _, adapted := range []bool{false, true} {
			o := session.CookieOptions{Domain: c.domain}
			if adapted {
				o = session.CookieOptions{Name: "id", Adapt: func(_ *http.Request, k *http.Cookie) { k.Domain = c.domain }}
			}
			if c.domain == "1.1" {
				continue // New refuses this Domain
			}
			log := captureLog(t)
			h := newManager(t, session.Options{Cookie: o}).Handler(reception)
			for range 2 {
				r := httptest.NewRequest("GET", "https://localhost/set", nil)
				r.Host = c.host
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			lines := strings.Count(log.String(), "level=WARN")
			if lines > 1 || (lines == 1) != c.warns || c.warns && !strings.Contains(log.String(), "Options.Cookie.Domain") {
				t.Errorf("Domain %s at %s, adapted %v: %s", c.domain, c.host, adapted, log)
			}
		}
	}
}

// TestWarningOfNestedManagers checks that two nested Managers with one cookie name, or both
// with Bearer, are logged once, because they replace each other's token, and that Managers with
// different names, or a single one, are not.
func TestWarningOfNestedManagers(t *testing.T) {
	for _, c := range []struct {
		what  string
		o     [3]session.Options
		warns bool
	}{
		{"one name", [3]session.Options{{}, {}, {}}, true},
		{"one name, another between", [3]session.Options{{}, {Cookie: session.CookieOptions{Name: "__Host-a"}}, {}}, true},
		{"three names", [3]session.Options{{}, {Cookie: session.CookieOptions{Name: "__Host-a"}}, {Cookie: session.CookieOptions{Name: "__Host-b"}}}, false},
		{"a cookie and a header", [3]session.Options{{}, {Bearer: true}, {Cookie: session.CookieOptions{Name: "__Host-b"}}}, false},
		{"two in headers", [3]session.Options{{Bearer: true}, {}, {Bearer: true}}, true},
	} {
		log := captureLog(t)
		var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { name.Set(session.From(r.Context()), "x") })
		for _, o := range c.o {
			m := newManager(t, o)
			h = m.Handler(m.Handler(h)) // a Manager inside itself forwards the request
		}
		for range 3 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "https://localhost/", nil))
		}
		if lines := strings.Count(log.String(), "level=WARN"); (lines == 1) != c.warns || lines > 1 {
			t.Errorf("%s: %s", c.what, log)
		}
	}
}

// TestWarningsAreBounded checks that warnings are logged once per host, so that a request with
// an unusual Host does not suppress the others, and for a few hosts only, because clients
// choose the Host.
func TestWarningsAreBounded(t *testing.T) {
	log := captureLog(t)
	h := newManager(t, session.Options{}).Handler(reception)
	for i := range 100 {
		for range 2 {
			r := httptest.NewRequest("GET", "http://localhost/set", nil)
			r.Host = fmt.Sprint("host", i)
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	if lines := strings.Count(log.String(), "level=WARN"); lines < 2 || lines > 10 {
		t.Errorf("%d lines", lines)
	}
}

// TestWarningIsOfACookieAndOnce checks that a request that sets no cookie causes no warning,
// and that each Manager logs the warning once for any number of concurrent requests.
func TestWarningIsOfACookieAndOnce(t *testing.T) {
	log := captureLog(t)
	h := newManager(t, session.Options{}).Handler(reception)
	visit := func(path string) {
		r := httptest.NewRequest("GET", "http://example.com"+path, nil)
		r.Header.Set("Cookie", "__Host-Http-session=garbage")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	for _, path := range []string{"/", "/nowhere", "/logout"} { // the last path deletes the cookie
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
		t.Errorf("the log of another Manager: %s", log)
	}
}

// TestWarningOfAHeader checks that a token in a header causes a warning where a Secure cookie
// would.
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

// TestResponsePastOurWriter covers a middleware inside a framework with a writer of its own,
// which passes on only the request, so that no cookie is set. If that writer reports that it
// was written, this is logged once, and no session is created whose cookie could not be sent.
// Changes of a session that the browser has are kept.
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
		t.Errorf("unexpected log line: %s", log)
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
	for _, wrong := range []bool{false, true} { // the Manager's writer, and a writer that was not written
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
		t.Errorf("unexpected log line: %s", log)
	}
}

// writtenRecorder is the writer of a framework, like that of gin.
type writtenRecorder struct {
	http.ResponseWriter
	written bool
}

func (w *writtenRecorder) Write(p []byte) (int, error) {
	w.written = true
	return w.ResponseWriter.Write(p)
}

func (w *writtenRecorder) Written() bool { return w.written }
