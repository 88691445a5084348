package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/testing/servers"
)

// browser is a browser of any engine. Its methods fail the test if the browser does not do it
// within a minute or two.
type browser interface {
	open(url string)                     // navigates to a page, as if its address was typed
	click(selector string)               // clicks on the first element that matches a CSS selector
	back()                               // presses the back button
	js(script string) string             // evaluates a script, awaits its promise and returns the string
	tryJS(script string) (string, error) // js, for a page that may be left meanwhile
	text() string                        // returns the visible text of the page on one line
	expect(want string)                  // waits until the page shows a text
	pageCookies() []cookieFact           // returns the cookies of the page's site
}

// cookieFact is a cookie as a browser has stored it.
type cookieFact struct {
	Name, Domain, Path, SameSite string
	Secure, HTTPOnly             bool
}

// starters start a browser of each engine, with a new profile.
var starters = map[string]func(testing.TB) browser{
	"chromium": func(t testing.TB) browser { return startChrome(t, "") },
	"firefox":  startFirefox,
	"webkit":   startWebKit,
}

// inEach runs a test in a browser of each of the engines.
func inEach(t *testing.T, engines []string, test func(t *testing.T, engine string, b browser)) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) { test(t, engine, starters[engine](t)) })
	}
}

var allEngines = []string{"chromium", "firefox", "webkit"}

const (
	startLimit = 2 * time.Minute // limit of a browser's start, on a busy machine
	callLimit  = time.Minute     // limit of one operation of a browser
)

// await waits until the page of a browser shows a text.
func await(t testing.TB, b browser, want string) {
	t.Helper()
	eventually(t, callLimit, func() bool { return strings.Contains(b.text(), want) }, func() string {
		return "the page does not show " + want + ": " + b.text()
	})
}

// eventually waits until a condition holds, and fails the test after limit.
func eventually(t testing.TB, limit time.Duration, holds func() bool, why func() string) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(why())
		}
	}
}

// scratch returns an empty folder that is removed after the test. The removal is retried,
// because a browser that was killed may still write.
func scratch(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		for end := time.Now().Add(callLimit); os.RemoveAll(dir) != nil && time.Now().Before(end); {
			time.Sleep(50 * time.Millisecond)
		}
	})
	return dir
}

// launchBrowser starts a program with dir as its home, and waits until it is ready.
func launchBrowser(t testing.TB, dir string, env []string, ready func() bool, args ...string) {
	t.Helper()
	home := []string{"HOME=" + dir, "XDG_CACHE_HOME=" + dir, "XDG_CONFIG_HOME=" + dir, "XDG_DATA_HOME=" + dir}
	servers.Start(t, servers.Command{Args: args, Dir: dir, Env: append(home, env...), Ready: ready})
}

// sites serves an application at http://localhost, and a page of another site at
// http://127.0.0.1. Every browser finds both, treats both as secure contexts, and
// sends Sec-Fetch-Site. The page of the other site is told the application's address.
func sites(t testing.TB, application http.Handler, other func(base string) http.Handler) (base, foreign string) {
	t.Helper()
	base = serve(t, "localhost", false, application)
	return base, serve(t, "127.0.0.1", false, other(base))
}
