package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// backButtonRecipe is the recipe of docs/recipes/ending.md, "The back button after a logout".
const backButtonRecipe = `<script>
addEventListener("pagehide", () => { document.documentElement.hidden = true; });
addEventListener("pageshow", (e) => { if (e.persisted) location.reload(); });
</script>`

// visibleText waits until a page shows a text, and returns all visible text. A page that the
// recipe has hidden has none.
func visibleText(t testing.TB, b browser, want string) string {
	t.Helper()
	text := ""
	eventually(t, callLimit, func() bool {
		text, _ = b.tryJS(`document.body && !document.documentElement.hidden ? document.body.innerText : ""`)
		return strings.Contains(text, want)
	}, func() string { return "the page does not show " + want + ": " + text })
	return strings.Join(strings.Fields(text), " ")
}

// TestBackAfterSigningOut checks that after a logout the back button shows nothing of the
// previous page, even if the browser had kept the page in its back/forward cache, as for a page
// that was left through the address bar.
func TestBackAfterSigningOut(t *testing.T) {
	plain := example(t)
	secure := serve(t, "app.test", true, reverse(t, example(t, "APP_ENV=production", "SESSION_SECRET="+strings.Repeat("secret", 6))))
	for _, base := range []string{plain, secure} {
		for _, left := range []string{"by signing out", "by the address bar"} {
			c := startChrome(t, "")
			c.logIn(base, "alice", false)
			if left == "by signing out" {
				c.click(`form[action="/logout"] button`)
				c.expect("You are signed out.")
			} else {
				c.open(base + "/login")
				c.expect("You are logged in as alice")
				other := c.tab()
				other.open(base + "/dashboard")
				other.click(`form[action="/logout"] button`)
				other.expect("You are signed out.")
			}
			c.back()
			if text := visibleText(t, c, "og in"); strings.Contains(text, "alice") || strings.Contains(text, "visits") {
				t.Errorf("%s, left %s: the back button shows %q", base, left, text)
			}
			c.close()
		}
	}
}

// TestBackForwardCache checks that the recipe hides pages in the back/forward cache of the
// browser. Without it Chromium and WebKit show the page from before the end of the session,
// although it was no-store. Firefox does not cache such a page.
func TestBackForwardCache(t *testing.T) {
	page, err := os.ReadFile("../../docs/recipes/ending.md")
	if err != nil || !strings.Contains(string(page), strings.TrimSuffix(strings.TrimPrefix(backButtonRecipe, "<script>"), "</script>")) {
		t.Errorf("docs/recipes/ending.md does not contain the recipe: %v", err)
	}
	inEach(t, allEngines, func(t *testing.T, engine string, b browser) {
		m, err := session.New(&session.Options{Cookie: session.CookieOptions{Insecure: true}})
		if err != nil {
			t.Fatal(err)
		}
		base := serve(t, "localhost", false, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			switch s := session.From(r.Context()); r.URL.Path {
			case "/in":
				s.Login("alice")
				http.Redirect(w, r, r.FormValue("to"), http.StatusSeeOther)
			case "/bye":
				fmt.Fprint(w, "bye")
			case "/mended", "/unmended":
				fmt.Fprintf(w, "<p>user:%s</p>", s.User())
				fmt.Fprint(w, `<script>addEventListener("pageshow", (e) => { if (e.persisted) sessionStorage.restored = "yes"; });</script>`)
				if r.URL.Path == "/mended" {
					fmt.Fprint(w, backButtonRecipe)
				}
			}
		})))
		// shows reports whether the back button shows private text. The page must have been
		// restored from the cache, otherwise the test proves nothing. That depends on how soon
		// the browser has cached it: wait longer each time.
		shows := func(path string) bool {
			for wait := 500 * time.Millisecond; ; wait *= 2 {
				b.open(base + "/in?to=" + path)
				b.expect("user:alice")
				b.js(`sessionStorage.restored = "no"`)
				b.open(base + "/bye")
				b.expect("bye")
				// End the session on the server: Chromium drops the page if the cookie changes
				// after the page was cached, which depends on timing with a logout here.
				if err := m.RevokeAll(t.Context(), "alice"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(wait)
				b.back()
				shown := strings.Contains(visibleText(t, b, "user:"), "alice")
				if shown || b.js(`String(sessionStorage.restored)`) == "yes" {
					return shown
				}
				if engine == "firefox" {
					return false
				}
				if wait > 10*time.Second {
					t.Fatalf("the browser never restores %s: this test proves nothing", path)
				}
			}
		}
		if shows("/mended") {
			t.Error("with the recipe the back button shows private text")
		}
		if engine != "firefox" && !shows("/unmended") {
			t.Error("without the recipe the back button shows nothing: correct docs/recipes/ending.md")
		}
	})
}
