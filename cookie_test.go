package session_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// oldSecret and newSecret are the secrets of a rotation.
var (
	oldSecret = bytes.Repeat([]byte("old!"), 8)
	newSecret = bytes.Repeat([]byte("new!"), 8)
)

// reception shows the user at "/", and its other routes do what their paths say.
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

// issued returns the only cookie that a response sets.
func issued(t testing.TB, resp *http.Response) *http.Cookie {
	t.Helper()
	if cs := resp.Cookies(); len(cs) == 1 {
		return cs[0]
	}
	t.Fatalf("status %d sets %q, want one cookie", resp.StatusCode, resp.Header["Set-Cookie"])
	return nil
}

// logIn returns the cookie of a new session of the user.
func logIn(t testing.TB, h http.Handler, user string) (name, value string) {
	t.Helper()
	c := issued(t, present(h, "/login?"+user))
	return c.Name, c.Value
}

// expectUser sends cookies and fails the test unless they belong to the user.
func expectUser(t testing.TB, h http.Handler, want string, lines ...string) {
	t.Helper()
	if got := body(present(h, "/", lines...)); got != want {
		t.Errorf("signed logged in as %q, want %q", got, want)
	}
}

// TestForgedTokensAreRefused: promise 9. A value that the Manager has not signed, for its cookie
// name and with one of its secrets, opens no session and costs no store call.
func TestForgedTokensAreRefused(t *testing.T) {
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
		"another secret":            forged,
		"this secret, another name": elsewhere,
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

// TestEveryChangedCharacterIsRefused checks that a value with any changed character is refused.
func TestEveryChangedCharacterIsRefused(t *testing.T) {
	store := newSpy()
	h := newManager(t, session.Options{Store: store}).Handler(reception)
	name, value := logIn(t, h, "alice")
	expectUser(t, h, "alice", name+"="+value) // verified once, and cached
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

// TestEveryOtherEncodingIsRefused checks that of the many base64 encodings of the same bytes,
// all with the right signature, only the one that was sent is accepted, with or without
// padding: otherwise software that blocks or logs cookies could miss some.
func TestEveryOtherEncodingIsRefused(t *testing.T) {
	store := newSpy()
	h := newManager(t, session.Options{Store: store}).Handler(reception)
	var name, value string
	for !strings.ContainsAny(value, "-_") { // so that the encoding in the other alphabet differs
		name, value = logIn(t, h, "alice")
	}
	raw, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(value) != 118 {
		t.Fatalf("%q is not 118 characters of base64 without padding: %v", value, err)
	}
	expectUser(t, h, "alice", name+"="+value+"==")
	spellings := []string{
		base64.StdEncoding.EncodeToString(raw),
		base64.RawStdEncoding.EncodeToString(raw),
		value + "=", value + "===", value + "====", value + "%3D%3D",
		value[:60] + "\n" + value[60:], value + "\r\n==", `"` + value + `"`,
	}
	last := value[117] // the last 4 of its 6 bits are unused
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		same := value[:117] + string(c)
		if got, _ := base64.RawURLEncoding.DecodeString(same); c != last && bytes.Equal(got, raw) {
			spellings = append(spellings, same)
		}
	}
	if len(spellings) != 9+15 {
		t.Fatalf("%d encodings", len(spellings))
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

// TestShortValueAndItsEncodings checks values with a timestamp of nine digits,
// which have 116 characters without padding. With four line breaks, which base64 ignores, such
// a value has the other valid length and is refused.
func TestShortValueAndItsEncodings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock of a bubble begins in the year 2000
		h := newManager(t, session.Options{}).Handler(reception)
		name, value := logIn(t, h, "alice")
		if len(value) != 116 {
			t.Fatalf("%d characters, want 116", len(value))
		}
		expectUser(t, h, "alice", name+"="+value)
		expectUser(t, h, "", name+"="+value[:50]+"\n\n\n\n"+value[50:])
	})
}

// TestSeveralCookiesOfOurName checks requests with several cookies of the session's name, as
// when an attacker plants one, or when a Domain or Path was changed. The live one counts at any
// position. If more than four have a plausible length, none counts.
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
		reject int
	}{
		{"garbage first", []string{"x", "", garbage, alice}, "alice", 1, 0},
		{"garbage last", []string{alice, garbage, "x"}, "alice", 1, 0},
		{"the same twice", []string{alice, alice}, "alice", 1, 0},
		{"an ended session first", []string{ended, alice}, "alice", 2, 0},
		{"an ended session last", []string{alice, ended}, "alice", 2, 0},
		{"a lost session first", []string{lost, alice}, "alice", 2, 0},
		{"one live session, last", []string{ended, lost, garbage, alice}, "alice", 3, 0},
		{"two live sessions", []string{alice, bob}, "", 2, 1},
		{"two live sessions and an ended one", []string{bob, ended, alice}, "", 3, 1},
		{"only ended and lost sessions", []string{ended, lost}, "", 2, 0},
		{"the fourth of plausible length", []string{garbage, garbage, garbage, alice}, "alice", 1, 0},
		{"the fifth of plausible length", []string{garbage, garbage, garbage, garbage, alice}, "", 0, 1},
		{"the first of five", []string{alice, garbage, garbage, garbage, garbage}, "", 0, 1},
		{"forged values between two live sessions", []string{bob, garbage, garbage, garbage, alice}, "", 0, 1},
		{"after many of other lengths", append(strings.Split(strings.Repeat("x ", 50), " "), alice), "alice", 1, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			pairs := make([]string, len(c.values))
			for i, v := range c.values {
				pairs[i] = name + "=" + v
			}
			for shape, lines := range map[string][]string{"one line": {strings.Join(pairs, "; ")}, "many lines": pairs} {
				loads, rejected := store.count("Load"), log.count(session.EventRejected)
				expectUser(t, h, c.user, lines...)
				if n := store.count("Load") - loads; n != c.loads {
					t.Errorf("%s: %d loads, want %d", shape, n, c.loads)
				}
				if n := log.count(session.EventRejected) - rejected; n != c.reject {
					t.Errorf("%s: %d times rejected, want %d", shape, n, c.reject)
				}
			}
		})
	}
}

// TestLoginEndsTwoLiveSessions covers two live cookies of the session's name, which remain when a Domain
// or Path was changed, or when two deployments ran for a while. Each page has then no session.
// A Login must succeed, so it ends both. Other changes are dropped, because a third session
// would only add to the problem.
func TestLoginEndsTwoLiveSessions(t *testing.T) {
	for _, at := range []string{"/login?carol", "/login?alice"} {
		var log events
		store := newSpy()
		h := newManager(t, session.Options{Store: store, OnEvent: log.on}).Handler(reception)
		name, alice := logIn(t, h, "alice")
		_, bob := logIn(t, h, "bob")
		both := name + "=" + alice + "; " + name + "=" + bob
		if resp := present(h, "/set", both); setsCookie(resp) || log.count(session.EventDropped) != 1 || resp.StatusCode != 200 {
			t.Errorf("Set: %s %v; events %v", resp.Status, resp.Header, log.all)
		}
		fresh := issued(t, present(h, at, both)).Value
		_, user, _ := strings.Cut(at, "?")
		for _, other := range []string{alice, bob} { // the browser still has one of them
			expectUser(t, h, user, name+"="+fresh+"; "+name+"="+other)
			expectUser(t, h, "", name+"="+other)
		}
		if n := log.count(session.EventLoggedOut); n != 2 {
			t.Errorf("%d times EventLoggedOut", n)
		}
	}
}

