package migrate_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
	"github.com/coatcheck/session/migrate"
	"github.com/gorilla/sessions"
)

// TestCopyOfAnOldCookie checks that a copy of an old cookie that contains the whole session takes
// nothing over after a Logout, in any encoding: base64 has several encodings of the same bytes.
func TestCopyOfAnOldCookie(t *testing.T) {
	respelled := 0
	for length := range 3 {
		store := sessions.NewCookieStore(cookieKey)
		l := ofGorilla(store)
		l.login = func(w http.ResponseWriter, r *http.Request, user any) {
			s, _ := store.Get(r, "old")
			s.Values["user"], s.Values["odd"] = user, strings.Repeat("x", 3*length)
			if err := s.Save(r, w); err != nil {
				t.Error(err)
			}
		}
		v := newMove(t, l, nil)
		v.get(v.browser, v.before+"/login?user=ann")
		u, _ := url.Parse(v.after)
		old := v.browser.Jar.Cookies(u)[0].Value
		if got, _ := v.get(v.browser, v.after+"/"); !strings.HasPrefix(got, "ann ") {
			t.Error(got)
		}
		v.get(v.browser, v.after+"/logout")
		copies := []string{old}
		if at := len(strings.TrimRight(old, "=")) - 1; at+1 < len(old) {
			const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			copies = append(copies, old[:at]+string(letters[strings.IndexByte(letters, old[at])^1])+old[at+1:])
			respelled++
		}
		for _, c := range copies {
			browser := browsers.New(t, nil)
			browser.Jar.SetCookies(u, []*http.Cookie{{Name: "old", Value: c}})
			if got, _ := v.get(browser, v.after+"/"); strings.HasPrefix(got, "ann") {
				t.Errorf("logged in as %q with the copy %s after the logout", got, c)
			}
		}
		if list, err := v.m.List(t.Context(), "ann"); err != nil || len(list) != 0 || v.take.Count() != 1 {
			t.Errorf("%d sessions, %d takeovers, %v, want 0 sessions and 1 takeover", len(list), v.take.Count(), err)
		}
	}
	if respelled == 0 {
		t.Error("no cookie has another encoding")
	}
}

// apps are applications that move from a gorilla CookieStore, as processes that share the new
// sessions. They use no network, so that tests can use synctest.
type apps struct {
	t   *testing.T
	old *sessions.CookieStore
	new session.Store
	m   *session.Manager

	adapt func(*session.Options)
}

func newApps(t *testing.T) *apps {
	a := &apps{t: t, old: sessions.NewCookieStore(cookieKey), new: session.NewMemoryStore(nil)}
	a.m, _ = a.app(a.new)
	return a
}

// app returns the Manager and the handler of one process.
func (a *apps) app(store session.Store) (*session.Manager, http.Handler) {
	return a.around(store, func(w http.ResponseWriter, r *http.Request) {
		switch s := session.From(r.Context()); r.URL.Path {
		case "/renew":
			s.Renew()
		case "/logout":
			s.Logout()
		case "/slow":
			time.Sleep(time.Second)
		}
		fmt.Fprint(w, session.From(r.Context()).User())
	})
}

// serve returns the handler of a process whose application is h.
func (a *apps) serve(h http.HandlerFunc) http.Handler {
	_, app := a.around(a.new, h)
	return app
}

func (a *apps) around(store session.Store, h http.HandlerFunc) (*session.Manager, http.Handler) {
	o := session.Options{Store: store, Secrets: [][]byte{cookieKey}, Cookie: session.CookieOptions{Insecure: true}}
	if a.adapt != nil {
		a.adapt(&o)
	}
	m := session.Must(session.New(&o))
	take, err := migrate.New(m, &migrate.Options{Old: migrate.Gorilla(a.old, "old"), Store: store, User: "user"})
	if err != nil {
		a.t.Fatal(err)
	}
	return m, m.Handler(take.Handler(h))
}

