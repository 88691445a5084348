// Package expressjs lets a Go service and an Express app share live sessions. The cookie and the
// records keep the format of express-session, so a team can move from one to the other route by
// route, and no user is logged out.
//
//	tokens, err := expressjs.Tokens(os.Getenv("SESSION_SECRET"))
//	store, err := expressjs.NewRedisStore(client, nil)
//	sessions, err := session.New(&session.Options{
//		Tokens:   tokens,
//		Store:    store,
//		Lifetime: 30 * 24 * time.Hour, // of a login at Go; at least maxAge of Express
//		Cookie:   session.CookieOptions{Name: "connect.sid"},
//	})
//
// The Express app must run with resave: false. With resave: true, its default, every request of
// Express writes back the whole session as it was at the start of the request, and overwrites what
// Go has saved since. README.md lists the other settings that must agree on both sides; the command
// doctor checks them with a cookie of your own browser.
//
// Two limitations remain. A request of Express that changes its session writes all of it, so a
// concurrent change by Go is lost. And if Go has ended the session in the meantime, the request of
// Express writes the record again. Go never accepts it as a session, however late it appears, and
// deletes it when it sees it; until then Express accepts it.
package expressjs

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/coatcheck/session"
)

// Tokens returns the format of the express-session cookie for [session.Options].Tokens: "s:", the
// id, and an HMAC-SHA256 of the id. The secrets are those of the Express app, in the same order:
// the first signs, all verify. To rotate, add the new secret last on both sides before either side
// signs with it.
//
// Secrets are used unchanged. If Express has a Buffer, pass its bytes. No secret, or an empty one,
// is an error.
//
// express-session does not include the name of the cookie in the signature: a value that a
// cookie-parser of the app has signed with the same secret is a valid token for the session with
// that id. Never sign a value that a user may choose with this secret.
func Tokens(secrets ...string) (session.TokenFormat, error) {
	var errs []error
	if len(secrets) == 0 {
		errs = append(errs, errors.New("expressjs: Tokens: the secret of the Express app is required"))
	}
	for i, s := range secrets {
		if s == "" {
			errs = append(errs, fmt.Errorf("expressjs: Tokens: secret %d is empty", i+1))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	f := &format{}
	for _, s := range secrets {
		f.secrets = append(f.secrets, []byte(s))
	}
	return f, nil
}

type format struct{ secrets [][]byte }

// GoString keeps the secrets out of formatted output, and so does String.
func (*format) GoString() string { return "expressjs.Tokens" }
func (*format) String() string   { return "expressjs.Tokens" }

// New implements session.TokenFormat. The id has the format of uid-safe: 24 random bytes.
func (f *format) New() (token, id string) {
	var random [24]byte
	rand.Read(random[:])
	id = base64.RawURLEncoding.EncodeToString(random[:])
	return encodeURIComponent("s:" + sign(f.secrets[0], id)), id
}

// Verify implements session.TokenFormat. It parses the value as the npm package cookie does, and
// the signature as cookie-signature.
func (f *format) Verify(token string) (id string, ok bool) {
	signed, ok := strings.CutPrefix(parse(token), "s:")
	if !ok {
		return "", false
	}
	dot := strings.LastIndexByte(signed, '.')
	if dot <= 0 { // no signature, or an empty id
		return "", false
	}
	id = signed[:dot]
	for _, secret := range f.secrets {
		// The strings are compared, because base64 has several encodings of the same bytes.
		if hmac.Equal([]byte(sign(secret, id)), []byte(signed)) {
			return id, true
		}
	}
	return "", false
}

// sign signs an id as cookie-signature does.
func sign(secret []byte, id string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id))
	return id + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// parse returns the value of a cookie as the npm package cookie does, given its form in the header:
// without one pair of quotes, and decoded if the value can be decoded.
func parse(value string) string {
	value = strings.Trim(value, " \t")
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		value = value[1 : n-1]
	}
	value = latin1(value)
	if !strings.Contains(value, "%") {
		return value
	}
	if decoded, ok := decodeURIComponent(value); ok {
		return decoded
	}
	return value
}

// latin1 returns the text that Node makes of a header: one character for each byte.
func latin1(s string) string {
	ascii := true
	for i := 0; i < len(s); i++ {
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if ascii {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		b.WriteRune(rune(s[i]))
	}
	return b.String()
}

// decodeURIComponent is that of ECMAScript: every sequence of escapes is a character of UTF-8, or
// an error.
func decodeURIComponent(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		if s[i] != '%' {
			b = append(b, s[i])
			i++
			continue
		}
		begin := len(b)
		for n := 1; n > 0; n-- {
			c, ok := escaped(s[i:])
			if !ok {
				return "", false
			}
			b = append(b, c)
			i += len("%XX")
			if len(b) == begin+1 {
				n = length(c)
			}
		}
		if !utf8.Valid(b[begin:]) {
			return "", false
		}
	}
	return string(b), true
}

// length returns the number of bytes of the UTF-8 character that begins with c.
func length(c byte) int {
	switch {
	case c >= 0xF0:
		return 4
	case c >= 0xE0:
		return 3
	case c >= 0xC0:
		return 2
	}
	return 1
}

func escaped(s string) (c byte, ok bool) {
	if len(s) < len("%XX") || s[0] != '%' {
		return 0, false
	}
	for _, d := range []byte(s[1:3]) {
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case d >= 'a' && d <= 'f':
			d -= 'a' - 10
		case d >= 'A' && d <= 'F':
			d -= 'A' - 10
		default:
			return 0, false
		}
		c = c<<4 | d
	}
	return c, true
}

// encodeURIComponent is that of ECMAScript, for valid UTF-8.
func encodeURIComponent(s string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+16)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', strings.IndexByte("-_.!~*'()", c) >= 0:
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}
