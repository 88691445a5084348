package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const secret = "0123456789abcdef0123456789abcdef"

// start starts the program, and returns its address and a function that ends it.
func start(t *testing.T, path string) (url string, end func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, listener, path, secret) }()
	return "http://" + listener.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// request sends a request with a cookie, and returns the page and the first cookie of the response.
func request(t *testing.T, method, url, cookie string) (page, set string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Cookie", cookie)
	resp, err := http.DefaultTransport.RoundTrip(r) // which follows no redirect
	if err != nil {
		t.Error(err)
		return "", ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	set, _, _ = strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	return string(b), set
}

func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	url, end := start(t, path)
	_, cookie := request(t, "POST", url+"/login", "")
	const visits = 20
	var all sync.WaitGroup
	for range visits {
		all.Go(func() { request(t, "GET", url+"/", cookie) })
	}
	all.Wait()
	end()

	url, end = start(t, path)
	defer end()
	want := fmt.Sprintf("Hello alice, this is your visit number %d.", visits+1)
	if page, _ := request(t, "GET", url+"/", cookie); page != want {
		t.Errorf("after a restart the page is %q, want %q", page, want)
	}
	if page, _ := request(t, "GET", url+"/", ""); !strings.Contains(page, "Log in") {
		t.Errorf("without a cookie the page is %q", page)
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ path, secret, want string }{
		{filepath.Join(t.TempDir(), "no", "folder"), secret, "no such file"},
		{filepath.Join(t.TempDir(), "sessions.db"), "", "Secrets"},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if err := serve(t.Context(), listener, c.path, c.secret); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		listener.Close()
	}
}
