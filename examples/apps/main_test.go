package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session/sessiontest"
)

// A client is an app. It stores the tokens that it gets. Several goroutines may use it.
type client struct {
	h     http.Handler
	mu    sync.Mutex
	token string
}

func (c *client) do(method, path string, form url.Values) *http.Response {
	r := httptest.NewRequest(method, "https://example.test"+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	c.mu.Lock()
	r.Header.Set("Authorization", "Bearer "+cmp.Or(c.token, "none"))
	c.mu.Unlock()
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	resp := w.Result()
	if token, ok := resp.Header["Session-Token"]; ok {
		c.mu.Lock()
		c.token = token[0]
		c.mu.Unlock()
	}
	return resp
}

// devices returns what the app is told of the user's devices.
func (c *client) devices(t *testing.T) []row {
	t.Helper()
	resp := c.do("GET", "/", nil)
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	var v view
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v.Devices
}

func aliceAt(device string) url.Values {
	return url.Values{"user": {"alice"}, "password": {"wonderland"}, "device": {device}}
}

// visit requests a page, or posts an empty form.
func visit(t *testing.T, b *sessiontest.Browser, method, path string) (status int, page string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Accept", "text/html,*/*")
	resp := b.Do(r)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestBoth checks that browsers and apps see each other's sessions, and end them.
func TestBoth(t *testing.T) {
	h := app()
	b, phone := sessiontest.NewBrowser(t, h), &client{h: h}
	if resp := phone.do("GET", "/", nil); resp.StatusCode != 401 || !strings.Contains(resp.Header.Get("WWW-Authenticate"), "Bearer") {
		t.Errorf("a request without a session: %s %v", resp.Status, resp.Header)
	}
	if status, page := visit(t, b, "GET", "/"); status != 401 || !strings.Contains(page, "<h1>Log in</h1>") {
		t.Errorf("a page without a session: %d %s", status, page)
	}
	if resp := phone.do("POST", "/login", url.Values{"user": {"alice"}}); resp.StatusCode != 403 || phone.token != "" {
		t.Errorf("a wrong password: %s", resp.Status)
	}
	phone.do("POST", "/login", aliceAt("phone"))
	resp := b.PostForm("/login", aliceAt("laptop"))
	if phone.token == "" || len(resp.Cookies()) != 1 || resp.Header["Session-Token"] != nil {
		t.Fatalf("the app has %q, the browser %v", phone.token, resp.Header)
	}
	rows := phone.devices(t)
	if len(rows) != 2 || rows[0].IsThis == rows[1].IsThis {
		t.Fatalf("the app sees %v", rows)
	}
	if _, page := visit(t, b, "GET", "/"); !strings.Contains(page, "phone") || !strings.Contains(page, "laptop (this device)") {
		t.Errorf("the browser sees %s", page)
	}
	for _, row := range rows {
		if row.Name == "phone" {
			visit(t, b, "POST", "/devices/"+row.ID+"/logout")
		}
	}
	if resp := phone.do("GET", "/", nil); resp.StatusCode != 401 {
		t.Errorf("a revoked app: %s", resp.Status)
	}
	phone.do("POST", "/login", aliceAt("phone"))
	for _, row := range phone.devices(t) {
		if row.IsThis {
			phone.do("POST", "/devices/"+row.ID+"/logout", nil)
		}
	}
	if phone.token != "" {
		t.Error("an app that has logged out keeps its token")
	}
}

// TestKinds checks that no token is valid as a cookie, and no cookie as a token.
func TestKinds(t *testing.T) {
	h := app()
	b, phone := sessiontest.NewBrowser(t, h), &client{h: h}
	phone.do("POST", "/login", aliceAt("phone"))
	cookie := b.PostForm("/login", aliceAt("laptop")).Cookies()[0]

	stolen := httptest.NewRequest("GET", "/", nil)
	stolen.AddCookie(&http.Cookie{Name: cookie.Name, Value: phone.token})
	if resp := sessiontest.NewBrowser(t, h).Do(stolen); resp.StatusCode != 401 {
		t.Errorf("a token as a cookie: %s", resp.Status)
	}
	if resp := (&client{h: h, token: cookie.Value}).do("GET", "/", nil); resp.StatusCode != 401 {
		t.Errorf("a cookie as a token: %s", resp.Status)
	}
	stranger := &client{h: h}
	stranger.do("POST", "/login", url.Values{"user": {"bob"}, "password": {"builder"}})
	for _, row := range phone.devices(t) {
		stranger.do("POST", "/devices/"+row.ID+"/logout", nil)
	}
	if n := len(phone.devices(t)); n != 2 {
		t.Errorf("after another user's requests %d devices are left", n)
	}
}

// TestRenewal checks that the token of an app is replaced after a day, and that none of its
// concurrent requests fails.
func TestRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		phone := &client{h: app()}
		phone.do("POST", "/login", aliceAt("phone"))
		for day := range 5 {
			before := phone.token
			time.Sleep(25 * time.Hour)
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if resp := phone.do("GET", "/", nil); resp.StatusCode != 200 {
						t.Errorf("day %d: %s", day, resp.Status)
					}
				})
			}
			all.Wait()
			if phone.token == before {
				t.Errorf("day %d: the token was not replaced", day)
			}
		}
	})
}

// TestDevices checks that concurrent logins of many devices are all in the list.
func TestDevices(t *testing.T) {
	h := app()
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() { (&client{h: h}).do("POST", "/login", aliceAt(fmt.Sprint("app ", i))) })
		all.Go(func() { sessiontest.NewBrowser(t, h).PostForm("/login", aliceAt(fmt.Sprint("browser ", i))) })
	}
	all.Wait()
	phone := &client{h: h}
	phone.do("POST", "/login", aliceAt("phone"))
	names := map[string]bool{}
	for _, row := range phone.devices(t) {
		names[row.Name] = true
	}
	if len(names) != 21 {
		t.Errorf("the list has %d devices: %v", len(names), names)
	}
}
