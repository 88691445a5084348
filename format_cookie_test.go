package session_test

import (
	"bufio"
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// cookieLife returns the Max-Age of the cookie that a response sets, which must be
// the one of the browser: "none" if it sets no cookie, "browser" without a Max-Age.
func cookieLife(t *testing.T, b *browser, resp *http.Response) string {
	t.Helper()
	switch all := resp.Cookies(); {
	case len(all) == 0:
		return "none"
	case len(all) > 1 || all[0].Name+"="+all[0].Value != b.cookie():
		t.Errorf("sets %v, and had %s", all, b.cookie())
	case resp.Header.Get("Cache-Control") != "no-store":
		t.Errorf("a response with a cookie is %q", resp.Header.Get("Cache-Control"))
	case all[0].MaxAge != 0:
		return fmt.Sprint(time.Duration(all[0].MaxAge) * time.Second)
	}
	return "browser"
}

// foreignCookies are Options with a persistent cookie whose token is another program's.
func foreignCookies(store session.Store) session.Options {
	return session.Options{
		Store: store, Lifetime: 10 * time.Hour, IdleTimeout: time.Hour, Tokens: &plainTokens{},
		Cookie: session.CookieOptions{Persistent: true},
	}
}

// With a persistent cookie and another program's tokens, the token is sent again for as
// long as the session then lives, whenever it is saved or due to be touched. With any
// other cookie it is not.
func TestForeignCookieIsSentAgain(t *testing.T) {
	type call = func(w http.ResponseWriter, r *http.Request, s *session.Session)
	look := endRoutes["/look"]
	for what, c := range map[string]struct {
		after time.Duration // since the session was last used
		do    call
		want  string
		ours  string // with our own tokens; "": none
	}{
		"read soon":               {3 * minute, look, "none", ""},
		"read later":              {3*minute + time.Millisecond, look, "1h0m0s", ""},
		"read at the last moment": {time.Hour - 1, look, "1h0m0s", ""},
		"not used":                {30 * minute, func(http.ResponseWriter, *http.Request, *session.Session) {}, "none", ""},
		"saved soon":              {minute, endRoutes["/set"], "1h0m0s", ""},
		"saved later":             {30 * minute, endRoutes["/set"], "1h0m0s", ""},
		"Login of the same user":  {minute, endRoutes["/again"], "1h0m0s", "10h0m0s"},
		"Renew":                   {minute, endRoutes["/renew"], "none", "9h59m0s"},
		"Save":                    {30 * minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) { _ = s.Save(r.Context()) }, "1h0m0s", ""},
		"Save of a change": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "value")
			_ = s.Save(r.Context())
		}, "1h0m0s", ""},
		"Take": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			_, _, _ = visits.Take(r.Context(), s)
		}, "1h0m0s", ""},
		"read passively": {30 * minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.MarkPassive()
			s.User()
		}, "none", ""},
		"saved passively": {30 * minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.MarkPassive()
			name.Set(s, "value")
		}, "30m0s", ""},
		"saved after the first byte": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			fmt.Fprint(w, "begins")
			name.Set(s, "value")
		}, "none", ""},
		"Save after the first byte": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			fmt.Fprint(w, "begins")
			name.Set(s, "value")
			_ = s.Save(r.Context())
		}, "none", ""},
		"a value that cannot be stored": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "\xff")
		}, "none", ""},
	} {
		t.Run(what, func(t *testing.T) {
			for who, adapt := range map[string]func(o *session.Options){
				"persistent":     func(o *session.Options) {},
				"not persistent": func(o *session.Options) { o.Cookie.Persistent = false },
				"ours":           func(o *session.Options) { o.Tokens = nil },
			} {
				synctest.Test(t, func(t *testing.T) {
					o := foreignCookies(newSpy())
					adapt(&o)
					m := newManager(t, o)
					b := newBrowser(t, m.Handler(routes{
						"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice"); visits.Set(s, 7) },
						"/do":    c.do,
					}))
					b.get("/login")
					time.Sleep(c.after)
					want := map[string]string{"persistent": c.want, "not persistent": "none", "ours": cmp.Or(c.ours, "none")}[who]
					if got := cookieLife(t, b, b.get("/do")); got != want {
						t.Errorf("%s: %s, want %s", who, got, want)
					}
				})
			}
		})
	}
}

