package migrate_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coatcheck/session"
)

// A request from another site brings an old cookie, because the old library set it
// without SameSite, and no cookie of ours, because the browser keeps that back. Its
// response touches neither: the old cookie may be an attacker's.
func TestRequestFromAnotherSite(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		header map[string]string
		isTake bool
	}{
		"form":             {"POST", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, false},
		"form, old":        {"POST", map[string]string{"Origin": "https://evil.example"}, false},
		"image":            {"GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, false},
		"link":             {"GET", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, true},
		"form of our own":  {"POST", map[string]string{"Sec-Fetch-Site": "same-origin"}, true},
		"form of our site": {"POST", map[string]string{"Sec-Fetch-Site": "same-site"}, true},
	} {
		for _, user := range []any{"ann", nil} {
			a := newApps(t)
			_, h := a.app(a.new)
			cookie := a.login(user)
			send := func() *http.Response {
				r, w := httptest.NewRequest(c.method, "/", nil), httptest.NewRecorder()
				r.Header.Set("Cookie", cookie)
				for name, value := range c.header {
					r.Header.Set(name, value)
				}
				h.ServeHTTP(w, r)
				return w.Result()
			}
			for range 2 {
				resp := send()
				takes := c.isTake && (user != nil || name != "link") // whether ours is sent with a link nobody knows before it was set
				if resp.StatusCode != 200 || len(resp.Cookies()) > 0 != takes {
					t.Errorf("%s of %v: %s, cookies %v", name, user, resp.Status, resp.Cookies())
				}
			}
			if body, ours := do(h, "/", cookie); user == "ann" && (body != "ann" || ours == "") {
				t.Errorf("%s: afterwards in as %q, with %q", name, body, ours)
			}
		}
	}
}

// What a Manager sets for other sites, those may make it set.
func TestRequestFromAnotherSiteWithSameSiteNone(t *testing.T) {
	a := newApps(t)
	a.adapt = func(o *session.Options) {
		o.Cookie = session.CookieOptions{Name: "session", SameSite: http.SameSiteNoneMode}
	}
	_, h := a.app(a.new)
	r, w := httptest.NewRequest("POST", "https://example.com/", nil), httptest.NewRecorder()
	r.Header.Set("Cookie", a.login("ann"))
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	h.ServeHTTP(w, r)
	if n := len(w.Result().Cookies()); w.Body.String() != "ann" || n != 2 {
		t.Errorf("in as %q, %d cookies", w.Body, n)
	}
}
