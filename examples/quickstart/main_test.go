package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestQuickstart(t *testing.T) {
	server := httptest.NewServer(app())
	defer server.Close()
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar}
	expect := func(resp *http.Response, err error) func(status int, want string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if c := resp.Header.Get("Set-Cookie"); strings.Contains(c, "Secure") {
			t.Errorf("%q does not come back over plain HTTP everywhere", c)
		}
		return func(status int, want string) {
			t.Helper()
			if resp.StatusCode != status || string(body) != want {
				t.Errorf("%s: %d %q, want %d %q", resp.Request.URL.Path, resp.StatusCode, body, status, want)
			}
		}
	}
	expect(client.Get(server.URL+"/dashboard"))(401, "Please log in.")
	expect(client.PostForm(server.URL+"/login", nil))(200, "Logged in and session created!")
	expect(client.Get(server.URL+"/dashboard"))(200, "Welcome back, user123!")
	expect(client.PostForm(server.URL+"/login", url.Values{"userId": {"alice"}}))(200, "Logged in and session created!")
	expect(client.Get(server.URL+"/dashboard"))(200, "Welcome back, alice!")
	expect(http.Get(server.URL+"/dashboard"))(401, "Please log in.")
}
