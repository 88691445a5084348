package sessiontest

import (
	"crypto/tls"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// A Browser sends requests to a handler, without a network, as if the handler was at
// https://example.test, and keeps the cookies of the responses. It follows no redirects, so
// that a test can check them. Several goroutines may use a Browser: a browser sends concurrent
// requests.
type Browser struct {
	t       testing.TB
	handler http.Handler
	jar     http.CookieJar
}

const host = "example.test"

// NewBrowser returns a Browser without cookies.
func NewBrowser(t testing.TB, h http.Handler) *Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal("sessiontest:", err)
	}
	return &Browser{t, h, jar}
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
	r = b.prepare(r)
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	resp := w.Result()
	b.jar.SetCookies(r.URL, resp.Cookies())
	return resp
}

// Session runs f in the browser's session with m, as a handler of "/" would, and keeps the
// cookie of the response.
func (b *Browser) Session(m *session.Manager, f func(*session.Session)) {
	b.t.Helper()
	r := b.prepare(b.request("GET", "/", ""))
	resp := do(b.t, m, r, f)
	if resp.Header.Get("Session-Token") != "" {
		b.t.Fatal("sessiontest: a Browser keeps cookies, but this Manager has Options.Bearer; use Do")
	}
	b.jar.SetCookies(r.URL, resp.Cookies())
}

// request returns a request of this browser for the address target.
func (b *Browser) request(method, target, body string) *http.Request {
	b.t.Helper()
	if u, err := url.Parse(target); err != nil || u.Host == "" && !strings.HasPrefix(target, "/") {
		b.t.Fatalf("sessiontest: the target %q is neither a path that begins with / nor a URL", target)
	}
	return httptest.NewRequest(method, target, strings.NewReader(body))
}

// prepare returns a copy of r in the form in which a server gets it from this browser.
func (b *Browser) prepare(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	if r.URL.Host == "" {
		r.URL.Scheme, r.URL.Host, r.Host = "https", host, host
	}
	if r.URL.Scheme == "https" && r.TLS == nil {
		r.TLS = &tls.ConnectionState{}
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	if r.Body == nil { // the request of a client may have no body, that of a server has one
		r.Body = http.NoBody
	}
	if r.RequestURI == "" {
		r.RequestURI = r.URL.RequestURI()
	}
	for _, c := range b.jar.Cookies(r.URL) {
		r.AddCookie(c)
	}
	return r
}