// TestCrowdOfCookies checks that more than four plausible cookies are treated as two live ones:
// changes are dropped and no cookie is set, until a Login or Logout ends every session that the
// first 64 of them open.
func TestCrowdOfCookies(t *testing.T) {
	for _, path := range []string{"/login?carol", "/logout", "/reload-logout"} {
		var log events
		store := newSpy()
		h := newManager(t, session.Options{Store: store, OnEvent: log.on}).Handler(reception)
		name, alice := logIn(t, h, "alice")
		_, bob := logIn(t, h, "bob")
		_, dave := logIn(t, h, "dave")
		noise := strings.Repeat(name+"="+strings.Repeat("A", len(alice))+"; ", 30)
		crowd := name + "=" + alice + "; " + noise + name + "=" + bob + "; " + noise + name + "=" + dave + "; " + noise
		calls := store.count("")
		expectUser(t, h, "", crowd)
		if n := store.count("") - calls; n != 0 {
			t.Errorf("%d calls of the store", n)
		}
		if resp := present(h, "/set", crowd); setsCookie(resp) || resp.StatusCode != 200 || log.count(session.EventDropped) != 1 {
			t.Errorf("Set: %s %v; events %v", resp.Status, resp.Header, log.all)
		}
		if resp := present(h, path, crowd); resp.StatusCode != 200 || !setsCookie(resp) {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
		for user, value := range map[string]string{"": alice, " ": bob, "dave": dave} { // the cookie of dave is the 63rd
			if got := body(present(h, "/", name+"="+value)); got != "" {
				t.Errorf("%s: %q (%q) is still logged in", path, got, user)
			}
		}
		if n := log.count(session.EventLoggedOut); n != 3 {
			t.Errorf("%s: %d times EventLoggedOut", path, n)
		}
	}
}

// TestReplacedTokenInACrowdEndsNothing checks that among too many cookies, or beside two live
// sessions, a token that was planted before a login, or replaced since, gives no more access
// than alone: a Login or Logout does not end the session of its owner. It ends the sessions
// that the other tokens open, including that of a token in the grace of an explicit renewal.
func TestReplacedTokenInACrowdEndsNothing(t *testing.T) {
	const grace, stale, planted = "in its grace", "renewed", "planted"
	for _, path := range []string{"/logout", "/login?carol"} {
		for _, isCrowd := range []bool{false, true} {
			for _, how := range []string{grace, stale, planted} {
				t.Run(fmt.Sprint(path, " crowd ", isCrowd, " ", how), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var log events
						h := newManager(t, session.Options{OnEvent: log.on}).Handler(reception)
						old := issued(t, present(h, "/set"))
						line, next := old.Name+"="+old.Value, "/login?alice"
						if how != planted {
							line, next = old.Name+"="+issued(t, present(h, "/login?alice", line)).Value, "/renew"
						}
						owner := old.Name + "=" + issued(t, present(h, next, line)).Value
						if how == stale {
							time.Sleep(30 * time.Second)
						}
						_, bob := logIn(t, h, "bob")
						_, dave := logIn(t, h, "dave")
						all := line + "; " + old.Name + "=" + bob + "; " + old.Name + "=" + dave
						if isCrowd {
							all += strings.Repeat("; "+old.Name+"="+strings.Repeat("A", len(bob)), 4)
						}
						if resp := present(h, path, all); resp.StatusCode != 200 || !setsCookie(resp) {
							t.Errorf("%s %v", resp.Status, resp.Header)
						}
						want, replays := "alice", 0
						switch how {
						case grace:
							want = ""
						case stale:
							replays = 1
						}
						expectUser(t, h, want, owner)
						expectUser(t, h, "", old.Name+"="+bob)
						expectUser(t, h, "", old.Name+"="+dave)
						if n := log.count(session.EventReplayed); n != replays {
							t.Errorf("%d times EventReplayed, want %d", n, replays)
						}
					})
				})
			}
		}
	}
}

// TestPairsOfACookieHeaderAreBounded checks that at most 3000 pairs of a Cookie header are
// read, including empty ones.
func TestPairsOfACookieHeaderAreBounded(t *testing.T) {
	h := newManager(t, session.Options{}).Handler(reception)
	name, value := logIn(t, h, "alice")
	for n, want := range map[int]string{2999: "alice", 3000: "", 1 << 20: ""} {
		expectUser(t, h, want, strings.Repeat(";", n)+name+"="+value)
	}
	expectUser(t, h, "", strings.Repeat(";", 2000), strings.Repeat(";", 2000)+name+"="+value)
}

// TestTwoTokensOfOneSession checks that the cookies from before and after a renewal are of one
// session at any positions: they do not count as two sessions, and the newest counts.
func TestTwoTokensOfOneSession(t *testing.T) {
	var log events
	h := newManager(t, session.Options{OnEvent: log.on}).Handler(routes{
		"/login": reception["/login"], "/renew": reception["/renew"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, s.User(), visits.Get(s))
		},
		"/count": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
		},
	})
	n, old := logIn(t, h, "alice")
	fresh := issued(t, present(h, "/renew", n+"="+old)).Value
	present(h, "/count", n+"="+fresh)
	expectUser(t, h, "alice0", n+"="+old)
	for _, line := range []string{n + "=" + old + "; " + n + "=" + fresh, n + "=" + fresh + "; " + n + "=" + old} {
		expectUser(t, h, "alice1", line)
	}
	if log.count(session.EventRejected) != 0 {
		t.Errorf("events %v", log.all)
	}
}

// lose deletes a user's records directly in the store.
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

// TestManyCookiesCostNoMoreThanFour checks that any number of cookies costs a few
// verifications.
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
	// A verification has more than three allocations, so 96 more of them would show. The
	// tolerance of five is for sync.Pools that the race detector empties at random.
	none, four := allocs(times(1, 5)), allocs(times(4, len(value)))
	if four-none < 4*3 {
		t.Fatalf("four forged cookies: %v allocations, none: %v", four, none)
	}
	for _, n := range []int{5, 100} {
		if got := allocs(times(n, len(value))); got > none+5 {
			t.Errorf("%d forged cookies: %v allocations, none: %v", n, got, none)
		}
	}
	if n := allocs(times(100, 8<<10)); n > none+5 {
		t.Errorf("100 cookies of 8 KiB: %v allocations, a short one: %v", n, none)
	}
	expectUser(t, h, "alice", times(100, 8<<10)+name+"="+value)
}

// TestTokenWithoutRecordIsNeverAdopted checks that a token that the Manager has signed but
// whose record is gone never becomes a session again, as session fixation needs.
func TestTokenWithoutRecordIsNeverAdopted(t *testing.T) {
	store := newSpy()
	h := newManager(t, session.Options{Store: store}).Handler(reception)
	for _, path := range []string{"/set", "/login?bob"} {
		name, value := logIn(t, h, "alice")
		lose(t, store, "alice")
		fresh := issued(t, present(h, path, name+"="+value))
		if bytes.Equal(tokenOf(t, fresh.Value), tokenOf(t, value)) {
			t.Errorf("%s: the old token was issued again", path)
		}
		expectUser(t, h, "", name+"="+value)
	}
}

