package sessiontest

import (
	"iter"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coatcheck/session"
)

// Request returns r as a handler inside m.Handler gets it: session.From works on the context of
// the returned request until the test ends. Request is for code that is tested without a server,
// such as a handler of a framework whose context the test makes:
//
//	r := sessiontest.Request(t, m, httptest.NewRequest("GET", "/cart", nil))
//	session.From(r.Context()).Login("alice")
//	c := echo.New().NewContext(r, httptest.NewRecorder())
//	err := showCart(c)
//
// Changes are visible through the returned request at once. They are stored by
// [session.Session.Save], by a [Do] with the returned request, or when the test ends. A token that
// a Login, Renew or Remember makes goes nowhere, because no response carries it: r and the returned
// request keep the cookies that they had. To log in a request, call Do with it before Request, or
// use a [Browser].
//
// A mistake that a server answers with status 500, such as a value that cannot be stored, fails
// the test when it ends, unless a Save has returned the error. A store that fails does not: a
// handler under test may have to work during an outage.
func Request(t testing.TB, m *session.Manager, r *http.Request) *http.Request {
	t.Helper()
	w := httptest.NewRecorder()
	// The handler of m is a coroutine that yields its request, and returns at the end of the test.
	next, end := iter.Pull(func(yield func(*http.Request) bool) {
		m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, inside *http.Request) { yield(inside) })).ServeHTTP(w, r)
	})
	inside, _ := next()
	t.Cleanup(func() {
		t.Helper()
		if end(); w.Code == http.StatusInternalServerError {
			t.Errorf("sessiontest: the session cannot be saved: %v", m.From(inside.Context()).Err())
		}
	})
	return inside
}
