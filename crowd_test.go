package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// A crowd is many sessions of one Manager over one MemoryStore.
type crowd struct {
	store   *session.MemoryStore
	handler http.Handler // reads a value; "/new" makes a session, "/login" one of a user
	cookies []string
}

// newCrowd fills a store with n sessions of three small values, and lets every
// browser come back twice.
func newCrowd(tb testing.TB, n int, path string) *crowd {
	c := &crowd{store: session.NewMemoryStore(&session.MemoryOptions{MaxBytes: 1 << 40})}
	m := session.Must(session.New(&session.Options{Store: c.store, Secrets: [][]byte{make([]byte, 32)}}))
	c.handler = m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/":
			if benchName.Get(s) == "" {
				tb.Error("no value")
			}
		case "/login":
			s.Login(fmt.Sprint("user", len(c.cookies)))
			fallthrough
		default:
			benchName.Set(s, "0123456789abcdef")
			benchAdmin.Set(s, true)
			benchCount.Set(s, len(c.cookies))
		}
		answer(w)
	}))
	c.cookies = make([]string, 0, n)
	w, r := &discard{http.Header{}}, httptest.NewRequest("GET", "https://localhost"+path, nil)
	for range n {
		clear(w.h)
		c.handler.ServeHTTP(w, r)
		cookie, _, _ := strings.Cut(w.h.Get("Set-Cookie"), ";")
		c.cookies = append(c.cookies, strings.Clone(cookie))
	}
	visit := c.visitor()
	for i := range 2 * n {
		visit(i % n)
	}
	return c
}

// visitor returns a function, for one goroutine, that is a request of the i-th browser.
func (c *crowd) visitor() func(i int) {
	w, r := &discard{http.Header{}}, httptest.NewRequest("GET", "https://localhost/", nil)
	cookie := []string{""}
	r.Header["Cookie"] = cookie
	return func(i int) {
		clear(w.h)
		cookie[0] = c.cookies[i]
		c.handler.ServeHTTP(w, r)
	}
}

// stranger is visitor for a browser at random. Like a cookie that has just come
// from the network, it is in the processor's cache, whatever their number:
// cookies are copied a batch at a time, which takes little.
func (c *crowd) stranger() func() {
	w, r := &discard{http.Header{}}, httptest.NewRequest("GET", "https://localhost/", nil)
	cookie := []string{""}
	r.Header["Cookie"] = cookie
	var batch string
	var cut [65]int
	next := 64
	return func() {
		if next == 64 {
			var b strings.Builder
			b.Grow(64 * len(c.cookies[0]))
			for i := range 64 {
				cut[i] = b.Len()
				b.WriteString(c.cookies[rand.IntN(len(c.cookies))])
			}
			batch, cut[64], next = b.String(), b.Len(), 0
		}
		cookie[0] = batch[cut[next]:cut[next+1]]
		next++
		clear(w.h)
		c.handler.ServeHTTP(w, r)
	}
}

// BenchmarkReadMany reads at random of many sessions.
func BenchmarkReadMany(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		c := newCrowd(b, n, "/new")
		for _, goroutines := range []int{1, 2} {
			b.Run(fmt.Sprintf("sessions=%d/goroutines=%d", n, goroutines), func(b *testing.B) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(goroutines)) // RunParallel starts as many
				runtime.GC()
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for visit := c.stranger(); pb.Next(); {
						visit()
					}
				})
			})
		}
	}
}

// BenchmarkCrowd reads at random of very many sessions while others arrive and
// expired ones leave, 25 000 a second each. It reports the median and the 99th
// percentile of a request's time, and of a call of Load alone, in nanoseconds.
func BenchmarkCrowd(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		c := newCrowd(b, n, "/new")
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprintf("%043d", rand.Uint64())
			now := time.Now().Truncate(time.Millisecond)
			if err := c.store.Create(context.Background(), &session.Record{
				ID: ids[i], Data: []byte(`{"admin":true,"count":12345,"name":"0123456789abcdef"}`), Version: 1,
				Created: now, LastSeen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour),
			}); err != nil {
				b.Fatal(err)
			}
		}
		visit := c.visitor()
		for _, call := range []struct {
			name string
			do   func(i int)
		}{
			{"request", visit},
			{"load", func(i int) {
				if _, err := c.store.Load(context.Background(), ids[i]); err != nil {
					b.Error(err)
				}
			}},
		} {
			b.Run(fmt.Sprintf("sessions=%d/%s", n, call.name), func(b *testing.B) {
				stop := come(b, c.store)
				defer stop()
				runtime.GC()
				took := make([]time.Duration, 0, 1<<22)
				for b.Loop() {
					i := rand.IntN(n)
					start := time.Now()
					call.do(i)
					if len(took) < cap(took) {
						took = append(took, time.Since(start))
					}
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
				b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns")
			})
		}
	}
}

// come lets sessions arrive that live for a second, until it is stopped. It
// returns when as many leave.
func come(tb testing.TB, store session.Store) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		started := time.Now()
		for made := 0; ; <-tick.C {
			for due := int(time.Since(started) / (40 * time.Microsecond)); made < due; made++ {
				now := time.Now().Truncate(time.Millisecond)
				end := now.Add(time.Second)
				err := store.Create(ctx, &session.Record{
					ID: fmt.Sprintf("%043d", rand.Uint64()), Data: []byte(`{}`), Version: 1,
					Created: now, LastSeen: now, Deadline: end, Expires: end,
				})
				if errors.Is(err, context.Canceled) {
					return
				}
				if err != nil {
					tb.Error(err)
				}
				if made == 25_000 {
					close(ready)
				}
			}
		}
	}()
	<-ready
	return func() { cancel(); <-done }
}

// BenchmarkHeap reports the bytes of heap that a stored session takes, all
// indexes included.
func BenchmarkHeap(b *testing.B) {
	for _, path := range []string{"/new", "/login"} {
		b.Run(strings.TrimPrefix(path, "/"), func(b *testing.B) {
			const n = 200_000
			for b.Loop() {
				before := heapInUse()
				c := newCrowd(b, 0, "/")
				w, r := &discard{http.Header{}}, httptest.NewRequest("GET", "https://localhost"+path, nil)
				for range n {
					clear(w.h)
					c.handler.ServeHTTP(w, r)
				}
				b.ReportMetric(float64(heapInUse()-before)/n, "B/session")
				runtime.KeepAlive(c)
			}
		})
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what sync.Pools held
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
