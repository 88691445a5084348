package session_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// BenchmarkReadBound is BenchmarkRead with Options.DeviceBound: without the option, in a browser that binds
// nothing, and in one that has bound its session.
func BenchmarkReadBound(b *testing.B) {
	for _, c := range []struct {
		name   string
		period time.Duration
		binds  bool
	}{{"off", 0, false}, {"unbound", 10 * time.Minute, false}, {"bound", 10 * time.Minute, true}} {
		store := session.NewMemoryStore(nil)
		m := newManager(b, session.Options{Store: store, DeviceBound: c.period})
		browser := newBoundBrowser(b, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			s.Login("alice")
			benchName.Set(s, "0123456789abcdef")
		})))
		browser.register = func() bool { return c.binds }
		browser.get("/")
		if c.binds {
			browser.refresh(browser.sessions[0])
			rec, err := store.List(b.Context(), "alice")
			if err != nil || len(rec) != 1 {
				b.Fatal(err)
			}
			old := rec[0].Version
			rec[0].Version++
			rec[0].Data = boundFrom(rec[0].Data, time.Now().Add(-time.Minute)) // or the benchmark would have to wait
			if err := store.Save(b.Context(), rec[0], old); err != nil {
				b.Fatal(err)
			}
		}
		cookie := browser.request("/").Header.Get("Cookie")
		b.Run(c.name, func(b *testing.B) {
			serve(b, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if benchName.Get(session.From(r.Context())) == "" {
					b.Fatal("no value")
				}
				answer(w)
			})), cookie)
		})
	}
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

// crowd is many sessions of one Manager over one MemoryStore.
type crowd struct {
	store        *session.MemoryStore
	handler      http.Handler // "/" reads a value, "/new" creates a session, "/login" creates one with a user of its own
	made         int          // number of sessions; each has its number as a value
	cookies, ids []string     // ids is filled by "/id"
}

// newCrowd fills a store with n sessions of three small values.
func newCrowd(tb testing.TB, n int, path string) *crowd {
	c := &crowd{store: session.NewMemoryStore(&session.MemoryOptions{MaxBytes: 1 << 40})}
	m := session.Must(session.New(&session.Options{Store: c.store, Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}}))
	c.handler = m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/":
			if benchName.Get(s) == "" {
				tb.Error("no value")
			}
		case "/id":
			c.ids = append(c.ids, s.ID())
		case "/number":
			w.Header().Set("Number", strconv.Itoa(benchCount.Get(s)))
		case "/login":
			s.Login(fmt.Sprint("user", c.made))
			fallthrough
		default:
			benchName.Set(s, "0123456789abcdef")
			benchAdmin.Set(s, true)
			benchCount.Set(s, c.made)
			c.made++
		}
		answer(w)
	}))
	visit := c.visitor(path)
	for range n {
		cookie, _, _ := strings.Cut(visit("").Get("Set-Cookie"), ";")
		c.cookies = append(c.cookies, strings.Clone(cookie))
	}
	return c
}

// comeBack sends a request with every cookie, distributed over the goroutines.
func (c *crowd) comeBack(path string, goroutines int) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			visit := c.visitor(path)
			for i := g; i < len(c.cookies); i += goroutines {
				visit(c.cookies[i])
			}
		})
	}
	wg.Wait()
}

// visitor returns a function, for one goroutine, that sends a request with a cookie, or
// without, and returns the header of the response.
func (c *crowd) visitor(path string) func(cookie string) http.Header {
	w, r := &discard{http.Header{}}, httptest.NewRequest("GET", "https://localhost"+path, nil)
	line := []string{""}
	r.Header["Cookie"] = line
	return func(cookie string) http.Header {
		clear(w.h)
		line[0] = cookie
		c.handler.ServeHTTP(w, r)
		return w.h
	}
}

// TestEveryBrowserGetsItsOwn checks that each of thousands of concurrent browsers gets its own
// session, while cookies are verified for the first time and cached.
func TestEveryBrowserGetsItsOwn(t *testing.T) {
	const n = 3000
	c := newCrowd(t, n, "/new")
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			visit := c.visitor("/number")
			for i := range 3 * n {
				i = (i*7 + g) % n // goroutines use the same cookies at about the same time, in different orders
				if got := visit(c.cookies[i]).Get("Number"); got != strconv.Itoa(i) {
					t.Errorf("browser %d got the session of %s", i, got)
				}
			}
		})
	}
	wg.Wait()
}

// stranger is visitor with the cookies of random browsers. Each cookie is in the processor's
// cache, like one that was just read from the network: cookies are copied in batches, which is
// cheap.
func (c *crowd) stranger() func() {
	visit := c.visitor("/")
	var batch [64]string
	next := len(batch)
	return func() {
		if next == len(batch) {
			next = 0
			var all strings.Builder
			all.Grow(len(batch) * len(c.cookies[0]))
			for range batch {
				all.WriteString(c.cookies[rand.IntN(len(c.cookies))])
			}
			n := len(c.cookies[0]) // all cookies have this length
			for i := range batch {
				batch[i] = all.String()[i*n : (i+1)*n]
			}
		}
		visit(batch[next])
		next++
	}
}

