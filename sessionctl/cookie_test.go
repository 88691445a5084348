package main

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/sessiontest"
)

const olderSecret = "fedcba9876543210fedcba9876543210"

// TestCookie checks what the command says of cookies in all states, on every store.
func TestCookie(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		m := p.manager(session.Options{RenewAfter: time.Minute})
		id, value := p.begin(m, "alice")
		good := func(in string, texts ...string) {
			t.Helper()
			p.runWith(in, "cookie").want(t, exitDone, append(texts, "ok  It works.")...)
		}
		bad := func(in string, texts ...string) {
			t.Helper()
			p.runWith(in, "cookie").want(t, exitBad, append(texts, "!!  It does not work")...)
		}
		good(value, "the signature is valid, by SESSION_SECRET", id, "of alice, who logged in", "the key is the current one", "it expires")
		good("Cookie: theme=dark; __Host-Http-session="+value+"\r\n", "the key is the current one")
		good("__Host-Http-session=" + value + "==")
		good("Set-Cookie: __Host-Http-session=" + value + "; Path=/; HttpOnly; Secure; SameSite=Lax")
		var j judged
		if p.runWith(value, "-json", "cookie").parse(t, &j); !j.Works || len(j.IDs) != 1 || j.IDs[0] != id {
			t.Errorf("cookie printed %+v", j)
		}
		_, anonymous := p.begin(m, "")
		good(anonymous, "anonymous, created")

		// Two live sessions, and one that is live beside one that has ended.
		both := "Cookie: __Host-Http-session=" + value + "; __Host-Http-session=" + anonymous
		bad(both, "token 1 of 2: the key is the current one", "two live sessions")
		p.entomb(id, body.ReasonRevoke)
		bad(value, "the session has ended, by a revocation")
		good(both, "token 1 of 2: the session has ended")

		must(t, p.store.Delete(t.Context(), id))
		bad(value, "the store has no session "+id, p.name)
	})
}

// TestReplacedCookies checks keys that are not the current one.
func TestReplacedCookies(t *testing.T) {
	p := sqlitePlace(t)
	m := p.manager(session.Options{RenewGrace: time.Minute})
	b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/login":
			s.Login("alice")
		case "/renew":
			s.Renew()
		case "/other":
			s.Login("bob")
		}
	})))
	get := func(path string) string {
		t.Helper()
		value := b.Get(path).Cookies()[0].Value
		if value != "" {
			p.secrets = append(p.secrets, value)
		}
		return value
	}
	first, before := get("/login"), time.Now()
	second := get("/renew")
	if r := p.runWith(first, "cookie"); time.Since(before) < time.Minute { // the grace
		r.want(t, exitDone, "was replaced by Renew, Remember or a login, and until", "sees the session as it was before")
	}
	p.runWith(second, "cookie").want(t, exitDone, "the key is the current one")

	m = p.manager(session.Options{RenewGrace: -1}) // in another process
	b2 := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Renew() })))
	r, _ := http.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-Http-session", Value: second})
	third := b2.Do(r).Cookies()[0].Value
	p.secrets = append(p.secrets, third)
	p.runWith(second, "cookie").want(t, exitBad, "the token was replaced, and the session goes on with a newer one", "revoke the session")
	p.runWith(third, "cookie").want(t, exitDone, "the key is the current one")

	p.runWith("__Host-Http-session=", "cookie").want(t, exitBad, "the token is empty")
	other := get("/other") // another session
	p.entomb(idOf(t, p, other), body.ReasonLogout)
	p.runWith(other, "cookie").want(t, exitBad, "the session has ended, by a logout")
	p.entomb(idOf(t, p, third), body.ReasonLogin)
	p.runWith(third, "cookie").want(t, exitBad, "by a login, which replaced it")
}

// idOf returns the id of the session of a token.
func idOf(t *testing.T, p *place, token string) string {
	t.Helper()
	var j judged
	p.runWith(token, "-json", "cookie").parse(t, &j)
	return j.IDs[0]
}

