package e2e

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/coatcheck/session"
)

// TestStrictCookieAndRedirect uses a Strict cookie and an address of another site (a link
// scanner, a short link) that is typed in and redirects to the application. Firefox and WebKit
// withhold the cookie without a sign of the other site in the headers. The user stays logged in
// because that page creates no session, as docs/recipes/clients.md requires ("Visitors and
// staff").
func TestStrictCookieAndRedirect(t *testing.T) {
	inEach(t, []string{"firefox", "webkit"}, func(t *testing.T, _ string, b browser) {
		m, err := session.New(&session.Options{Cookie: session.CookieOptions{Insecure: true, SameSite: http.SameSiteStrictMode}})
		if err != nil {
			t.Fatal(err)
		}
		var site atomic.Value // Sec-Fetch-Site of the last request for a landing page
		base, foreign := sites(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			switch r.URL.Path {
			case "/login":
				s.Login("alice")
			case "/landing":
				site.Store(r.Header.Get("Sec-Fetch-Site"))
			case "/careless":
				count.Set(s, 1)
			}
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, "<p>%s user:%s.</p>", r.URL.Path, s.User())
		})), func(base string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, base+r.URL.Path, http.StatusFound)
			})
		})
		b.open(base + "/login")
		b.expect("/login user:alice.")
		b.open(foreign + "/landing")
		b.expect("/landing user:.") // otherwise correct docs/recipes/clients.md
		if got := site.Load(); got != "none" {
			t.Errorf("Sec-Fetch-Site is %s: the server can detect the other site; correct docs/recipes/clients.md", got)
		}
		b.open(base)
		b.expect("/ user:alice.")

		// A page that creates a session shows that this test can fail, and why the recipe is
		// needed.
		b.open(foreign + "/careless")
		b.expect("/careless user:.")
		b.open(base)
		b.expect("/ user:.")
	})
}
