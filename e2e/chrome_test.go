package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
	"github.com/coatcheck/session/internal/testing/servers"
)

// A chrome is a browser with a profile of its own. Hosts below .test are this
// machine, and their certificates are believed.
type chrome struct {
	t     testing.TB
	ctx   context.Context // of the first tab
	close func()          // the browser, as its user would
}

// startChrome opens a browser on a profile; "": a new one.
func startChrome(t testing.TB, profile string) *chrome {
	t.Helper()
	if profile == "" {
		profile = t.TempDir()
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(servers.Program(t, "chromium")),
		chromedp.UserDataDir(profile),
		chromedp.WSURLReadTimeout(startLimit),
		chromedp.DisableGPU,
		chromedp.NoSandbox, // which root cannot have
		chromedp.IgnoreCertErrors,
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1"),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
	)...)
	ctx, cancel := chromedp.NewContext(allocator)
	closed := false
	c := &chrome{t: t, ctx: ctx, close: func() {
		if closed {
			return
		}
		closed = true
		if err := chromedp.Cancel(ctx); err != nil {
			t.Log("closing the browser:", err)
		}
		cancel()
		stop()
	}}
	t.Cleanup(c.close)
	if err := chromedp.Do(ctx); err != nil { // the first time starts it, for as long as ctx lives
		t.Fatal(err)
	}
	return c
}

// thirdPartyCookies says, in a new profile, whether the browser blocks third-party
// cookies, whatever this build of it does by default.
func thirdPartyCookies(t testing.TB, profile string, blocks bool) {
	t.Helper()
	dir := filepath.Join(profile, "Default")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	mode := 0 // Chromium's CookieControlsMode: off
	if blocks {
		mode = 1
	}
	preferences := fmt.Sprintf(`{"profile": {"cookie_controls_mode": %d, "block_third_party_cookies": %t}}`, mode, blocks)
	if err := os.WriteFile(filepath.Join(dir, "Preferences"), []byte(preferences), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tab returns another tab of the same browser.
func (c *chrome) tab() *chrome {
	c.t.Helper()
	ctx, cancel := chromedp.NewContext(c.ctx)
	c.t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		c.t.Fatal(err)
	}
	return &chrome{t: c.t, ctx: ctx}
}

// run runs an action in a tab, or fails the test.
func run[T any](c *chrome, action chromedp.Action[T]) T {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, callLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// open goes to a page.
func (c *chrome) open(url string) {
	c.t.Helper()
	run(c, chromedp.Navigate(url))
}

// click clicks on what a CSS selector finds first.
func (c *chrome) click(selector string) {
	c.t.Helper()
	run(c, chromedp.Click(chromedp.CSS(selector)))
}

// tryJS runs an expression and returns what it promises, as a string.
func (c *chrome) tryJS(script string) (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, callLimit)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](`(async () => String(await (`+script+`)))()`, chromedp.EvalAwaitPromise))
}

// text returns what the page shows, on one line. It is empty also while one page
// gives way to another, when no script can run.
func (c *chrome) text() string {
	text, _ := c.tryJS(`document.body ? document.body.innerText : ""`)
	return strings.Join(strings.Fields(text), " ")
}

// expect waits for the page to show a text.
func (c *chrome) expect(want string) {
	c.t.Helper()
	await(c.t, c, want)
}

// back goes back in the tab's history, and waits until the page has given way.
func (c *chrome) back() {
	c.t.Helper()
	run(c, chromedp.Evaluate[chromedp.Void](`window.left = true; history.back()`))
	eventually(c.t, callLimit, func() bool {
		left, err := c.tryJS(`String(window.left)`)
		return err == nil && left != "true"
	}, func() string { return "the browser does not go back" })
}

// js is tryJS that must succeed.
func (c *chrome) js(script string) string {
	c.t.Helper()
	s, err := c.tryJS(script)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// cookies returns the browser's cookies, of all sites, as it stored them.
func (c *chrome) cookies() []*network.Cookie {
	c.t.Helper()
	all, err := chromedp.CallBrowser(c.ctx, storage.GetCookies, storage.GetCookiesParams{})
	if err != nil {
		c.t.Fatal(err)
	}
	return all.Cookies
}

// pageCookies implements browser, for a profile that has been to no other site.
func (c *chrome) pageCookies() (all []cookieFact) {
	c.t.Helper()
	for _, k := range c.cookies() {
		all = append(all, cookieFact{k.Name, k.Domain, k.Path, string(k.SameSite), k.Secure, k.HTTPOnly})
	}
	return all
}

// picture takes one of the page, where somebody has asked for pictures, in the
// folder E2E_PICTURES: as it is, dark, and on a telephone.
func (c *chrome) picture(name string) {
	c.t.Helper()
	dir := os.Getenv("E2E_PICTURES")
	if dir == "" {
		return
	}
	for _, look := range []struct {
		name, scheme  string
		width, height int64
	}{{"light", "light", 1280, 800}, {"dark", "dark", 1280, 800}, {"phone", "light", 390, 844}} {
		run(c, chromedp.EmulateViewport(look.width, look.height))
		if _, err := chromedp.Call(c.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: look.scheme}},
		}); err != nil {
			c.t.Error(err)
		}
		png := run(c, chromedp.FullScreenshot(100))
		if err := os.WriteFile(filepath.Join(dir, name+"-"+look.name+".png"), png, 0o644); err != nil {
			c.t.Error(err)
		}
	}
	run(c, chromedp.ResetViewport())
}