// tokenOf returns the 32 bytes of the token in a cookie's value.
func tokenOf(t testing.TB, value string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(value)
	parts := bytes.SplitN(raw, []byte("|"), 3) // timestamp, base64 of the token, signature
	if err != nil || len(parts) != 3 {
		t.Fatalf("%q is not a value of securecookie: %v", value, err)
	}
	token, err := base64.URLEncoding.DecodeString(string(parts[1]))
	if err != nil || len(token) != 32 {
		t.Fatalf("a token of %d bytes: %v", len(token), err)
	}
	return token
}

// keyOf returns the secret half of the token.
func keyOf(t testing.TB, value string) []byte { return tokenOf(t, value)[16:] }

// TestSecretRotation checks that a secret is replaced in two deployments without signing a user
// out: values that the old secret has signed stay valid, and the first secret signs new ones.
func TestSecretRotation(t *testing.T) {
	store := newSpy()
	with := func(secrets ...[]byte) http.Handler {
		return newManager(t, session.Options{Store: store, Secrets: secrets}).Handler(reception)
	}
	before, added, moved, after := with(oldSecret), with(oldSecret, newSecret), with(newSecret, oldSecret), with(newSecret)
	name, value := logIn(t, before, "alice")
	for _, h := range []http.Handler{added, moved} {
		expectUser(t, h, "alice", name+"="+value)
		for _, path := range []string{"/", "/set"} { // a slow response with a cookie would replace a newer one
			if resp := present(h, path, name+"="+value); len(resp.Cookies()) != 0 {
				t.Errorf("GET %s: the cookie was issued again: %q", path, resp.Header["Set-Cookie"])
			}
		}
	}
	expectUser(t, after, "", name+"="+value)

	renewed := issued(t, present(moved, "/renew", name+"="+value)).Value
	expectUser(t, after, "alice", name+"="+renewed)
	expectUser(t, added, "alice", name+"="+renewed) // a process that is one deployment behind
	expectUser(t, before, "", name+"="+renewed)
	_, signedByOld := logIn(t, added, "bob")
	expectUser(t, before, "bob", name+"="+signedByOld)
}

// TestCookieAttributes checks that the attributes are those of the options, and that a deletion
// has the same attributes, because a browser deletes only a cookie that matches.
func TestCookieAttributes(t *testing.T) {
	tenant := func(r *http.Request, c *http.Cookie) {
		if c.Value != "" {
			t.Error("Adapt was given the value")
		}
		c.Domain, c.Path, c.SameSite, c.Partitioned = "example.com", "/app", http.SameSiteStrictMode, true
		c.Name, c.Value, c.Secure, c.HttpOnly, c.MaxAge, c.Raw = "other", "mine", false, false, 5, "raw" // changes that must be ignored
	}
	for _, c := range []struct {
		what string
		o    session.CookieOptions
		want string
	}{
		{"default", session.CookieOptions{}, "__Host-Http-session=; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"insecure", session.CookieOptions{Insecure: true}, "session=; Path=/; HttpOnly; SameSite=Lax"},
		{"insecure with a domain", session.CookieOptions{Insecure: true, Domain: "example.com"}, "session=; Path=/; Domain=example.com; HttpOnly; SameSite=Lax"},
		{"domain", session.CookieOptions{Domain: "example.com"}, "__Secure-session=; Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Lax"},
		{"path", session.CookieOptions{Path: "/app"}, "__Secure-session=; Path=/app; HttpOnly; Secure; SameSite=Lax"},
		{"root path", session.CookieOptions{Path: "/"}, "__Host-Http-session=; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"name", session.CookieOptions{Name: "id"}, "id=; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"strict", session.CookieOptions{SameSite: http.SameSiteStrictMode}, "__Host-Http-session=; Path=/; HttpOnly; Secure; SameSite=Strict"},
		{"none", session.CookieOptions{SameSite: http.SameSiteNoneMode}, "__Host-Http-session=; Path=/; HttpOnly; Secure; SameSite=None"},
		{"partitioned", session.CookieOptions{Partitioned: true}, "__Host-Http-session=; Path=/; HttpOnly; Secure; SameSite=Lax; Partitioned"},
		{"adapted", session.CookieOptions{Name: "id", Adapt: tenant}, "id=; Path=/app; Domain=example.com; HttpOnly; Secure; SameSite=Strict; Partitioned"},
		{"adapted to nothing", session.CookieOptions{Adapt: func(*http.Request, *http.Cookie) {}}, "__Host-Http-session=; Path=/; HttpOnly; Secure; SameSite=Lax"},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newManager(t, session.Options{Cookie: c.o}).Handler(reception)
			set := issued(t, present(h, "/login?alice"))
			deleted := issued(t, present(h, "/logout", set.Name+"="+set.Value))
			if set.MaxAge != 0 || deleted.MaxAge != -1 || deleted.Value != "" {
				t.Errorf("Max-Age %d, then %d with value %q", set.MaxAge, deleted.MaxAge, deleted.Value)
			}
			set.Value, deleted.MaxAge = "", 0
			if set.String() != c.want || deleted.String() != c.want {
				t.Errorf("set:     %s\ndeleted: %s\nwant:    %s", set, deleted, c.want)
			}
		})
	}
}

// TestAdaptKeepsTheRules checks that if Adapt returns attributes with which a browser would
// drop the cookie silently, the request fails.
func TestAdaptKeepsTheRules(t *testing.T) {
	for what, adapt := range map[string]func(*http.Cookie){
		"Options.Cookie.Domain":   func(c *http.Cookie) { c.Domain = "example.com" }, // not permitted with a __Host- name
		"Options.Cookie.Path":     func(c *http.Cookie) { c.Path = "/app" },
		"Options.Cookie.SameSite": func(c *http.Cookie) { c.SameSite = 17 },
	} {
		var failed error
		h := newManager(t, session.Options{
			Cookie:       session.CookieOptions{Adapt: func(_ *http.Request, c *http.Cookie) { adapt(c) }},
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { failed = err },
		}).Handler(reception)
		resp := present(h, "/login?alice")
		if resp.StatusCode != http.StatusInternalServerError || len(resp.Cookies()) != 0 {
			t.Errorf("%s: %d %q", what, resp.StatusCode, resp.Header["Set-Cookie"])
		}
		if failed == nil || errors.Is(failed, session.ErrStore) || !strings.Contains(failed.Error(), "Options.Cookie.Adapt") || !strings.Contains(failed.Error(), what) {
			t.Errorf("%s: the error is %v", what, failed)
		}
	}
}

// TestMaxAge checks that Max-Age is the time to the absolute end, sent with the token only, and
// at most 400 days (RFC 6265bis, 5.5).
func TestMaxAge(t *testing.T) {
	const day = 24 * 60 * 60
	maxAge := func(t *testing.T, resp *http.Response, want int) (pair string) {
		t.Helper()
		c := issued(t, resp)
		if c.MaxAge != want || !c.Expires.IsZero() {
			t.Errorf("Max-Age %d, Expires %v, want %d", c.MaxAge, c.Expires, want)
		}
		return c.Name + "=" + c.Value
	}
	in := func(what string, o session.Options, f func(t *testing.T, h http.Handler)) {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, newManager(t, o).Handler(reception)) })
		})
	}
	persistent := session.CookieOptions{Persistent: true}
	in("persistent", session.Options{Cookie: persistent, Lifetime: 2 * time.Hour}, func(t *testing.T, h http.Handler) {
		pair := maxAge(t, present(h, "/login?alice"), 7200)
		time.Sleep(30 * time.Minute)
		for _, path := range []string{"/", "/set"} {
			if resp := present(h, path, pair); len(resp.Cookies()) != 0 {
				t.Errorf("GET %s has sent the cookie again: %q", path, resp.Header["Set-Cookie"])
			}
		}
		maxAge(t, present(h, "/renew", pair), 5400) // the end does not move
	})
	in("persistent, anonymous", session.Options{Cookie: persistent}, func(t *testing.T, h http.Handler) {
		maxAge(t, present(h, "/set"), day)
	})
	in("persistent beyond the cap", session.Options{Cookie: persistent, Lifetime: 500 * 24 * time.Hour}, func(t *testing.T, h http.Handler) {
		maxAge(t, present(h, "/login?alice"), 400*day)
	})
	in("remembered", session.Options{}, func(t *testing.T, h http.Handler) {
		pair := maxAge(t, present(h, "/login?alice"), 0)
		pair = maxAge(t, present(h, "/remember?720h", pair), 30*day)
		time.Sleep(24 * time.Hour)
		pair = maxAge(t, present(h, "/renew", pair), 29*day)
		pair = maxAge(t, present(h, "/remember?24000h", pair), 400*day)
		pair = maxAge(t, present(h, "/login?alice", pair), 400*day) // a reauthentication
		maxAge(t, present(h, "/login?bob", pair), 0)                // ends the Remember of alice
	})
}

