package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
	"github.com/coatcheck/session/internal/testing/servers"
)

// reverse returns a proxy in Go that terminates TLS.
func reverse(t testing.TB, to string) http.Handler {
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(u)
		r.Out.Host = r.In.Host
		r.SetXForwarded()
	}, FlushInterval: -1}
}

// nginx starts an nginx that serves these locations over HTTPS, and returns its URL. It has a
// zone "cache" for proxy_cache.
func nginx(t testing.TB, locations string) string {
	t.Helper()
	return "https://app.test:" + servers.Nginx(t, locations).Port()
}

// client returns a client with a cookie jar that resolves hosts below .test.
func client(t testing.TB) *browsers.Browser {
	return browsers.New(t, &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	})
}

// fetch requests a page and returns its body and header.
func fetch(t testing.TB, c *browsers.Browser, url string) (string, http.Header) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body), resp.Header
}

// captureLog redirects the default logger to a buffer for the test.
func captureLog(t testing.TB) *bytes.Buffer {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	log := new(bytes.Buffer)
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	return log
}

// TestProxyEndsTLS checks that behind a proxy that terminates TLS no option is needed: the
// cookie is Secure and has the __Host- name. The warning is logged only if the proxy sets no
// header about TLS.
func TestProxyEndsTLS(t *testing.T) {
	for header, lines := range map[string]int{
		"proxy_set_header X-Forwarded-Proto $scheme;": 0,
		`proxy_set_header Forwarded "proto=$scheme";`: 0,
		"": 1,
		"proxy_set_header X-Forwarded-For $remote_addr;": 1,
	} {
		log := captureLog(t)
		up := serve(t, "127.0.0.1", false, app(t, session.Options{}))
		base := nginx(t, fmt.Sprintf("location / { proxy_pass %s; proxy_set_header Host $http_host; %s }", up, header))
		c := client(t)
		for range 3 {
			_, h := fetch(t, c, base+"/login?user=alice")
			if line := h.Get("Set-Cookie"); !strings.HasPrefix(line, "__Host-Http-session=") || !strings.Contains(line, "; Secure") {
				t.Errorf("%q: %q", header, line)
			}
			if got, _ := fetch(t, c, base+"/who"); got != "user:alice count:0" {
				t.Errorf("%q: %s", header, got)
			}
		}
		if n := strings.Count(log.String(), "without TLS"); n != lines || strings.Count(log.String(), "\n") != lines {
			t.Errorf("%q: logged %q", header, log)
		}
	}
}

// TestProxyCache checks that a caching proxy gives no user the page or cookie of another, and
// caches what may be cached.
func TestProxyCache(t *testing.T) {
	inner := app(t, session.Options{})
	up := serve(t, "127.0.0.1", false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/asset" {
			w.Header().Set("Cache-Control", "public, max-age=60")
			fmt.Fprint(w, "asset")
			return
		}
		inner.ServeHTTP(w, r)
	}))
	base := nginx(t, fmt.Sprintf(`location / {
		proxy_pass %s; proxy_set_header X-Forwarded-Proto $scheme;
		proxy_cache cache; proxy_cache_valid 200 302 1m; add_header X-Cache $upstream_cache_status always;
	}`, up))
	fetch(t, client(t), base+"/asset")
	if _, h := fetch(t, client(t), base+"/asset"); h.Get("X-Cache") != "HIT" {
		t.Errorf("the asset is not cached: %v", h)
	}
	fetch(t, client(t), base+"/who") // a client without a session is first
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			c, user := client(t), fmt.Sprint("user", i)
			if got, _ := fetch(t, c, base+"/who"); got != "user: count:0" {
				t.Errorf("before the login: %s", got)
			}
			fetch(t, c, base+"/login?user="+user) // one URL for each user
			fetch(t, c, base+"/count")            // and one for all
			if got, h := fetch(t, c, base+"/who"); got != "user:"+user+" count:1" || h.Get("X-Cache") == "HIT" {
				t.Errorf("%s sees %s, %v", user, got, h)
			}
			if _, h := fetch(t, c, base+"/renew"); h.Get("Set-Cookie") == "" || h.Get("X-Cache") == "HIT" {
				t.Errorf("%s: a renewal without a cookie: %v", user, h)
			}
			if got, _ := fetch(t, c, base+"/who"); got != "user:"+user+" count:1" {
				t.Errorf("%s sees %s", user, got)
			}
		})
	}
	all.Wait()
	if got, _ := fetch(t, client(t), base+"/who"); got != "user: count:0" {
		t.Errorf("a client without a session sees %s", got)
	}
}

// TestProxyPassesEvents checks that nginx forwards an event stream immediately if the handler
// disables buffering.
func TestProxyPassesEvents(t *testing.T) {
	next := make(chan struct{})
	m, err := session.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	up := serve(t, "127.0.0.1", false, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.Login("alice")
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			http.NewResponseController(w).Flush()
			<-next // waits until the client has read the event
		}
		m.RevokeAll(r.Context(), "alice")
		<-s.Done()
		fmt.Fprint(w, "data: ended\n\n")
	})))
	base := nginx(t, fmt.Sprintf("location / { proxy_pass %s; proxy_set_header X-Forwarded-Proto $scheme; }", up))
	resp, err := client(t).Get(base)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := 0; lines.Scan(); {
		if line := lines.Text(); line == fmt.Sprint("data: ", i) {
			i++
			next <- struct{}{}
		} else if line != "" && (line != "data: ended" || i != 3) {
			t.Errorf("after %d: %q", i, line)
		}
	}
}

// TestTwoApplicationsOnOneHost runs two applications on one host, under different paths. With
// different cookie names they do not affect each other; with one name each replaces the session
// of the other.
func TestTwoApplicationsOnOneHost(t *testing.T) {
	for _, c := range []struct {
		shop, forum session.CookieOptions
		want        string // response of the shop after a login at both
	}{
		{session.CookieOptions{Name: "__Host-Http-shop"}, session.CookieOptions{Name: "__Host-Http-forum"}, "user:alice count:0"},
		{session.CookieOptions{Path: "/shop/"}, session.CookieOptions{Path: "/forum/"}, "user:alice count:0"},
		{session.CookieOptions{}, session.CookieOptions{}, "user: count:0"},
	} {
		base := nginx(t, fmt.Sprintf(`
			proxy_set_header X-Forwarded-Proto $scheme;
			location /shop/ { proxy_pass %s/; }
			location /forum/ { proxy_pass %s/; }`,
			serve(t, "127.0.0.1", false, app(t, session.Options{Cookie: c.shop})), serve(t, "127.0.0.1", false, app(t, session.Options{Cookie: c.forum}))))
		b := client(t)
		fetch(t, b, base+"/shop/login?user=alice")
		fetch(t, b, base+"/forum/login?user=bob")
		if got, _ := fetch(t, b, base+"/shop/who"); got != c.want {
			t.Errorf("%+v: the shop answers %s, want %s", c.shop, got, c.want)
		}
		if got, _ := fetch(t, b, base+"/forum/who"); got != "user:bob count:0" {
			t.Errorf("%+v: the forum answers %s", c.forum, got)
		}
	}
}
