package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sessiontest"
)

const alice = `{"user": "alice", "password": "wonderland"}`

var secrets = [][]byte{[]byte("0123456789abcdef0123456789abcdef")}

// send sends a request as a browser does for the script of a page at origin.
func send(b *sessiontest.Browser, origin, method, path, body string) *http.Response {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Origin", origin)
	r.Header.Set("Sec-Fetch-Site", "same-site")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return b.Do(r)
}

type reply struct {
	User, Title string
	Clicks      int
}

// expect fails the test unless the front end can read the response, and it has this status and
// this type.
func expect(t *testing.T, resp *http.Response, status int, contentType string) (v reply) {
	t.Helper()
	h := resp.Header
	if resp.StatusCode != status || h.Get("Content-Type") != contentType {
		t.Fatalf("%s %s, want %d %s", resp.Status, h.Get("Content-Type"), status, contentType)
	}
	if h.Get("Access-Control-Allow-Origin") != frontEnd || h.Get("Access-Control-Allow-Credentials") != "true" {
		t.Fatalf("the front end cannot read this response: %v", h)
	}
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil && contentType != "" {
		t.Fatal(err)
	}
	return v
}

const (
	isJSON    = "application/json"
	isProblem = "application/problem+json"
)

func TestAPI(t *testing.T) {
	b := sessiontest.NewBrowser(t, api(session.Options{}))
	resp := send(b, frontEnd, "GET", "/me", "")
	if resp.Header.Get("WWW-Authenticate") == "" {
		t.Error("a 401 has no WWW-Authenticate")
	}
	expect(t, resp, 401, isProblem)
	expect(t, send(b, frontEnd, "POST", "/clicks", ""), 401, isProblem)
	expect(t, send(b, frontEnd, "POST", "/login", "user=alice"), 400, isProblem)
	expect(t, send(b, frontEnd, "POST", "/login", `{"user": "carol"}`), 403, isProblem)
	if v := expect(t, send(b, frontEnd, "POST", "/login", alice), 200, isJSON); v.User != "alice" {
		t.Errorf("the login answers %+v", v)
	}
	expect(t, send(b, frontEnd, "POST", "/clicks", ""), 200, isJSON)
	if v := expect(t, send(b, frontEnd, "GET", "/me", ""), 200, isJSON); v != (reply{User: "alice", Clicks: 1}) {
		t.Errorf("/me answers %+v", v)
	}
	expect(t, send(b, frontEnd, "POST", "/logout", ""), 200, "")
	expect(t, send(b, frontEnd, "GET", "/me", ""), 401, isProblem)
}

// TestOrigins checks which origins may send a POST or read a response.
func TestOrigins(t *testing.T) {
	b := sessiontest.NewBrowser(t, api(session.Options{}))
	expect(t, send(b, frontEnd, "POST", "/login", alice), 200, isJSON)
	preflight := func(origin string) *http.Response {
		r := httptest.NewRequest("OPTIONS", "/login", nil)
		r.Header.Set("Origin", origin)
		r.Header.Set("Access-Control-Request-Method", "POST")
		r.Header.Set("Access-Control-Request-Headers", "content-type")
		return b.Do(r)
	}
	resp := preflight(frontEnd)
	expect(t, resp, 204, "")
	if resp.Header.Get("Access-Control-Allow-Headers") != "Content-Type" {
		t.Errorf("the preflight allows %v", resp.Header)
	}
	for _, origin := range []string{"http://localhost:3000", "https://evil.test", "null"} {
		for _, resp := range []*http.Response{preflight(origin), send(b, origin, "GET", "/me", ""), send(b, origin, "POST", "/logout", "")} {
			if resp.Header.Get("Access-Control-Allow-Origin") != "" || !strings.Contains(strings.Join(resp.Header["Vary"], ","), "Origin") {
				t.Errorf("the response to %s has %v", origin, resp.Header)
			}
		}
		if resp := send(b, origin, "POST", "/logout", ""); resp.StatusCode != 403 {
			t.Errorf("a POST from %s: %s", origin, resp.Status)
		}
	}
	expect(t, send(b, frontEnd, "GET", "/me", ""), 200, isJSON)
}

// TestOutage checks that the front end can tell an outage of the store from a logout.
func TestOutage(t *testing.T) {
	store := sessiontest.NewStore(nil)
	b := sessiontest.NewBrowser(t, api(session.Options{Store: store, Secrets: secrets}))
	expect(t, send(b, frontEnd, "POST", "/login", alice), 200, isJSON)
	store.Fail(errors.New("the network is down"))
	for path, method := range map[string]string{"/me": "GET", "/clicks": "POST", "/logout": "POST"} {
		resp := send(b, frontEnd, method, path, "")
		if strings.Contains(expect(t, resp, 503, isProblem).Title, "network") || resp.Header["Set-Cookie"] != nil {
			t.Errorf("%s answers %v", path, resp.Header)
		}
	}
	store.Fail(nil)
	expect(t, send(b, frontEnd, "GET", "/me", ""), 200, isJSON)
}

// TestClicks checks that concurrent requests of one browser are all counted, each with a number of
// its own.
func TestClicks(t *testing.T) {
	b := sessiontest.NewBrowser(t, api(session.Options{}))
	expect(t, send(b, frontEnd, "POST", "/login", alice), 200, isJSON)
	const n = 20
	var responses [n]*http.Response
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { responses[i] = send(b, frontEnd, "POST", "/clicks", "") })
	}
	all.Wait()
	seen := map[int]bool{}
	for _, resp := range responses {
		seen[expect(t, resp, 200, isJSON).Clicks] = true
	}
	if len(seen) != n || expect(t, send(b, frontEnd, "GET", "/me", ""), 200, isJSON).Clicks != n {
		t.Errorf("%d clicks have the numbers %v", n, seen)
	}
}

// TestMeanwhile checks a click while another request of the browser has changed the session since the
// click has loaded it.
func TestMeanwhile(t *testing.T) {
	store := &interrupted{Store: session.NewMemoryStore(nil)}
	b := sessiontest.NewBrowser(t, api(session.Options{Store: store, Secrets: secrets}))
	expect(t, send(b, frontEnd, "POST", "/login", alice), 200, isJSON)
	click := func() *http.Response { return send(b, frontEnd, "POST", "/clicks", "") }

	store.next = func() { expect(t, click(), 200, isJSON) }
	if v := expect(t, click(), 200, isJSON); v.Clicks != 2 {
		t.Errorf("the second of two clicks has the number %d", v.Clicks)
	}
	store.next = func() { send(b, frontEnd, "POST", "/logout", "") }
	expect(t, click(), 401, isProblem)
	expect(t, send(b, frontEnd, "GET", "/me", ""), 401, isProblem)
}

// An interrupted store calls next, once, before a record is saved.
type interrupted struct {
	session.Store
	next func()
}

func (s *interrupted) Save(ctx context.Context, r *session.Record, old uint64) error {
	if f := s.next; f != nil {
		s.next = nil
		f()
	}
	return s.Store.Save(ctx, r, old)
}
