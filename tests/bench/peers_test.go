package bench

import (
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

// app is a server with one library and these pages:
//
//	/bare    reads the cookie, without the library
//	/empty   does not use its session
//	/fill    sets three small values
//	/big     sets them and one of 4 KB
//	/read    reads one small value, and must find it
//	/forged  reads it, and must not find it
//	/write   reads a number and writes the next
//	/new     sets one value
type app interface {
	// visitor returns a function, for one goroutine, that requests a page with the i-th of the
	// cookies and reports whether the status was 200.
	visitor(path string, cookies ...string) func(i int) bool
	// cookie returns "name=value" of the cookie that a page sets.
	cookie(path string) string
	// serve serves the pages, with the server for which the library is made.
	serve(net.Listener) error
}

// apps create the servers, each as in its library's README. One of them keeps its sessions in
// dir.
var apps = map[string]func(dir string) app{
	"ours":            newOurs,
	"scs":             newSCS,
	"gorilla-files":   newGorillaFiles,
	"gorilla-cookies": newGorillaCookies,
	"gorillastore":    newGorillastore,
	"gin":             newGin,
	"fiber":           newFiber,
	"icza":            newIcza,
}

var cases = map[string]func(b *testing.B, a app){
	"bare":        func(b *testing.B, a app) { repeat(b, a, "/bare", a.cookie("/fill")) },
	"untouched":   func(b *testing.B, a app) { repeat(b, a, "/empty", a.cookie("/fill")) },
	"read":        func(b *testing.B, a app) { repeat(b, a, "/read", a.cookie("/fill")) },
	"read+write":  func(b *testing.B, a app) { repeat(b, a, "/write", a.cookie("/fill")) },
	"new":         func(b *testing.B, a app) { repeat(b, a, "/new", "") },
	"forged":      func(b *testing.B, a app) { repeat(b, a, "/forged", forge(a.cookie("/fill"))) },
	"read-4KB":    func(b *testing.B, a app) { repeat(b, a, "/read", a.cookie("/big")) },
	"read-100":    func(b *testing.B, a app) { many(b, a, 100, 1) },
	"read-100k":   func(b *testing.B, a app) { many(b, a, 100_000, 1) },
	"read-100k-2": func(b *testing.B, a app) { many(b, a, 100_000, 2) },
	"heap":        heap,
}

// TestMain disables the log, because some libraries log every forged cookie.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	if name := os.Getenv(serveEnv); name != "" {
		serveUntilStdinCloses(name)
	}
	os.Exit(m.Run())
}

// TestPages checks that every library answers every page correctly.
func TestPages(t *testing.T) {
	for _, l := range Libraries {
		if apps[l.Name] == nil {
			continue
		}
		t.Run(l.Name, func(t *testing.T) {
			a := apps[l.Name](t.TempDir())
			cookie := a.cookie("/fill")
			for path, with := range map[string]string{
				"/bare": cookie, "/empty": cookie, "/read": cookie, "/write": cookie, "/forged": forge(cookie), "/new": "",
			} {
				visit := a.visitor(path, with)
				for range 2 { // a second time, because the first may have changed the session
					if !visit(0) {
						t.Error(path, ": wrong response")
					}
				}
			}
			if a.visitor("/read", forge(cookie))(0) {
				t.Error("/read finds a value with a forged cookie")
			}
		})
	}
}

// BenchmarkPeers is the whole table. The program in ./peers runs each cell in a process of its
// own, because some libraries leave goroutines and sessions behind.
func BenchmarkPeers(b *testing.B) {
	for _, c := range Cases {
		b.Run("case="+c.Name, func(b *testing.B) {
			for _, l := range Libraries {
				b.Run("lib="+l.Name, func(b *testing.B) {
					switch {
					case l.Name == "gorilla-cookies" && c.Name == "read-4KB":
						b.Skip("4 KB do not fit into a cookie")
					case l.Name == "gorilla-files" && strings.HasPrefix(c.Name, "read-100k"):
						b.Skip("the creation of 100 000 files takes too long")
					case strings.HasPrefix(l.Name, "gorilla-") && c.Name == "heap":
						b.Skip("not in memory")
					}
					if page, ok := strings.CutPrefix(c.Name, "server-"); ok {
						wholeServer(b, l.Name, "/"+page)
						return
					}
					if apps[l.Name] == nil {
						b.Skip("whole servers only")
					}
					cases[c.Name](b, apps[l.Name](b.TempDir()))
				})
			}
		})
	}
}

// repeat sends the same request repeatedly.
func repeat(b *testing.B, a app, path, cookie string) {
	visit := a.visitor(path, cookie)
	b.ReportAllocs()
	for b.Loop() {
		if !visit(0) {
			b.Fatal(path, ": wrong response")
		}
	}
}

// many reads n sessions in turn, on several goroutines.
func many(b *testing.B, a app, n, goroutines int) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(goroutines)) // RunParallel starts this many goroutines
	cookies := make([]string, n)
	for i := range cookies {
		cookies[i] = a.cookie("/fill")
	}
	warm := a.visitor("/read", cookies...) // reads every session once before the measurement
	for i := range 2 * n {
		warm(i % n)
	}
	var started atomic.Int64
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		visit := a.visitor("/read", cookies...)
		// 7919 is a prime, so that neighbours in memory are not read one after the other.
		for i := int(started.Add(1)) * n / 3; pb.Next(); i += 7919 {
			if !visit(i % n) {
				b.Error("wrong response")
				return
			}
		}
	})
}

// heap reports the bytes of heap per session, including all indexes.
func heap(b *testing.B, a app) {
	const n = 200_000
	for b.Loop() {
		fill := a.visitor("/fill", "")
		before := heapInUse()
		for range n {
			if !fill(0) {
				b.Fatal("wrong response")
			}
		}
		b.ReportMetric(float64(heapInUse()-before)/n, "B/session")
		b.ReportMetric(0, "ns/op")
		runtime.KeepAlive(a)
	}
}

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // a second time, for objects in sync.Pools
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// forge changes one character in the middle of a cookie's value.
func forge(cookie string) string {
	i := (strings.IndexByte(cookie, '=') + len(cookie)) / 2
	c := "A"
	if cookie[i] == 'A' {
		c = "B"
	}
	return cookie[:i] + c + cookie[i+1:]
}
