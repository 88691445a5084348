package session_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// This file is a browser with Device Bound Session Credentials in software. It does what Chromium
// 156 was seen to do, and reads as a description of the protocol:
//
//  1. A response has a Secure-Session-Registration: the browser makes a key and registers it.
//  2. The answer names a cookie. While the browser has that cookie, it sends requests as always.
//  3. The cookie has less than two minutes left: the browser sends the request, and refreshes
//     beside it. Without the cookie it refreshes first and then sends the request.
//  4. A refresh is a POST with a signature of the last challenge. A 403 with another challenge is
//     answered by another signature, five times at most.
//  5. The server ends the session by "continue":false. Any other answer below 500 that is not
//     understood ends it too. After a 5xx the request is sent without the cookie, with the reason.

// A boundBrowser is a browser that can bind sessions. It fails the test if an answer is one that
// Chromium would not accept.
type boundBrowser struct {
	*browser
	newKey      func(testing.TB) *deviceKey
	isQuoted    bool                // send headers as the draft has them, not as Chromium does
	register    func() bool         // whether to register, each time that it is offered; nil: always
	deliver     func(leg *leg) bool // whether an answer of the endpoint arrives; nil: always
	sessions    []*boundSession     // in the order of refreshes, which in Chromium is none that a server knows
	legs        []*leg              // all requests to the endpoint
	isCrossSite bool                // the request in progress was caused by another site
	noProactive bool                // do not refresh before the cookie is gone
}

// A boundSession is what the browser keeps of one session.
type boundSession struct {
	key        *deviceKey
	identifier string
	url        string
	challenge  string // of the next proof; "": none
	cookie     string // the name of the cookie that it maintains
	attributes string
	expires    time.Time // of that cookie
}

// A leg is one request to the endpoint, and its answer.
type leg struct {
	request *http.Request
	proof   string
	status  int
	header  http.Header
	body    string
}

// A deviceKey is a private key, which a thief of cookies does not have.
type deviceKey struct {
	alg, jwk string
	sign     func(text string) []byte
}

func newBoundBrowser(t testing.TB, h http.Handler) *boundBrowser {
	return &boundBrowser{browser: newBrowser(t, h), newKey: newES256}
}

func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newES256(t testing.TB) *deviceKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	jwk := fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, encoded(public[1:33]), encoded(public[33:]))
	return &deviceKey{"ES256", jwk, func(text string) []byte {
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Error(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}}
}

// newRS256 returns a key of RSA, always the same, because making one is slow.
func newRS256(t testing.TB) *deviceKey {
	key := rsaKey()
	return &deviceKey{"RS256", fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, encoded(key.N.Bytes())), func(text string) []byte {
		sum := sha256.Sum256([]byte(text))
		signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Error(err)
		}
		return signature
	}}
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// proof returns a JSON Web Signature over a challenge, with the public key if withKey.
func (k *deviceKey) proof(challenge string, withKey bool) string {
	header := `{"alg":"` + k.alg + `","typ":"dbsc+jwt"}`
	if withKey {
		header = `{"alg":"` + k.alg + `","jwk":` + k.jwk + `,"typ":"dbsc+jwt"}`
	}
	text := encoded([]byte(header)) + "." + encoded([]byte(`{"jti":"`+challenge+`"}`))
	return text + "." + encoded(k.sign(text))
}

// get requests a path and follows what the response says about keys.
func (b *boundBrowser) get(path string) *http.Response {
	return b.do(httptest.NewRequest("GET", "https://localhost"+path, nil))
}

