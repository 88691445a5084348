package session_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// The two secrets of a rotation.
var (
	oldSecret = bytes.Repeat([]byte("old!"), 8)
	newSecret = bytes.Repeat([]byte("new!"), 8)
)

// reception says at "/" who comes in, and does what the other paths say.
var reception = routes{
	"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		user := s.User()
		if err := s.Err(); err != nil {
			user = "error: " + err.Error()
		}
		fmt.Fprint(w, user)
	},
	"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login(r.URL.RawQuery) },
	"/set":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "x") },
	"/renew": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
	"/remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		d, _ := time.ParseDuration(r.URL.RawQuery)
		s.Remember(d)
	},
	"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
	"/reload-logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Reload(r.Context())
		s.Logout()
	},
}

// present requests a path with these lines of Cookie header.
func present(h http.Handler, path string, lines ...string) *http.Response {
	r := httptest.NewRequest("GET", "https://localhost"+path, nil)
	r.Header["Cookie"] = lines
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// issued returns the one cookie that a response sets.
func issued(t testing.TB, resp *http.Response) *http.Cookie {
	t.Helper()
	if cs := resp.Cookies(); len(cs) == 1 {
		return cs[0]
	}
	t.Fatalf("status %d sets %q, want one cookie", resp.StatusCode, resp.Header["Set-Cookie"])
	return nil
}

// logIn returns the cookie of a new session of the user's.
func logIn(t testing.TB, h http.Handler, user string) (name, value string) {
	t.Helper()
	c := issued(t, present(h, "/login?"+user))
	return c.Name, c.Value
}

// expectUser presents cookies and fails the test unless they are the user's.
func expectUser(t testing.TB, h http.Handler, want string, lines ...string) {
	t.Helper()
	if got := body(present(h, "/", lines...)); got != want {
		t.Errorf("signed in as %q, want %q", got, want)
	}
}

// Promise 9. Whatever is not exactly what we signed, for this cookie's name and
// under one of these secrets, is no session, and costs no call of the store.
func TestNobodyElseMakesTokens(t *testing.T) {
	store := newSpy()
	secrets := [][]byte{oldSecret}
	ours := newManager(t, session.Options{Store: store, Secrets: secrets}).Handler(reception)
	strange := newManager(t, session.Options{Store: store, Secrets: [][]byte{newSecret}}).Handler(reception)
	shop := newManager(t, session.Options{Store: store, Secrets: secrets, Cookie: session.CookieOptions{Name: "__Host-shop"}}).Handler(reception)
	name, value := logIn(t, ours, "alice")
	_, forged := logIn(t, strange, "mallory")
	_, elsewhere := logIn(t, shop, "mallory")
	calls := store.count("")
	for what, v := range map[string]string{
		"a stranger's secret":       forged,
		"our secret, another name":  elsewhere,
		"nothing":                   "",
		"noise of the right length": strings.Repeat("A", len(value)),
		"twice the cookie":          value + value,
		"all but the signature":     value[:40] + forged[40:],
	} {
		resp := present(ours, "/", name+"="+v)
		if got := body(resp); got != "" || resp.StatusCode != http.StatusOK || len(resp.Cookies()) != 0 {
			t.Errorf("%s: %d %q %q", what, resp.StatusCode, got, resp.Header["Set-Cookie"])
		}
	}
	expectUser(t, shop, "", "__Host-shop="+value)
	if n := store.count("") - calls; n != 0 {
		t.Errorf("%d calls of the store", n)
	}
	expectUser(t, ours, "alice", name+"="+value)
}

// A character changed anywhere, to anything, is a forgery.
func TestEveryChangedCharacterIsRefused(t *testing.T) {
	store := newSpy()
	h := newManager(t, session.Options{Store: store}).Handler(reception)
	name, value := logIn(t, h, "alice")
	expectUser(t, h, "alice", name+"="+value) // verified once, and remembered
	calls := store.count("")
	for i := range value {
		for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=%\", \n\x00\xff") {
			if c == value[i] {
				continue
			}
			changed := value[:i] + string(rune(c)) + value[i+1:]
			if c == '\xff' {
				changed = value[:i] + "\xff" + value[i+1:]
			}
			if got := body(present(h, "/", name+"="+changed)); got != "" || store.count("") != calls {
				t.Fatalf("%q in place %d: %q, %d calls of the store", c, i, got, store.count("")-calls)
			}
		}
	}
}

