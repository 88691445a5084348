package expressjs_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/sessiontest"
)

const day = 24 * time.Hour

// about reports whether d is want, minus the time of a slow test.
func about(d, want time.Duration) bool { return d <= want && d > want-want/10-time.Second }

// setCookie returns whether a response sets a cookie, and its Max-Age, 0 for a cookie that lasts
// until the browser is closed.
func setCookie(resp *http.Response) (life time.Duration, ok bool) {
	for _, c := range resp.Cookies() {
		life, ok = time.Duration(c.MaxAge)*time.Second, true
	}
	return life, ok
}

// TestOwnMaxAge checks that the maxAge that Express has set for a session is its idle timeout at Go
// too, independent of IdleTimeout: a use touches the session when 1/20 has passed, and a write
// keeps the maxAge.
func TestOwnMaxAge(t *testing.T) {
	onShelves(t, expressjs.Options{Cookie: expressjs.Cookie{MaxAge: day}}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		for _, own := range []time.Duration{5 * time.Minute, 30 * day, 3000 * day} {
			record := fmt.Sprintf(`{"cookie":{"originalMaxAge":%d,"expires":"2020-01-01T00:00:00.000Z","httpOnly":true,"path":"/"},"x":1}`, own.Milliseconds())
			cookie := min(own, 400*day)
			for used, isTouched := range map[time.Duration]bool{own / 100: false, own / 10: true, own * 3 / 4: true} {
				id := fmt.Sprint("read-", own, used)
				s.put(id, record, own-used)
				resp := in(t, m, id, func(s *session.Session) {
					if d := time.Until(s.Expires()); !about(d, own-used) {
						t.Errorf("%v: expires in %v, %v after a use", own, d, used)
					}
				})
				got, left := s.get(id)
				want := own - used
				if isTouched {
					want = own
				}
				if got != record || !about(left, want) {
					t.Errorf("%v: read %v after a use: the record is %s for %v", own, used, got, left)
				}
				if life, ok := setCookie(resp); ok != isTouched || ok && !about(life, cookie) {
					t.Errorf("%v: read %v after a use: the cookie is set: %v, for %v", own, used, ok, life)
				}
			}
			id := fmt.Sprint("written-", own)
			s.put(id, record, own/2)
			resp := in(t, m, id, func(s *session.Session) { session.NewKey[int]("x").Set(s, 2) })
			got, left := s.get(id)
			if !strings.Contains(got, fmt.Sprintf(`{"originalMaxAge":%d,"expires":"`, own.Milliseconds())) || !strings.Contains(got, `"x":2`) || !about(left, own) {
				t.Errorf("%v: after a write the record is %s for %v", own, got, left)
			}
			if life, ok := setCookie(resp); !ok || !about(life, cookie) {
				t.Errorf("%v: after a write the cookie is set: %v, for %v", own, ok, life)
			}
			in(t, m, id, func(s *session.Session) {
				if got := fmt.Sprint(s.Names()); got != "[x]" {
					t.Error(got)
				}
				s.Clear()
			})
			if got, left := s.get(id); !strings.Contains(got, fmt.Sprintf(`{"originalMaxAge":%d,"`, own.Milliseconds())) || strings.Contains(got, `"x"`) || strings.Contains(got, "session.idle") || !about(left, own) {
				t.Errorf("%v: after a Clear the record is %s for %v", own, got, left)
			}
			in(t, m, id, func(s *session.Session) { session.NewKey[int]("x").Set(s, 3) })
			if got, left := s.get(id); !about(left, own) {
				t.Errorf("%v: after a Clear and a write the record is %s for %v", own, got, left)
			}
		}
	})
}

// TestNoMaxAge checks that a session whose cookie has no maxAge lives for IdleTimeout, or without
// it for the TTL of the store, and that its cookie lasts until the browser is closed.
func TestNoMaxAge(t *testing.T) {
	for _, value := range []string{"null", "false"} {
		for _, c := range []struct{ ttl, idle, want time.Duration }{{0, 0, day}, {2 * time.Hour, 0, 2 * time.Hour}, {0, 3 * time.Hour, 3 * time.Hour}, {2 * time.Hour, 2 * time.Hour, 2 * time.Hour}} {
			want := c.want
			onShelves(t, expressjs.Options{TTL: c.ttl, Cookie: expressjs.Cookie{MaxAge: time.Hour}}, func(t *testing.T, s *shelf) {
				m := service(t, s.store, func(o *session.Options) { o.IdleTimeout, o.Cookie.Persistent = c.idle, true })
				id := "idle"
				s.put(id, strings.ReplaceAll(bare+`,"x":1}`, "null", value), time.Minute)
				resp := in(t, m, id, func(s *session.Session) { s.User() })
				if _, left := s.get(id); !about(left, want) {
					t.Errorf("%s: after a read the record lives for %v", value, left)
				}
				if life, ok := setCookie(resp); ok {
					t.Errorf("%s: after a read the cookie is set for %v", value, life)
				}
				in(t, m, id, func(s *session.Session) { session.NewKey[int]("x").Set(s, 2) })
				if got, left := s.get(id); got != strings.ReplaceAll(bare+`,"x":2}`, "null", value) || !about(left, want) {
					t.Errorf("%s: after a write the record is %s for %v", value, got, left)
				}
			})
		}
	}
}

