package sessiontest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

var visits = session.NewKey[int]("visits")

// frameworkContext is what frameworks pass to their handlers: the request is one of its fields.
type frameworkContext struct {
	request  *http.Request
	response http.ResponseWriter
}

// greet is a handler of such a framework.
func greet(c *frameworkContext) error {
	s := session.From(c.request.Context())
	if s.User() == "" {
		return errors.New("not logged in")
	}
	visits.Update(s, func(n int) int { return n + 1 })
	_, err := fmt.Fprint(c.response, s.User(), visits.Get(s))
	return err
}

// TestRequest checks that code with only a request uses one session, and sees its changes
// immediately.
func TestRequest(t *testing.T) {
	for _, bearer := range []bool{false, true} {
		m := newManager(t, session.Options{Bearer: bearer})
		r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/", nil))
		if err := greet(&frameworkContext{request: r, response: httptest.NewRecorder()}); err == nil {
			t.Error("logged in")
		}
		s := session.From(r.Context())
		if s != m.From(r.Context()) || s != session.From(r.Clone(context.WithValue(r.Context(), t, 1)).Context()) {
			t.Error("another session")
		}
		s.Login("alice")
		for i := range 3 {
			w := httptest.NewRecorder()
			if err := greet(&frameworkContext{request: r, response: w}); err != nil || w.Body.String() != fmt.Sprint("alice", i+1) {
				t.Errorf("%v, answers %s", err, w.Body)
			}
			if h := w.Header(); h["Set-Cookie"] != nil || h["Session-Token"] != nil {
				t.Errorf("the header is %v", h)
			}
		}
		if got := r.Header.Get("Cookie") + r.Header.Get("Authorization"); got != "" {
			t.Errorf("the request got the token %s", got)
		}
	}
}

// TestRequestIsTheSame checks that the returned request differs from r only in its context.
func TestRequestIsTheSame(t *testing.T) {
	m := newManager(t, session.Options{})
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
	from := httptest.NewRequest("POST", "/path?q=1", strings.NewReader("q=2")).WithContext(ctx)
	from.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	from.SetPathValue("name", "value")
	r := sessiontest.Request(t, m, from)
	if r.URL.Path != "/path" || r.FormValue("q") != "2" || !slices.Equal(r.Form["q"], []string{"2", "1"}) || r.PathValue("name") != "value" || r.Context().Value(key{}) != "value" {
		t.Errorf("another request: %v", r)
	}
	if cancel(); r.Context().Err() != context.Canceled {
		t.Error("the context is not cancelled")
	}
}

// TestRequestStores checks that changes are stored by Save, by Do with the returned request,
// and at the end of the test.
func TestRequestStores(t *testing.T) {
	for what, store := range map[string]func(t *testing.T, m *session.Manager, r *http.Request){
		"Save": func(t *testing.T, m *session.Manager, r *http.Request) {
			if err := session.From(r.Context()).Save(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"Do": func(t *testing.T, m *session.Manager, r *http.Request) {
			sessiontest.Do(t, m, r, func(s *session.Session) {
				if s != session.From(r.Context()) || name.Get(s) != "value" || s.User() != "alice" {
					t.Error("Do uses another session")
				}
				visits.Set(s, 7)
			})
			if visits.Get(session.From(r.Context())) != 7 {
				t.Error("the change of Do is not visible")
			}
		},
		"the end": nil,
	} {
		t.Run(what, func(t *testing.T) {
			m := newManager(t, session.Options{})
			stored := func() []session.Info {
				all, err := m.List(context.Background(), "alice")
				if err != nil {
					t.Error(err)
				}
				return all
			}
			t.Run("", func(t *testing.T) {
				r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/", nil))
				s := session.From(r.Context())
				s.Login("alice")
				name.Set(s, "value")
				if len(stored()) > 0 {
					t.Error("stored before the end")
				}
				if store != nil {
					store(t, m, r)
					if all := stored(); len(all) != 1 || all[0].ID != s.ID() {
						t.Error("not stored", all)
					}
				}
				name.Update(s, func(v string) string { return v + "!" })
			})
			all := stored()
			if len(all) != 1 {
				t.Fatal("stored are", all)
			}
			if got, _ := name.Of(all[0]); got != "value!" {
				t.Errorf("stored is %q", got)
			}
		})
	}
}

// TestRequestAfterDo checks that a request that Do has logged in is logged in for Request, and
// that Do with the original request sees the changes.
func TestRequestAfterDo(t *testing.T) {
	for _, bearer := range []bool{false, true} {
		m := newManager(t, session.Options{Bearer: bearer})
		r := httptest.NewRequest("GET", "/", nil)
		sessiontest.Do(t, m, r, func(s *session.Session) { s.Login("alice") })
		t.Run("", func(t *testing.T) {
			inside := sessiontest.Request(t, m, r)
			w := httptest.NewRecorder()
			if err := greet(&frameworkContext{request: inside, response: w}); err != nil || w.Body.String() != "alice1" {
				t.Errorf("%v, answers %s", err, w.Body)
			}
		})
		sessiontest.Do(t, m, r, func(s *session.Session) {
			if s.User() != "alice" || visits.Get(s) != 1 {
				t.Errorf("logged in as %q, %d visits", s.User(), visits.Get(s))
			}
		})
	}
}

// TestRequestInMiddleware checks Request with the middleware of the Manager, and with several
// Managers.
func TestRequestInMiddleware(t *testing.T) {
	m, other := newManager(t, session.Options{}), newManager(t, session.Options{Cookie: session.CookieOptions{Name: "__Host-Http-other"}})
	answer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, m.From(r.Context()).User()) })
	r := sessiontest.Request(t, other, sessiontest.Request(t, m, httptest.NewRequest("GET", "/", nil)))
	for _, h := range []http.Handler{m.RequireUser(answer, nil), m.Handler(m.RequireUser(answer, nil))} {
		for _, user := range []string{"", "alice"} {
			if user != "" {
				m.From(r.Context()).Login(user)
			}
			w := httptest.NewRecorder()
			if h.ServeHTTP(w, r); user == "" && w.Code != http.StatusUnauthorized || user != "" && w.Body.String() != user {
				t.Errorf("of %q: %d %s", user, w.Code, w.Body)
			}
		}
		m.From(r.Context()).Logout()
	}
	if session.From(r.Context()) != other.From(r.Context()) || other.From(r.Context()).User() != "" {
		t.Error("the inner Manager uses another session")
	}
}