// The cookie lives as long as the session: until the idle end when it is made, no longer
// than the absolute end, and as long as Remember says.
func TestForeignCookieLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, foreignCookies(nil))
		b := newBrowser(t, m.Handler(endRoutes))
		for _, c := range []struct {
			after time.Duration
			path  string
			want  string
		}{
			{0, "/set", "1h0m0s"},
			{minute, "/login", "1h0m0s"},
			{0, "/look", "none"},
			{55 * minute, "/look", "1h0m0s"},
			{minute, "/remember", "720h0m0s"},
			{time.Hour, "/look", "719h0m0s"},
			{2 * time.Hour, "/set", "717h0m0s"},
			{0, "/bob", "1h0m0s"},
		} {
			time.Sleep(c.after)
			if got := cookieLife(t, b, b.get(c.path)); got != c.want {
				t.Errorf("%s: %s, want %s", c.path, got, c.want)
			}
		}
		for range 18 {
			time.Sleep(30 * minute)
			b.get("/look")
		}
		time.Sleep(30 * minute)
		if got := cookieLife(t, b, b.get("/look")); got != "30m0s" {
			t.Errorf("half an hour before the absolute end: %s", got)
		}
	})
}

// A Login starts the clocks again, also where they would have run for longer: another
// program knows no absolute end, and Options may have changed.
func TestForeignLoginBringsTheEndNearer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session.NewMemoryStore(nil)
		o := foreignCookies(store)
		o.IdleTimeout = o.Lifetime
		b := newBrowser(t, newManager(t, o).Handler(endRoutes))
		b.get("/login")
		o.Lifetime, o.IdleTimeout = 2*time.Hour, time.Hour
		if got := cookieLife(t, b, b.at(newManager(t, o)).get("/again")); got != "2h0m0s" {
			t.Error(got)
		}
		records, err := store.List(t.Context(), "alice")
		if err != nil || len(records) != 1 || time.Until(records[0].Deadline) != 2*time.Hour {
			t.Error(records, err)
		}
	})
}

// A token that the request has made is not overwritten by the one that it brought.
func TestForeignCookieOfANewToken(t *testing.T) {
	m := newManager(t, foreignCookies(nil))
	shop := maps.Clone(endRoutes)
	shop["/twice"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login(r.URL.RawQuery)
		for i := range 2 {
			visits.Set(s, i)
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	b := newBrowser(t, m.Handler(shop))
	for _, user := range []string{"alice", "bob"} {
		before := b.cookie()
		resp := b.get("/twice?" + user)
		if got := body(b.get("/look")); !setsCookie(resp) || b.cookie() == before || got != user {
			t.Errorf("%v: in as %q, want %q", resp.Header, got, user)
		}
	}
}

// A user who goes on using the site is in until the absolute end, in a browser that obeys
// Max-Age.
func TestForeignCookieDoesNotEndInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, foreignCookies(nil))
		b := newBrowser(t, m.Handler(endRoutes))
		b.get("/login")
		for i := range 59 {
			time.Sleep(10 * minute)
			if got := body(b.get("/look")); got != "alice" {
				t.Fatalf("after %v in as %q", time.Duration(i+1)*10*minute, got)
			}
		}
	})
}

