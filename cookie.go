package session

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/securecookie"
)

// A token is what the browser holds: 32 random bytes (OWASP ASVS 5, 7.2.3 asks
// for 16). The record's id is its SHA-256, so that a stolen store opens nothing.
type token [32]byte

func newToken() *token {
	t := new(token)
	rand.Read(t[:])
	return t
}

const idLength = 43

func (t *token) id() string {
	sum := sha256.Sum256(t[:])
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// cookies reads and writes the cookie of one Manager.
type cookies struct {
	name     string
	codecs   []*securecookie.SecureCookie // the first signs, all verify
	verified verified
	template http.Cookie
	line     string // of the template
	adapt    func(*http.Request, *http.Cookie)
	warned   atomic.Bool
}

// newCookies derives a key for this purpose and this cookie's name from each
// secret, so that a secret used elsewhere too signs nothing that is good here.
func newCookies(o *CookieOptions, secrets [][]byte) (*cookies, error) {
	c := &cookies{name: o.Name, template: *o.template(), adapt: o.Adapt}
	c.line = c.template.String()
	c.verified.init()
	for i, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "github.com/coatcheck/session cookie "+o.Name, 32)
		if err != nil {
			return nil, fmt.Errorf("session: Options.Secrets[%d]: %w", i, err)
		}
		codec := securecookie.New(key, nil).SetSerializer(securecookie.NopEncoder{}).MaxAge(0)
		c.codecs = append(c.codecs, codec)
		// securecookie reports a bad key on first use: let that be now.
		t := newToken()
		value, err := codec.Encode(c.name, t[:])
		if err != nil {
			return nil, fmt.Errorf("session: Options.Secrets[%d]: %w", i, err)
		}
		if got, ok := c.verify(value); !ok || *got != *t {
			return nil, fmt.Errorf("session: Options.Secrets[%d]: does not sign", i)
		}
	}
	return c, nil
}

// A value is securecookie's base64 of "timestamp|base64(token)|mac", 87 or 88
// bytes long: the timestamp has 9 or 10 digits, 10 since 2001 and until 2286.
const (
	shortValue = 116
	longValue  = 120
)

// plausible tells whether a value is worth verifying.
func plausible(value string) bool { return len(value) == shortValue || len(value) == longValue }

// read returns the ids of the verified tokens among the first few cookies of
// our name that have the length of a value. All others cost nothing.
func (c *cookies) read(h http.Header) (found candidates) {
	tried := 0
	for value := range c.values(h) {
		found.carried = true
		if !plausible(value) || tried == maxCandidates {
			continue
		}
		tried++
		id, ok := c.id(value)
		for _, twin := range found.ids[:found.n] {
			ok = ok && twin != id
		}
		if ok {
			found.ids[found.n] = id
			found.n++
		}
	}
	return found
}

// values yields the values of our cookie, as the Cookie header has them.
func (c *cookies) values(h http.Header) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, line := range h["Cookie"] {
			for line != "" {
				var pair string
				pair, line, _ = strings.Cut(line, ";")
				name, value, ok := strings.Cut(pair, "=")
				if ok && trim(name) == c.name && !yield(trim(value)) {
					return
				}
			}
		}
	}
}

// trim takes spaces and tabs off both ends.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// id returns the record's id of a value with a good signature.
func (c *cookies) id(value string) (string, bool) {
	if id, ok := c.verified.get(value); ok {
		return id, true
	}
	t, ok := c.verify(value)
	if !ok {
		return "", false
	}
	id := t.id()
	c.verified.put(value, id)
	return id, true
}

var strict = base64.URLEncoding.Strict()

// verify returns the token of a value that one of the secrets has signed.
func (c *cookies) verify(value string) (*token, bool) {
	// base64 has up to 15 spellings of one value, which differ in the bits that
	// the last four characters have too many, and many with line breaks in them.
	// Only ours is good. All other mistakes securecookie finds before it hashes.
	var raw [3]byte
	_, err := strict.Decode(raw[:], []byte(value[len(value)-4:]))
	if err != nil || strings.ContainsAny(value, "\r\n") {
		return nil, false
	}
	for _, codec := range c.codecs {
		var b []byte
		if codec.Decode(c.name, value, &b) == nil && len(b) == len(token{}) {
			return (*token)(b), true
		}
	}
	return nil, false
}

// token returns the token in the request that belongs to this id.
func (c *cookies) token(h http.Header, id string) *token {
	for value := range c.values(h) {
		if !plausible(value) {
			continue
		}
		if got, ok := c.id(value); ok && got == id {
			t, _ := c.verify(value)
			return t
		}
	}
	return nil
}

// set puts the cookie of token t into the header, or with a nil t its deletion.
// A life of zero lasts until the browser closes.
func (c *cookies) set(h http.Header, r *http.Request, t *token, life time.Duration) error {
	cookie, line := c.template, c.line
	if c.adapt != nil {
		adapted := cookie
		c.adapt(r, &adapted)
		cookie.Domain, cookie.Path = adapted.Domain, adapted.Path
		cookie.SameSite, cookie.Partitioned = adapted.SameSite, adapted.Partitioned
		if err := errors.Join(cookieRules(&cookie)...); err != nil {
			return fmt.Errorf("session: Options.Cookie.Adapt: %w", err)
		}
	}
	switch {
	case t == nil:
		cookie.MaxAge = -1
	case life > 0:
		cookie.MaxAge = int((min(life, maxAge) + time.Second - 1) / time.Second)
	}
	if c.adapt != nil || cookie.MaxAge != 0 {
		line = cookie.String()
	}
	value := ""
	if t != nil {
		var err error
		if value, err = c.codecs[0].Encode(c.name, t[:]); err != nil {
			return fmt.Errorf("session: the cookie could not be signed: %w", err)
		}
		c.warn(r)
	}
	c.remove(h)
	begin := len(c.name) + len("=")
	h["Set-Cookie"] = append(h["Set-Cookie"], line[:begin]+value+line[begin:])
	return nil
}

// remove takes cookies of our name, whoever set them, out of a response.
func (c *cookies) remove(h http.Header) {
	lines := h["Set-Cookie"]
	kept := lines[:0:0]
	for _, line := range lines {
		if name, _, _ := strings.Cut(line, "="); strings.TrimSpace(name) != c.name {
			kept = append(kept, line)
		}
	}
	if len(kept) < len(lines) {
		h["Set-Cookie"] = kept
	}
}

// warn logs, once, what will look to the developer like a session that is
// forgotten on every request, or to an eavesdropper like a present.
func (c *cookies) warn(r *http.Request) {
	switch {
	case c.warned.Load():
	case !c.template.Secure:
		if !loopback(r.Host) && c.warned.CompareAndSwap(false, true) {
			slog.WarnContext(r.Context(), "session: the cookie leaves without Secure on a host that is not this machine, for everybody on the way to read: unset Options.Cookie.Insecure (logged once)", "host", r.Host)
		}
	case r.TLS == nil && r.Header.Get("Forwarded") == "" && r.Header.Get("X-Forwarded-Proto") == "":
		if !loopback(r.Host) && c.warned.CompareAndSwap(false, true) {
			slog.WarnContext(r.Context(), "session: a Secure cookie leaves on a request without TLS, and the browser will not send it back: serve HTTPS, let the proxy that does set X-Forwarded-Proto, or for development set Options.Cookie.Insecure (logged once)", "host", r.Host)
		}
	}
}

func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || net.ParseIP(host).IsLoopback()
}