// BenchmarkReadMany reads random sessions of many.
func BenchmarkReadMany(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		c := newCrowd(b, n, "/new")
		c.comeBack("/", 1)
		c.comeBack("/", 1) // verifies again the cookies that were evicted
		for _, goroutines := range []int{1, 2} {
			b.Run(fmt.Sprintf("sessions=%d/goroutines=%d", n, goroutines), func(b *testing.B) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(goroutines)) // RunParallel starts this many goroutines
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

// BenchmarkCrowd reads random sessions of very many while 25 000 sessions per second are
// created and as many expire: by a call of Load alone, by a request in this process, and by a
// request over loopback. It reports the median and the 99th percentile in nanoseconds.
func BenchmarkCrowd(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		c := newCrowd(b, n, "/new")
		c.comeBack("/", 1)
		c.comeBack("/id", 1)
		for _, call := range []struct {
			name string
			open func(*testing.B) func(id, cookie string)
		}{
			{"load", c.loads},
			{"request", c.requests},
			{"loopback", c.loopback},
		} {
			b.Run(fmt.Sprintf("sessions=%d/%s", n, call.name), func(b *testing.B) {
				do := call.open(b)
				defer come(b, c.store)()
				runtime.GC()
				took := make([]time.Duration, 0, 1<<22)
				for b.Loop() {
					// Like a cookie that was just read from the network, the cookie is in the
					// processor's cache.
					i := rand.IntN(n)
					id, cookie := strings.Clone(c.ids[i]), strings.Clone(c.cookies[i])
					start := time.Now()
					do(id, cookie)
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

func (c *crowd) loads(b *testing.B) func(id, cookie string) {
	return func(id, _ string) {
		if _, err := c.store.Load(context.Background(), id); err != nil {
			b.Error(err)
		}
	}
}

func (c *crowd) requests(*testing.B) func(id, cookie string) {
	visit := c.visitor("/")
	return func(_, cookie string) { visit(cookie) }
}

func (c *crowd) loopback(b *testing.B) func(id, cookie string) {
	server := httptest.NewServer(c.handler)
	b.Cleanup(server.Close)
	r, err := http.NewRequest("GET", server.URL, nil)
	if err != nil {
		b.Fatal(err)
	}
	return func(_, cookie string) {
		r.Header["Cookie"] = []string{cookie}
		resp, err := server.Client().Do(r)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// come creates sessions that live for a second, until stop is called. It returns when as many
// expire as are created.
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

// BenchmarkHeap reports the bytes of heap per stored session, including all indexes.
func BenchmarkHeap(b *testing.B) {
	for _, path := range []string{"/new", "/login"} {
		b.Run(strings.TrimPrefix(path, "/"), func(b *testing.B) {
			const n = 200_000
			for b.Loop() {
				before := heapInUse()
				c := newCrowd(b, 0, "/")
				visit := c.visitor(path)
				for range n {
					visit("")
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
	runtime.GC() // a second time, for objects in sync.Pools
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkWatched lets requests of as many sessions wait for Done, for one interval per iteration.
// It reports the cost beside the requests themselves: bytes per session, goroutines, store calls per
// second, and the share of a core.
func BenchmarkWatched(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchWatched(b, n) })
	}
}

func benchWatched(b *testing.B, n int) {
	store := &countingStore{Store: session.NewMemoryStore(nil)}
	every := 5 * time.Second
	m := session.Must(session.New(&session.Options{Store: store, Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}, WatchEvery: every}))
	var opened, held sync.WaitGroup
	watch, hangUp := make(chan bool), make(chan bool)
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if s.User() == "" {
			s.Login("alice")
			return
		}
		opened.Done()
		var done <-chan struct{}
		if <-watch {
			done = s.Done()
			opened.Done()
		}
		select {
		case <-done:
			b.Error("Done was not closed")
		case <-hangUp:
		}
	}))
	opened.Add(n)
	for range n {
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", "https://localhost/", nil)
		h.ServeHTTP(w, r)
		cookie, _, _ := strings.Cut(w.Header().Get("Set-Cookie"), ";")
		r.Header.Set("Cookie", cookie)
		held.Go(func() { h.ServeHTTP(w, r) })
	}
	opened.Wait()
	before, goroutines := heap(), runtime.NumGoroutine()
	opened.Add(n)
	for range n {
		watch <- true
	}
	opened.Wait()
	bytes, started, used := heap()-before, time.Now(), processorTime()
	loads := store.loads.Load()
	for b.Loop() {
		time.Sleep(every)
	}
	took := time.Since(started)
	b.ReportMetric(float64(bytes)/float64(n), "B/session")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines), "goroutines")
	b.ReportMetric(float64(store.loads.Load()-loads)/took.Seconds(), "loads/s")
	b.ReportMetric(100*(processorTime()-used).Seconds()/took.Seconds(), "%core")
	close(hangUp)
	held.Wait()
}

// processorTime returns the processor time that the process has used until now.
func processorTime() time.Duration {
	runtime.GC() // at whose end the runtime counts
	all := []metrics.Sample{{Name: "/cpu/classes/total:cpu-seconds"}, {Name: "/cpu/classes/idle:cpu-seconds"}}
	metrics.Read(all)
	return time.Duration((all[0].Value.Float64() - all[1].Value.Float64()) * float64(time.Second))
}

type countingStore struct {
	session.Store
	loads atomic.Int64
}

func (s *countingStore) Load(ctx context.Context, id string) (*session.Record, error) {
	s.loads.Add(1)
	return s.Store.Load(ctx, id)
}

// heap returns the bytes of heap in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