// TestSupersededCookie checks a key that an automatic renewal has replaced, and which is valid
// until the browser has sent the newer one.
func TestSupersededCookie(t *testing.T) {
	p := sqlitePlace(t)
	m := p.manager(session.Options{RenewAfter: time.Minute})
	id, value := p.begin(m, "alice")
	// The session has an hour behind it.
	rec, err := p.store.Load(t.Context(), id)
	must(t, err)
	old := *rec
	old.Created, old.Version = rec.Created.Add(-time.Hour), 1
	must(t, p.store.Save(t.Context(), &old, rec.Version))
	r, _ := http.NewRequest("GET", "/", nil)
	r.AddCookie(&http.Cookie{Name: "__Host-Http-session", Value: value})
	b := sessiontest.NewBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { theme.Get(session.From(r.Context())) })))
	newer := b.Do(r).Cookies()[0].Value
	p.secrets = append(p.secrets, newer)
	p.runWith(value, "cookie").want(t, exitDone, "the key is superseded and still valid")
	p.runWith(newer, "cookie").want(t, exitDone, "the key is the current one")
}

// TestSignatures checks what the command says of secrets, and of tokens that do not verify.
func TestSignatures(t *testing.T) {
	p := sqlitePlace(t)
	m := p.manager(session.Options{})
	_, value := p.begin(m, "alice")
	changed := []byte(value)
	changed[60] = map[bool]byte{true: 'B', false: 'A'}[changed[60] == 'A']
	bearer := session.Must(session.New(&session.Options{Store: p.store, Secrets: [][]byte{[]byte(secretText)}, Bearer: true}))
	var bearerToken string
	r, _ := http.NewRequest("GET", "https://localhost/", nil)
	sessiontest.Do(t, bearer, r, func(s *session.Session) { s.Login("alice") })
	bearerToken = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	renamed := p.manager(session.Options{Cookie: session.CookieOptions{Name: "web"}})
	_, web := p.begin(renamed, "alice")
	raw := []byte{0xff, 0xee}
	for len(raw) < 32 {
		raw = append(raw, byte(len(raw)))
	}
	binary := session.Must(session.New(&session.Options{Store: p.store, Secrets: [][]byte{raw}}))
	_, byBinary := p.begin(binary, "alice")
	p.secrets = append(p.secrets, bearerToken, olderSecret)

	for name, test := range map[string]struct {
		in     string
		env    map[string]string
		args   []string
		status int
		want   []string
	}{
		"an older secret":         {value, map[string]string{"NEW": olderSecret, "OLD": secretText}, []string{"-secret-env", "NEW, OLD"}, exitDone, []string{"by OLD", "OLD is an older secret", "SecretUses"}},
		"another secret":          {value, map[string]string{"SESSION_SECRET": olderSecret}, nil, exitBad, []string{"no secret verifies the signature", "tried: SESSION_SECRET"}},
		"a list of secrets":       {value, map[string]string{"SESSION_SECRET": olderSecret + ", " + secretText}, nil, exitDone, []string{"one of the secrets that commas separate"}},
		"a line break":            {value, map[string]string{"SESSION_SECRET": secretText + "\n"}, nil, exitBad, []string{"without the spaces, line breaks or quotes"}},
		"base64":                  {byBinary, map[string]string{"SESSION_SECRET": base64.StdEncoding.EncodeToString(raw)}, nil, exitDone, []string{"SESSION_SECRET, decoded from base64"}},
		"base64 for URLs":         {byBinary, map[string]string{"SESSION_SECRET": base64.RawURLEncoding.EncodeToString(raw)}, nil, exitDone, []string{"decoded from base64"}},
		"hex":                     {byBinary, map[string]string{"SESSION_SECRET": hex.EncodeToString(raw)}, nil, exitDone, []string{"decoded from hex"}},
		"no secret":               {value, map[string]string{"SESSION_SECRET": ""}, nil, exitUsage, []string{"SESSION_SECRET is empty", "-secret-env"}},
		"a short secret":          {value, map[string]string{"SESSION_SECRET": "short"}, nil, exitUsage, []string{"shorter than 32 bytes"}},
		"a changed character":     {string(changed), nil, nil, exitBad, []string{"a character was changed"}},
		"half a token":            {value[:60], nil, nil, exitBad, []string{"60 characters", "cut off"}},
		"quotes":                  {`session="` + value + `"`, nil, nil, exitBad, []string{"quotes around it"}},
		"an escape":               {"__Host-Http-session=" + value + "%3D", nil, nil, exitBad, []string{"contains a %"}},
		"another program's":       {"session=s%3Aabc.def", nil, nil, exitBad, []string{"contains a %"}},
		"not a token":             {"session=abc", nil, nil, exitBad, []string{"no token of this package"}},
		"nothing":                 {"", nil, nil, exitBad, []string{"the input is empty"}},
		"other cookies":           {"Cookie: a=b; c\x1b=d", nil, nil, exitBad, []string{"there is no cookie named __Host-Http-session", `a, "c\x1b"`, "SameSite"}},
		"another name":            {"Cookie: a=b; web=" + web, nil, nil, exitDone, []string{"It works"}},
		"another name, by a flag": {web, nil, []string{"-cookie-name", "web"}, exitDone, []string{"It works"}},
		"a value without a name":  {web, nil, nil, exitBad, []string{"-cookie-name"}},
		"renamed":                 {"Cookie: web=" + value, nil, nil, exitBad, []string{"valid for a cookie of a default name and not for the cookie web"}},
		"a bearer token":          {"Authorization: bearer " + bearerToken, nil, nil, exitDone, []string{"It works"}},
		"a new bearer token":      {"Session-Token: " + bearerToken, nil, nil, exitDone, []string{"It works"}},
		"a bearer in a cookie":    {"session=" + bearerToken, nil, nil, exitBad, []string{"valid for the header Authorization", "not for the cookie session"}},
		"a cookie as a bearer":    {"Authorization: Bearer " + value, nil, nil, exitBad, []string{"valid for a cookie of a default name and not for the header"}},
		"basic authentication":    {"Authorization: Basic YTpi", nil, nil, exitBad, []string{"not a Bearer token"}},
		"five cookies":            {strings.Repeat("__Host-Http-session="+value+";", 5), nil, nil, exitBad, []string{"5 cookies of this name"}},
		"without Secure":          {"Set-Cookie: __Host-Http-session=" + value + "; Path=/; HttpOnly", nil, nil, exitBad, []string{"needs Secure"}},
		"with Domain":             {"Set-Cookie: __Host-Http-session=" + value + "; Path=/; HttpOnly; Secure; Domain=example.com", nil, nil, exitBad, []string{"forbids Domain"}},
		"without HttpOnly":        {"Set-Cookie: __Host-Http-session=" + value + "; Path=/; Secure", nil, nil, exitBad, []string{"needs HttpOnly"}},
		"SameSite=None":           {"Set-Cookie: session=" + value + "; SameSite=None", nil, nil, exitBad, []string{"SameSite=None needs Secure"}},
		"deleted":                 {"Set-Cookie: __Host-Http-session=" + value + "; Path=/; HttpOnly; Secure; Max-Age=0", nil, nil, exitBad, []string{"deletes the cookie"}},
		"curl's file":             {"# Netscape HTTP Cookie File\n# https://curl.se/docs/http-cookies.html\n\n#HttpOnly_localhost\tFALSE\t/\tTRUE\t0\t__Host-Http-session\t" + value + "\nlocalhost\tFALSE\t/\tFALSE\t0\tlang\ten\n", nil, nil, exitDone, []string{"It works"}},
		"another file of curl's":  {"# Netscape HTTP Cookie File\nlocalhost\tFALSE\t/\tFALSE\t0\tlang\ten\n", nil, nil, exitBad, []string{"there is no cookie named __Host-Http-session", "only lang"}},
		"malformed":               {"Set-Cookie: ;", nil, nil, exitBad, []string{"malformed"}},
		"without a store":         {value, map[string]string{"SESSION_STORE": ""}, nil, exitDone, []string{"??  whether the session is live"}},
	} {
		t.Run(name, func(t *testing.T) {
			at := *p
			at.t, at.env = t, map[string]string{}
			for name, text := range p.env {
				at.env[name] = text
			}
			for name, text := range test.env {
				at.env[name] = text
			}
			r := at.runWith(test.in, append(test.args, "cookie")...)
			r.want(t, test.status, test.want...)
			for _, secret := range test.env {
				if len(secret) > 20 && strings.Contains(r.out+r.err, secret) {
					t.Errorf("a secret was printed:\n%s%s", r.out, r.err)
				}
			}
		})
	}
}

// TestClocksOfTokens checks that a token and a session of the future are explained.
func TestClocksOfTokens(t *testing.T) {
	p := sqlitePlace(t)
	id, value := p.begin(p.manager(session.Options{}), "alice")
	must(t, p.store.Touch(t.Context(), id, time.Now().Add(10*time.Minute), time.Now().Add(time.Hour)))
	p.runWith(value, "cookie").want(t, exitDone, "in the future: the clocks of the machines differ")
}
