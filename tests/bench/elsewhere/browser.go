package main

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"sync"
	"time"
)

// browser keeps the cookies of one site, the newest of each name. Unlike net/http/cookiejar it
// sends Secure cookies to this machine without TLS, as browsers do.
type browser struct {
	site    *site
	mu      sync.Mutex
	cookies map[string]string
}

var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 2 * parallel}}

func newBrowser(s *site) *browser { return &browser{site: s, cookies: map[string]string{}} }

// clone returns another browser with the same cookies.
func (b *browser) clone() *browser {
	b.mu.Lock()
	defer b.mu.Unlock()
	return &browser{site: b.site, cookies: maps.Clone(b.cookies)}
}

// get requests a page and returns its body.
func (b *browser) get(path string) string {
	req, err := http.NewRequest("GET", b.site.url+path, nil)
	if err != nil {
		b.fail(err)
	}
	b.mu.Lock()
	for name, value := range b.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	b.mu.Unlock()
	resp, err := client.Do(req)
	if err != nil {
		b.fail(err)
	}
	defer resp.Body.Close()
	// A browser stores cookies when the header has arrived, before the body.
	b.mu.Lock()
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 || !c.Expires.IsZero() && c.Expires.Before(time.Now()) {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	b.mu.Unlock()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	if err != nil {
		b.fail(err)
	}
	return string(body)
}

func (b *browser) fail(err error) { log.Fatalf("%s: %v", b.site.name, err) }