// TestDeletionOnlyOfWhatTheRequestCarried checks that a Logout deletes the cookie only if the
// request has one of the session's name, valid or not.
func TestDeletionOnlyOfWhatTheRequestCarried(t *testing.T) {
	store := newSpy()
	h := newManager(t, session.Options{Store: store}).Handler(reception)
	for _, c := range []struct {
		what, path string
		cookie     func(t *testing.T, name, value string) string
		deleted    bool
	}{
		{"none", "/logout", func(*testing.T, string, string) string { return "" }, false},
		{"another's", "/logout", func(_ *testing.T, _, value string) string { return "other=" + value }, false},
		{"a session's", "/logout", func(_ *testing.T, name, value string) string { return name + "=" + value }, true},
		{"a session's, after Reload", "/reload-logout", func(_ *testing.T, name, value string) string { return name + "=" + value }, true},
		{"garbage", "/logout", func(_ *testing.T, name, _ string) string { return name + "=x" }, true},
		{"garbage, after Reload", "/reload-logout", func(_ *testing.T, name, _ string) string { return name + "=x" }, true},
		{"of no record", "/logout", func(t *testing.T, name, value string) string {
			lose(t, store, "alice")
			return name + "=" + value
		}, true},
		// The browser has a newer cookie by now, which a deletion would delete.
		{"replaced a moment ago", "/logout", func(t *testing.T, name, value string) string {
			issued(t, present(h, "/renew", name+"="+value))
			return name + "=" + value
		}, false},
		{"another user's a moment ago", "/logout", func(t *testing.T, name, value string) string {
			issued(t, present(h, "/login?bob", name+"="+value))
			return name + "=" + value
		}, false},
		{"ended a moment ago", "/logout", func(t *testing.T, name, value string) string {
			issued(t, present(h, "/logout", name+"="+value))
			return name + "=" + value
		}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			name, value := logIn(t, h, "alice")
			resp := present(h, c.path, c.cookie(t, name, value))
			if got := len(resp.Cookies()) == 1 && resp.Cookies()[0].MaxAge < 0; got != c.deleted || len(resp.Cookies()) > 1 {
				t.Errorf("Set-Cookie %q, want a deletion: %v", resp.Header["Set-Cookie"], c.deleted)
			}
		})
	}
}

// TestSpacesInACookieHeader checks that spaces and tabs around names and values in a Cookie
// header are ignored, as browsers, proxies and users write them.
func TestSpacesInACookieHeader(t *testing.T) {
	h := newManager(t, session.Options{}).Handler(clockRoutes)
	b := newBrowser(t, h)
	b.get("/login")
	name, value, _ := strings.Cut(b.cookie(), "=")
	for _, line := range []string{
		"%s=%s", "a=b; %s=%s; c=d", "a=b;%s=%s;c=d", " %s=%s ", "\t%s=%s\t", "%s = %s", " \t %s\t = \t%s \t; c=d", ";;%s=%s;;", "a; %s=%s",
	} {
		r := newBrowser(t, h).request("/look")
		r.Header.Set("Cookie", fmt.Sprintf(line, name, value))
		if got := body(b.do(r)); got != "alice" {
			t.Errorf("%q is read as %q", line, got)
		}
	}
	for _, line := range []string{"x%s=%s", "%sx=%s", "%s%s", "=%[1]s=%[2]s", "%s=\"%s\""} {
		r := newBrowser(t, h).request("/look")
		r.Header.Set("Cookie", fmt.Sprintf(line, name, value))
		if got := body(b.do(r)); got != "" {
			t.Errorf("%q is read as %q", line, got)
		}
	}
}

// TestSecretUses checks that SecretUses returns the number of tokens that each secret has
// verified, each counted once.
func TestSecretUses(t *testing.T) {
	older, newer := []byte(strings.Repeat("older!", 6)), []byte(strings.Repeat("newer!", 6))
	store := session.NewMemoryStore(nil)
	before := newManager(t, session.Options{Store: store, Secrets: [][]byte{older}})
	if got := fmt.Sprint(before.SecretUses()); got != "[0]" {
		t.Errorf("at the beginning: %s", got)
	}
	var browsers []*browser
	for range 3 {
		b := newBrowser(t, before.Handler(clockRoutes))
		b.get("/login")
		browsers = append(browsers, b)
	}
	after := newManager(t, session.Options{Store: store, Secrets: [][]byte{newer, older}})
	h := after.Handler(clockRoutes)
	for i, b := range browsers {
		b.h = h
		for range 5 {
			if got := body(b.get("/look")); got != "alice" {
				t.Errorf("browser %d is logged in as %q", i, got)
			}
		}
	}
	newBrowser(t, h).replay(forge(browsers[0].cookie())).get("/look")
	if got := fmt.Sprint(after.SecretUses()); got != "[0 3]" {
		t.Errorf("after the deployment: %s, want [0 3]", got)
	}
	browsers[0].get("/login") // a new token
	browsers[0].get("/look")
	if got := fmt.Sprint(after.SecretUses()); got != "[1 3]" {
		t.Errorf("after a renewal: %s, want [1 3]", got)
	}
}

// app is a client that stores its token itself. It sends the token that it has with every
// request, and stores that of a response.
type app struct {
	h     http.Handler
	token string
}

func (a *app) get(path string) *http.Response {
	r := httptest.NewRequest("GET", "https://localhost"+path, nil)
	r.Header.Set("Authorization", strings.TrimSpace("Bearer "+a.token))
	return a.do(r)
}

func (a *app) do(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	a.h.ServeHTTP(w, r)
	resp := w.Result()
	if token, ok := resp.Header["Session-Token"]; ok {
		a.token = token[0]
	}
	return resp
}