// TestNewSessionsLifetime checks that a session that begins at Go and its cookie have the maxAge of
// the options, that a remembered session has its own, and that Lifetime ends a login at Go.
func TestNewSessionsLifetime(t *testing.T) {
	for maxAge, want := range map[time.Duration]time.Duration{0: day, time.Hour: time.Hour, 4 * day: 4 * day} {
		onShelves(t, expressjs.Options{UserMember: "userId", Cookie: expressjs.Cookie{MaxAge: maxAge}}, func(t *testing.T, s *shelf) {
			m := service(t, s.store, func(o *session.Options) { o.IdleTimeout, o.Lifetime = 0, 30*day })
			b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				switch r.URL.Path {
				case "/begin":
					session.NewKey[int]("x").Set(s, 1)
				case "/login":
					s.Login("ann")
				case "/remember":
					s.Remember(20 * day)
				}
			})))
			id := func() (id string) {
				b.Session(m, func(s *session.Session) { id = s.ID() })
				return id
			}
			for _, path := range []string{"/begin", "/login"} {
				resp := b.Get("https://example.test" + path)
				life, ok := setCookie(resp)
				if !ok || maxAge == 0 && life != 0 || maxAge > 0 && !about(life, want) {
					t.Errorf("%s with %v: the cookie is set: %v, for %v", path, maxAge, ok, life)
				}
				if _, left := s.get(id()); !about(left, want) {
					t.Errorf("%s with %v: the record lives for %v", path, maxAge, left)
				}
			}
			if life, ok := setCookie(b.Get("https://example.test/remember")); !ok || !about(life, 20*day) {
				t.Errorf("remembered: the cookie is set: %v, for %v", ok, life)
			}
			b.Session(m, func(s *session.Session) { session.NewKey[int]("x").Set(s, 2) })
			got, left := s.get(id())
			if !about(left, 20*day) || !strings.Contains(got, `"originalMaxAge":17`) { // 1728000000 ms, or slightly less
				t.Errorf("remembered: the record is %s for %v", got, left)
			}
		})
	}
}

