package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
)

// site is a server on loopback.
type site struct {
	name      string
	url       string
	sendfiles *atomic.Int64 // number of files that net/http passed to the connection; nil: not known
	renewed   renewed
	stop      func()
}

// serve starts a server with the sessions of the library.
func (l library) serve() (*site, error) {
	dir, remove, err := tempDir()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "file.bin")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		return nil, err
	}
	wrap, open := l.open(dir)
	h := pages(open, file)
	if wrap != nil {
		h = wrap(h)
	}
	h = gates(h)
	site := &site{name: l.name + " " + version(l.module), sendfiles: new(atomic.Int64)}
	server := httptest.NewUnstartedServer(h)
	server.Listener = listener{server.Listener, site.sendfiles}
	server.Start()
	site.url, site.stop = server.URL, func() { server.Close(); remove() }
	return site, nil
}

// pages are the pages of every site. A request loads its session first, and then waits at the
// gate that it names, if any.
func pages(open func(http.ResponseWriter, *http.Request) handle, file string) http.Handler {
	mux := http.NewServeMux()
	page := func(path string, f func(r *http.Request, h handle) string) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			h := open(w, r)
			fmt.Fprint(w, f(r, h))
		})
	}
	page("/get", func(r *http.Request, h handle) string { return h.get(r.FormValue("key")) })
	page("/count", func(r *http.Request, h handle) string { return strconv.Itoa(h.count()) })
	page("/whoami", func(r *http.Request, h handle) string { return h.user() })
	page("/set", func(r *http.Request, h handle) string {
		h.get("any")
		waitAtGate(r)
		h.set(r.FormValue("key"), r.FormValue("value"))
		return "ok"
	})
	page("/add", func(r *http.Request, h handle) string {
		h.add(func() { waitAtGate(r) })
		return "ok"
	})
	page("/login", func(r *http.Request, h handle) string { h.login(r.FormValue("user")); return "ok" })
	page("/renew", func(r *http.Request, h handle) string { h.renew(); return "ok" })
	page("/look", func(r *http.Request, h handle) string {
		user := h.user()
		h.set(r.FormValue("key"), "1")
		return user
	})
	page("/logout", func(r *http.Request, h handle) string { h.logout(); return "ok" })
	mux.HandleFunc("GET /late", func(w http.ResponseWriter, r *http.Request) {
		h := open(w, r)
		h.get("any")
		fmt.Fprint(w, "first byte")
		check(http.NewResponseController(w).Flush())
		h.set(r.FormValue("key"), r.FormValue("value"))
	})
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, file) })
	return mux
}

// gate holds requests until it is opened, and signals their arrival.
type gate struct{ arrived, open chan struct{} }

var allGates sync.Map

func theGate(r *http.Request) gate { return gateNamed(r.FormValue("gate")) }

func gateNamed(name string) gate {
	g, _ := allGates.LoadOrStore(name, gate{make(chan struct{}), make(chan struct{})})
	return g.(gate)
}

func waitAtGate(r *http.Request) {
	if r.FormValue("gate") != "" {
		theGate(r).wait()
	}
}

func (g gate) wait() {
	g.arrived <- struct{}{}
	<-g.open
}

// gates adds the pages that control the gates, outside of the session middleware. A request can
// wait there before it loads its session.
func gates(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/await":
			n, _ := strconv.Atoi(r.FormValue("n"))
			for range n {
				<-theGate(r).arrived
			}
		case "/open":
			close(theGate(r).open)
		default:
			if name := r.FormValue("arrive"); name != "" {
				gateNamed(name).wait()
			}
			next.ServeHTTP(w, r)
		}
	})
}

// listener wraps connections that count the files which net/http passes to them, because these
// become a sendfile.
type listener struct {
	net.Listener
	sendfiles *atomic.Int64
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return conn{tcp, l.sendfiles}, err
	}
	return c, err
}

type conn struct {
	*net.TCPConn
	sendfiles *atomic.Int64
}

func (c conn) ReadFrom(src io.Reader) (int64, error) {
	c.sendfiles.Add(1)
	return c.TCPConn.ReadFrom(src)
}

// version returns a module's version in this program.
func version(module string) string {
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if m.Path == module && m.Replace == nil {
			return m.Version
		}
	}
	return "(this checkout)"
}
