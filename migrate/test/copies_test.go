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
	"github.com/coatcheck/session/migrate"
	"github.com/gorilla/sessions"
)

// A copy of an old cookie that is all there is of its session takes nothing after a
// Logout, however it is spelled: base64 has several spellings of the same bytes.
func TestCopyOfAnOldCookie(t *testing.T) {
	spelled := 0
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
			spelled++
		}
		for _, c := range copies {
			browser := newBrowser()
			browser.Jar.SetCookies(u, []*http.Cookie{{Name: "old", Value: c}})
			if got, _ := v.get(browser, v.after+"/"); strings.HasPrefix(got, "ann") {
				t.Errorf("%q is in with %s", got, c)
			}
		}
		if list, err := v.m.List(t.Context(), "ann"); err != nil || len(list) != 0 || v.take.Count() != 1 {
			t.Errorf("%d sessions, %d takeovers, %v", len(list), v.take.Count(), err)
		}
	}
	if spelled == 0 {
		t.Error("no cookie has another spelling")
	}
}

// apps are applications that move from a gorilla CookieStore to the same sessions,
// without a network, for tests that wait.
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

// app is one process.
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

// serve is a process with a handler of its own.
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

// login returns the old cookie of a user.
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

// do returns the body, and the cookie of ours that the response brings.
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

// A response that comes after a renewal does not bring the token of before.
func TestRenewalBesideATakeover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApps(t)
		_, h := a.app(a.new)
		cookie := a.login("ann")
		slow := make(chan string)
		go func() {
			body, ours := do(h, "/slow", cookie)
			if body != "ann" {
				t.Errorf("the slow one is in as %q", body)
			}
			slow <- ours
		}()
		synctest.Wait()
		_, renewed := do(h, "/renew", cookie)
		if body, ours := do(h, "/", cookie); body != "ann" || ours != "" {
			t.Errorf("just after the renewal: in as %q, with %q", body, ours)
		}
		if ours := <-slow; renewed == "" || ours != "" {
			t.Errorf("the renewal brings %q, what ends after it %q", renewed, ours)
		}
		time.Sleep(time.Minute)
		if body, _ := do(h, "/", renewed); body != "ann" {
			t.Errorf("with the renewed cookie in as %q", body)
		}
		if body, ours := do(h, "/", cookie); body != "" || ours != "" {
			t.Errorf("a copy of the old one, later: in as %q, with %q", body, ours)
		}
	})
}

// A delayed is a store whose first load of a session takes long.
type delayed struct {
	session.Store
	by time.Duration
}

func (d *delayed) Load(ctx context.Context, id string) (*session.Record, error) {
	r, err := d.Store.Load(ctx, id)
	if by := d.by; !strings.HasPrefix(id, "taken-") {
		d.by = 0
		time.Sleep(by)
	}
	return r, err
}

// A takeover that takes longer than its claim leaves the one of another request alone.
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
			t.Errorf("in as %q", body)
		}
		do(quick, "/logout", cookie)
		if body, _ := do(quick, "/", cookie); body != "" {
			t.Errorf("after the logout the old cookie is in as %q", body)
		}
		if list, err := m.List(t.Context(), "ann"); err != nil || len(list) != 0 {
			t.Errorf("%d sessions, %v", len(list), err)
		}
	})
}

// A session that was given a MaxAge of its own lives on after the store's.
func TestMaxAgeOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApps(t)
		a.old.Options.MaxAge = 3600
		_, h := a.app(a.new)
		cookie := a.login("ann")
		time.Sleep(2 * time.Hour)
		if body, ours := do(h, "/", cookie); body != "ann" || ours == "" {
			t.Errorf("in as %q, with %q", body, ours)
		}
	})
}
