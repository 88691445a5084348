package session_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coatcheck/session"
	"github.com/gorilla/securecookie"
)

// The benchmarks in this file measure the cost of a request, compared with a request without
// sessions. Those in crowd_test.go measure the cost of many sessions.

var (
	benchName  = session.NewKey[string]("name")
	benchAdmin = session.NewKey[bool]("admin")
	benchCount = session.NewKey[int]("count")
	benchBlob  = session.NewKey[string]("blob")
)

// discard is a ResponseWriter without cost, so that only the package is measured.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// benchSetup returns next with sessions, and the cookie of a session with three small values,
// and at "/big" also a large one.
func benchSetup(path string, next http.HandlerFunc) (h http.Handler, cookie string) {
	m := session.Must(session.New(nil))
	w := httptest.NewRecorder()
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		benchName.Set(s, "0123456789abcdef")
		benchAdmin.Set(s, true)
		benchCount.Set(s, 12345)
		if r.URL.Path == "/big" {
			benchBlob.Set(s, strings.Repeat("x", 4096))
		}
	})).ServeHTTP(w, httptest.NewRequest("GET", "https://localhost"+path, nil))
	return m.Handler(next), strings.SplitN(w.Header().Get("Set-Cookie"), ";", 2)[0]
}

// serve sends requests through h, one after the other.
func serve(b *testing.B, h http.Handler, cookie string) {
	r := httptest.NewRequest("GET", "https://localhost/", nil)
	if cookie != "" {
		r.Header.Set("Cookie", cookie)
	}
	w := &discard{http.Header{"Content-Type": {"text/plain"}}}
	b.ReportAllocs()
	for b.Loop() {
		delete(w.h, "Vary")
		delete(w.h, "Cache-Control")
		delete(w.h, "Set-Cookie")
		h.ServeHTTP(w, r)
	}
}

var ok = []byte("ok")

func answer(w http.ResponseWriter) { w.Write(ok) }

func BenchmarkBare(b *testing.B) {
	_, cookie := benchSetup("/", nil)
	serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("__Host-Http-session")
		if err != nil || c.Value == "" {
			b.Fatal(err)
		}
		answer(w)
	}), cookie)
}

func BenchmarkBareNoCookie(b *testing.B) {
	serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w) }), "")
}

func BenchmarkUntouched(b *testing.B) {
	h, cookie := benchSetup("/", func(w http.ResponseWriter, r *http.Request) { answer(w) })
	serve(b, h, cookie)
}

func BenchmarkRead(b *testing.B)    { benchRead(b, "/") }
func BenchmarkReadBig(b *testing.B) { benchRead(b, "/big") }

func benchRead(b *testing.B, path string) {
	h, cookie := benchSetup(path, func(w http.ResponseWriter, r *http.Request) {
		if benchName.Get(session.From(r.Context())) == "" {
			b.Fatal("no value")
		}
		answer(w)
	})
	serve(b, h, cookie)
}

func BenchmarkReadWrite(b *testing.B) {
	h, cookie := benchSetup("/", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		benchCount.Set(s, benchCount.Get(s)+1)
		answer(w)
	})
	serve(b, h, cookie)
}

func BenchmarkNew(b *testing.B) {
	h, _ := benchSetup("/", func(w http.ResponseWriter, r *http.Request) {
		benchName.Set(session.From(r.Context()), "0123456789abcdef")
		answer(w)
	})
	serve(b, h, "")
}

func BenchmarkForged(b *testing.B) {
	h, cookie := benchSetup("/", func(w http.ResponseWriter, r *http.Request) {
		if !session.From(r.Context()).IsNew() {
			b.Fatal("a forged cookie was accepted")
		}
		answer(w)
	})
	serve(b, h, forge(cookie))
}

// forge changes one character of the signature.
func forge(cookie string) string {
	i := len(cookie) - 20
	c := "A"
	if cookie[i] == 'A' {
		c = "B"
	}
	return cookie[:i] + c + cookie[i+1:]
}

// BenchmarkFile serves a file of 1 MiB over loopback, with and without the middleware; both use
// sendfile.
func BenchmarkFile(b *testing.B) {
	file := filepath.Join(b.TempDir(), "file.bin")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		b.Fatal(err)
	}
	serveFile := func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) }
	h, cookie := benchSetup("/", serveFile)
	for _, c := range []struct {
		name string
		h    http.Handler
	}{{"bare", http.HandlerFunc(serveFile)}, {"untouched", h}} {
		b.Run(c.name, func(b *testing.B) {
			server := httptest.NewServer(c.h)
			defer server.Close()
			r, err := http.NewRequest("GET", server.URL, nil)
			if err != nil {
				b.Fatal(err)
			}
			r.Header.Set("Cookie", cookie)
			b.SetBytes(1 << 20)
			for b.Loop() {
				resp, err := server.Client().Do(r)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}

// newCodec returns a securecookie with the settings of the Manager.
func newCodec() *securecookie.SecureCookie {
	return securecookie.New(make([]byte, 32), nil).SetSerializer(securecookie.NopEncoder{}).MaxAge(0)
}

// BenchmarkSecurecookie measures signing and verifying alone.
func BenchmarkSecurecookie(b *testing.B) {
	codec := newCodec()
	token, name := make([]byte, 32), "__Host-Http-session"
	good, err := codec.Encode(name, token)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("sign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			codec.Encode(name, token)
		}
	})
	verify := func(value string, want bool) func(b *testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var got []byte
				if ok := codec.Decode(name, value, &got) == nil; ok != want {
					b.Fatal(ok)
				}
			}
		}
	}
	b.Run("verify", verify(good, true))
	b.Run("refuse", verify(forge(good), false))
}
