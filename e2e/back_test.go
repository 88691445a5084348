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

// visibleText waits until a page shows a text, and returns all that it shows then. A
// page that the recipe has hidden shows nothing.
func visibleText(t testing.TB, b browser, want string) string {
	t.Helper()
	text := ""
	eventually(t, callLimit, func() bool {
		text, _ = b.tryJS(`document.body && !document.documentElement.hidden ? document.body.innerText : ""`)
		return strings.Contains(text, want)
	}, func() string { return "the page does not show " + want + ": " + text })
	return strings.Join(strings.Fields(text), " ")
}

// After signing out the back button shows nothing of the page before: also not
// where the browser kept that in its back/forward cache, as it does for a page that
// was left by the address bar.
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

// The recipe for the back button hides what a browser has kept in its back/forward
// cache. Without the recipe Chromium and WebKit show the page of before the session ended,
// although that was no-store. Firefox keeps no such page.
func TestBackForwardCache(t *testing.T) {
	page, err := os.ReadFile("../docs/recipes/ending.md")
	if err != nil || !strings.Contains(string(page), strings.TrimSuffix(strings.TrimPrefix(backButtonRecipe, "<script>"), "</script>")) {
		t.Errorf("docs/recipes/ending.md does not have the recipe: %v", err)
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
		// shows reports whether the back button shows what was private. The page must
		// have been restored, or nothing is proved. Whether it is depends on how soon
		// the browser has put it away: wait longer each time.
		shows := func(path string) bool {
			for wait := 500 * time.Millisecond; ; wait *= 2 {
				b.open(base + "/in?to=" + path)
				b.expect("user:alice")
				b.js(`sessionStorage.restored = "no"`)
				b.open(base + "/bye")
				b.expect("bye")
				// From elsewhere: Chromium drops the page if it sees the cookie change
				// after it has put the page away, which a logout here may or may not be.
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
			t.Error("with the recipe the back button shows what was private")
		}
		if engine != "firefox" && !shows("/unmended") {
			t.Error("without the recipe the back button shows nothing: docs/recipes/ending.md is not right")
		}
	})
}