// TestBearer follows a session whose token travels in headers. No cookie is set.
func TestBearer(t *testing.T) {
	inBubble(t, session.Options{Bearer: true, RenewAfter: minute}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		a := &app{h: m.Handler(clockRoutes)}
		expect := func(path, want, control string, changes bool) *http.Response {
			t.Helper()
			before := a.token
			resp := a.get(path)
			if got := body(resp); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
			if got := resp.Header.Get("Vary"); got != "Authorization" {
				t.Errorf("%s: Vary is %q", path, got)
			}
			if got := resp.Header.Get("Cache-Control"); got != control {
				t.Errorf("%s: Cache-Control is %q", path, got)
			}
			if _, ok := resp.Header["Session-Token"]; ok != changes || (a.token != before) != changes {
				t.Errorf("%s: Session-Token is %q", path, resp.Header["Session-Token"])
			}
			if resp.Header["Set-Cookie"] != nil {
				t.Errorf("%s: a cookie", path)
			}
			return resp
		}
		expect("/look", "", "", false)
		expect("/set", "", "no-store", true)
		expect("/look", "value", "private", false)
		anonymous := a.token
		expect("/login", "", "no-store", true)
		first := a.token
		expect("/look", "valuealice", "no-store", false)
		time.Sleep(minute)
		expect("/look", "valuealice", "no-store", true) // automatic renewal
		expect("/renew", "", "no-store", true)
		time.Sleep(11 * time.Second)
		expect("/look", "valuealice", "no-store", false)
		for _, old := range []string{anonymous, first} {
			if got := body((&app{h: a.h, token: old}).get("/look")); got != "" {
				t.Errorf("with an old token logged in as %q", got)
			}
		}
		last := a.token
		expect("/logout", "", "no-store", true)
		if a.token != "" {
			t.Errorf("after the logout the token is %q", a.token)
		}
		if got := body((&app{h: a.h, token: last}).get("/look")); got != "" {
			t.Errorf("after the logout the old token is logged in as %q", got)
		}
		expect("/look", "", "", false)
	})
}

// TestBearerLeavesOthersAlone checks that other contents of Authorization cause no event and
// open no session.
func TestBearerLeavesOthersAlone(t *testing.T) {
	var log events
	m := newManager(t, session.Options{Bearer: true, OnEvent: log.on})
	a := &app{h: m.Handler(clockRoutes)}
	a.get("/login")
	good := a.token
	for _, c := range []struct {
		name, value, want string
		rejected          int
	}{
		{"canonical", "Bearer " + good, "alice", 0},
		{"lower case", "bearer " + good, "alice", 0},
		{"upper case", "BEARER " + good, "alice", 0},
		{"more spaces", "Bearer   " + good + " ", "alice", 0},
		{"no scheme", good, "", 0},
		{"no space", "Bearer" + good, "", 0},
		{"another scheme", "Digest " + good, "", 0},
		{"a longer scheme", "Bearers " + good, "", 0},
		{"Basic", "Basic YWxpY2U6c2VjcmV0", "", 0},
		{"an unrelated JWT", "Bearer " + strings.Repeat("eyJhbGciOi", 20), "", 0},
		{"nothing", "", "", 0},
		{"the scheme alone", "Bearer", "", 0},
		{"the scheme and a space", "Bearer ", "", 0},
		{"two tokens", "Bearer " + good + " " + good, "", 0},
		{"a parameter", "Bearer " + good + ", x", "", 0},
		{"forged", "Bearer " + forge(good), "", 1},
	} {
		before := log.count(session.EventRejected)
		r := httptest.NewRequest("GET", "https://localhost/look", nil)
		r.Header["Authorization"] = []string{c.value}
		resp := (&app{h: a.h}).do(r)
		if got := body(resp); got != c.want {
			t.Errorf("%s: logged in as %q, want %q", c.name, got, c.want)
		}
		if got := log.count(session.EventRejected) - before; got != c.rejected {
			t.Errorf("%s: %d events", c.name, got)
		}
		if resp.Header["Session-Token"] != nil {
			t.Errorf("%s: a token", c.name)
		}
	}
	r := httptest.NewRequest("GET", "https://localhost/look", nil)
	r.Header["Authorization"] = []string{"Bearer " + good, "Basic YWxpY2U6c2VjcmV0"}
	if got := body(a.do(r)); got != "" {
		t.Errorf("one of two headers is accepted: %q", got)
	}
}

// TestBearerAndCookie checks that a token of a header is not valid in a cookie, nor the other
// way round, with the same secrets.
func TestBearerAndCookie(t *testing.T) {
	store := session.NewMemoryStore(nil)
	secrets := [][]byte{[]byte(strings.Repeat("secret", 6))}
	apps := newManager(t, session.Options{Store: store, Secrets: secrets, Bearer: true})
	for _, name := range []string{"", "Session-Token", "Authorization"} {
		browsers := newManager(t, session.Options{Store: store, Secrets: secrets, Cookie: session.CookieOptions{Name: name}})
		a, b := &app{h: apps.Handler(clockRoutes)}, newBrowser(t, browsers.Handler(clockRoutes))
		a.get("/login")
		resp := b.get("/login")
		cookie, value, _ := strings.Cut(strings.SplitN(resp.Header.Get("Set-Cookie"), ";", 2)[0], "=")
		if got := body((&app{h: a.h, token: value}).get("/look")); got != "" {
			t.Errorf("a cookie's value as a token: %q", got)
		}
		r := newBrowser(t, b.h).request("/look")
		r.Header.Set("Cookie", cookie+"="+a.token)
		if got := body(b.do(r)); got != "" {
			t.Errorf("a token as a cookie's value: %q", got)
		}
		r = b.request("/look")
		r.Header.Set("Cookie", cookie+"="+value)
		if got := body((&app{h: a.h}).do(r)); got != "" {
			t.Errorf("the app's Manager reads a cookie: %q", got)
		}
		for _, m := range []*session.Manager{apps, browsers} { // one page of devices for both
			list, err := m.List(t.Context(), "alice")
			if err != nil || len(list) != 2 {
				t.Fatalf("%d devices, %v", len(list), err)
			}
		}
		if err := browsers.RevokeAll(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		if got := body(a.get("/look")); got != "" {
			t.Errorf("revoked by the other Manager: %q", got)
		}
	}
}

// TestBearerUntouchedAndFailing checks that a request that does not use its session costs
// nothing, and that an error response contains no token.
func TestBearerUntouchedAndFailing(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, Bearer: true})
	a := &app{h: m.Handler(clockRoutes)}
	a.get("/login")
	before := spy.count("")
	if resp := a.get("/unused"); len(resp.Header) > 0 || spy.count("") != before {
		t.Errorf("header %v, %d calls", resp.Header, spy.count("")-before)
	}
	for _, path := range []string{"/look", "/renew", "/login", "/logout", "/set"} {
		spy.down.Store(true)
		resp := a.get(path)
		spy.down.Store(false)
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header["Session-Token"] != nil || resp.Header.Get("Vary") != "Authorization" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
	if got := body(a.get("/look")); got != "alice" {
		t.Errorf("after the outage: %q", got)
	}
	// A Session-Token that a handler sets itself is not sent with an error either.
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Session-Token", "x")
		fmt.Fprint(w, session.From(r.Context()).User())
	}))
	spy.down.Store(true)
	if resp := (&app{h: h, token: a.token}).get("/"); resp.Header["Session-Token"] != nil {
		t.Error("the error has a token")
	}
}