// TestRequestFails checks that a mistake, which a server would answer with 500, fails the test
// when it ends, unless Save has returned the error, and that an outage does not.
func TestRequestFails(t *testing.T) {
	store := sessiontest.NewStore(nil)
	m := newManager(t, session.Options{Store: store, MaxDataSize: 100})
	large := strings.Repeat("x", 100)
	for what, c := range map[string]struct {
		f    func(s *session.Session)
		want string
	}{
		"nothing":   {func(s *session.Session) {}, ""},
		"a value":   {func(s *session.Session) { name.Set(s, "value") }, ""},
		"no user":   {func(s *session.Session) { s.Login("") }, "user is empty"},
		"too large": {func(s *session.Session) { name.Set(s, large) }, "too large"},
		"reported": {func(s *session.Session) {
			name.Set(s, large)
			if err := s.Save(t.Context()); !errors.Is(err, session.ErrTooLarge) {
				t.Error(err)
			}
		}, ""},
		"an outage": {func(s *session.Session) {
			store.Fail(errDown)
			name.Set(s, "value")
			if err := s.Save(t.Context()); !errors.Is(err, session.ErrStore) {
				t.Error(err)
			}
		}, ""},
		"an outage at the end": {func(s *session.Session) { name.Set(s, "value"); store.Fail(errDown) }, ""},
		"an immediate outage": {func(s *session.Session) {
			store.Fail(errDown)
			s.Login("alice")
		}, ""},
		"ended meanwhile": {func(s *session.Session) {
			s.Login("alice")
			if err := errors.Join(s.Save(t.Context()), m.RevokeAll(t.Context(), "alice")); err != nil {
				t.Error(err)
			}
			name.Set(s, "lost")
		}, ""},
	} {
		got := failure(func(q testing.TB) {
			c.f(session.From(sessiontest.Request(q, m, httptest.NewRequest("GET", "/", nil)).Context()))
		})
		store.Fail(nil)
		if got == "" != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: the test fails with %q, want %q", what, got, c.want)
		}
	}
}

// TestRequestOverAStoreThatPanics checks that a panic of the store reaches the test.
func TestRequestOverAStoreThatPanics(t *testing.T) {
	m := newManager(t, session.Options{Store: panickingStore{session.NewMemoryStore(nil)}})
	q := &quiet{}
	name.Set(session.From(sessiontest.Request(q, m, httptest.NewRequest("GET", "/", nil)).Context()), "value")
	defer func() {
		if v := recover(); v != "a bug" {
			t.Errorf("the panic became %v", v)
		}
	}()
	q.cleanUp()
}

type panickingStore struct{ session.Store }

func (panickingStore) Create(context.Context, *session.Record) error { panic("a bug") }

// TestRequestInABubble checks that in a synctest bubble the session expires with the fake
// clock.
func TestRequestInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		r := httptest.NewRequest("GET", "/", nil)
		sessiontest.Do(t, m, r, func(s *session.Session) { s.Login("alice") })
		time.Sleep(time.Hour)
		if s := session.From(sessiontest.Request(t, m, r).Context()); s.User() != "" || !s.Ended() {
			t.Errorf("after an hour logged in as %q", s.User())
		}
	})
}

// TestRequestByGoroutines checks that several goroutines may use the request.
func TestRequestByGoroutines(t *testing.T) {
	const n = 20
	m := newManager(t, session.Options{})
	r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/", nil))
	session.From(r.Context()).Login("alice")
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			if err := greet(&frameworkContext{request: r, response: httptest.NewRecorder()}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := visits.Get(session.From(r.Context())); got != n {
		t.Errorf("%d visits, want %d", got, n)
	}
}
