package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// example starts the example server as its users do, and returns its address.
func example(t testing.TB, env ...string) string {
	t.Helper()
	return launch(t, "../..", "./examples/server", nil, env...)
}

// launch starts a program of a folder as its users do, and returns the address that it prints.
func launch(t testing.TB, dir, pkg string, args []string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, build(t, dir, pkg), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{"PORT=0"}, env...)...)
	cmd.Stderr = struct{ io.Writer }{os.Stderr} // not an *os.File, so that os/exec uses a pipe, which child processes inherit
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := cmd.Wait(); errors.Is(err, exec.ErrWaitDelay) {
			t.Errorf("%s %s has ended, but not its child processes", dir, pkg)
		}
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if address := address.FindString(lines.Text()); address != "" {
			return address
		}
	}
	t.Fatalf("%s %s ends without an address", dir, pkg)
	return ""
}

var address = regexp.MustCompile(`https?://\S+`)

// built contains the programs that were built, by folder and package, in one folder.
var built struct {
	sync.Mutex
	dir   string
	paths map[string]string
}

// build builds a program once.
func build(t testing.TB, dir, pkg string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	path := built.paths[dir+" "+pkg]
	if path != "" {
		return path
	}
	if built.dir == "" {
		var err error
		if built.dir, err = os.MkdirTemp("", "e2e"); err != nil {
			t.Fatal(err)
		}
		built.paths = map[string]string{}
	}
	path = filepath.Join(built.dir, fmt.Sprint("program", len(built.paths)))
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	built.paths[dir+" "+pkg] = path
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// serve serves a handler over HTTPS or HTTP, and returns a URL with a host that only the test
// browsers resolve.
func serve(t testing.TB, host string, secure bool, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // browsers close connections whose certificate they refuse
	scheme := "http"
	if secure {
		s.TLS = &tls.Config{}
		s.StartTLS()
		scheme = "https"
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return scheme + "://" + host + ":" + u.Port()
}

var count = session.NewKey[int]("count")

// app is a small application behind a Manager. The path of a request selects the operation.
func app(t testing.TB, o session.Options) http.Handler {
	t.Helper()
	m, err := session.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login(r.FormValue("user"))
		fmt.Fprint(w, "ok")
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Logout(); fmt.Fprint(w, "ok") })
	mux.HandleFunc("/renew", func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Renew(); fmt.Fprint(w, "ok") })
	mux.HandleFunc("/count", func(w http.ResponseWriter, r *http.Request) { // responds slowly
		s := session.From(r.Context())
		user := s.User()
		time.Sleep(100 * time.Millisecond)
		count.Update(s, func(n int) int { return n + 1 })
		fmt.Fprint(w, user)
	})
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		fmt.Fprintf(w, "user:%s count:%d", s.User(), count.Get(s))
	})
	mux.HandleFunc("/frame", func(w http.ResponseWriter, r *http.Request) { // sends its state to the surrounding page
		s := session.From(r.Context())
		if user := r.FormValue("user"); user != "" {
			s.Login(user)
		}
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<script>parent.postMessage("user:%s", "*")</script>`, s.User())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<p>user:%s</p>", session.From(r.Context()).User())
	})
	return m.Handler(mux)
}