// TestBearerKnowsNoSites checks that the rules about requests from other sites do not apply to
// Bearer, because SameSite is about cookies.
func TestBearerKnowsNoSites(t *testing.T) {
	m := newManager(t, session.Options{Bearer: true})
	r := httptest.NewRequest("POST", "https://localhost/set", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if a := (&app{h: m.Handler(clockRoutes)}); a.do(r) == nil || a.token == "" {
		t.Error("no session")
	}
}

// TestRequestThatCouldNotBringTheCookie: promise 16. A request that another site made, and from
// which SameSite withholds the cookie, creates no anonymous session, because the session would
// replace the one that the browser may have.
func TestRequestThatCouldNotBringTheCookie(t *testing.T) {
	const lax, strict, nonE = http.SameSiteLaxMode, http.SameSiteStrictMode, http.SameSiteNoneMode
	for _, c := range []struct {
		name         string
		sameSite     http.SameSite
		method       string
		site, dest   string // Sec-Fetch-Site and -Dest
		cookie       string // value of the request's session cookie
		dropsSession bool
	}{
		{"a payment provider's way back", lax, "POST", "cross-site", "document", "", true},
		{"form_post", lax, "POST", "cross-site", "iframe", "", true},
		{"a link", lax, "GET", "cross-site", "document", "", false},
		{"a link, with HEAD", lax, "HEAD", "cross-site", "document", "", false},
		{"an image", lax, "GET", "cross-site", "image", "", true},
		{"a frame", lax, "GET", "cross-site", "iframe", "", true},
		{"a script's request", lax, "GET", "cross-site", "empty", "", true},
		{"a link, to a strict cookie", strict, "GET", "cross-site", "document", "", true},
		{"a form, to a strict cookie", strict, "POST", "cross-site", "document", "", true},
		{"a form, to a cookie for all", nonE, "POST", "cross-site", "document", "", false},
		{"a page of this site", lax, "POST", "same-origin", "document", "", false},
		{"a page of a sibling domain", strict, "POST", "same-site", "document", "", false},
		{"typed in", strict, "GET", "none", "document", "", false},
		{"an old browser", strict, "POST", "", "", "", false},
		{"an invalid cookie", lax, "POST", "cross-site", "document", "x", true},
	} {
		for _, adapted := range []bool{false, true} {
			spy := newSpy()
			var log events
			o := session.CookieOptions{SameSite: c.sameSite}
			if adapted {
				o = session.CookieOptions{Adapt: func(_ *http.Request, k *http.Cookie) { k.SameSite = c.sameSite }}
			}
			m := newManager(t, session.Options{Store: spy, OnEvent: log.on, Cookie: o})
			do := func(f func(s *session.Session)) *http.Response {
				r := httptest.NewRequest(c.method, "https://localhost/paid", nil)
				r.Header.Set("Sec-Fetch-Site", c.site)
				r.Header.Set("Sec-Fetch-Dest", c.dest)
				if c.cookie != "" {
					r.Header.Set("Cookie", "__Host-Http-session="+c.cookie)
				}
				w := httptest.NewRecorder()
				m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })).ServeHTTP(w, r)
				return w.Result()
			}
			var saved error
			for _, f := range []func(s *session.Session){
				func(s *session.Session) { s.AddFlash("info", "Thank you!") },
				func(s *session.Session) { name.Set(s, "x"); saved = s.Save(t.Context()) },
			} {
				log.all = nil
				resp := do(f)
				if resp.StatusCode != 200 || setsCookie(resp) == c.dropsSession {
					t.Errorf("%s, adapted %v: %s, a cookie: %v", c.name, adapted, resp.Status, setsCookie(resp))
				}
				e := log.last(session.EventDropped)
				if dropped := e.Err != nil; dropped != c.dropsSession || dropped && !strings.Contains(e.Err.Error(), "another site") {
					t.Errorf("%s, adapted %v: %+v", c.name, adapted, log.all)
				}
			}
			if (saved != nil) != c.dropsSession || errors.Is(saved, session.ErrEnded) {
				t.Errorf("%s: Save: %v", c.name, saved)
			}
			if n := spy.count("Create"); (n == 0) != c.dropsSession {
				t.Errorf("%s: %d sessions were made", c.name, n)
			}
			if resp := do(func(s *session.Session) { s.Login("alice") }); !setsCookie(resp) {
				t.Errorf("%s: Login had no effect", c.name)
			}
		}
	}
}

