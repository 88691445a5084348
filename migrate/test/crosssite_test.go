package migrate_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coatcheck/session"
)

// TestRequestFromAnotherSite checks cross-site requests that carry the old cookie, which the old
// library set without SameSite, and lack the cookie of the Manager, which the browser withholds.
// Their responses change neither cookie: the old one may be an attacker's.
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
				takes := c.isTake && (user != nil || name != "link") // before the first response, SameSite of the new cookie is unknown for a session that has none
				if resp.StatusCode != 200 || len(resp.Cookies()) > 0 != takes {
					t.Errorf("%s of %v: %s, cookies %v", name, user, resp.Status, resp.Cookies())
				}
			}
			if body, ours := do(h, "/", cookie); user == "ann" && (body != "ann" || ours == "") {
				t.Errorf("%s, the next same-site request: logged in as %q, cookie %q, want ann and a cookie", name, body, ours)
			}
		}
	}
}

// TestRequestFromAnotherSiteWithSameSiteNone checks that a cross-site request takes a session over
// if the cookie of the Manager has SameSite=None.
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
		t.Errorf("logged in as %q, %d cookies, want ann and 2", w.Body, n)
	}
}
