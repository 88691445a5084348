package site

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

// sessionID returns the session id on the dashboard.
func (c *client) sessionID() string {
	c.t.Helper()
	_, page := c.get("/dashboard")
	_, rest, _ := strings.Cut(page, `data-session="`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

// listen opens the stream of events of a session, and returns its lines.
func (c *client) listen(id string) (*http.Response, <-chan string) {
	c.t.Helper()
	resp, err := c.http.Get(c.url + "/events?session=" + id)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { resp.Body.Close() })
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			if line := s.Text(); line != "" && line != ":" {
				lines <- line
			}
		}
	}()
	return resp, lines
}

// TestEvents checks that an open page learns that its session has ended, from another device or
// in another tab, and immediately if there is no session.
func TestEvents(t *testing.T) {
	site := serve(t)
	here, other := firefox(t, site), firefox(t, site)
	for _, c := range []struct {
		path string
		by   *client
	}{
		{"/devices/revoke-others", other},
		{"/logout", here},
		{"/login", here}, // as another user
	} {
		here.post("/login", "userId", "alice")
		other.post("/login", "userId", "alice")
		resp, lines := here.listen(here.sessionID())
		if ct := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || ct != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
		c.by.post(c.path, "userId", "bob")
		if line := <-lines; line != "event: ended" { // and no line before it
			t.Errorf("%s: %q", c.path, line)
		}
	}
	// A browser without a session, or with another session than the page's, does not reconnect.
	stranger := firefox(t, site)
	for range 2 {
		if status, body := stranger.get("/events?session=x"); status != http.StatusNoContent || body != "" {
			t.Errorf("%d %q, want 204", status, body)
		}
		stranger.post("/login", "userId", "carl")
	}
}

// TestEventsAreNoUse checks that an open page does not keep its session alive.
func TestEventsAreNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := session.Must(session.New(&session.Options{IdleTimeout: 20 * time.Minute}))
		b := sessiontest.NewBrowser(t, newApp(m, nil))
		b.PostForm("/login", nil)
		var id string
		b.Session(m, func(s *session.Session) { id = s.ID() })
		for n := range 7 { // as a browser that reconnects repeatedly
			ctx, hangUp := context.WithTimeout(t.Context(), 3*time.Minute)
			resp := b.Do(httptest.NewRequestWithContext(ctx, "GET", "/events?session="+id, nil))
			hangUp()
			lines, _ := io.ReadAll(resp.Body)
			if ended := strings.Contains(string(lines), "event: ended"); resp.StatusCode != 200 || ended != (n == 6) {
				t.Errorf("after %d minutes: %s %q", 3*(n+1), resp.Status, lines)
			}
		}
		r := httptest.NewRequest("GET", "/dashboard", nil)
		r.Header.Set("Accept", "text/html")
		resp := b.Do(r)
		if page, _ := io.ReadAll(resp.Body); resp.StatusCode != 401 || !strings.Contains(string(page), hasEnded) {
			t.Errorf("%s\n%s", resp.Status, page)
		}
	})
}

// TestEventsEndWithTheServer checks that the streams of open pages end at the shutdown of the
// server.
func TestEventsEndWithTheServer(t *testing.T) {
	closing := make(chan struct{})
	m := session.Must(session.New(&session.Options{Cookie: session.CookieOptions{Insecure: true}}))
	c := firefox(t, listen(t, newApp(m, closing)))
	c.post("/login")
	_, lines := c.listen(c.sessionID())
	close(closing)
	if line, more := <-lines; more {
		t.Errorf("%q", line)
	}
}

// TestHasEnded checks that only browsers whose session has ended are told the reason.
func TestHasEnded(t *testing.T) {
	site := serve(t)
	b, other := firefox(t, site), firefox(t, site)
	says := func(c *client, want bool) {
		t.Helper()
		if _, body := c.get("/login"); strings.Contains(body, hasEnded) != want {
			t.Errorf("the page gives the reason: %v, want %v", !want, want)
		}
	}
	says(b, false)
	b.post("/login")
	says(b, false)
	b.post("/logout")
	says(b, false)
	b.post("/login")
	other.post("/login")
	other.post("/devices/revoke-others")
	says(b, true)
	b.page(b.get("/dashboard"))(401, hasEnded)
	c := curl(t, site)
	c.http = b.http
	c.answer(c.get("/dashboard"))(401, "Please log in.")
	b.post("/login")
	says(b, false)
}
