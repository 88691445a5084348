package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// TestVisit visits a site over HTTPS: a login, twenty concurrent requests during a renewal of
// the token, a logout, and the back button.
func TestVisit(t *testing.T) {
	inEach(t, allEngines, func(t *testing.T, _ string, b browser) {
		pages := app(t, session.Options{})
		base := serve(t, "localhost", true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			pages.ServeHTTP(w, r)
			if r.URL.Path == "/" {
				fmt.Fprint(w, backButtonRecipe)
			}
		}))
		b.open(base + "/login?user=alice")
		b.open(base)
		b.expect("user:alice")
		if got, want := fmt.Sprint(b.pageCookies()), "[{__Host-Http-session localhost / Lax true true}]"; got != want {
			t.Errorf("the browser stored %s, want %s", got, want)
		}
		if got := b.js("document.cookie"); got != "" {
			t.Errorf("a script reads %q", got)
		}
		for round := 1; round <= 5; round++ {
			got := b.js(`(async () => {
				const all = [];
				for (let i = 0; i < 20; i++) {
					all.push(fetch("/count").then(r => r.text()));
					if (i == 10) all.push(fetch("/renew").then(r => r.text()));
				}
				return (await Promise.all(all)).join(" ");
			})()`)
			if n := strings.Count(got, "alice"); n != 20 {
				t.Errorf("%d of 20 requests were answered as alice: %s", n, got)
			}
			if got, want := b.js(`fetch("/who").then(r => r.text())`), fmt.Sprintf("user:alice count:%d", 20*round); got != want {
				t.Errorf("afterwards %s, want %s", got, want)
			}
		}
		b.open(base + "/logout")
		b.expect("ok")
		b.back()
		if text := visibleText(t, b, "user:"); strings.Contains(text, "alice") {
			t.Errorf("after the logout the back button shows %q", text)
		}
		if all := b.pageCookies(); len(all) != 0 {
			t.Errorf("after the logout the browser has %v", all)
		}
	})
}
