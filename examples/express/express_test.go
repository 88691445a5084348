//go:build unix

package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"syscall"
	"testing"

	"github.com/coatcheck/session/internal/testserver"
)

// One walk: log in at Node, see the dashboard of Go, sign out there, and be a stranger
// at Node.
func TestWalk(t *testing.T) {
	for _, name := range []string{"node", "npm", "redis-server"} {
		testserver.Program(t, name)
	}
	t.Setenv("REDIS_URL", "") // it starts its own
	t.Setenv("PORT", "0")
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error)
	go func() {
		err := run(ctx, w)
		w.CloseWithError(err)
		ended <- err
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
			t.Errorf("a program that it started is still there: %d %v", pid, err)
		}
	}()
	line, err := bufio.NewReader(r).ReadString('\n')
	for err == nil && !strings.HasPrefix(line, "Open ") {
		line, err = bufio.NewReader(r).ReadString('\n')
	}
	if err != nil {
		t.Fatal(err)
	}
	base := strings.Fields(line)[1]
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar}
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
	u, _ := url.Parse(base)
	stolen := jar.Cookies(u)
	expect(client.PostForm(base+"/logout", nil))("Nobody is logged in")
	if len(jar.Cookies(u)) != 0 {
		t.Error("the cookie is still there")
	}
	jar.SetCookies(u, stolen)
	expect(client.Get(base + "/"))("Nobody is logged in")
	expect(client.Get(base + "/dashboard"))("Nobody is logged in")
}
