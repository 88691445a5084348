package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/examples/integrations/oidc/issuer"
	"github.com/coatcheck/session/internal/testing/browsers"
)

// world is an issuer and an application, each on a server of its own.
type world struct {
	t        *testing.T
	issuer   *issuer.Issuer
	app      string
	sessions *session.Manager
}

func newWorld(t *testing.T, formPost bool) *world {
	t.Helper()
	is, err := issuer.New("example")
	if err != nil {
		t.Fatal(err)
	}
	provider := httptest.NewServer(is)
	t.Cleanup(provider.Close)
	is.URL = provider.URL
	var h http.Handler
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	own := strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // another site
	is.Redirects = []string{own + "/callback"}
	h, sessions, err := setUp(t.Context(), is.URL, own, formPost)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, is, own, sessions}
}

// browser returns a client that keeps cookies and follows redirects.
func (x *world) browser() *http.Client { return browsers.New(x.t, nil).Client }

// ask sends a request, and returns the status, the final address and the body.
func (x *world) ask(c *http.Client, method, url string, form url.Values, header ...string) (int, string, string) {
	x.t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(form.Encode()))
	if err != nil {
		x.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return resp.StatusCode, resp.Request.URL.String(), string(body)
}

// begin follows the redirects to the issuer's form, and returns its address.
func (x *world) begin(c *http.Client) string {
	x.t.Helper()
	_, at, _ := x.ask(c, "GET", x.app+"/login", nil)
	if !strings.HasPrefix(at, x.issuer.URL+"/authorize?") {
		x.t.Fatalf("the login redirects to %s", at)
	}
	return at
}

// end submits the form, and checks that the user is logged in.
func (x *world) end(c *http.Client, at, user string) {
	x.t.Helper()
	if status, _, body := x.ask(c, "POST", at, url.Values{"sub": {user}}); body != "You are "+user+"." {
		x.t.Errorf("after the sign-in: %d %s", status, body)
	}
}

// TestSignIn signs in; goes back to the issuer's form, whose state was used, so that another
// sign-in begins; and completes ten concurrent sign-ins of one browser one after the other.
func TestSignIn(t *testing.T) {
	x := newWorld(t, false)
	c := x.browser()
	first := x.begin(c)
	x.end(c, first, "alice")
	_, again, _ := x.ask(c, "POST", first, url.Values{"sub": {"alice"}})
	if !strings.HasPrefix(again, x.issuer.URL+"/authorize?") || again == first {
		t.Errorf("the back button redirects to %s", again)
	}
	x.end(c, again, "alice")

	c = x.browser()
	for _, at := range x.tabs(c) {
		x.end(c, at, "bob")
	}
}

// tabs begins ten sign-ins in one browser.
func (x *world) tabs(c *http.Client) (all []string) {
	x.ask(c, "GET", x.app+"/login", nil) // creates the session
	for range 10 {
		all = append(all, x.begin(c))
	}
	return all
}

// TestSignInsAtOnce lets ten tabs return from the provider concurrently: none gets an error
// page. Each login ends the session of the previous one, and the browser keeps the cookie of
// the response that arrives last, so a tab may have to log in again.
func TestSignInsAtOnce(t *testing.T) {
	x := newWorld(t, false)
	c := x.browser()
	var all sync.WaitGroup
	for _, at := range x.tabs(c) {
		all.Go(func() {
			if status, ends, body := x.ask(c, "POST", at, url.Values{"sub": {"bob"}}); status != 200 {
				t.Errorf("%s was answered %d %s", ends, status, body)
			}
		})
	}
	all.Wait()
}

// TestCallbackIsUsedOnce sends ten concurrent callbacks of one sign-in: one of them uses the
// code.
func TestCallbackIsUsedOnce(t *testing.T) {
	x := newWorld(t, false)
	c := x.browser()
	at := x.begin(c)
	issued := *c
	issued.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r, err := issued.PostForm(at, url.Values{"sub": {"alice"}})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if status, ends, body := x.ask(c, "GET", r.Header.Get("Location"), nil); status != 200 {
				t.Errorf("%s was answered %d %s", ends, status, body)
			}
		})
	}
	all.Wait()
	if _, _, body := x.ask(c, "GET", x.app, nil); body != "You are alice." {
		t.Errorf("afterwards: %s", body)
	}
}

// TestStateOfAnotherBrowser checks that a callback with the state of another browser begins a
// new sign-in.
func TestStateOfAnotherBrowser(t *testing.T) {
	x := newWorld(t, false)
	mallory, victim := x.browser(), x.browser()
	at := x.begin(mallory)
	mallory.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r, err := mallory.PostForm(at, url.Values{"sub": {"mallory"}})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	_, ends, _ := x.ask(victim, "GET", r.Header.Get("Location"), nil)
	if !strings.HasPrefix(ends, x.issuer.URL+"/authorize?") {
		t.Errorf("the callback redirects to %s", ends)
	}
	if _, _, body := x.ask(victim, "GET", x.app, nil); strings.Contains(body, "mallory") {
		t.Errorf("the victim is %s", body)
	}
}