// The cookie of a request whose session was ended, replaced or taken by another program
// meanwhile is not sent again, and neither is it while the store fails: the browser may
// have a newer one.
func TestForeignCookieOfALostSession(t *testing.T) {
	// How the slow request comes to send the cookie.
	ways := map[string]func(s *session.Session, r *http.Request, between func()){
		"a read": func(s *session.Session, r *http.Request, between func()) { s.User(); between() },
		"a Save before": func(s *session.Session, r *http.Request, between func()) {
			name.Set(s, "before")
			_ = s.Save(r.Context())
			between()
		},
		"a touch before": func(s *session.Session, r *http.Request, between func()) { _ = s.Save(r.Context()); between() },
		"a change after": func(s *session.Session, r *http.Request, between func()) { s.User(); between(); name.Set(s, "after") },
	}
	ends := map[string]func(m *session.Manager, spy *spyStore, b *browser){
		"nothing":   func(m *session.Manager, spy *spyStore, b *browser) {},
		"Logout":    func(m *session.Manager, spy *spyStore, b *browser) { b.at(m).get("/logout") },
		"Login":     func(m *session.Manager, spy *spyStore, b *browser) { b.at(m).get("/bob") },
		"RevokeAll": func(m *session.Manager, spy *spyStore, b *browser) { _ = m.RevokeAll(b.t.Context(), "alice") },
		"deletion":  func(m *session.Manager, spy *spyStore, b *browser) { lose(t, spy.Store, "alice") },
		"another program's Login": func(m *session.Manager, spy *spyStore, b *browser) {
			give(t, spy.Store, b.cookie(), "bob")
		},
		"another program's Logout": func(m *session.Manager, spy *spyStore, b *browser) {
			give(t, spy.Store, b.cookie(), "")
		},
		"an outage": func(m *session.Manager, spy *spyStore, b *browser) { spy.down.Store(true) },
	}
	for way, f := range ways {
		for end, g := range ends {
			t.Run(way+", "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					spy := newSpy()
					m := newManager(t, foreignCookies(spy))
					b := newBrowser(t, m.Handler(endRoutes))
					b.get("/login")
					time.Sleep(10 * minute)
					slow := b.replay(b.cookie())
					slow.h = m.Handler(routes{"/slow": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						f(s, r, func() { g(m, spy, b) })
					}})
					got := cookieLife(t, slow, slow.get("/slow"))
					if want := map[bool]string{true: "1h0m0s", false: "none"}[end == "nothing"]; got != want {
						t.Errorf("%s, want %s", got, want)
					}
				})
			})
		}
	}
}

// A cookie that is only sent again is no reason for an error where none can be sent: a
// Save before a Hijack stands. A Remember before it is reported. And the store is not asked
// for a cookie that cannot be sent.
func TestForeignCookieOfAHijackedResponse(t *testing.T) {
	save := func(r *http.Request, s *session.Session) {
		if err := s.Save(r.Context()); err != nil {
			t.Error(err)
		}
	}
	for what, c := range map[string]struct {
		do     func(r *http.Request, s *session.Session)
		isLate bool
	}{
		"a use":    {func(_ *http.Request, s *session.Session) { s.User() }, false},
		"a change": {func(r *http.Request, s *session.Session) { name.Set(s, "value"); save(r, s) }, false},
		"Remember": {func(r *http.Request, s *session.Session) { s.Remember(day); save(r, s) }, true},
		"Remember and a change": {func(r *http.Request, s *session.Session) {
			s.Remember(day)
			save(r, s)
			name.Set(s, "value")
			save(r, s)
		}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log events
			spy := newSpy()
			o := foreignCookies(spy)
			o.OnEvent = log.on
			m := newManager(t, o)
			shop := maps.Clone(endRoutes)
			shop["/hijack"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				c.do(r, s)
				loads := spy.count("Load")
				if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
					t.Error(err)
				}
				if n := spy.count("Load") - loads; n != 0 || (s.Err() != nil) != c.isLate {
					t.Errorf("%s: %d loads, %v", what, n, s.Err())
				}
			}
			b := newBrowser(t, m.Handler(shop))
			b.get("/login")
			time.Sleep(10 * minute)
			m.Handler(shop).ServeHTTP(hijackable{httptest.NewRecorder()}, b.request("/hijack"))
			if n := log.count(session.EventDropped); n > 0 != c.isLate {
				t.Errorf("%s: %d dropped", what, n)
			}
		})
	}
}

// hijackable is a recorder that can be hijacked.
type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

// Of several cookies of the name the first is sent again, as it stands in the request.
func TestForeignCookieIsSentAsItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, foreignCookies(nil))
		b := newBrowser(t, m.Handler(endRoutes))
		b.get("/login")
		time.Sleep(10 * minute)
		r := b.request("/look")
		r.Header.Set("Cookie", "a=b;"+b.cookie()+" ; "+b.cookie()[:strings.Index(b.cookie(), "=")]+"=good.other")
		if got := cookieLife(t, b, b.do(r)); got != "1h0m0s" {
			t.Error(got)
		}
	})
}

// A client that keeps its token itself has it already, and for as long as it likes.
func TestForeignBearerIsNotSentAgain(t *testing.T) {
	m := keyless(t, session.Options{Bearer: true})
	b := newBrowser(t, m.Handler(endRoutes))
	value := b.get("/login").Header.Get("Session-Token")
	for _, path := range append([]string{"/set"}, everyRenewal...) {
		r := b.request(path)
		r.Header.Set("Authorization", "Bearer "+value)
		if resp := b.do(r); resp.StatusCode != 200 || resp.Header["Session-Token"] != nil {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
	}
}