// Base64 has many spellings of the same bytes, all with the right signature.
// Only the one that we sent is good: who blocks or logs a cookie sees them all.
func TestEveryOtherSpellingIsRefused(t *testing.T) {
	store := newSpy()
	h := newManager(t, session.Options{Store: store}).Handler(reception)
	var name, value string
	for !strings.ContainsAny(value, "-_") { // so that the other alphabet differs
		name, value = logIn(t, h, "alice")
	}
	raw, err := base64.URLEncoding.DecodeString(value)
	if err != nil || len(value) != 120 || !strings.HasSuffix(value, "==") {
		t.Fatalf("%q is not 120 characters of base64: %v", value, err)
	}
	spellings := []string{
		base64.StdEncoding.EncodeToString(raw),
		base64.RawURLEncoding.EncodeToString(raw),
		value[:118], value[:118] + "=", value + "=", value[:118] + "%3D%3D",
		value[:60] + "\n" + value[60:], value[:118] + "\r\n==", `"` + value + `"`,
	}
	last := value[117] // of its 6 bits the last 4 mean nothing
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		same := value[:117] + string(c) + "=="
		if got, _ := base64.URLEncoding.DecodeString(same); c != last && bytes.Equal(got, raw) {
			spellings = append(spellings, same)
		}
	}
	if len(spellings) != 9+15 {
		t.Fatalf("%d spellings", len(spellings))
	}
	calls := store.count("")
	for _, s := range spellings {
		expectUser(t, h, "", name+"="+s)
	}
	if n := store.count("") - calls; n != 0 {
		t.Errorf("%d calls of the store", n)
	}
	expectUser(t, h, "alice", name+"="+value)
}

// A timestamp of nine digits makes a value of 116 characters without padding;
// with four line breaks, which base64 skips, it has the other good length.
func TestShortValueIsGoodAndItsSpellingsAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock begins in the year 2000
		h := newManager(t, session.Options{}).Handler(reception)
		name, value := logIn(t, h, "alice")
		if len(value) != 116 {
			t.Fatalf("%d characters, want 116", len(value))
		}
		expectUser(t, h, "alice", name+"="+value)
		expectUser(t, h, "", name+"="+value[:50]+"\n\n\n\n"+value[50:])
	})
}

