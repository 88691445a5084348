package session_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/coatcheck/session"
)

var (
	benchName  = session.NewKey[string]("name")
	benchAdmin = session.NewKey[bool]("admin")
	benchCount = session.NewKey[int]("count")
	benchBlob  = session.NewKey[string]("blob")
)

// A discard is a ResponseWriter that costs nothing, so that what is measured is ours.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// benchSetup returns next with sessions, and the cookie of one with three small
// values, and at "/big" a big one.
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

// serve sends one request after another through h.
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
		c, err := r.Cookie("__Host-session")
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
			b.Fatal("believed a forged cookie")
		}
		answer(w)
	})
	i := len(cookie) - 20
	c := byte('A')
	if cookie[i] == c {
		c = 'B'
	}
	serve(b, h, cookie[:i]+string(c)+cookie[i+1:])
}

// BenchmarkReadMany reads at random from many sessions, on all cores.
func BenchmarkReadMany(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := session.Must(session.New(nil))
			h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if r.URL.Path == "/new" {
					benchName.Set(s, "0123456789abcdef")
					benchCount.Set(s, 1)
				} else if benchName.Get(s) == "" {
					b.Error("no value")
				}
				answer(w)
			}))
			requests := make([]*http.Request, n)
			for i := range requests {
				w := &discard{http.Header{}}
				h.ServeHTTP(w, httptest.NewRequest("GET", "https://localhost/new", nil))
				requests[i] = httptest.NewRequest("GET", "https://localhost/", nil)
				requests[i].Header.Set("Cookie", strings.SplitN(w.h.Get("Set-Cookie"), ";", 2)[0])
				h.ServeHTTP(w, requests[i])
			}
			var from atomic.Int64
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				w := &discard{http.Header{"Content-Type": {"text/plain"}}}
				for i := int(from.Add(7919)); pb.Next(); i += 7919 {
					delete(w.h, "Vary")
					delete(w.h, "Cache-Control")
					h.ServeHTTP(w, requests[i%n])
				}
			})
		})
	}
}

// BenchmarkHeap reports the bytes of heap per stored session.
func BenchmarkHeap(b *testing.B) {
	for _, user := range []string{"", "user"} {
		b.Run("user="+user, func(b *testing.B) {
			const n = 200_000
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				store := session.NewMemoryStore(nil)
				m := session.Must(session.New(&session.Options{Store: store, Secrets: [][]byte{make([]byte, 32)}}))
				i := 0
				h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					benchName.Set(s, "0123456789abcdef")
					benchAdmin.Set(s, true)
					benchCount.Set(s, i)
					if user != "" {
						s.Login(fmt.Sprint(user, i))
					}
				}))
				r := httptest.NewRequest("GET", "https://localhost/", nil)
				for i = range n {
					h.ServeHTTP(&discard{http.Header{}}, r)
				}
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/session")
				if _, err := store.Load(context.Background(), "x"); err == nil {
					b.Fatal()
				}
			}
		})
	}
}
