package session_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// TestRequestThatCouldNotBringTheCookie: promise 16. A request that another site made, and from
// which SameSite withholds the cookie, creates no anonymous session, because the session would
// replace the one that the browser may have.
func TestRequestThatCouldNotBringTheCookie(t *testing.T) {
	const lax, strict, nonE = http.SameSiteLaxMode, http.SameSiteStrictMode, http.SameSiteNoneMode
	for _, c := range []struct {
		name         string
		sameSite     http.SameSite
		method       string
		site, dest   string // Sec-Fetch-Site and -Dest
		cookie       string // value of the request's session cookie
		dropsSession bool
	}{
		{"a payment provider's way back", lax, "POST", "cross-site", "document", "", true},
		{"form_post", lax, "POST", "cross-site", "iframe", "", true},
		{"a link", lax, "GET", "cross-site", "document", "", false},
		{"a link, with HEAD", lax, "HEAD", "cross-site", "document", "", false},
		{"an image", lax, "GET", "cross-site", "image", "", true},
		{"a frame", lax, "GET", "cross-site", "iframe", "", true},
		{"a script's request", lax, "GET", "cross-site", "empty", "", true},
		{"a link, to a strict cookie", strict, "GET", "cross-site", "document", "", true},
		{"a form, to a strict cookie", strict, "POST", "cross-site", "document", "", true},
		{"a form, to a cookie for all", nonE, "POST", "cross-site", "document", "", false},
		{"a page of this site", lax, "POST", "same-origin", "document", "", false},
		{"a page of a sibling domain", strict, "POST", "same-site", "document", "", false},
		{"typed in", strict, "GET", "none", "document", "", false},
		{"an old browser", strict, "POST", "", "", "", false},
		{"an invalid cookie", lax, "POST", "cross-site", "document", "x", true},
	} {
		for _, adapted := range []bool{false, true} {
			spy := newSpy()
			var log events
			o := session.CookieOptions{SameSite: c.sameSite}
			if adapted {
				o = session.CookieOptions{Adapt: func(_ *http.Request, k *http.Cookie) { k.SameSite = c.sameSite }}
			}
			m := newManager(t, session.Options{Store: spy, OnEvent: log.on, Cookie: o})
			do := func(f func(s *session.Session)) *http.Response {
				r := httptest.NewRequest(c.method, "https://localhost/paid", nil)
				r.Header.Set("Sec-Fetch-Site", c.site)
				r.Header.Set("Sec-Fetch-Dest", c.dest)
				if c.cookie != "" {
					r.Header.Set("Cookie", "__Host-Http-session="+c.cookie)
				}
				w := httptest.NewRecorder()
				m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })).ServeHTTP(w, r)
				return w.Result()
			}
			var saved error
			for _, f := range []func(s *session.Session){
				func(s *session.Session) { s.AddFlash("info", "Thank you!") },
				func(s *session.Session) { name.Set(s, "x"); saved = s.Save(t.Context()) },
			} {
				log.all = nil
				resp := do(f)
				if resp.StatusCode != 200 || setsCookie(resp) == c.dropsSession {
					t.Errorf("%s, adapted %v: %s, a cookie: %v", c.name, adapted, resp.Status, setsCookie(resp))
				}
				e := log.last(session.EventDropped)
				if dropped := e.Err != nil; dropped != c.dropsSession || dropped && !strings.Contains(e.Err.Error(), "another site") {
					t.Errorf("%s, adapted %v: %+v", c.name, adapted, log.all)
				}
			}
			if (saved != nil) != c.dropsSession || errors.Is(saved, session.ErrEnded) {
				t.Errorf("%s: Save: %v", c.name, saved)
			}
			if n := spy.count("Create"); (n == 0) != c.dropsSession {
				t.Errorf("%s: %d sessions were made", c.name, n)
			}
			if resp := do(func(s *session.Session) { s.Login("alice") }); !setsCookie(resp) {
				t.Errorf("%s: Login had no effect", c.name)
			}
		}
	}
}