// TestRedirectElsewhere checks that the issuer redirects to its client only, whatever the
// request names.
func TestRedirectElsewhere(t *testing.T) {
	for _, formPost := range []bool{false, true} {
		x := newWorld(t, formPost)
		c := x.browser()
		begun, err := url.Parse(x.begin(c))
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"", "https://evil.example/callback", x.app + "/callback/../other", x.app + "/callback?then=//evil.example"} {
			q := begun.Query()
			q.Set("redirect_uri", to)
			at := *begun
			at.RawQuery = q.Encode()
			if status, ended, body := x.ask(c, "POST", at.String(), url.Values{"sub": {"alice"}}); status != http.StatusBadRequest || strings.Contains(body, "code") {
				t.Errorf("%q: %d at %s: %s", to, status, ended, body)
			}
		}
	}
}

// TestFormPost covers the form of the provider, which posts from another site without the Lax
// cookie.
func TestFormPost(t *testing.T) {
	x := newWorld(t, true)
	c := x.browser()
	_, _, form := x.ask(c, "POST", x.begin(c), url.Values{"sub": {"alice"}})
	fields := url.Values{}
	for _, m := range regexp.MustCompile(`name="(\w+)" value="([^"]*)"`).FindAllStringSubmatch(form, -1) {
		fields.Set(m[1], m[2])
	}
	bare := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequest("POST", x.app+"/callback", strings.NewReader(fields.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Dest": {"document"}, "Origin": {x.issuer.URL}}
	resp, err := bare.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || resp.Header["Set-Cookie"] != nil {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	if _, _, body := x.ask(c, "GET", x.app+resp.Header.Get("Location"), nil); body != "You are alice." {
		t.Errorf("after the sign-in: %s", body)
	}
}

// TestAccessTokenIsKeptFresh lets twenty concurrent requests find an expired access token: the
// refresh token is used once, and the next one once when that access token has expired.
func TestAccessTokenIsKeptFresh(t *testing.T) {
	x := newWorld(t, false)
	x.issuer.ExpiresIn = time.Second // expired for the application, which refreshes ten seconds early
	c := x.browser()
	x.end(c, x.begin(c), "alice")
	x.issuer.ExpiresIn = time.Hour
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for range 20 {
		all.Go(func() {
			status, _, body := x.ask(c, "GET", x.app+"/api", nil)
			mu.Lock()
			defer mu.Unlock()
			seen[fmt.Sprint(status, " ", body)]++
		})
	}
	all.Wait()
	if x.issuer.Refreshes != 1 || x.issuer.Revoked || len(seen) != 1 {
		t.Errorf("%d refreshes, revoked: %v, answers %v", x.issuer.Refreshes, x.issuer.Revoked, seen)
	}
}

// TestTriesAreBounded checks that a callback is repeated at most five times, whatever the query
// says, and waits no longer than its request.
func TestTriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for try, c := range map[string]struct {
			ctx   context.Context
			again bool
			waits time.Duration
		}{
			"":                     {t.Context(), true, 0},
			"4":                    {t.Context(), true, 400 * time.Millisecond},
			"5":                    {t.Context(), false, 0},
			"6":                    {t.Context(), false, 0},
			"100000000":            {t.Context(), false, 0},
			"-100000000":           {t.Context(), false, 0},
			"99999999999999999999": {t.Context(), false, 0},
			"3":                    {gone, true, 0},
		} {
			begun := time.Now()
			r := httptest.NewRequestWithContext(c.ctx, "GET", "/callback?try="+try, nil)
			again := new(app).again(httptest.NewRecorder(), r)
			if waited := time.Since(begun); again != c.again || waited != c.waits {
				t.Errorf("try=%s: again %v after %v, want %v after %v", try, again, waited, c.again, c.waits)
			}
		}
	})
}

// TestBackChannelLogout checks that a logout at the provider ends one session here, or all of
// the user.
func TestBackChannelLogout(t *testing.T) {
	x := newWorld(t, false)
	one, two, other := x.browser(), x.browser(), x.browser()
	for c, user := range map[*http.Client]string{one: "alice", two: "alice", other: "bob"} {
		x.end(c, x.begin(c), user)
	}
	in := func(c *http.Client, want bool) {
		t.Helper()
		if _, _, body := x.ask(c, "GET", x.app, nil); strings.HasPrefix(body, "You are ") != want {
			t.Errorf("logged in: %v, want %v", !want, want)
		}
	}
	logout := func(token string, want int) {
		t.Helper()
		status, _, body := x.ask(http.DefaultClient, "POST", x.app+"/backchannel-logout", url.Values{"logout_token": {token}})
		if status != want {
			t.Errorf("%d %s, want %d", status, body, want)
		}
	}
	stranger, err := issuer.New("example")
	if err != nil {
		t.Fatal(err)
	}
	stranger.URL = x.issuer.URL
	logout(stranger.LogoutToken("alice", ""), 400)             // forged
	logout(x.issuer.Sign(map[string]any{"sub": "alice"}), 400) // an ID token
	logout(x.issuer.LogoutToken("", ""), 400)                  // without a subject
	logout("", 400)
	in(one, true)

	all, err := x.sessions.List(t.Context(), "alice")
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	newest, _ := sid.Of(all[0])
	logout(x.issuer.LogoutToken("alice", newest), 200)
	left := 0
	for _, c := range []*http.Client{one, two} {
		if _, _, body := x.ask(c, "GET", x.app, nil); strings.HasPrefix(body, "You are ") {
			left++
		}
	}
	if left != 1 {
		t.Errorf("%d sessions of alice are left, want 1", left)
	}
	logout(x.issuer.LogoutToken("alice", ""), 200)
	in(one, false)
	in(two, false)
	in(other, true)
}
