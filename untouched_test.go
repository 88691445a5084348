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

// A request whose handler never asks for its session costs nothing, whatever
// cookies it brings: no call of the store, no header, no signature verified
// (securecookie's verification alone would be a dozen allocations).
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
		{"through itself", valid, func(w http.ResponseWriter, r *http.Request) { answer(w) }},
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
		if allocs > 2 {
			t.Errorf("%s: %v allocations, want at most 2", c.name, allocs)
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

// A flushingDiscard is a discard that has Flush.
type flushingDiscard struct{ discard }

func (*flushingDiscard) Flush() {}

// Allocations are exact, so they are held to. Three small values in memory, a
// cookie that was verified before, a writer that allocates nothing. What signing
// a new session's cookie takes is securecookie's and Go's.
func TestAllocations(t *testing.T) {
	codec := newCodec()
	signing := testing.AllocsPerRun(100, func() { codec.Encode("__Host-Http-session", make([]byte, 32)) })
	for _, c := range []struct {
		name   string
		path   string // of the session, see benchSetup
		cookie bool
		do     func(s *session.Session)
		most   float64
	}{
		{"read one value", "/", true, func(s *session.Session) { benchName.Get(s) }, 4},
		{"read one of 4 KB of values", "/big", true, func(s *session.Session) { benchName.Get(s) }, 4},
		{"read and write one value", "/", true, func(s *session.Session) { benchCount.Set(s, benchCount.Get(s)+1) }, 9},
		{"new session", "/", false, func(s *session.Session) { benchName.Set(s, "0123456789abcdef") }, signing + 15},
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
			t.Errorf("%s: measured nothing: %v", c.name, w.h)
		}
	}
}

// Verifying a signature costs more than all else, so that it is done once for a
// cookie, although thousands of others come between. It shows in allocations: a
// verification has twelve, a read without one four.
func TestCookieIsVerifiedOnce(t *testing.T) {
	const n = 10_000
	c := newCrowd(t, n, "/new")
	c.comeBack("/", 8)
	c.comeBack("/", 8) // who grows the table may be interrupted at it, the first time
	for _, goroutines := range []int{8, 1} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c.comeBack("/", goroutines)
		runtime.ReadMemStats(&after)
		if each := float64(after.Mallocs-before.Mallocs) / n; each > 6 {
			t.Errorf("%.1f allocations for a read, want 4: cookies were verified again", each)
		}
	}
}

// What a forged cookie costs is securecookie's verification, and no more.
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
	if got := testing.AllocsPerRun(100, func() { clear(w.h); h.ServeHTTP(w, r) }); got > verification+3 {
		t.Errorf("%v allocations, want 3 beside a verification's %v: the padding is one", got, verification)
	}
}

// A cookie is believed if the whole of it was verified before, not if it falls
// into the place of one in a table: of so many guesses several would.
func TestGuessesAreNotBelieved(t *testing.T) {
	c := newCrowd(t, 4000, "/new")
	c.comeBack("/", 1)
	visit := c.visitor("/number")
	guess := []byte(c.cookies[1])
	at := len(guess) - 60
	for i := range 500_000 {
		for j := range 5 {
			guess[at+j] = 'a' + byte(i>>(4*j)&15)
		}
		if got := visit(string(guess)).Get("Number"); got != "0" { // what an empty session has
			t.Fatalf("the %dth guess is in the session of %s", i, got)
		}
	}
}
