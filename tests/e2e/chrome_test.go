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

// chrome is a browser with a profile of its own. It resolves hosts below .test to this machine,
// and accepts their certificates.
type chrome struct {
	t     testing.TB
	ctx   context.Context // context of the first tab
	close func()          // closes the browser as its user does
}

// startChrome starts a browser with a profile, or with a new one for "".
func startChrome(t testing.TB, profile string) *chrome {
	t.Helper()
	return startChromeWith(t, profile, chromedp.IgnoreCertErrors)
}

// startChromeWith is startChrome with other options, which must say what certificates count.
func startChromeWith(t testing.TB, profile string, options ...chromedp.ExecAllocatorOption) *chrome {
	t.Helper()
	if profile == "" {
		profile = t.TempDir()
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(servers.Program(t, "chromium")),
		chromedp.UserDataDir(profile),
		chromedp.WSURLReadTimeout(startLimit),
		chromedp.DisableGPU,
		chromedp.NoSandbox, // root cannot use the sandbox
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1"),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
	), options...)...)
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
	if err := chromedp.Do(ctx); err != nil { // the first call starts the browser, until ctx ends
		t.Fatal(err)
	}
	return c
}

// thirdPartyCookies sets in a new profile whether the browser blocks third-party cookies,
// whatever the default of the build.
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

// open navigates to a page.
func (c *chrome) open(url string) {
	c.t.Helper()
	run(c, chromedp.Navigate(url))
}

// click clicks on the first element that matches a CSS selector.
func (c *chrome) click(selector string) {
	c.t.Helper()
	run(c, chromedp.Click(chromedp.CSS(selector)))
}

// tryJS evaluates an expression, awaits its promise, and returns the result as a string.
func (c *chrome) tryJS(script string) (string, error) {
	ctx, cancel := context.WithTimeout(c.ctx, callLimit)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[string](`(async () => String(await (`+script+`)))()`, chromedp.EvalAwaitPromise))
}

// text returns the visible text of the page on one line. It is also empty during a navigation,
// when no script can run.
func (c *chrome) text() string {
	text, _ := c.tryJS(`document.body ? document.body.innerText : ""`)
	return strings.Join(strings.Fields(text), " ")
}

// expect waits until the page shows a text.
func (c *chrome) expect(want string) {
	c.t.Helper()
	await(c.t, c, want)
}

// back goes back in the history of the tab, and waits until the page has changed.
func (c *chrome) back() {
	c.t.Helper()
	run(c, chromedp.Evaluate[chromedp.Void](`window.left = true; history.back()`))
	eventually(c.t, callLimit, func() bool {
		left, err := c.tryJS(`String(window.left)`)
		return err == nil && left != "true"
	}, func() string { return "the browser does not go back" })
}

// js is tryJS, and fails the test on an error.
func (c *chrome) js(script string) string {
	c.t.Helper()
	s, err := c.tryJS(script)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// cookies returns the cookies of all sites in the browser.
func (c *chrome) cookies() []*network.Cookie {
	c.t.Helper()
	all, err := chromedp.CallBrowser(c.ctx, storage.GetCookies, storage.GetCookiesParams{})
	if err != nil {
		c.t.Fatal(err)
	}
	return all.Cookies
}

// pageCookies implements browser, for a profile that has visited no other site.
func (c *chrome) pageCookies() (all []cookieFact) {
	c.t.Helper()
	for _, k := range c.cookies() {
		all = append(all, cookieFact{k.Name, k.Domain, k.Path, string(k.SameSite), k.Secure, k.HTTPOnly})
	}
	return all
}

// picture saves screenshots of the page in the folder E2E_PICTURES, if set: with light colors,
// dark colors, and on a phone.
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
