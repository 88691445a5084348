// Package sessiontest helps to test code that uses sessions: [Do] logs a request in and reads the
// values afterwards, [Request] gives a session to code that is tested without a server, a [Browser]
// keeps cookies, and a [Store] simulates an outage.
//
// All functions fail the test that they are given, with the reason. They work inside a
// testing/synctest bubble, because no network is involved.
package sessiontest

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// Do runs f in the session of m for r, as a handler would, and saves the session. It then adds
// the cookie of the response to r (with session.Options.Bearer: the Authorization header). Use
// Do to prepare a request, and to read its session afterwards:
//
//	r := httptest.NewRequest("GET", "/cart", nil)
//	sessiontest.Do(t, m, r, func(s *session.Session) { s.Login("alice") })
//	handler.ServeHTTP(w, r)
//	sessiontest.Do(t, m, r, func(s *session.Session) { got = cart.Get(s) })
//
// If the handler has given the session a new token (Login, Renew, Remember), r does not have
// it, and sees the session as it was before. Use a [Browser], which keeps the cookies of
// responses.
func Do(t testing.TB, m *session.Manager, r *http.Request, f func(*session.Session)) {
	t.Helper()
	ask := r.Clone(r.Context()) // without the body, which the handler under test reads
	ask.Body = http.NoBody
	keep(r, do(t, m, ask, f))
}

// do runs f in the session of a request, and returns the response.
func do(t testing.TB, m *session.Manager, r *http.Request, f func(*session.Session)) *http.Response {
	t.Helper()
	w := httptest.NewRecorder()
	running(t, m, f).ServeHTTP(w, r)
	return w.Result()
}

// running returns a handler that runs f in the request's session, and saves the session.
func running(t testing.TB, m *session.Manager, f func(*session.Session)) http.Handler {
	t.Helper()
	return m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Helper()
		s := m.From(r.Context())
		if err := s.Err(); errors.Is(err, session.ErrStore) {
			t.Fatalf("sessiontest: the session cannot be loaded: %v", err)
		}
		f(s)
		changed := s.User() != "" || len(s.Names()) > 0
		switch err := s.Save(r.Context()); {
		case err == nil:
		case !errors.Is(err, session.ErrEnded) && !errors.Is(err, session.ErrReplaced):
			t.Fatalf("sessiontest: the session cannot be saved: %v", err)
		case changed: // without a change, f has seen a session that has ended, which is no error
			t.Fatalf("sessiontest: what f changed is lost, because the session has ended: %v", err)
		}
	}))
}

// keep adds the token of a response to a request, as a client does.
func keep(r *http.Request, resp *http.Response) {
	if token, ok := resp.Header["Session-Token"]; ok {
		r.Header.Set("Authorization", strings.TrimSpace("Bearer "+token[0]))
	}
	for _, c := range resp.Cookies() {
		cookies := r.Cookies()
		r.Header.Del("Cookie")
		for _, old := range cookies {
			if old.Name != c.Name {
				r.AddCookie(old)
			}
		}
		if c.MaxAge >= 0 {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
}
