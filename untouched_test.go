//go:build !race

package session_test

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// TestUntouchedCostsNothing checks that a request whose handler does not use its session costs
// nothing, whatever cookies it has: no store call, no header, no signature verification (which
// alone would be a dozen allocations).
func TestUntouchedCostsNothing(t *testing.T) {
	spy, told := newSpy(), &events{}
	m := newManager(t, session.Options{Store: spy, OnEvent: told.on})
	valid := open(t, m, "alice")
	forged := valid[:len(valid)-2] + "AA"
	for _, c := range []struct {
		name, cookie string
		handler      func(w http.ResponseWriter, r *http.Request)
	}{
		{"no cookie", "", func(w http.ResponseWriter, r *http.Request) { answer(w) }},
		{"a valid cookie", valid, func(w http.ResponseWriter, r *http.Request) { answer(w) }},
		{"forged cookies", strings.Repeat(forged+"; ", 4), func(w http.ResponseWriter, r *http.Request) { answer(w) }},
		{"nothing written", valid, func(http.ResponseWriter, *http.Request) {}},
		{"flushed", valid, func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush() }},
		{"From, and no method", valid, func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()); answer(w) }},
		{"a Manager inside itself", valid, func(w http.ResponseWriter, r *http.Request) { answer(w) }},
	} {
		h := m.Handler(http.HandlerFunc(c.handler))
		if c.name == "through itself" {
			h = m.Handler(m.Handler(h))
		}
		spy.forget()
		r := httptest.NewRequest("GET", "https://localhost/", nil)
		r.Header.Set("Cookie", c.cookie)
		w := &flushingDiscard{discard{http.Header{}}}
		allocs := testing.AllocsPerRun(100, func() { h.ServeHTTP(w, r) })
		if allocs > 1 {
			t.Errorf("%s: %v allocations, want 1", c.name, allocs)
		}
		if got := spy.summary(); got != "" {
			t.Errorf("%s: the store was called: %s", c.name, got)
		}
		if len(w.h) != 0 {
			t.Errorf("%s: the header is %v", c.name, w.h)
		}
	}
	if told.count(session.EventRejected) > 0 {
		t.Error("a signature was verified")
	}
}

// flushingDiscard is a discard with Flush.
type flushingDiscard struct{ discard }

func (*flushingDiscard) Flush() {}

// TestAllocations checks the exact numbers of allocations: three small values in memory, a
// cookie that was verified before, a writer that does not allocate. The allocations for the
// signature of a new cookie are those of securecookie and Go.
func TestAllocations(t *testing.T) {
	codec := newCodec()
	signing := testing.AllocsPerRun(100, func() { codec.Encode("__Host-Http-session", make([]byte, 32)) })
	for _, c := range []struct {
		name   string
		path   string // selects the session, see benchSetup
		cookie bool
		do     func(s *session.Session)
		most   float64
	}{
		{"read one value", "/", true, func(s *session.Session) { benchName.Get(s) }, 3},
		{"read one of 4 KB of values", "/big", true, func(s *session.Session) { benchName.Get(s) }, 3},
		{"read and write one value", "/", true, func(s *session.Session) { benchCount.Set(s, benchCount.Get(s)+1) }, 8},
		{"new session", "/", false, func(s *session.Session) { benchName.Set(s, "0123456789abcdef") }, signing + 14},
	} {
		h, cookie := benchSetup(c.path, func(w http.ResponseWriter, r *http.Request) {
			c.do(session.From(r.Context()))
			answer(w)
		})
		r := httptest.NewRequest("GET", "https://localhost/", nil)
		if c.cookie {
			r.Header.Set("Cookie", cookie)
		}
		w := &discard{http.Header{}}
		allocs := testing.AllocsPerRun(200, func() {
			clear(w.h)
			h.ServeHTTP(w, r)
		})
		if allocs > c.most {
			t.Errorf("%s: %v allocations, want at most %v", c.name, allocs, c.most)
		}
		t.Logf("%s: %v allocations", c.name, allocs)
		if w.h["Vary"] == nil {
			t.Errorf("%s: the session was not used: %v", c.name, w.h)
		}
	}
}

