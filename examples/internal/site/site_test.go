package site

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
	"github.com/coatcheck/session/sessiontest"
)

// client sends requests to the example and keeps its cookies.
type client struct {
	t      *testing.T
	url    string
	header http.Header
	http   *browsers.Browser
}

func serve(t *testing.T) (url string) {
	t.Helper()
	opts, err := options(env{}.get)
	if err != nil {
		t.Fatal(err)
	}
	return listen(t, newApp(session.Must(session.New(opts)), nil))
}

func listen(t *testing.T, h http.Handler) (url string) {
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// curl returns a client that accepts any response, as curl does.
func curl(t *testing.T, url string) *client {
	return &client{t: t, url: url, header: http.Header{"Accept": {"*/*"}, "User-Agent": {"curl/8.5.0"}}, http: browsers.New(t, nil)}
}

// firefox returns a client that requests pages.
func firefox(t *testing.T, url string) *client {
	c := curl(t, url)
	c.header = http.Header{
		"Accept":         {"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"},
		"User-Agent":     {"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"},
		"Sec-Fetch-Site": {"same-origin"},
	}
	return c
}

func (c *client) get(path string) (int, string) { return c.do("GET", path, nil) }

// post sends a form: form alternates names and values.
func (c *client) post(path string, form ...string) (int, string) {
	v := url.Values{}
	for i := 0; i < len(form); i += 2 {
		v.Set(form[i], form[i+1])
	}
	return c.do("POST", path, v)
}

func (c *client) do(method, path string, form url.Values) (int, string) {
	c.t.Helper()
	r, _ := http.NewRequest(method, c.url+path, strings.NewReader(form.Encode()))
	r.Header = c.header.Clone()
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}

// answer fails the test unless a response is exactly this.
func (c *client) answer(status int, body string) func(wantStatus int, want string) {
	return func(wantStatus int, want string) {
		c.t.Helper()
		if status != wantStatus || body != want {
			c.t.Errorf("answer %d %q, want %d %q", status, body, wantStatus, want)
		}
	}
}

// page fails the test unless a response is a page with all of these parts.
func (c *client) page(status int, body string) func(wantStatus int, parts ...string) {
	return func(wantStatus int, parts ...string) {
		c.t.Helper()
		if status != wantStatus || !strings.HasPrefix(body, "<!DOCTYPE html>") {
			c.t.Fatalf("answer %d %q, want a page and %d", status, body, wantStatus)
		}
		for _, part := range parts {
			if !strings.Contains(body, part) {
				c.t.Errorf("the page lacks %q:\n%s", part, body)
			}
		}
	}
}

func TestCurl(t *testing.T) {
	c := curl(t, serve(t))
	c.page(c.get("/login"))(200, `<form method="post" action="/login"`, `name="userId" value="user123"`)
	c.answer(c.get("/dashboard"))(401, "Please log in.")
	c.answer(c.post("/login"))(200, "Logged in and session created!")
	c.answer(c.get("/dashboard"))(200, "Welcome back, user123!")
	c.answer(c.post("/login", "userId", "alice"))(200, "Logged in and session created!")
	c.answer(c.get("/dashboard"))(200, "Welcome back, alice!")
	c.answer(c.post("/logout"))(200, "You are signed out.")
	c.answer(c.get("/dashboard"))(401, "Please log in.")
}

func TestBrowser(t *testing.T) {
	b := firefox(t, serve(t))
	b.page(b.get("/"))(200, "no passwords")
	b.page(b.get("/dashboard"))(401, "Please log in.", `action="/login"`)
	b.page(b.post("/login", "userId", "<Ann>"))(200,
		"You are logged in as &lt;Ann&gt;.", "Welcome back, &lt;Ann&gt;!", `id="visits">1<`)
	status, second := b.get("/dashboard")
	b.page(status, second)(200, `id="visits">2<`, "Firefox on Linux", "this device")
	if strings.Contains(second, "You are logged in as") {
		t.Error("the flash was shown twice")
	}
	b.page(b.get("/"))(200, "Welcome back")
	b.page(b.post("/logout"))(200, "You are signed out.", "no passwords")
	b.page(b.get("/dashboard"))(401, "Please log in.")
}

// TestCookiePanel checks that the panel shows the header that the login has sent, without its
// value.
func TestCookiePanel(t *testing.T) {
	for _, test := range []struct {
		name, remember string
		want           []string
	}{
		{"plain", "", []string{"session=MT", "••••••••; Path=/; HttpOnly; SameSite=Lax</code>", "Max-Age</code> <span"}},
		{"remembered", "yes", []string{"••••••••; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax</code>", "Remember me: the browser keeps"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := firefox(t, serve(t))
			status, body := b.post("/login", "remember", test.remember)
			b.page(status, body)(200, test.want...)
			value := b.http.Cookies(b.url)[0].Value
			if len(value) < 100 || strings.Contains(body, value[:20]) {
				t.Errorf("the page shows the cookie's value %q", value)
			}
		})
	}
}

func TestDevices(t *testing.T) {
	site := serve(t)
	here, other, third, stranger := firefox(t, site), curl(t, site), curl(t, site), curl(t, site)
	in := func(c *client) {
		t.Helper()
		c.answer(c.get("/dashboard"))(200, "Welcome back, alice!")
	}
	out := func(c *client) {
		t.Helper()
		c.answer(c.get("/dashboard"))(401, "Please log in.")
	}
	here.post("/login", "userId", "alice")
	other.post("/login", "userId", "alice")
	stranger.post("/login", "userId", "bob")

	_, body := here.get("/dashboard")
	ids := deviceIDs(body)
	if len(ids) != 2 || !strings.Contains(body, "curl") {
		t.Fatalf("%d devices on the page, want 2, one of them curl:\n%s", len(ids), body)
	}
	stranger.answer(stranger.post("/devices/revoke", "id", ids[1]))(200, "That device is signed out.")
	in(other) // because the session does not belong to the other user
	here.page(here.post("/devices/revoke", "id", ids[1]))(200, "That device is signed out.")
	out(other)

	other.post("/login", "userId", "alice")
	third.post("/login", "userId", "alice")
	here.page(here.post("/devices/revoke-others"))(200, "All your other devices are signed out.", "Welcome back, alice!")
	out(other)
	out(third)

	other.post("/login", "userId", "alice")
	in(other)
	here.page(here.post("/devices/revoke-all"))(200, "You are signed out everywhere.", "no passwords")
	out(other)
	here.page(here.get("/dashboard"))(401, "Please log in.")
	stranger.answer(stranger.get("/dashboard"))(200, "Welcome back, bob!")

	// The row of this device is a logout.
	here.post("/login", "userId", "alice")
	_, body = here.get("/dashboard")
	here.page(here.post("/devices/revoke", "id", deviceIDs(body)[0]))(200, "You are signed out.")
	here.page(here.get("/dashboard"))(401)
}

// TestReplacedCookie checks that a tab with the cookie from before a login as another user is
// asked to try again, not to log in. After another login of the same user the tab loses
// nothing.
func TestReplacedCookie(t *testing.T) {
	b, late := firefox(t, serve(t)), firefox(t, "")
	b.post("/login")
	late.url, late.http = b.url, b.http.Copy(t, b.url)
	b.post("/login")
	late.page(late.get("/dashboard"))(200, "Welcome back, user123!")
	b.post("/login", "userId", "bob")
	late.page(late.get("/dashboard"))(401, "Please reload this page.")
	late.header.Set("Accept", "*/*")
	late.answer(late.get("/dashboard"))(401, "Please log in.")
	b.page(b.get("/dashboard"))(200, "Welcome back, bob!")
}

func TestStrangersChangeNothing(t *testing.T) {
	c := curl(t, serve(t))
	for _, path := range []string{"/logout", "/devices/revoke", "/devices/revoke-others", "/devices/revoke-all"} {
		c.answer(c.post(path))(401, "Please log in.")
	}
}

var idField = regexp.MustCompile(`name="id" value="([^"]+)"`)

// deviceIDs returns the session ids on a dashboard, that of this device first.
func deviceIDs(page string) (ids []string) {
	for _, m := range idField.FindAllStringSubmatch(page, -1) {
		ids = append(ids, m[1])
	}
	return ids
}

func TestOtherSitesAreRefused(t *testing.T) {
	b := firefox(t, serve(t))
	b.post("/login")
	for _, path := range []string{"/login", "/logout", "/devices/revoke", "/devices/revoke-others", "/devices/revoke-all"} {
		b.header.Set("Sec-Fetch-Site", "cross-site")
		if status, _ := b.post(path, "userId", "mallory"); status != 403 {
			t.Errorf("POST %s from another site: %d, want 403", path, status)
		}
		b.header.Set("Sec-Fetch-Site", "same-origin")
		if status, _ := b.get(path); path != "/login" && status != 405 {
			t.Errorf("GET %s: %d, want 405", path, status)
		}
	}
	b.page(b.get("/dashboard"))(200, "Welcome back, user123!")
}

func TestUnreadableNames(t *testing.T) {
	c := curl(t, serve(t))
	for _, name := range []string{strings.Repeat("a", 41), "a\nb", "a\u202eb", "\xff"} {
		if status, _ := c.post("/login", "userId", name); status != 400 {
			t.Errorf("POST /login as %q: %d, want 400", name, status)
		}
	}
	c.answer(c.post("/login", "userId", "alice", "more", strings.Repeat("x", 5<<10)))(400, "That form could not be read.")
	c.answer(c.get("/dashboard"))(401, "Please log in.")
}

// TestDevicesAskAgain checks that only users who have logged in within the last five minutes,
// or who confirm, can end other sessions. They can always end their own.
func TestDevicesAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := session.Must(session.New(&session.Options{Cookie: session.CookieOptions{Insecure: true}}))
		h := newApp(m, nil)
		here, other := sessiontest.NewBrowser(t, h), sessiontest.NewBrowser(t, h)
		var there string // the id of the other session
		user := func(b *sessiontest.Browser) (user string) {
			b.Session(m, func(s *session.Session) { user = s.User() })
			return user
		}
		for _, path := range []string{"/devices/revoke", "/devices/revoke-others", "/devices/revoke-all"} {
			for _, b := range []*sessiontest.Browser{here, other} {
				b.PostForm("/login", url.Values{"userId": {"alice"}})
			}
			other.Session(m, func(s *session.Session) { there = s.ID() })
			time.Sleep(6 * time.Minute)
			form := url.Values{"id": {there}}
			if resp := here.PostForm(path, form); resp.StatusCode != http.StatusForbidden || user(other) != "alice" {
				t.Errorf("%s after six minutes: %s, the other is %q", path, resp.Status, user(other))
			}
			here.PostForm("/confirm", nil)
			if resp := here.PostForm(path, form); resp.StatusCode != http.StatusOK || user(other) != "" {
				t.Errorf("%s after the confirmation: %s, the other is %q", path, resp.Status, user(other))
			}
		}
		here.PostForm("/login", nil)
		var own string
		here.Session(m, func(s *session.Session) { own = s.ID() })
		time.Sleep(6 * time.Minute)
		if resp := here.PostForm("/devices/revoke", url.Values{"id": {own}}); resp.StatusCode != http.StatusOK || user(here) != "" {
			t.Errorf("its own session: %s, %q", resp.Status, user(here))
		}
	})
}