// getFromOtherSite follows a link on another site to this one.
func (b *boundBrowser) getFromOtherSite(path string) *http.Response {
	b.isCrossSite = true
	defer func() { b.isCrossSite = false }()
	r := httptest.NewRequest("GET", "https://localhost"+path, nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	return b.do(r)
}

// postFromOtherSite is a form on another site: SameSite=Lax keeps the cookies back.
func (b *boundBrowser) postFromOtherSite(path string) *http.Response {
	b.isCrossSite = true
	defer func() { b.isCrossSite = false }()
	r := httptest.NewRequest("POST", "https://localhost"+path, nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Origin", "https://other.example")
	return b.do(r)
}

// do sends a request: first it refreshes if a cookie is missing, and afterwards if one is about to
// expire.
func (b *boundBrowser) do(r *http.Request) *http.Response {
	b.t.Helper()
	var late []*boundSession
	for _, s := range slices.Clone(b.sessions) {
		switch {
		case !b.has(s):
			if reason := b.refresh(s); reason != "" {
				r.Header.Set("Secure-Session-Skipped", reason+`;session_identifier="`+s.identifier+`"`)
			}
		case time.Until(s.expires) < 2*time.Minute && !b.noProactive:
			late = append(late, s)
		}
	}
	isForm := b.isCrossSite && r.Method == "POST"
	if !isForm {
		b.addCookies(r)
	}
	resp := b.browser.do(r)
	for _, s := range late {
		b.refresh(s)
	}
	b.offered(resp)
	return resp
}

// has reports whether the browser has the cookie that a session maintains.
func (b *boundBrowser) has(s *boundSession) bool {
	return slices.ContainsFunc(b.jar.Cookies(origin), func(c *http.Cookie) bool { return c.Name == s.cookie })
}

// withCookies returns a request of a path with the cookies of the browser.
func (b *boundBrowser) withCookies(path string) *http.Request {
	r := httptest.NewRequest("GET", "https://localhost"+path, nil)
	b.addCookies(r)
	return r
}

func (b *boundBrowser) addCookies(r *http.Request) {
	for _, c := range b.jar.Cookies(origin) {
		r.AddCookie(c)
	}
}

var registration = regexp.MustCompile(`^\(([A-Z0-9 ]+)\);path="([^"]+)";challenge="([^"]+)"$`)

// offered registers a key if a response offers that.
func (b *boundBrowser) offered(resp *http.Response) {
	b.t.Helper()
	offer := resp.Header.Get("Secure-Session-Registration")
	if offer == "" || b.register != nil && !b.register() {
		return
	}
	parts := registration.FindStringSubmatch(offer)
	if parts == nil {
		b.t.Fatalf("the offer %q is malformed", offer)
	}
	key := b.newKey(b.t)
	if !slices.Contains(strings.Fields(parts[1]), key.alg) {
		b.t.Fatalf("the offer %q is not for %s", offer, key.alg)
	}
	s := &boundSession{key: key, url: parts[2]}
	for range 2 { // a connection that is lost is tried again, with the same proof
		l := b.newLeg(s, key.proof(parts[3], true))
		if !b.send(l) {
			continue
		}
		if l.status == http.StatusOK {
			b.accepted(s, l)
		}
		return
	}
}

// refresh gets another cookie, or returns the reason why not.
func (b *boundBrowser) refresh(s *boundSession) (reason string) {
	b.t.Helper()
	for range 5 {
		proof := ""
		if s.challenge != "" {
			proof = s.key.proof(s.challenge, false)
		}
		l := b.newLeg(s, proof)
		l.request.Header.Set("Sec-Secure-Session-Id", b.field(s.identifier))
		if !b.send(l) {
			return "unreachable"
		}
		next := l.header.Get("Secure-Session-Challenge")
		switch {
		case l.status == http.StatusOK:
			b.accepted(s, l)
			return ""
		case l.status == http.StatusForbidden && next != "":
			s.challenge = b.challengeOf(s, next)
		case l.status >= 500:
			return "server_error"
		default:
			b.forget(s)
			return ""
		}
	}
	b.forget(s)
	return ""
}

// newLeg returns a request to the endpoint. It has the cookies only if the request that caused it
// has those of SameSite.
func (b *boundBrowser) newLeg(s *boundSession, proof string) *leg {
	r := httptest.NewRequest("POST", "https://localhost"+s.url, nil)
	r.Header.Set("Origin", "https://localhost")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Header.Set("Sec-Fetch-Mode", "no-cors")
	r.Header.Set("Sec-Fetch-Dest", "empty")
	if proof != "" {
		r.Header.Set("Secure-Session-Response", b.field(proof))
	}
	if !b.isCrossSite {
		b.addCookies(r)
	}
	return &leg{request: r, proof: proof}
}

// field returns the value of a header, bare or quoted.
func (b *boundBrowser) field(value string) string {
	if b.isQuoted {
		return `"` + value + `"`
	}
	return value
}

// send sends a request to the endpoint. It returns false if the answer was lost.
func (b *boundBrowser) send(l *leg) bool {
	b.t.Helper()
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, l.request)
	resp := w.Result()
	text, _ := io.ReadAll(resp.Body)
	l.status, l.header, l.body = resp.StatusCode, resp.Header, string(text)
	b.legs = append(b.legs, l)
	for _, c := range resp.Cookies() {
		if !strings.Contains(strings.ToLower(c.Name), "bound") {
			b.t.Errorf("the endpoint sets the cookie %s", c.Name)
		}
	}
	if b.deliver != nil && !b.deliver(l) {
		return false
	}
	b.jar.SetCookies(origin, resp.Cookies())
	return true
}

// accepted follows the instructions of a 200.
func (b *boundBrowser) accepted(s *boundSession, l *leg) {
	b.t.Helper()
	var is struct {
		Identifier  string `json:"session_identifier"`
		Continue    *bool
		URL         string `json:"refresh_url"`
		Scope       map[string]any
		Credentials []struct{ Type, Name, Attributes string }
		Initiators  []string `json:"allowed_refresh_initiators"`
	}
	if err := json.Unmarshal([]byte(l.body), &is); err != nil || is.Identifier == "" || l.header.Get("Content-Type") != "application/json" {
		b.t.Fatalf("the instructions %q are no JSON: %v", l.body, err)
	}
	if s.identifier != "" && is.Identifier != s.identifier {
		b.t.Errorf("the identifier changes from %s to %s", s.identifier, is.Identifier)
	}
	if is.Continue != nil && !*is.Continue {
		if len(l.header["Set-Cookie"]) > 0 {
			b.t.Error("the end of a session sets a cookie, which may be a newer session's")
		}
		b.forget(s)
		return
	}
	if len(is.Credentials) != 1 || is.Credentials[0].Type != "cookie" || is.Scope["include_site"] != false || is.Scope["origin"] != nil || !slices.Equal(is.Initiators, []string{"*"}) {
		b.t.Fatalf("the instructions are %s", l.body)
	}
	if name := strings.ToLower(is.Credentials[0].Name); strings.HasPrefix(name, "__host-http-") || strings.HasPrefix(name, "__http-") {
		b.t.Errorf("the name of the cookie is %s, which Chromium does not maintain (InvalidCredentialsCookie)", name)
	}
	s.identifier, s.url, s.cookie, s.attributes = is.Identifier, is.URL, is.Credentials[0].Name, is.Credentials[0].Attributes
	s.challenge = b.challengeOf(s, l.header.Get("Secure-Session-Challenge"))
	if i := slices.IndexFunc(b.sessions, func(o *boundSession) bool { return o.identifier == s.identifier }); i >= 0 {
		b.sessions[i] = s // the same identifier replaces
	} else {
		b.sessions = append(b.sessions, s)
	}
	lines := l.header["Set-Cookie"]
	if len(lines) != 1 {
		b.t.Fatalf("%d cookies in an answer", len(lines))
	}
	c, err := http.ParseSetCookie(lines[0])
	if err != nil || c.Name != s.cookie || c.MaxAge <= 0 {
		b.t.Fatalf("the cookie is %s", lines[0])
	}
	s.expires = time.Now().Add(time.Duration(c.MaxAge) * time.Second)
	c.MaxAge, c.Value = 0, ""
	if got := strings.TrimPrefix(c.String(), s.cookie+"=; "); got != s.attributes { // else it counts as missing, always
		b.t.Errorf("the cookie has the attributes %q, and the instructions %q", got, s.attributes)
	}
}

var challenge = regexp.MustCompile(`^"([^"]+)";id="([^"]+)"$`)

// challengeOf returns the challenge in a header. A 200 without one drops the cached challenge.
func (b *boundBrowser) challengeOf(s *boundSession, header string) string {
	b.t.Helper()
	parts := challenge.FindStringSubmatch(header)
	if parts == nil || s.identifier != "" && parts[2] != s.identifier {
		b.t.Fatalf("the challenge %q is malformed, or another session's", header)
	}
	return parts[1]
}

func (b *boundBrowser) forget(s *boundSession) {
	b.sessions = slices.DeleteFunc(b.sessions, func(o *boundSession) bool { return o == s })
}

// restart closes the browser: cookies without Max-Age are lost, and cached challenges. Keys and
// the sessions that they belong to stay.
func (b *boundBrowser) restart(survivors ...string) {
	old := b.jar.Cookies(origin)
	b.jar = newBrowser(b.t, b.h).jar
	for _, c := range old {
		if slices.Contains(survivors, c.Name) {
			b.jar.SetCookies(origin, []*http.Cookie{{Name: c.Name, Value: c.Value, Path: "/", Secure: true}})
		}
	}
	for _, s := range b.sessions {
		s.challenge = ""
	}
}

// thief returns a browser without keys that has copies of the cookies with these names; none given:
// of all.
func (b *boundBrowser) thief(names ...string) *browser {
	other := newBrowser(b.t, b.h)
	for _, c := range b.jar.Cookies(origin) {
		if len(names) == 0 || slices.Contains(names, c.Name) {
			other.jar.SetCookies(origin, []*http.Cookie{{Name: c.Name, Value: c.Value, Path: "/", Secure: true}})
		}
	}
	return other
}
