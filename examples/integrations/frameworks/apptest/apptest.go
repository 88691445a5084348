// Package apptest is the test that the programs of all frameworks use.
package apptest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
)

// Run drives an application over a real server.
func Run(t *testing.T, app func(*session.Manager) http.Handler) {
	sessions, err := session.New(&session.Options{Cookie: session.CookieOptions{Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(app(sessions))
	defer server.Close()
	browser := browsers.New(t, nil)
	ask := func(c *browsers.Browser, method, path string, form url.Values) (*http.Response, string) {
		t.Helper()
		r, err := http.NewRequest(method, server.URL+path, strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := c.Do(r)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, strings.TrimSpace(string(body))
	}
	expect := func(c *browsers.Browser, method, path string, status int, want string) http.Header {
		t.Helper()
		resp, body := ask(c, method, path, url.Values{"user": {"alice"}})
		if resp.StatusCode != status || want != "" && body != want {
			t.Errorf("%s %s: %d %q, want %d %q", method, path, resp.StatusCode, body, status, want)
		}
		return resp.Header
	}

	expect(browser, "GET", "/dashboard", 401, "Please log in.")
	if h := expect(browser, "POST", "/login", 200, ""); len(h["Set-Cookie"]) != 1 || h.Get("Cache-Control") != "no-store" {
		t.Errorf("the header of the login is %v", h)
	}
	if h := expect(browser, "GET", "/dashboard", 200, "Welcome back, alice!"); h.Get("Vary") != "Cookie" || h.Get("Cache-Control") != "no-store" || h["Set-Cookie"] != nil {
		t.Errorf("the header of the dashboard is %v", h)
	}
	var all sync.WaitGroup
	for range 49 {
		all.Go(func() { expect(browser, "GET", "/dashboard", 200, "Welcome back, alice!") })
	}
	all.Wait()
	expect(browser, "GET", "/visits", 200, "50")
	expect(browser, "GET", "/nowhere", 404, "")
	expect(browser, "GET", "/panic", 500, "")
	expect(browser, "GET", "/dashboard", 200, "Welcome back, alice!")

	copied := browser.Copy(t, server.URL)
	expect(browser, "POST", "/logout", 200, "")
	for _, c := range []*browsers.Browser{browser, copied, browsers.New(t, nil)} {
		expect(c, "GET", "/dashboard", 401, "Please log in.")
	}
}