// TestWhoMadeTheRequest: promise 16. For a request without Sec-Fetch-Site, and for one that a
// service worker forwarded, Origin and Referer determine which site made it.
func TestWhoMadeTheRequest(t *testing.T) {
	const lax, strict = http.SameSiteLaxMode, http.SameSiteStrictMode
	for _, c := range []struct {
		name     string
		sameSite http.SameSite
		method   string
		host     string
		headers  string
		drops    bool
	}{
		{"an old browser's way back", lax, "POST", "shop.test", "Origin: https://pay.test", true},
		{"from a frame without an origin", lax, "POST", "shop.test", "Origin: null", true},
		{"by another method", lax, "DELETE", "shop.test", "Origin: https://pay.test", true},
		{"a sibling domain, which by Origin is another site", lax, "POST", "shop.test", "Origin: https://www.shop.test", true},
		{"another port", lax, "POST", "shop.test:8443", "Origin: https://shop.test", true},
		{"a form of this site", lax, "POST", "shop.test", "Origin: https://shop.test", false},
		{"a form of this site, in another spelling", lax, "POST", "Shop.test:8443", "Origin: https://shop.test:8443", false},
		{"a form of this site, over plain HTTP", lax, "POST", "192.168.1.7", "Origin: http://192.168.1.7", false},
		{"no browser", lax, "POST", "shop.test", "", false},
		{"an old browser's link", lax, "GET", "shop.test", "Origin: https://pay.test", false},
		{"an old browser's HEAD", strict, "HEAD", "shop.test", "Origin: https://pay.test", false},
		{"SameSite=None", http.SameSiteNoneMode, "POST", "shop.test", "Origin: https://pay.test", false},
		{"junk cookies", lax, "POST", "shop.test", "Origin: https://pay.test|Cookie: __Host-Http-session=junk; __Host-Http-session=", true},
		{"junk of the right length", lax, "POST", "shop.test", "Origin: https://pay.test|Cookie: __Host-Http-session=" + strings.Repeat("A", 118), true},

		{"Firefox, a worker, a foreign post", lax, "POST", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: same-origin|Sec-Fetch-Dest: empty|Origin: https://shop.test|Referer: https://pay.test/", true},
		{"WebKit, a worker, a foreign post", lax, "POST", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Origin: https://pay.test", true},
		{"a worker, a form of this site", lax, "POST", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Origin: https://shop.test|Referer: https://shop.test/cart?x#y", false},
		{"a worker, an address typed in", strict, "GET", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty", false},
		{"a worker, a link", lax, "GET", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Referer: https://news.test/", false},
		{"a worker, a link, to a strict cookie", strict, "GET", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: same-origin|Sec-Fetch-Dest: empty|Referer: https://news.test", true},
		{"Chromium, a worker, a link", lax, "GET", "shop.test", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty", false},
		{"Chromium, a worker, a foreign post", lax, "POST", "shop.test", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty", true},
		{"a script of this site", lax, "POST", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty|Referer: https://shop.test/", false},
		{"another site's script", lax, "GET", "shop.test", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty", true},
	} {
		log := captureLog(t)
		m := newManager(t, session.Options{Cookie: session.CookieOptions{SameSite: c.sameSite}})
		var kept *session.Session
		h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			kept = session.From(r.Context())
			name.Set(kept, "x")
		}))
		for range 2 {
			r := httptest.NewRequest(c.method, "https://shop.test/paid", nil)
			r.Host = c.host
			for _, line := range strings.Split(c.headers, "|") {
				if name, value, ok := strings.Cut(line, ": "); ok {
					r.Header.Set(name, value)
				}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if resp := w.Result(); resp.StatusCode != 200 || setsCookie(resp) == c.drops {
				t.Errorf("%s: %s, a cookie: %v", c.name, resp.Status, setsCookie(resp))
			}
			if err := kept.Err(); (err != nil) != c.drops {
				t.Errorf("%s: Err after the response: %v", c.name, err)
			}
		}
		if lines := strings.Count(log.String(), "\n"); (lines == 1) != c.drops || lines > 1 {
			t.Errorf("%s: logged: %s", c.name, log)
		}
	}
}

// TestSignedInAfterPaying checks that a user who was logged in before a payment at another site
// is logged in after it.
func TestSignedInAfterPaying(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/paid": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.AddFlash("info", "Thank you!")
			http.Redirect(w, r, "/thanks", http.StatusSeeOther)
		},
		"/thanks": func(w http.ResponseWriter, r *http.Request, s *session.Session) { w.Write([]byte(s.User())) },
	}))
	b.get("/login")
	r := httptest.NewRequest("POST", "https://localhost/paid", nil) // without the Lax cookie
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Dest", "document")
	if resp := b.do(r); resp.StatusCode != http.StatusSeeOther {
		t.Error(resp.Status)
	}
	if got := body(b.get("/thanks")); got != "alice" {
		t.Errorf("in as %q", got)
	}
}
