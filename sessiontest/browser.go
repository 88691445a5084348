package sessiontest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
)

// A Browser sends requests to a handler, without a network, as if the handler was at
// https://example.test, and keeps the cookies of the responses. It follows no redirects, so
// that a test can check them. Several goroutines may use a Browser: a browser sends concurrent
// requests.
type Browser struct {
	t       testing.TB
	browser *browsers.Browser
}

const host = "example.test"

// NewBrowser returns a Browser without cookies.
func NewBrowser(t testing.TB, h http.Handler) *Browser {
	t.Helper()
	return &Browser{t, browsers.New(t, browsers.Handler(h))}
}

// Get requests a target: a path such as "/cart?page=2", or a URL such as
// "https://shop.example.test/" for another host that the handler serves.
func (b *Browser) Get(target string) *http.Response {
	b.t.Helper()
	return b.Do(b.request("GET", target, ""))
}

// PostForm posts a form.
func (b *Browser) PostForm(target string, form url.Values) *http.Response {
	b.t.Helper()
	r := b.request("POST", target, form.Encode())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return b.Do(r)
}

// Do sends r with the browser's cookies. If its URL has no host the request is for
// https://example.test.
func (b *Browser) Do(r *http.Request) *http.Response {
	b.t.Helper()
	return b.exchange(r, b.browser.Transport)
}

// Session runs f in the browser's session with m, as a handler of "/" would, and keeps the
// cookie of the response.
func (b *Browser) Session(m *session.Manager, f func(*session.Session)) {
	b.t.Helper()
	resp := b.exchange(b.request("GET", "/", ""), browsers.Handler(running(b.t, m, f)))
	if resp.Header.Get("Session-Token") != "" {
		b.t.Fatal("sessiontest: a Browser keeps cookies, but this Manager has Options.Bearer; use Do")
	}
}

// request returns a request of this browser for the address target.
func (b *Browser) request(method, target, body string) *http.Request {
	b.t.Helper()
	if u, err := url.Parse(target); err != nil || u.Host == "" && !strings.HasPrefix(target, "/") {
		b.t.Fatalf("sessiontest: the target %q is neither a path that begins with / nor a URL", target)
	}
	return httptest.NewRequest(method, target, strings.NewReader(body))
}

// exchange sends a copy of r with the browser's cookies.
func (b *Browser) exchange(r *http.Request, through http.RoundTripper) *http.Response {
	b.t.Helper()
	r = r.Clone(r.Context())
	if r.URL.Host == "" {
		r.URL.Scheme, r.URL.Host, r.Host = "https", host, host
	}
	resp, err := b.browser.Exchange(r, through)
	if err != nil {
		b.t.Fatal("sessiontest:", err)
	}
	return resp
}
