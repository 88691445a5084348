package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/coatcheck/session/sessiontest"
)

// follow returns the page to which a response redirects.
func follow(t *testing.T, b *sessiontest.Browser, resp *http.Response) string {
	t.Helper()
	if resp.StatusCode != http.StatusSeeOther {
		t.Fatalf("%s, want a redirect", resp.Status)
	}
	return body(t, b.Get(resp.Header.Get("Location")))
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status, err)
	}
	return string(text)
}

func contains(t *testing.T, page string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q:\n%s", part, page)
		}
	}
}

var alice = url.Values{"user": {"alice"}, "password": {"wonderland"}}

func TestWebsite(t *testing.T) {
	b := sessiontest.NewBrowser(t, app())
	contains(t, follow(t, b, b.Get("/")), "<h1>Log in</h1>")
	for _, wrong := range []url.Values{nil, {"user": {"alice"}, "password": {"x"}}, {"user": {"carol"}, "password": {""}}} {
		contains(t, follow(t, b, b.PostForm("/login", wrong)), "<h1>Log in</h1>", "password is wrong")
	}
	contains(t, follow(t, b, b.PostForm("/login", alice)), "The list of alice", "Welcome, alice.")
	if page := body(t, b.Get("/")); strings.Contains(page, "Welcome") {
		t.Errorf("the flash is shown twice:\n%s", page)
	}
	contains(t, follow(t, b, b.PostForm("/list", url.Values{"item": {"<tea>"}})), "<li>&lt;tea&gt;</li>", "Added &lt;tea&gt;.")
	contains(t, follow(t, b, b.PostForm("/list", url.Values{"item": {"a\xff"}})), "<li>a?</li>")
	contains(t, follow(t, b, b.PostForm("/list", nil)), "1 to 200 bytes")
	contains(t, follow(t, b, b.PostForm("/logout", nil)), "<h1>Log in</h1>", "You are logged out.")
	contains(t, follow(t, b, b.Get("/")), "<h1>Log in</h1>")
}

// TestTabs checks that concurrent requests of one browser lose no item and no message. Their bodies
// arrive when each has loaded the session.
func TestTabs(t *testing.T) {
	b := sessiontest.NewBrowser(t, app())
	b.PostForm("/login", alice)
	const n = 20
	var loaded, done sync.WaitGroup
	loaded.Add(n)
	for i := range n {
		done.Go(func() {
			form := io.MultiReader(&wait{all: &loaded}, strings.NewReader(fmt.Sprintf("item=item-%d", i)))
			r := httptest.NewRequest("POST", "/list", form)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			b.Do(r)
		})
	}
	done.Wait()
	page := body(t, b.Get("/"))
	for i := range n {
		contains(t, page, fmt.Sprintf("<li>item-%d</li>", i), fmt.Sprintf("Added item-%d.", i))
	}
}

// wait is an empty body, whose end comes when all bodies are read.
type wait struct{ all *sync.WaitGroup }

func (w *wait) Read([]byte) (int, error) {
	w.all.Done()
	w.all.Wait()
	return 0, io.EOF
}

// TestList checks that the list does not grow without end.
func TestList(t *testing.T) {
	b := sessiontest.NewBrowser(t, app())
	b.PostForm("/login", alice)
	for range maxItems + 1 {
		b.PostForm("/list", url.Values{"item": {strings.Repeat("x", 200)}})
	}
	if n := strings.Count(body(t, b.Get("/")), "<li>"); n != maxItems {
		t.Errorf("%d items, want %d", n, maxItems)
	}
}

// TestOtherSites checks that a form of another site changes nothing.
func TestOtherSites(t *testing.T) {
	b := sessiontest.NewBrowser(t, app())
	b.PostForm("/login", alice)
	for _, path := range []string{"/login", "/list", "/logout"} {
		r := httptest.NewRequest("POST", path, strings.NewReader("item=poison"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if resp := b.Do(r); resp.StatusCode != http.StatusForbidden {
			t.Errorf("POST %s from another site: %s", path, resp.Status)
		}
	}
	if page := body(t, b.Get("/")); !strings.Contains(page, "The list of alice") || strings.Contains(page, "poison") {
		t.Errorf("a form of another site has changed the page:\n%s", page)
	}
}
