package e2e

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/testing/servers"
)

// A browser is what a test needs of a browser, whichever engine it has. Its methods
// fail the test if the browser does not do what they ask within a minute or two.
type browser interface {
	open(url string)                     // goes to a page, as an address that was typed in
	click(selector string)               // clicks on what a CSS selector finds first
	back()                               // the back button
	js(script string) string             // runs a script and returns the string that it promises
	tryJS(script string) (string, error) // js, for a page that may be going
	text() string                        // what the page shows, on one line
	expect(want string)                  // waits for the page to show a text
	pageCookies() []cookieFact           // the cookies that the page's site has
}

// A cookieFact is a cookie as a browser stored it.
type cookieFact struct {
	Name, Domain, Path, SameSite string
	Secure, HTTPOnly             bool
}

// starters open a browser of each engine, with a new profile.
var starters = map[string]func(testing.TB) browser{
	"chromium": func(t testing.TB) browser { return startChrome(t, "") },
	"firefox":  startFirefox,
	"webkit":   startWebKit,
}

// inEach runs a test in a browser of each of these engines.
func inEach(t *testing.T, engines []string, test func(t *testing.T, engine string, b browser)) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) { test(t, engine, starters[engine](t)) })
	}
}

var allEngines = []string{"chromium", "firefox", "webkit"}

const (
	startLimit = 2 * time.Minute // for a browser to start, on a busy machine
	callLimit  = time.Minute     // for a browser to do one thing
)

// await waits until a browser's page shows a text.
func await(t testing.TB, b browser, want string) {
	t.Helper()
	eventually(t, callLimit, func() bool { return strings.Contains(b.text(), want) }, func() string {
		return "the page does not show " + want + ": " + b.text()
	})
}

// eventually waits until a condition holds, and fails the test if it does not in time.
func eventually(t testing.TB, limit time.Duration, holds func() bool, why func() string) {
	t.Helper()
	for end := time.Now().Add(limit); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(why())
		}
	}
}

// scratch returns an empty folder. It is removed after the test, with patience: a
// browser that was killed may still be writing.
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

// launchBrowser starts a program whose home is a folder, and waits until it is ready.
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
