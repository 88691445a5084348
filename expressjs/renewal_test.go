package expressjs_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
)

// Requests that are under way in another process when Go gives a session another id
// keep what they change, and none of several renewals at once leaves a second session.
func TestRenewals(t *testing.T) {
	for name, renew := range map[string]func(s *session.Session){
		"Renew": (*session.Session).Renew, "Login": func(s *session.Session) { s.Login("ann") },
	} {
		onShelves(t, expressjs.Options{}, func(t *testing.T, s *shelf) {
			const n = 20
			here, there := service(t, s.store, nil), service(t, s.store, nil)
			var cookie *http.Cookie
			do := func(m *session.Manager, f func(s *session.Session)) *http.Response {
				r := httptest.NewRequest("GET", "https://example.test/", nil)
				if cookie != nil {
					r.AddCookie(cookie)
				}
				w := httptest.NewRecorder()
				m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })).ServeHTTP(w, r)
				return w.Result()
			}
			cookie = do(here, func(s *session.Session) { s.Login("ann") }).Cookies()[0]
			var loaded, done sync.WaitGroup
			var mu sync.Mutex
			var next *http.Cookie
			loaded.Add(n)
			for i := range n {
				done.Go(func() {
					m := []*session.Manager{here, there}[i%2]
					resp := do(m, func(s *session.Session) {
						s.User()
						loaded.Done()
						loaded.Wait()
						session.NewKey[int](fmt.Sprint("k", i)).Set(s, i)
						if i < 4 {
							renew(s)
						}
					})
					if resp.StatusCode != 200 {
						t.Errorf("%s: %s", name, resp.Status)
					}
					for _, c := range resp.Cookies() {
						mu.Lock()
						if next != nil {
							t.Errorf("%s: two cookies", name)
						}
						next = c
						mu.Unlock()
					}
				})
			}
			done.Wait()
			old := cookie
			if cookie = next; next == nil {
				t.Fatalf("%s: no cookie", name)
			}
			do(there, func(s *session.Session) {
				if got := len(s.Keys()); got != n || s.User() != "ann" {
					t.Errorf("%s: %d of %d writes, in as %q", name, got, n, s.User())
				}
			})
			if list, err := here.List(t.Context(), "ann"); err != nil || len(list) != 1 {
				t.Errorf("%s: %d sessions, %v", name, len(list), err)
			}
			cookie = old
			do(there, func(s *session.Session) {
				if s.User() != "" || s.Err() != session.ErrReplaced {
					t.Errorf("%s: with the old token in as %q, %v", name, s.User(), s.Err())
				}
			})
		})
	}
}