// TestWhoMadeTheRequest: promise 16. For a request without Sec-Fetch-Site, and for one that a
// service worker forwarded, Origin and Referer determine which site made it.
func TestWhoMadeTheRequest(t *testing.T) {
	const lax, strict = http.SameSiteLaxMode, http.SameSiteStrictMode
	for _, c := range []struct {
		name     string
		sameSite http.SameSite
		method   string
		host     string
		headers  string
		drops    bool
	}{
		{"an old browser's way back", lax, "POST", "shop.test", "Origin: https://pay.test", true},
		{"from a frame without an origin", lax, "POST", "shop.test", "Origin: null", true},
		{"by another method", lax, "DELETE", "shop.test", "Origin: https://pay.test", true},
		{"a sibling domain, which by Origin is another site", lax, "POST", "shop.test", "Origin: https://www.shop.test", true},
		{"another port", lax, "POST", "shop.test:8443", "Origin: https://shop.test", true},
		{"a form of this site", lax, "POST", "shop.test", "Origin: https://shop.test", false},
		{"a form of this site, in another spelling", lax, "POST", "Shop.test:8443", "Origin: https://shop.test:8443", false},
		{"a form of this site, over plain HTTP", lax, "POST", "192.168.1.7", "Origin: http://192.168.1.7", false},
		{"no browser", lax, "POST", "shop.test", "", false},
		{"an old browser's link", lax, "GET", "shop.test", "Origin: https://pay.test", false},
		{"an old browser's HEAD", strict, "HEAD", "shop.test", "Origin: https://pay.test", false},
		{"SameSite=None", http.SameSiteNoneMode, "POST", "shop.test", "Origin: https://pay.test", false},
		{"junk cookies", lax, "POST", "shop.test", "Origin: https://pay.test|Cookie: __Host-Http-session=junk; __Host-Http-session=", true},
		{"junk of the right length", lax, "POST", "shop.test", "Origin: https://pay.test|Cookie: __Host-Http-session=" + strings.Repeat("A", 118), true},

		{"Firefox, a worker, a foreign post", lax, "POST", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: same-origin|Sec-Fetch-Dest: empty|Origin: https://shop.test|Referer: https://pay.test/", true},
		{"WebKit, a worker, a foreign post", lax, "POST", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Origin: https://pay.test", true},
		{"a worker, a form of this site", lax, "POST", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Origin: https://shop.test|Referer: https://shop.test/cart?x#y", false},
		{"a worker, an address typed in", strict, "GET", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty", false},
		{"a worker, a link", lax, "GET", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty|Referer: https://news.test/", false},
		{"a worker, a link, to a strict cookie", strict, "GET", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: same-origin|Sec-Fetch-Dest: empty|Referer: https://news.test", true},
		{"Chromium, a worker, a link", lax, "GET", "shop.test", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty", false},
		{"Chromium, a worker, a foreign post", lax, "POST", "shop.test", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: navigate|Sec-Fetch-Dest: empty", true},
		{"a script of this site", lax, "POST", "shop.test", "Sec-Fetch-Site: same-origin|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty|Referer: https://shop.test/", false},
		{"another site's script", lax, "GET", "shop.test", "Sec-Fetch-Site: cross-site|Sec-Fetch-Mode: cors|Sec-Fetch-Dest: empty", true},
	} {
		log := captureLog(t)
		m := newManager(t, session.Options{Cookie: session.CookieOptions{SameSite: c.sameSite}})
		var kept *session.Session
		h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			kept = session.From(r.Context())
			name.Set(kept, "x")
		}))
		for range 2 {
			r := httptest.NewRequest(c.method, "https://shop.test/paid", nil)
			r.Host = c.host
			for _, line := range strings.Split(c.headers, "|") {
				if name, value, ok := strings.Cut(line, ": "); ok {
					r.Header.Set(name, value)
				}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if resp := w.Result(); resp.StatusCode != 200 || setsCookie(resp) == c.drops {
				t.Errorf("%s: %s, a cookie: %v", c.name, resp.Status, setsCookie(resp))
			}
			if err := kept.Err(); (err != nil) != c.drops {
				t.Errorf("%s: Err after the response: %v", c.name, err)
			}
		}
		if lines := strings.Count(log.String(), "\n"); (lines == 1) != c.drops || lines > 1 {
			t.Errorf("%s: logged: %s", c.name, log)
		}
	}
}

// TestSignedInAfterPaying checks that a user who was logged in before a payment at another site
// is logged in after it.
func TestSignedInAfterPaying(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/paid": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.AddFlash("info", "Thank you!")
			http.Redirect(w, r, "/thanks", http.StatusSeeOther)
		},
		"/thanks": func(w http.ResponseWriter, r *http.Request, s *session.Session) { w.Write([]byte(s.User())) },
	}))
	b.get("/login")
	r := httptest.NewRequest("POST", "https://localhost/paid", nil) // without the Lax cookie
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Dest", "document")
	if resp := b.do(r); resp.StatusCode != http.StatusSeeOther {
		t.Error(resp.Status)
	}
	if got := body(b.get("/thanks")); got != "alice" {
		t.Errorf("logged in as %q", got)
	}
}

// captureLog redirects slog to the buffer that it returns, until the test ends.
func captureLog(t *testing.T) *bytes.Buffer {
	before := slog.Default()
	t.Cleanup(func() { slog.SetDefault(before) })
	log := new(bytes.Buffer)
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	return log
}

// TestWarnings checks the warnings about TLS. A Secure cookie that is sent over plain HTTP is
// never sent back, so every session seems lost. A cookie without Secure can be read on the
// network, which is a mistake only if TLS is available. Each is logged once, in the right
// cases.
func TestWarnings(t *testing.T) {
	for _, c := range []struct {
		what     string
		host     string
		header   string // name and value
		tls      bool
		secure   bool // whether a Secure cookie causes a warning
		insecure bool // whether, with Insecure, a cookie without Secure does
	}{
		{"another host", "example.com", "", false, true, false},
		{"another host and port", "example.com:8080", "", false, true, false},
		{"an address", "192.168.1.7:8080", "", false, true, false},
		{"an IPv6 address", "[2001:db8::1]:8080", "", false, true, false},
		{"no host", "", "", false, true, false},
		{"a name that begins so", "localhost.example.com", "", false, true, false},
		{"a name that ends so", "notlocalhost", "", false, true, false},
		{"an address that begins so", "127.0.0.1.example.com", "", false, true, false},

		{"localhost", "localhost", "", false, false, false},
		{"localhost and port", "localhost:8080", "", false, false, false},
		{"localhost in capitals", "LocalHost:8080", "", false, false, false},
		{"below localhost", "shop.localhost:8080", "", false, false, false},
		{"127.0.0.1", "127.0.0.1", "", false, false, false},
		{"127.0.0.1 and port", "127.0.0.1:8080", "", false, false, false},
		{"127.8.8.8", "127.8.8.8:80", "", false, false, false},
		{"::1", "[::1]", "", false, false, false},
		{"::1 and port", "[::1]:8080", "", false, false, false},

		{"TLS", "example.com", "", true, false, true},
		{"X-Forwarded-Proto", "example.com", "X-Forwarded-Proto: https", false, false, true},
		{"X-Forwarded-Proto of plain HTTP", "example.com", "X-Forwarded-Proto: http", false, false, false},
		{"Forwarded", "example.com", "Forwarded: for=192.0.2.43;proto=https", false, false, true},
		{"Forwarded with quotes", "example.com", `Forwarded: for="[2001:db8::1]";proto="https"`, false, false, true},
		{"two proxies", "example.com", "X-Forwarded-Proto: https, http", false, false, true},
		{"two proxies, the first by plain HTTP", "example.com", "X-Forwarded-Proto: http, https", false, false, false},
		{"two proxies, Forwarded", "example.com", "Forwarded: proto=http, proto=https", false, false, false},
		{"another proxy's header", "example.com", "X-Forwarded-For: 192.0.2.43", false, true, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			for _, insecure := range []bool{false, true} {
				want, word := c.secure, "without TLS"
				if insecure {
					want, word = c.insecure, "without Secure"
				}
				log := captureLog(t)
				h := newManager(t, session.Options{Cookie: session.CookieOptions{Insecure: insecure}}).Handler(reception)
				for range 3 {
					r := httptest.NewRequest("GET", "http://localhost/set", nil)
					r.Host = c.host
					if name, value, ok := strings.Cut(c.header, ": "); ok {
						r.Header.Set(name, value)
					}
					if c.tls {
						r.TLS = &tls.ConnectionState{}
					}
					h.ServeHTTP(httptest.NewRecorder(), r)
				}
				lines := strings.Count(log.String(), "level=WARN")
				if want && (lines != 1 || !strings.Contains(log.String(), word) || !strings.Contains(log.String(), "Options.Cookie.Insecure")) {
					t.Errorf("Insecure %v: want one warning with %q and the option: %q", insecure, word, log)
				}
				if !want && log.Len() != 0 {
					t.Errorf("Insecure %v: %s", insecure, log)
				}
			}
		})
	}
}

// TestAdaptSetsSecure checks that with Insecure, Adapt may set Secure for requests over TLS,
// and that without Insecure it cannot unset it.
func TestAdaptSetsSecure(t *testing.T) {
	log := captureLog(t)
	byRequest := func(r *http.Request, c *http.Cookie) { c.Secure = r.Header.Get("X-Forwarded-Proto") == "https" }
	for _, c := range []struct {
		insecure   bool
		proto      string
		wantSecure bool
	}{{true, "https", true}, {true, "", false}, {true, "http", false}, {false, "", true}, {false, "https", true}} {
		h := newManager(t, session.Options{Cookie: session.CookieOptions{Insecure: c.insecure, Adapt: byRequest}}).Handler(reception)
		for _, path := range []string{"/set", "/login?alice"} {
			r := httptest.NewRequest("GET", "http://localhost"+path, nil)
			r.Host = "nas"
			if r.Header.Set("X-Forwarded-Proto", c.proto); c.proto == "" && c.insecure {
				r.Header.Del("X-Forwarded-Proto")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			got := w.Result().Cookies()
			if w.Code != 200 || len(got) != 1 || got[0].Secure != c.wantSecure {
				t.Errorf("%+v: %d %v", c, w.Code, got)
			}
		}
	}
	if log.Len() > 0 {
		t.Error(log)
	}
}

// TestWarningOfAForeignDomain checks the warning about a Domain that is neither the host nor a
// parent of it, because browsers drop the cookie.
func TestWarningOfAForeignDomain(t *testing.T) {
	for _, c := range []struct {
		domain, host string
		warns        bool
	}{
		{"example.com", "example.com", false}, {"example.com", "shop.example.com:8443", false}, {".example.com", "SHOP.example.com", false},
		{"example.com", "127.0.0.1:8443", true}, {"example.com", "example.org", true}, {"example.com", "badexample.com", true},
		{"shop.example.com", "example.com", true}, {"example.com", "localhost", true}, {"192.168.1.1", "192.168.1.1:8443", false},
		{"1.1", "192.168.1.1", true}, {"com", "example.com", true}, {"localhost", "app.localhost", true}, {"localhost", "localhost:8080", false},
	} {
		for _, adapted := range []bool{false, true} {
			o := session.CookieOptions{Domain: c.domain}
			if adapted {
				o = session.CookieOptions{Name: "id", Adapt: func(_ *http.Request, k *http.Cookie) { k.Domain = c.domain }}
			}
			if c.domain == "1.1" {
				continue // New refuses this Domain
			}
			log := captureLog(t)
			h := newManager(t, session.Options{Cookie: o}).Handler(reception)
			for range 2 {
				r := httptest.NewRequest("GET", "https://localhost/set", nil)
				r.Host = c.host
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
			lines := strings.Count(log.String(), "level=WARN")
			if lines > 1 || (lines == 1) != c.warns || c.warns && !strings.Contains(log.String(), "Options.Cookie.Domain") {
				t.Errorf("Domain %s at %s, adapted %v: %s", c.domain, c.host, adapted, log)
			}
		}
	}
}

// TestWarningOfNestedManagers checks that two nested Managers with one cookie name, or both
// with Bearer, are logged once, because they replace each other's token, and that Managers with
// different names, or a single one, are not.
func TestWarningOfNestedManagers(t *testing.T) {
	for _, c := range []struct {
		what  string
		o     [3]session.Options
		warns bool
	}{
		{"one name", [3]session.Options{{}, {}, {}}, true},
		{"one name, another between", [3]session.Options{{}, {Cookie: session.CookieOptions{Name: "__Host-a"}}, {}}, true},
		{"three names", [3]session.Options{{}, {Cookie: session.CookieOptions{Name: "__Host-a"}}, {Cookie: session.CookieOptions{Name: "__Host-b"}}}, false},
		{"a cookie and a header", [3]session.Options{{}, {Bearer: true}, {Cookie: session.CookieOptions{Name: "__Host-b"}}}, false},
		{"two in headers", [3]session.Options{{Bearer: true}, {}, {Bearer: true}}, true},
	} {
		log := captureLog(t)
		var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { name.Set(session.From(r.Context()), "x") })
		for _, o := range c.o {
			m := newManager(t, o)
			h = m.Handler(m.Handler(h)) // a Manager inside itself forwards the request
		}
		for range 3 {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "https://localhost/", nil))
		}
		if lines := strings.Count(log.String(), "level=WARN"); (lines == 1) != c.warns || lines > 1 {
			t.Errorf("%s: %s", c.what, log)
		}
	}
}

