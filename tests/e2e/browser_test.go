package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/coatcheck/session"
)

// logIn submits the login form of the example, as a user does.
func (c *chrome) logIn(base, user string, remember bool) {
	c.t.Helper()
	c.open(base + "/login")
	run(c, chromedp.SetValue(chromedp.CSS("#userId"), user))
	if remember {
		c.click(`input[name="remember"]`)
	}
	c.click("form.login button")
	c.expect("Welcome back, " + user + "!")
}

// only returns the only cookie of the browser.
func (c *chrome) only() *network.Cookie {
	c.t.Helper()
	all := c.cookies()
	if len(all) != 1 {
		c.t.Fatalf("%d cookies, want 1", len(all))
	}
	return all[0]
}

// TestLogInAndReopen logs in, is recognized, and closes the browser, which forgets the session
// unless "remember me" was set. No script can read the cookie.
func TestLogInAndReopen(t *testing.T) {
	base := example(t)
	profile := t.TempDir()
	c := startChrome(t, profile)
	c.open(base)
	c.expect("Log in")
	c.picture("login")
	c.logIn(base, "alice", false)
	c.picture("dashboard")
	c.open(base + "/dashboard")
	c.expect("2 visits")
	if got := c.js(`document.cookie`); got != "" {
		t.Errorf("a script reads %q", got)
	}
	if k := c.only(); k.Name != "session" || k.Domain != "localhost" || k.Path != "/" || !k.HTTPOnly || k.Secure || k.SameSite != network.CookieSameSiteLax || !k.Session {
		t.Errorf("the browser stored %+v", k)
	}
	c.close()

	c = startChrome(t, profile)
	c.open(base + "/dashboard")
	c.expect("Please log in.")
	c.logIn(base, "alice", true)
	k := c.only()
	if days := time.Until(time.Unix(int64(k.Expires), 0)).Hours() / 24; k.Session || days < 29.9 || days > 30.1 {
		t.Errorf("remembered for %v days, %+v", days, k)
	}
	c.close()

	c = startChrome(t, profile)
	c.open(base + "/dashboard")
	c.expect("Welcome back, alice!")
}

// TestSignedOutFromAnotherDevice signs another browser out, which shows this in both of its
// open tabs.
func TestSignedOutFromAnotherDevice(t *testing.T) {
	base := example(t)
	here, there := startChrome(t, ""), startChrome(t, "")
	here.logIn(base, "alice", false)
	there.logIn(base, "alice", false)
	second := there.tab()
	second.open(base + "/dashboard")
	second.expect("Welcome back")
	here.open(base + "/dashboard")
	here.click(`form[action="/devices/revoke-others"] button`)
	for _, tab := range []*chrome{there, second} {
		tab.expect("You are signed out")
		if text := tab.text(); strings.Contains(text, "alice") {
			t.Errorf("the page still shows %q", text)
		}
	}
	there.picture("signed-out")
	there.click(`a.button`)
	there.expect("Your session has ended. Please log in again.")
	there.picture("has-ended")
	here.expect("Welcome back, alice!")
}

// TestCookieByHTTPS checks that over HTTPS the cookie has the __Host-Http- name, and that the
// browser enforces the prefix.
func TestCookieByHTTPS(t *testing.T) {
	base := serve(t, "app.test", true, app(t, session.Options{}))
	c := startChrome(t, "")
	c.open(base + "/login?user=alice")
	c.open(base + "/who")
	c.expect("user:alice")
	if k := c.only(); k.Name != "__Host-Http-session" || k.Domain != "app.test" || k.Path != "/" || !k.HTTPOnly || !k.Secure || k.SameSite != network.CookieSameSiteLax || !k.Session || len(k.Value) != 118 {
		t.Errorf("the browser stored %+v", k)
	}
	c.open(base + "/logout")
	if all := c.cookies(); len(all) != 0 {
		t.Errorf("after the logout: %+v", all)
	}

	// The browser refuses the cookie where its prefix does not permit it.
	plain := serve(t, "app.test", false, app(t, session.Options{}))
	c.open(plain + "/login?user=alice")
	c.open(plain + "/who")
	c.expect("user: count:0")
	forged := serve(t, "sub.app.test", true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, attributes := range []string{"; Domain=app.test; Path=/; Secure", "; Path=/app; Secure", "; Path=/"} {
			w.Header().Add("Set-Cookie", "__Host-Http-session=planted"+attributes)
		}
	}))
	c.open(forged)
	if all := c.cookies(); len(all) != 0 {
		t.Errorf("a sibling domain set %+v", all[0])
	}
	c.open(base + "/who")
	c.js(`document.cookie = "__Host-Http-session=planted; Path=/; Secure"`)
	if all := c.cookies(); len(all) != 0 {
		t.Errorf("a script set %+v", all[0])
	}
	c.js(`document.cookie = "__Host-session=planted; Path=/; Secure"`)
	if all := c.cookies(); len(all) != 1 {
		t.Errorf("the script cannot set a cookie of another name, so this test proves nothing: %+v", all)
	}
}

