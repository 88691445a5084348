package sqlstore_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
)

var count = session.NewKey[int]("count")

// site is a handler with sessions behind a real HTTP server.
type site struct {
	t       *testing.T
	manager *session.Manager
	server  *httptest.Server
}

func newSite(t *testing.T, store session.Store, o session.Options, h http.HandlerFunc) *site {
	t.Helper()
	o.Store, o.Secrets, o.Cookie.Insecure = store, [][]byte{[]byte(strings.Repeat("secret", 6))}, true
	m, err := session.New(&o)
	must(t, err)
	s := httptest.NewServer(m.Handler(h))
	t.Cleanup(s.Close)
	return &site{t, m, s}
}

// browser is a client that keeps cookies.
type browser struct {
	*browsers.Browser
	site *site
}

func (s *site) browser() *browser { return &browser{browsers.New(s.t, nil), s} }

// copy returns another browser with the same cookies.
func (b *browser) copy() *browser {
	return &browser{b.Copy(b.site.t, b.site.server.URL), b.site}
}

// get returns the status and the body of a page.
func (b *browser) get(path string) (int, string) {
	b.site.t.Helper()
	resp, err := b.Get(b.site.server.URL + path)
	must(b.site.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(b.site.t, err)
	return resp.StatusCode, string(body)
}

func (b *browser) expect(path string, status int) {
	b.site.t.Helper()
	if got, body := b.get(path); got != status {
		b.site.t.Errorf("GET %s: %d %s, want %d", path, got, body, status)
	}
}