// TestWarningsAreBounded checks that warnings are logged once per host, so that a request with
// an unusual Host does not suppress the others, and for a few hosts only, because clients
// choose the Host.
func TestWarningsAreBounded(t *testing.T) {
	log := captureLog(t)
	h := newManager(t, session.Options{}).Handler(reception)
	for i := range 100 {
		for range 2 {
			r := httptest.NewRequest("GET", "http://localhost/set", nil)
			r.Host = fmt.Sprint("host", i)
			h.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	if lines := strings.Count(log.String(), "level=WARN"); lines < 2 || lines > 10 {
		t.Errorf("%d lines", lines)
	}
}

// TestWarningIsOfACookieAndOnce checks that a request that sets no cookie causes no warning,
// and that each Manager logs the warning once for any number of concurrent requests.
func TestWarningIsOfACookieAndOnce(t *testing.T) {
	log := captureLog(t)
	h := newManager(t, session.Options{}).Handler(reception)
	visit := func(path string) {
		r := httptest.NewRequest("GET", "http://example.com"+path, nil)
		r.Header.Set("Cookie", "__Host-Http-session=garbage")
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	for _, path := range []string{"/", "/nowhere", "/logout"} { // the last path deletes the cookie
		if visit(path); log.Len() != 0 {
			t.Fatalf("GET %s: %s", path, log)
		}
	}
	var all sync.WaitGroup
	start := make(chan struct{})
	for range 20 {
		all.Go(func() { <-start; visit("/set") })
	}
	close(start)
	all.Wait()
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, log)
	}
	h = newManager(t, session.Options{}).Handler(reception)
	if visit("/set"); strings.Count(log.String(), "\n") != 2 {
		t.Errorf("the log of another Manager: %s", log)
	}
}

// TestWarningOfAHeader checks that a token in a header causes a warning where a Secure cookie
// would.
func TestWarningOfAHeader(t *testing.T) {
	log := captureLog(t)
	a := &app{h: newManager(t, session.Options{Bearer: true}).Handler(reception)}
	visit := func(url string, header ...string) {
		r := httptest.NewRequest("GET", url, nil)
		for _, name := range header {
			r.Header.Set(name, "https")
		}
		a.do(r)
	}
	visit("http://example.com/") // gets no token
	visit("http://localhost:8080/set")
	visit("https://example.com/set")
	visit("http://example.com/set", "X-Forwarded-Proto")
	visit("http://example.com/set", "Forwarded")
	if log.Len() != 0 {
		t.Error(log)
	}
	visit("http://example.com/set")
	visit("http://example.com/set")
	if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "without TLS") || strings.Contains(log.String(), a.token) {
		t.Errorf("%q", log)
	}
}

// TestResponsePastOurWriter covers a middleware inside a framework with a writer of its own,
// which passes on only the request, so that no cookie is set. If that writer reports that it
// was written, this is logged once, and no session is created whose cookie could not be sent.
// Changes of a session that the browser has are kept.
func TestResponsePastOurWriter(t *testing.T) {
	log := captureLog(t)
	var told events
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy, OnEvent: told.on})
	sent := open(t, m, "alice")
	spy.forget()
	past := func(do func(s *session.Session)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			own := &writtenRecorder{ResponseWriter: w}
			m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { // c.Request = r; c.Next()
				do(session.From(r.Context()))
				own.Write(ok)
			})).ServeHTTP(own, r)
		})
	}
	newBrowser(t, past(func(*session.Session) {})).get("/")
	if log.Len() != 0 {
		t.Errorf("unexpected log line: %s", log)
	}
	for range 3 {
		if resp := newBrowser(t, past(write)).get("/"); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
	}
	if spy.count("") != 0 || told.count(session.EventDropped) != 3 {
		t.Errorf("calls of the store: %q, events %v", spy.summary(), told.all)
	}
	newBrowser(t, past(write)).replay(sent).get("/")
	if got := opens(t, m, sent); got != "new of alice" {
		t.Errorf("the cookie opens %q", got)
	}
	if text := log.String(); strings.Count(text, "sessions.Handler(engine)") != 1 {
		t.Errorf("logged %q", text)
	}
	log.Reset()
	for _, wrong := range []bool{false, true} { // the Manager's writer, and a writer that was not written
		b := newBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if write(session.From(r.Context())); !wrong {
					w.Write(ok)
				}
			})).ServeHTTP(&writtenRecorder{ResponseWriter: w}, r)
		}))
		b.get("/")
		if b.cookie() == "" {
			t.Errorf("no cookie; nothing was written: %v", wrong)
		}
	}
	if log.Len() != 0 {
		t.Errorf("unexpected log line: %s", log)
	}
}

// writtenRecorder is the writer of a framework, like that of gin.
type writtenRecorder struct {
	http.ResponseWriter
	written bool
}

func (w *writtenRecorder) Write(p []byte) (int, error) {
	w.written = true
	return w.ResponseWriter.Write(p)
}

func (w *writtenRecorder) Written() bool { return w.written }
