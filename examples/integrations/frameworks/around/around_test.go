// Package around tests Manager.Handler with common middleware around it and inside it, and with
// routers and servers that have no program here.
package around

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/felixge/httpsnoop"
	"github.com/go-chi/chi/v5/middleware"
	jub0bs "github.com/jub0bs/cors"
	"github.com/klauspost/compress/gzhttp"
	"github.com/rs/cors"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
)

type wrap = func(http.Handler) http.Handler

// middlewares are common middlewares.
func middlewares(t *testing.T) map[string]wrap {
	strict, err := jub0bs.NewMiddleware(jub0bs.Config{Origins: []string{"https://app.example"}, Credentialed: true})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]wrap{
		"nothing":         func(h http.Handler) http.Handler { return h },
		"chi's Compress":  middleware.Compress(5),
		"chi's Timeout":   middleware.Timeout(time.Minute),
		"chi's Logger":    middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: silent{}, NoColor: true}),
		"chi's Recoverer": middleware.Recoverer,
		"otelhttp":        otelhttp.NewMiddleware("test"),
		"rs/cors":         cors.New(cors.Options{AllowedOrigins: []string{"https://app.example"}, AllowCredentials: true}).Handler,
		"jub0bs/cors":     strict.Wrap,
		"gzhttp":          func(h http.Handler) http.Handler { return gzhttp.GzipHandler(h) },
		"httpsnoop": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				httpsnoop.CaptureMetricsFn(w, func(w http.ResponseWriter) { h.ServeHTTP(w, r) })
			})
		},
		"TimeoutHandler": func(h http.Handler) http.Handler { return http.TimeoutHandler(h, time.Minute, "") },
	}
}

type silent struct{}

func (silent) Print(...any) {}

var value = session.NewKey[string]("value")

// deeds are handlers with different behaviour. "late" and "hijack" are not used with a
// middleware that buffers the response, as TimeoutHandler does.
func deeds(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	w.Header().Set("Content-Type", "text/plain")
	switch r.URL.Path {
	case "/login":
		s.Login("alice")
		fmt.Fprint(w, strings.Repeat("ok ", 1000)) // long enough for every middleware that compresses
	case "/who":
		fmt.Fprint(w, s.User(), " ", value.Get(s), strings.Repeat(" ", 2000))
	case "/late":
		s.User()
		fmt.Fprint(w, "first")
		http.NewResponseController(w).Flush()
		value.Set(s, "late")
	case "/flush":
		s.User()
		fmt.Fprint(w, "first\n")
		if err := http.NewResponseController(w).Flush(); err != nil {
			fmt.Fprintln(w, err)
		}
		select {
		case <-s.Done():
			fmt.Fprint(w, "ended\n")
		case <-r.Context().Done(): // the client has read the line
		}
	case "/hijack":
		value.Set(s, "hijacked")
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			fmt.Fprint(w, err)
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhijacked")
	}
}

// get sends a request with the cookie, if there is one, and reads the whole response.
func get(t *testing.T, c *http.Client, url, cookie string) (string, http.Header) {
	t.Helper()
	r, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	r.Header.Set("Origin", "https://app.example")
	r.Header.Set("Accept-Encoding", "gzip")
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var from io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if from, err = gzip.NewReader(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	body, err := io.ReadAll(from)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(body)), resp.Header
}

func TestMiddleware(t *testing.T) {
	for name, mw := range middlewares(t) {
		for _, inside := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/inside=%v", name, inside), func(t *testing.T) {
				m := newManager(t)
				h := mw(m.Handler(http.HandlerFunc(deeds)))
				if inside {
					h = m.Handler(mw(http.HandlerFunc(deeds)))
				}
				server := httptest.NewServer(h)
				defer server.Close()
				c := server.Client()
				_, header := get(t, c, server.URL+"/login", "")
				if len(header["Set-Cookie"]) != 1 || header.Get("Cache-Control") != "no-store" || !has(header, "Vary", "Cookie") {
					t.Fatalf("the header of the login is %v", header)
				}
				cookie, _, _ := strings.Cut(header.Get("Set-Cookie"), ";")
				who := func(want string) {
					t.Helper()
					got, header := get(t, c, server.URL+"/who", cookie)
					if got != want || header["Set-Cookie"] != nil || header.Get("Cache-Control") != "no-store" || !has(header, "Vary", "Cookie") {
						t.Errorf("who: %q, %v, want %q", got, header, want)
					}
				}
				who("alice")
				if get(t, c, server.URL+"/late", cookie); name == "TimeoutHandler" {
					return // the middleware buffers the response, and can neither flush nor be hijacked
				}
				who("alice late")
				flushes(t, server.URL+"/flush", cookie)
				if got, _ := get(t, c, server.URL+"/hijack", cookie); got != "hijacked" {
					t.Errorf("hijack: %q", got)
				}
				who("alice hijacked")
			})
		}
	}
}

// flushes fails the test unless the first line of a response arrives before its end.
func flushes(t *testing.T, url, cookie string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", cookie)
	resp, err := (&http.Transport{DisableCompression: true}).RoundTrip(r)
	if err != nil {
		t.Error("no line was flushed:", err)
		return
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "first\n" {
		t.Errorf("flushed %q, %v", line, err)
	}
}

// has reports whether a header contains value in one of its lists.
func has(h http.Header, name, value string) bool {
	for _, line := range h[name] {
		for _, v := range strings.Split(line, ",") {
			if strings.EqualFold(strings.TrimSpace(v), value) {
				return true
			}
		}
	}
	return false
}
