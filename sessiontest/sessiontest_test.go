package sessiontest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
	"github.com/coatcheck/session/storetest"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// quiet is a testing.TB that records the message with which it failed.
type quiet struct {
	testing.TB
	failed   string
	cleanups []func()
}

func (q *quiet) Helper()                           {}
func (q *quiet) Fatal(args ...any)                 { q.failed = fmt.Sprintln(args...); runtime.Goexit() }
func (q *quiet) Fatalf(format string, args ...any) { q.Fatal(fmt.Sprintf(format, args...)) }
func (q *quiet) Errorf(format string, args ...any) { q.failed = fmt.Sprintf(format, args...) }
func (q *quiet) Cleanup(f func())                  { q.cleanups = append(q.cleanups, f) }

// cleanUp runs the cleanup functions, as the end of a test does.
func (q *quiet) cleanUp() {
	for _, f := range slices.Backward(q.cleanups) {
		f()
	}
}

// failure returns the message with which f failed its test, or "".
func failure(f func(t testing.TB)) string {
	q := &quiet{}
	var done sync.WaitGroup
	done.Go(func() {
		defer q.cleanUp()
		f(q)
	})
	done.Wait()
	return q.failed
}

var (
	name    = session.NewKey[string]("name")
	errDown = errors.New("down")
)

func newManager(t testing.TB, o session.Options) *session.Manager {
	t.Helper()
	if o.Store != nil {
		o.Secrets = [][]byte{[]byte("0123456789abcdef0123456789abcdef")}
	}
	m, err := session.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestDo checks that Do prepares a request without changing it, except for the token, and that
// it sees the changes of a handler, with a cookie and with a header.
func TestDo(t *testing.T) {
	for _, bearer := range []bool{false, true} {
		m := newManager(t, session.Options{Bearer: bearer})
		r := httptest.NewRequest("POST", "/path?q=1", strings.NewReader("body"))
		r.Header.Set("Cookie", "theme=dark; other=x")
		r.Header.Set("X-Header", "x")
		sessiontest.Do(t, m, r, func(s *session.Session) {
			if s.User() != "" || !s.IsNew() {
				t.Error("the session is not new")
			}
			s.Login("alice")
		})
		first := r.Header.Get("Cookie") + r.Header.Get("Authorization")
		m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			body, _ := io.ReadAll(r.Body)
			if s.User() != "alice" || string(body) != "body" || r.FormValue("q") != "1" || r.Header.Get("X-Header") != "x" || r.Method != "POST" {
				t.Errorf("the handler has %q, %q, %v", s.User(), body, r)
			}
			if c, err := r.Cookie("theme"); err != nil || c.Value != "dark" {
				t.Error("another cookie was removed", err)
			}
			name.Set(s, "value")
		})).ServeHTTP(httptest.NewRecorder(), r)
		sessiontest.Do(t, m, r, func(s *session.Session) {
			if s.User() != "alice" || name.Get(s) != "value" {
				t.Errorf("afterwards: %q, %q", s.User(), name.Get(s))
			}
			s.Renew()
		})
		if r.Header.Get("Cookie")+r.Header.Get("Authorization") == first || strings.Count(r.Header.Get("Cookie"), "session=") > 1 {
			t.Errorf("after a renewal: %v", r.Header)
		}
		sessiontest.Do(t, m, r, func(s *session.Session) { s.Logout() })
		sessiontest.Do(t, m, r, func(s *session.Session) {
			if s.User() != "" {
				t.Error("logged in after the logout")
			}
		})
		if got := r.Header.Get("Cookie"); got != "theme=dark; other=x" {
			t.Errorf("after a logout: %q", got)
		}
		if got := r.Header.Get("Authorization"); bearer && got != "Bearer" || !bearer && got != "" {
			t.Errorf("after a logout: %q", got)
		}
	}
}