// TestAnotherSite checks that the form of another site changes nothing, and that its link finds
// the user logged in.
func TestAnotherSite(t *testing.T) {
	base := serve(t, "app.test", true, http.NewCrossOriginProtection().Handler(app(t, session.Options{})))
	other := serve(t, "other.test", true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<form method=post action="%s/logout"><button>win</button></form><a href="%s/who">go</a>`, base, base)
	}))
	c := startChrome(t, "")
	c.open(base + "/login?user=alice")
	c.open(other)
	c.click("button")
	c.expect("cross-origin request")
	c.open(other)
	c.click("a")
	c.expect("user:alice")
}

// TestFrames checks cookies in a frame of another site. A browser that blocks third-party
// cookies keeps only a partitioned cookie with SameSite=None, for that site alone. A browser
// that does not block them keeps every cookie with SameSite=None. The test sets whether they
// are blocked, because builds of Chromium differ.
func TestFrames(t *testing.T) {
	none := session.CookieOptions{SameSite: http.SameSiteNoneMode}
	partitioned := session.CookieOptions{SameSite: http.SameSiteNoneMode, Partitioned: true}
	for name, o := range map[string]struct {
		cookie  session.CookieOptions
		blocks  bool // whether the browser blocks third-party cookies
		inFrame bool // whether the user is recognized in the frame
		onTop   bool // whether the user is then recognized by the application on top level
	}{
		"Lax":                     {session.CookieOptions{}, false, false, false},
		"Lax, blocked":            {session.CookieOptions{}, true, false, false},
		"None":                    {none, false, true, true},
		"None, blocked":           {none, true, false, false},
		"Partitioned":             {partitioned, false, true, false},
		"Partitioned and blocked": {partitioned, true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			base := serve(t, "app.test", true, app(t, session.Options{Cookie: o.cookie}))
			other := serve(t, "other.test", true, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprintf(w, `<p>waiting</p><script>onmessage = e => document.querySelector("p").textContent = e.data</script>
					<iframe src="%s%s"></iframe>`, base, r.URL.RequestURI())
			}))
			profile := t.TempDir()
			thirdPartyCookies(t, profile, o.blocks)
			c := startChrome(t, profile)
			inFrame := func(path string) string {
				t.Helper()
				c.open(other + path)
				c.expect("user:")
				return c.text()
			}
			inFrame("/frame?user=alice")
			if got := strings.Contains(inFrame("/frame"), "user:alice"); got != o.inFrame {
				t.Errorf("recognised in the frame: %v", got)
			}
			c.open(base + "/who")
			if got := strings.Contains(c.text(), "user:alice"); got != o.onTop {
				t.Errorf("recognised by itself: %v", got)
			}
		})
	}
}

// TestTwoTabsLogIn logs in concurrently in two tabs of one browser: as one user, who may
// already be logged in, or as two. Then one user is logged in completely, and not the other.
func TestTwoTabsLogIn(t *testing.T) {
	base := serve(t, "app.test", true, app(t, session.Options{}))
	c := startChrome(t, "")
	c.open(base + "/count") // creates a session and its cookie
	tabs := []*chrome{c.tab(), c.tab()}
	for round := range 8 {
		users := []string{"alice", "alice"}
		if round%2 == 1 {
			users = []string{"bob", "carl"}
			c.open(base + "/logout")
			c.open(base + "/count")
		}
		var all sync.WaitGroup
		for i, tab := range tabs {
			all.Go(func() { tab.open(base + "/login?user=" + users[i]) })
		}
		all.Wait()
		seen := map[string]bool{}
		for _, tab := range append(tabs, c) {
			tab.open(base + "/who")
			seen[strings.TrimPrefix(strings.Fields(tab.text())[0], "user:")] = true
		}
		if n := len(c.cookies()); len(seen) != 1 || n != 1 || !seen[users[0]] && !seen[users[1]] {
			t.Errorf("round %d: the tabs are %v, with %d cookies, want one of %v", round, seen, n, users)
		}
	}
}
