package browsers_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coatcheck/session/internal/testing/browsers"
)

// serve counts the visits of each client in a cookie, and redirects /go to /.
func serve(w http.ResponseWriter, r *http.Request) {
	n := 0
	if c, err := r.Cookie("n"); err == nil {
		fmt.Sscan(c.Value, &n)
	}
	http.SetCookie(w, &http.Cookie{Name: "n", Value: fmt.Sprint(n + 1), Path: "/"})
	if r.URL.Path == "/go" {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	fmt.Fprint(w, n, r.TLS != nil, r.RequestURI, r.Body != nil)
}

// TestBrowser checks that a Browser keeps cookies, follows redirects unless told otherwise,
// and can be copied, over the network and without one.
func TestBrowser(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(serve))
	defer server.Close()
	for base, transport := range map[string]http.RoundTripper{
		server.URL:             nil,
		"http://app.test":      browsers.Handler(http.HandlerFunc(serve)),
		"https://example.test": browsers.Handler(http.HandlerFunc(serve)),
	} {
		b := browsers.New(t, transport)
		get := func(b *browsers.Browser, path string, want string) {
			t.Helper()
			resp, err := b.Get(base + path)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if got := string(body); got != want {
				t.Errorf("%s%s: %q, want %q", base, path, got, want)
			}
		}
		tls := base == "https://example.test"
		get(b, "/", fmt.Sprint(0, tls, "/", true))
		get(b, "/?q=1", fmt.Sprint(1, tls, "/?q=1", true))
		other := b.Copy(t, base)
		get(b, "/go", fmt.Sprint(3, tls, "/", true))
		get(other, "/", fmt.Sprint(2, tls, "/", true))
		get(browsers.New(t, transport), "/", fmt.Sprint(0, tls, "/", true))
		if all := b.Cookies(base); len(all) != 1 || all[0].Value != "4" {
			t.Errorf("%s: the browser has %v", base, all)
		}
		resp, err := b.WithoutRedirects().Get(base + "/go")
		if err != nil || resp.StatusCode != http.StatusSeeOther || b.Cookies(base)[0].Value != "5" {
			t.Errorf("%s: without redirects: %v, %v", base, resp, err)
		}
		r, _ := http.NewRequest("GET", base+"/go", nil)
		through := transport
		if through == nil {
			through = http.DefaultTransport
		}
		resp, err = b.Exchange(r, through)
		if err != nil || resp.StatusCode != http.StatusSeeOther || b.Cookies(base)[0].Value != "6" {
			t.Errorf("%s: an exchange: %v, %v", base, resp, err)
		}
	}
}