// TestFailures checks that misuse and outages fail the test, with the reason.
func TestFailures(t *testing.T) {
	store := sessiontest.NewStore(nil)
	m := newManager(t, session.Options{Store: store, MaxDataSize: 10})
	look := func(s *session.Session) { s.User() }
	set := func(s *session.Session) { name.Set(s, "x") }
	login := func(s *session.Session) { s.Login("alice") }
	prepared := func(f func(*session.Session)) *http.Request {
		r := httptest.NewRequest("GET", "/", nil)
		sessiontest.Do(t, m, r, f)
		return r
	}
	revoked := prepared(login)
	if err := m.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	user := prepared(login)
	for what, c := range map[string]struct {
		f    func(t testing.TB)
		want string
	}{
		"an outage at the load": {func(t testing.TB) {
			store.Fail(errDown)
			defer store.Fail(nil)
			sessiontest.Do(t, m, user.Clone(context.Background()), look)
		}, "cannot be loaded: session: the store failed: load: down"},
		"an outage at the save": {func(t testing.TB) {
			defer store.Fail(nil)
			sessiontest.Do(t, m, user.Clone(context.Background()), func(s *session.Session) { set(s); store.Fail(errDown) })
		}, "cannot be saved"},
		"too large":                     {func(t testing.TB) { sessiontest.Do(t, m, user, func(s *session.Session) { name.Set(s, "0123456789") }) }, "MaxDataSize"},
		"no user":                       {func(t testing.TB) { sessiontest.Do(t, m, user, func(s *session.Session) { s.Login("") }) }, "the user is empty"},
		"a read of a revoked session":   {func(t testing.TB) { sessiontest.Do(t, m, revoked, look) }, ""},
		"a change of a revoked session": {func(t testing.TB) { sessiontest.Do(t, m, revoked, set) }, "what f changed is lost"},
		"a target without a slash":      {func(t testing.TB) { sessiontest.NewBrowser(t, nil).Get("cart") }, "neither a path"},
		"no target":                     {func(t testing.TB) { sessiontest.NewBrowser(t, nil).Get("") }, "neither a path"},
		"no URL":                        {func(t testing.TB) { sessiontest.NewBrowser(t, nil).PostForm("https://a b/", nil) }, "neither a path"},
		"a browser and a header": {func(t testing.TB) {
			sessiontest.NewBrowser(t, nil).Session(newManager(t, session.Options{Bearer: true}), login)
		}, "Options.Bearer"},
	} {
		got := failure(c.f)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || got != "" && !strings.HasPrefix(got, "sessiontest: ") {
			t.Errorf("%s: failed with %q, want %q", what, got, c.want)
		}
	}
}

// TestBrowser checks that a Browser keeps cookies, sends each to the right host and path, and
// follows no redirect.
func TestBrowser(t *testing.T) {
	m := newManager(t, session.Options{})
	h := http.NewCrossOriginProtection().Handler(m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/login":
			s.Login(r.PostFormValue("user"))
			http.Redirect(w, r, "/", http.StatusSeeOther)
		case "/logout":
			s.Logout()
		case "/headers":
			fmt.Fprint(w, r.Host, " ", r.TLS != nil, " ", r.Header.Get("X"), " ", r.RequestURI, " ", r.Body != nil)
		default:
			fmt.Fprint(w, s.User())
		}
	})))
	b := sessiontest.NewBrowser(t, h)
	text := func(resp *http.Response) string {
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if resp := b.PostForm("/login", url.Values{"user": {"alice"}}); resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	for _, target := range []string{"/", "/a?b=c", "https://example.test/"} {
		if got := text(b.Get(target)); got != "alice" {
			t.Errorf("%s: %q", target, got)
		}
	}
	for _, target := range []string{"https://other.test/", "http://example.test/"} { // not where a __Host- cookie is sent
		if got := text(b.Get(target)); got != "" {
			t.Errorf("%s: %q", target, got)
		}
	}
	b.Session(m, func(s *session.Session) {
		if s.User() != "alice" {
			t.Error("the user is not logged in")
		}
		s.Renew()
	})
	if got := text(b.Get("/")); got != "alice" {
		t.Errorf("after a renewal: %q", got)
	}
	client, err := http.NewRequest("GET", "https://example.test/headers?a", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{httptest.NewRequest("GET", "/headers?a", nil), client} {
		r.Header.Set("X", "y")
		if got := text(b.Do(r)); got != "example.test true y /headers?a true" {
			t.Error(got)
		}
		if r.Header.Get("Cookie") != "" {
			t.Error("the request was changed")
		}
	}
	b.Get("/logout")
	if got := text(b.Get("/")); got != "" {
		t.Errorf("after the logout: %q", got)
	}
}

// TestBrowserInABubble uses a Browser in a synctest bubble, where time passes instantly,
// because no network is involved.
func TestBrowserInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, session.From(r.Context()).Ended())
		})))
		b.Session(m, func(s *session.Session) { s.Login("alice") })
		time.Sleep(2 * time.Hour)
		if body, _ := io.ReadAll(b.Get("/").Body); string(body) != "true" {
			t.Errorf("Ended is %s", body)
		}
	})
}

// TestStore checks that a Store keeps the contract of stores, and that every call fails after
// Fail.
func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) session.Store { return sessiontest.NewStore(nil) })
	s := sessiontest.NewStore(session.NewMemoryStore(nil))
	s.Fail(errDown)
	_, load := s.Load(t.Context(), "id")
	_, list := s.List(t.Context(), "alice")
	for call, err := range map[string]error{
		"Load": load, "List": list, "Create": s.Create(t.Context(), &session.Record{}),
		"Save": s.Save(t.Context(), &session.Record{}, 1), "Touch": s.Touch(t.Context(), "id", time.Now(), time.Now()), "Delete": s.Delete(t.Context(), "id"),
	} {
		if err != errDown {
			t.Errorf("%s: %v", call, err)
		}
	}
	s.Fail(nil)
	if _, err := s.Load(t.Context(), "id"); !errors.Is(err, session.ErrNotFound) {
		t.Error(err)
	}
}