// Several cookies of our name reach us when somebody plants one, or when a
// Domain or Path was changed. The one that is good counts, wherever it is.
func TestSeveralCookiesOfOurName(t *testing.T) {
	var log events
	store := newSpy()
	h := newManager(t, session.Options{Store: store, OnEvent: log.on}).Handler(reception)
	name, alice := logIn(t, h, "alice")
	_, bob := logIn(t, h, "bob")
	_, ended := logIn(t, h, "carol")
	present(h, "/logout", name+"="+ended)
	_, lost := logIn(t, h, "dave")
	lose(t, store, "dave")
	garbage := strings.Repeat("A", len(alice))

	for _, c := range []struct {
		what   string
		values []string
		user   string
		loads  int
	}{
		{"garbage first", []string{"x", "", garbage, alice}, "alice", 1},
		{"garbage last", []string{alice, garbage, "x"}, "alice", 1},
		{"the same twice", []string{alice, alice}, "alice", 1},
		{"an ended one first", []string{ended, alice}, "alice", 2},
		{"an ended one last", []string{alice, ended}, "alice", 2},
		{"a lost one first", []string{lost, alice}, "alice", 2},
		{"all but one dead", []string{ended, lost, garbage, alice}, "alice", 3},
		{"two that live", []string{alice, bob}, "", 2},
		{"two that live and a dead one", []string{bob, ended, alice}, "", 3},
		{"only dead ones", []string{ended, lost}, "", 2},
		{"the fourth of our length", []string{garbage, garbage, garbage, alice}, "alice", 1},
		{"the fifth of our length", []string{garbage, garbage, garbage, garbage, alice}, "", 0},
		{"after many of other lengths", append(strings.Split(strings.Repeat("x ", 50), " "), alice), "alice", 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			pairs := make([]string, len(c.values))
			for i, v := range c.values {
				pairs[i] = name + "=" + v
			}
			live := strings.Count(strings.Join(c.values, " "), alice)+strings.Count(strings.Join(c.values, " "), bob) > 0
			for shape, lines := range map[string][]string{"one line": {strings.Join(pairs, "; ")}, "many lines": pairs} {
				loads, rejected := store.count("Load"), log.count(session.EventRejected)
				expectUser(t, h, c.user, lines...)
				if n := store.count("Load") - loads; n != c.loads {
					t.Errorf("%s: %d loads, want %d", shape, n, c.loads)
				}
				n, want := log.count(session.EventRejected)-rejected, 0
				if c.user == "" && live {
					want = 1
				}
				if n != want {
					t.Errorf("%s: %d times rejected, want %d", shape, n, want)
				}
			}
		})
	}
}

// lose deletes a user's records behind the Manager's back.
func lose(t *testing.T, store session.Store, user string) {
	t.Helper()
	records, err := store.List(t.Context(), user)
	if err != nil || len(records) == 0 {
		t.Fatal(records, err)
	}
	for _, r := range records {
		if err := store.Delete(t.Context(), r.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// What a stranger sends costs a few verifications, however much it is.
func TestManyCookiesCostNoMoreThanFour(t *testing.T) {
	store := newSpy()
	h := newManager(t, session.Options{Store: store}).Handler(reception)
	name, value := logIn(t, h, "alice")
	times := func(n, size int) string { return strings.Repeat(name+"="+strings.Repeat("A", size)+"; ", n) }
	allocs := func(line string) float64 {
		calls := store.count("")
		r := httptest.NewRequest("GET", "https://localhost/", nil)
		r.Header.Set("Cookie", line)
		n := testing.AllocsPerRun(10, func() { h.ServeHTTP(httptest.NewRecorder(), r) })
		if n := store.count("") - calls; n != 0 {
			t.Errorf("%d calls of the store", n)
		}
		return n
	}
	// A verification allocates more than five times, and 96 more of them would
	// show. The five are for pools that the race detector empties at random.
	none, four := allocs(times(1, 5)), allocs(times(4, len(value)))
	if four-none < 4*5 {
		t.Fatalf("four forged cookies: %v allocations, none: %v", four, none)
	}
	if n := allocs(times(100, len(value))); n > four+5 {
		t.Errorf("100 forged cookies: %v allocations, four: %v", n, four)
	}
	if n := allocs(times(100, 8<<10)); n > none+5 {
		t.Errorf("100 cookies of 8 KiB: %v allocations, a short one: %v", n, none)
	}
	expectUser(t, h, "alice", times(100, 8<<10)+name+"="+value)
}

// Session fixation needs a token that the attacker knows: a token that we
// signed once but keep no record of never becomes a session again.
func TestTokenWithoutRecordIsNeverAdopted(t *testing.T) {
	store := newSpy()
	h := newManager(t, session.Options{Store: store}).Handler(reception)
	for _, path := range []string{"/set", "/login?bob"} {
		name, value := logIn(t, h, "alice")
		lose(t, store, "alice")
		fresh := issued(t, present(h, path, name+"="+value))
		if fresh.Value[:80] == value[:80] {
			t.Errorf("%s: the old token came back", path)
		}
		expectUser(t, h, "", name+"="+value)
		if err := errors.Join(present(h, "/renew", name+"="+value).Write(new(bytes.Buffer))); err != nil {
			t.Error(err)
		}
	}
}