// TestDeviceAllocations checks that Options.DeviceBound costs a read no allocation: neither in a
// browser that has bound its session, nor in another, nor for a request that uses no session.
func TestDeviceAllocations(t *testing.T) {
	atBoundSite(t, session.Options{}, func(s *boundSite) {
		s.logIn()
		unbound := newBrowser(t, s.h)
		unbound.get("/login?bob")
		h := s.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/read" {
				benchName.Get(session.From(r.Context()))
			}
			answer(w)
		}))
		for what, c := range map[string]struct {
			b    *browser
			path string
			most float64
		}{
			"bound":             {s.b.browser, "/read", 3},
			"not bound":         {unbound, "/read", 3},
			"bound, not used":   {s.b.browser, "/", 1},
			"unbound, not used": {unbound, "/", 1},
		} {
			r := c.b.request(c.path)
			w := &discard{http.Header{}}
			if allocs := testing.AllocsPerRun(100, func() { clear(w.h); h.ServeHTTP(w, r) }); allocs > c.most {
				t.Errorf("%s: %v allocations, want at most %v", what, allocs, c.most)
			}
			if isUsed := w.h["Vary"] != nil; isUsed != (c.path == "/read") {
				t.Errorf("%s: %v", what, w.h)
			}
		}
	})
}

// TestCookieIsVerifiedOnce checks that a cookie is verified once, because verification is the
// most expensive step, even if thousands of other cookies are presented in between. A
// verification has twelve allocations, a read without one three.
func TestCookieIsVerifiedOnce(t *testing.T) {
	const n = 10_000
	c := newCrowd(t, n, "/new")
	c.comeBack("/", 8)
	c.comeBack("/", 8) // the first round also grows the table
	for _, goroutines := range []int{8, 1} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c.comeBack("/", goroutines)
		runtime.ReadMemStats(&after)
		if each := float64(after.Mallocs-before.Mallocs) / n; each > 5 {
			t.Errorf("%.1f allocations for a read, want 3: cookies were verified again", each)
		}
	}
}

// TestForgedCookieCostsOneVerification checks that a forged cookie costs one verification of
// securecookie, and no more.
func TestForgedCookieCostsOneVerification(t *testing.T) {
	h, cookie := benchSetup("/", func(w http.ResponseWriter, r *http.Request) {
		if !session.From(r.Context()).IsNew() {
			t.Error("believed a forged cookie")
		}
		answer(w)
	})
	name, value, _ := strings.Cut(forge(cookie), "=")
	codec, padded := newCodec(), value+"=="
	verification := testing.AllocsPerRun(100, func() {
		var token []byte
		if codec.Decode(name, padded, &token) == nil {
			t.Error("believed a forged cookie")
		}
	})
	r, w := httptest.NewRequest("GET", "https://localhost/", nil), &discard{http.Header{}}
	r.Header.Set("Cookie", name+"="+value)
	if got := testing.AllocsPerRun(100, func() { clear(w.h); h.ServeHTTP(w, r) }); got > verification+2 {
		t.Errorf("%v allocations, want 2 beside a verification's %v: the padding is one", got, verification)
	}
}

// TestGuessedCookiesAreRefused checks that a cookie is accepted only if the whole value was
// verified before, not if it has the place of another in the table, as several of this many
// guesses have.
func TestGuessedCookiesAreRefused(t *testing.T) {
	t.Parallel()
	c := newCrowd(t, 4000, "/new")
	c.comeBack("/", 1)
	visit := c.visitor("/number")
	guess := []byte(c.cookies[1])
	at := len(guess) - 60
	for i := range 250_000 {
		for j := range 5 {
			guess[at+j] = 'a' + byte(i>>(4*j)&15)
		}
		if got := visit(string(guess)).Get("Number"); got != "0" { // the value of an empty session
			t.Fatalf("the %dth guess is in the session of %s", i, got)
		}
	}
}