// TestOptionsAgree checks that cookie options that are set only for the Manager or only for the
// store are used by both, and that New fails if both are set and differ.
func TestOptionsAgree(t *testing.T) {
	type cookies = session.CookieOptions
	for _, c := range []struct {
		ours  cookies
		o     expressjs.Options
		idle  time.Duration
		err   string
		want  string // part of the record
		attrs string // attributes of the cookie
	}{
		{want: `"secure":true,"httpOnly":true,"path":"/","sameSite":"lax"`, attrs: "; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{ours: cookies{Insecure: true}, want: `"httpOnly":true,"path":"/","sameSite":"lax"`, attrs: "; Path=/; HttpOnly; SameSite=Lax"},
		{o: expressjs.Options{Cookie: expressjs.Cookie{Insecure: true}}, want: `"httpOnly":true,"path":"/","sameSite":"lax"`, attrs: "; Path=/; HttpOnly; SameSite=Lax"},
		{ours: cookies{SameSite: http.SameSiteStrictMode, Path: "/app", Domain: "example.test", Partitioned: true}, want: `"secure":true,"httpOnly":true,"domain":"example.test","path":"/app","sameSite":"strict"`, attrs: "; Path=/app; Domain=example.test; HttpOnly; Secure; SameSite=Strict; Partitioned"},
		{o: expressjs.Options{Cookie: expressjs.Cookie{SameSite: "none", Path: "/app", Domain: "example.test", Partitioned: true}}, want: `"secure":true,"httpOnly":true,"domain":"example.test","path":"/app","sameSite":"none"`, attrs: "; Path=/app; Domain=example.test; HttpOnly; Secure; SameSite=None; Partitioned"},
		{ours: cookies{SameSite: http.SameSiteLaxMode, Path: "/"}, o: expressjs.Options{Cookie: expressjs.Cookie{SameSite: "lax", Path: "/"}}, want: `"path":"/","sameSite":"lax"`, attrs: "; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{ours: cookies{SameSite: http.SameSiteLaxMode}, o: expressjs.Options{Cookie: expressjs.Cookie{SameSite: "strict"}}, err: "Cookie.SameSite"},
		{ours: cookies{Path: "/"}, o: expressjs.Options{Cookie: expressjs.Cookie{Path: "/app"}}, err: "Cookie.Path"},
		{ours: cookies{Domain: "a.test"}, o: expressjs.Options{Cookie: expressjs.Cookie{Domain: "b.test"}}, err: "Cookie.Domain"},
		{o: expressjs.Options{Cookie: expressjs.Cookie{MaxAge: 31 * day}}, err: "Options.Lifetime: must be at least the maxAge"},
		{o: expressjs.Options{TTL: time.Hour}, idle: 2 * time.Hour, err: "Options.IdleTimeout: is 2h0m0s, and the store's options have a TTL of 1h0m0s"},
		{o: expressjs.Options{TTL: 2 * time.Hour}, idle: time.Hour, err: "leave out one of them"},
		{o: expressjs.Options{TTL: 48 * time.Hour}, idle: day, err: "leave out one of them"},
		{o: expressjs.Options{Cookie: expressjs.Cookie{MaxAge: day}}, idle: time.Hour, err: "Options.IdleTimeout: must not be shorter than the maxAge"},
	} {
		store, client := redisStore(t, c.o)
		s := redisShelf(t, store, client)
		tokens, _ := expressjs.Tokens(secret)
		c.ours.Name = "connect.sid"
		m, err := session.New(&session.Options{Store: store, Tokens: tokens, Lifetime: 30 * day, IdleTimeout: c.idle, Cookie: c.ours})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		r, _ := http.NewRequest("GET", "https://example.test/app", nil)
		var line string
		b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			session.NewKey[int]("x").Set(s, 1)
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			w.Header().Set("Id", s.ID())
		})))
		resp := b.Do(r)
		_, line, _ = strings.Cut(resp.Header.Get("Set-Cookie"), "; ")
		if record, _ := s.get(resp.Header.Get("Id")); !strings.Contains(record, c.want) || "; "+line != c.attrs {
			t.Errorf("%+v: the record is %s, the cookie %q", c, record, line)
		}
	}
}

// TestLargeRecords checks that values that Express has stored beyond MaxDataSize do not count: the
// session can be written and logged in at Go, and loses nothing.
func TestLargeRecords(t *testing.T) {
	onShelves(t, expressjs.Options{UserMember: "userId"}, func(t *testing.T, s *shelf) {
		m := service(t, s.store, nil)
		large := bare + `,"cart":"` + strings.Repeat("x", 70_000) + `"}`
		n, big := session.NewKey[int]("n"), session.NewKey[string]("big")
		for name, c := range map[string]struct {
			f      func(s *session.Session)
			status int
			want   string // part of the record; "": unchanged
		}{
			"a write":         {func(s *session.Session) { n.Set(s, 1) }, 200, `x","n":1}`},
			"a flash":         {func(s *session.Session) { s.AddFlash("", "saved") }, 200, `"t":"saved"`},
			"a larger write":  {func(s *session.Session) { big.Set(s, strings.Repeat("y", 60_000)) }, 200, `yyyyyy`},
			"too large":       {func(s *session.Session) { big.Set(s, strings.Repeat("y", 70_000)) }, 500, ""},
			"a smaller write": {func(s *session.Session) { session.NewKey[int]("cart").Delete(s) }, 200, `"path":"/"}}`},
		} {
			s.put(sid, large, time.Hour)
			if resp := in(t, m, sid, c.f); resp.StatusCode != c.status {
				t.Errorf("%s: %s", name, resp.Status)
			}
			if got, _ := s.get(sid); c.want == "" && got != large || !strings.Contains(got, c.want) {
				t.Errorf("%s: after it the record is %.100s…%s", name, got, got[max(0, len(got)-60):])
			}
		}
		s.put(sid, large, time.Hour)
		resp := in(t, m, sid, func(s *session.Session) { n.Set(s, 1); s.Login("ann") })
		list, err := m.List(t.Context(), "ann")
		if err != nil || len(list) != 1 || resp.StatusCode != 200 {
			t.Fatal(resp.Status, len(list), err)
		}
		if got, _ := s.get(list[0].ID); len(got) < 70_000 || !strings.Contains(got, `"n":1`) {
			t.Errorf("after a Login %d bytes of the record are left", len(got))
		}
	})
}