// login returns the old cookie of a session in which user is logged in.
func (a *apps) login(user any) string {
	r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
	s, _ := a.old.Get(r, "old")
	if user != nil {
		s.Values["user"] = user
	}
	if err := s.Save(r, w); err != nil {
		a.t.Fatal(err)
	}
	return strings.SplitN(w.Header().Get("Set-Cookie"), ";", 2)[0]
}

// do returns the body and the cookie of the Manager that the response sets.
func do(h http.Handler, path, cookie string) (body, ours string) {
	r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
	r.Header.Set("Cookie", cookie)
	h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if c.Name == "session" {
			ours = c.Name + "=" + c.Value
		}
	}
	return w.Body.String(), ours
}

// TestRenewalBesideATakeover checks that a response after a renewal does not set the token from
// before the renewal.
func TestRenewalBesideATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApps(t)
		_, h := a.app(a.new)
		cookie := a.login("ann")
		slow := make(chan string)
		go func() {
			body, ours := do(h, "/slow", cookie)
			if body != "ann" {
				t.Errorf("the slow request: logged in as %q, want ann", body)
			}
			slow <- ours
		}()
		synctest.Wait()
		_, renewed := do(h, "/renew", cookie)
		if body, ours := do(h, "/", cookie); body != "ann" || ours != "" {
			t.Errorf("just after the renewal: logged in as %q, cookie %q, want ann and no cookie", body, ours)
		}
		if ours := <-slow; renewed == "" || ours != "" {
			t.Errorf("the renewal set %q, the slow response %q, want a cookie and none", renewed, ours)
		}
		time.Sleep(time.Minute)
		if body, _ := do(h, "/", renewed); body != "ann" {
			t.Errorf("the renewed cookie: logged in as %q, want ann", body)
		}
		if body, ours := do(h, "/", cookie); body != "" || ours != "" {
			t.Errorf("the old cookie a minute later: logged in as %q, cookie %q, want anonymous and none", body, ours)
		}
	})
}

// A delayed is a store whose first Load of a session is slow.
type delayed struct {
	session.Store
	by time.Duration // delay of the next Load; 0: none
}

func (d *delayed) Load(ctx context.Context, id string) (*session.Record, error) {
	r, err := d.Store.Load(ctx, id)
	if by := d.by; !strings.HasPrefix(id, "taken-") {
		d.by = 0
		time.Sleep(by)
	}
	return r, err
}

// TestSlowTakeover checks that a takeover that takes longer than its claim lasts does not affect
// the takeover by another request.
func TestSlowTakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApps(t)
		_, slow := a.app(&delayed{a.new, 12 * time.Second})
		m, quick := a.app(a.new)
		cookie, done := a.login("ann"), make(chan bool)
		go func() {
			do(slow, "/", cookie)
			close(done)
		}()
		time.Sleep(time.Second)
		body, _ := do(quick, "/", cookie)
		<-done
		if body != "ann" {
			t.Errorf("logged in as %q, want ann", body)
		}
		do(quick, "/logout", cookie)
		if body, _ := do(quick, "/", cookie); body != "" {
			t.Errorf("the old cookie after the logout: logged in as %q, want anonymous", body)
		}
		if list, err := m.List(t.Context(), "ann"); err != nil || len(list) != 0 {
			t.Errorf("%d sessions, %v, want none", len(list), err)
		}
	})
}

// TestMaxAgeOfASession checks that a session with a MaxAge of its own is taken over after the
// MaxAge of the store has passed.
func TestMaxAgeOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApps(t)
		a.old.Options.MaxAge = 3600
		_, h := a.app(a.new)
		cookie := a.login("ann")
		time.Sleep(2 * time.Hour)
		if body, ours := do(h, "/", cookie); body != "ann" || ours == "" {
			t.Errorf("logged in as %q, cookie %q, want ann and a cookie", body, ours)
		}
	})
}
