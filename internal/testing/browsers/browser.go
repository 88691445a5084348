// Package browsers has the HTTP client of the tests: it keeps cookies, over the network or
// without one.
package browsers

import (
	"crypto/tls"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"
)

// A Browser is an [http.Client] with a cookie jar. Several goroutines may use it: a browser
// sends concurrent requests.
type Browser struct {
	*http.Client
}

// New returns a Browser without cookies. A nil transport is the network.
func New(t testing.TB, transport http.RoundTripper) *Browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Browser{&http.Client{Jar: jar, Transport: transport}}
}

// WithoutRedirects makes b follow no redirects, and returns b.
func (b *Browser) WithoutRedirects() *Browser {
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b
}

// Exchange adds the cookies of b to r, sends r through a transport, follows no redirect, and
// keeps the cookies of the response.
func (b *Browser) Exchange(r *http.Request, through http.RoundTripper) (*http.Response, error) {
	for _, c := range b.Jar.Cookies(r.URL) {
		r.AddCookie(c)
	}
	resp, err := through.RoundTrip(r)
	if err == nil {
		b.Jar.SetCookies(r.URL, resp.Cookies())
	}
	return resp, err
}

// Cookies returns the cookies that b would send to a URL.
func (b *Browser) Cookies(address string) []*http.Cookie { return b.Jar.Cookies(parse(address)) }

// SetCookies gives b cookies, as if a page at the URL had sent them.
func (b *Browser) SetCookies(address string, cookies ...*http.Cookie) {
	b.Jar.SetCookies(parse(address), cookies)
}

// Copy returns another Browser, which has the cookies that b has now for a URL: a thief, or
// a browser whose response was lost.
func (b *Browser) Copy(t testing.TB, address string) *Browser {
	t.Helper()
	other := New(t, b.Transport)
	other.CheckRedirect = b.CheckRedirect
	other.SetCookies(address, b.Cookies(address)...)
	return other
}

// parse panics if address is no URL: a test has written it.
func parse(address string) *url.URL {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return u
}

// Handler serves requests with a handler, without a network.
func Handler(h http.Handler) http.RoundTripper { return handler{h} }

type handler struct{ http.Handler }

func (h handler) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, asServed(r))
	return w.Result(), nil
}

// asServed returns a client's request in the form in which a server gets it.
func asServed(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
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
	return r
}
