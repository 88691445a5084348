//go:build unix

package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/coatcheck/session/internal/testing/browsers"
	"github.com/coatcheck/session/internal/testing/servers"
)

// start runs the whole example until the test ends, and returns its address.
func start(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"node", "npm", "redis-server"} {
		servers.Program(t, name)
	}
	t.Setenv("REDIS_URL", "") // the example starts its own Redis
	t.Setenv("PORT", "0")
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	ended := make(chan error)
	go func() {
		err := run(ctx, w)
		w.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
			t.Errorf("a program of the example is still running: %d %v", pid, err)
		}
	})
	line, err := bufio.NewReader(r).ReadString('\n')
	for err == nil && !strings.HasPrefix(line, "Open ") {
		line, err = bufio.NewReader(r).ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(line)[1]
}

// TestWalk logs in at Node, uses the dashboard of Go, logs out there, and is then logged out at
// Node.
func TestWalk(t *testing.T) {
	base := start(t)
	client := browsers.New(t, nil)
	expect := func(resp *http.Response, err error) func(want string) {
		return func(want string) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), want) {
				t.Errorf("no %q in %s", want, b)
			}
		}
	}
	expect(client.Get(base + "/"))("Nobody is logged in")
	expect(client.Get(base + "/dashboard"))("Nobody is logged in")
	expect(client.PostForm(base+"/login", url.Values{"user": {"<ann>"}}))("Hello, &lt;ann&gt;. Go has shown you this dashboard 1 times")
	expect(client.Get(base + "/"))("and Go its dashboard 1 times")
	expect(client.Get(base + "/dashboard"))("dashboard 2 times, and Express its page 1 times")
	stolen := client.Cookies(base)
	expect(client.PostForm(base+"/logout", nil))("Nobody is logged in")
	if len(client.Cookies(base)) != 0 {
		t.Error("the cookie was not deleted")
	}
	client.SetCookies(base, stolen...)
	expect(client.Get(base + "/"))("Nobody is logged in")
	expect(client.Get(base + "/dashboard"))("Nobody is logged in")
}

// TestBehindTLS logs in at Node behind a proxy with TLS: the cookie is Secure, and the user is
// logged in at Go.
func TestBehindTLS(t *testing.T) {
	t.Setenv("NODE_ENV", "production")
	base := start(t)
	cookie := ""
	do := func(method, path, body string) (page string, set string) {
		t.Helper()
		r, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-For", "203.0.113.7")
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		resp, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		set = resp.Header.Get("Set-Cookie")
		if pair, _, _ := strings.Cut(set, ";"); pair != "" {
			cookie = pair
		}
		return string(b), set
	}
	if _, set := do("POST", "/login", "user=ann"); !strings.Contains(set, "; Secure") {
		t.Errorf("Express sets %q", set)
	}
	if page, _ := do("GET", "/dashboard", ""); !strings.Contains(page, "Hello, ann") {
		t.Errorf("the user is not logged in at Go: %s", page)
	}
	if _, set := do("POST", "/logout", ""); !strings.Contains(set, "; Secure") {
		t.Errorf("Go deletes the cookie by %q", set)
	}
}

// TestForwarded checks that the proxy passes on the forwarding headers of a trusted proxy, and
// not those of other clients.
func TestForwarded(t *testing.T) {
	var got http.Header
	node := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	defer node.Close()
	address, _ := url.Parse(node.URL)
	for isBehindProxy, want := range map[bool]string{true: "https 203.0.113.7, 192.0.2.1 shop.example", false: "http 192.0.2.1 example.com"} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-For", "203.0.113.7")
		r.Header.Set("X-Forwarded-Host", "shop.example")
		newProxy(http.NotFoundHandler(), address, isBehindProxy).ServeHTTP(httptest.NewRecorder(), r)
		if is := strings.Join([]string{got.Get("X-Forwarded-Proto"), got.Get("X-Forwarded-For"), got.Get("X-Forwarded-Host")}, " "); is != want {
			t.Errorf("behind a proxy: %v: %s, want %s", isBehindProxy, is, want)
		}
	}
	newProxy(http.NotFoundHandler(), address, true).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	if is := got.Get("X-Forwarded-Proto"); is != "http" {
		t.Errorf("a proxy without forwarding headers: %s", is)
	}
}
