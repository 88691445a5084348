package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coatcheck/session/sessiontest"
)

func TestQuickstart(t *testing.T) {
	h := app()
	expect := func(resp *http.Response, status int, want string) {
		t.Helper()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != status || string(body) != want {
			t.Errorf("%d %q %v, want %d %q", resp.StatusCode, body, err, status, want)
		}
		if c := resp.Header.Get("Set-Cookie"); c != "" && !strings.Contains(c, "; Secure") {
			t.Errorf("%q has no Secure attribute", c)
		}
	}
	b := sessiontest.NewBrowser(t, h)
	expect(b.Get("/dashboard"), 401, "Please log in.")
	expect(b.PostForm("/login", nil), 200, "Logged in and session created!")
	expect(b.Get("/dashboard"), 200, "Welcome back, user123!")
	expect(b.PostForm("/login", url.Values{"userId": {"alice"}}), 200, "Logged in and session created!")
	expect(b.Get("/dashboard"), 200, "Welcome back, alice!")
	expect(sessiontest.NewBrowser(t, h).Get("/dashboard"), 401, "Please log in.")
}
