// Package expressjs lets a Go service and an Express app work on the same live
// sessions: the cookie and the records are express-session's, and stay so. A team
// moves from the one to the other route by route, and nobody is logged out.
//
//	tokens, err := expressjs.Tokens(os.Getenv("SESSION_SECRET"))
//	store, err := expressjs.NewRedisStore(client, nil)
//	sessions, err := session.New(&session.Options{
//		Tokens:   tokens,
//		Store:    store,
//		Lifetime: 30 * 24 * time.Hour, // of a login at Go; at least Express's maxAge
//		Cookie:   session.CookieOptions{Name: "connect.sid"},
//	})
//
// The Express app must run with resave: false. With resave: true, its default,
// every request of Express writes back the whole session as it was when that request
// began, over whatever Go has saved meanwhile. README.md says what else to set alike
// on both sides; the command doctor checks it with a cookie of your own browser.
//
// Two things cannot be mended from here. A request of Express that changes its
// session writes all of it, so that a change of Go's at the same time is lost. And if
// Go ended that session meanwhile, the request brings the record back. It is no session
// for Go, however late, and Go deletes it when it sees it; until then it is one for
// Express.
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

// Tokens returns the format of express-session's cookie: "s:", the id, and an
// HMAC-SHA256 of the id, for [session.Options.Tokens]. The secrets are those of the
// Express app, in its order: the first signs, all verify. To rotate, add the new
// secret last on both sides before either signs with it.
//
// Secrets are used as they are. If Express is given a Buffer, these are its bytes.
// No secret at all, or an empty one, is an error.
//
// express-session signs no name: a value that any cookie-parser of the app has signed
// with the same secret is a token of the session whose id it is. Sign nothing with it
// that a user may choose.
func Tokens(secrets ...string) (session.TokenFormat, error) {
	var errs []error
	if len(secrets) == 0 {
		errs = append(errs, errors.New("expressjs: Tokens: needs the secret of the Express app"))
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

// GoString keeps the secrets out of what prints the format, and String likewise.
func (*format) GoString() string { return "expressjs.Tokens" }
func (*format) String() string   { return "expressjs.Tokens" }

// New implements session.TokenFormat. The id is of uid-safe's kind: 24 random bytes.
func (f *format) New() (token, id string) {
	var random [24]byte
	rand.Read(random[:])
	id = base64.RawURLEncoding.EncodeToString(random[:])
	return encodeURIComponent("s:" + sign(f.secrets[0], id)), id
}

// Verify implements session.TokenFormat. It reads the value as the package cookie
// does, and the signature as cookie-signature.
func (f *format) Verify(token string) (id string, ok bool) {
	signed, ok := strings.CutPrefix(parse(token), "s:")
	if !ok {
		return "", false
	}
	dot := strings.LastIndexByte(signed, '.')
	if dot <= 0 { // nothing signed, or an empty id
		return "", false
	}
	id = signed[:dot]
	for _, secret := range f.secrets {
		// As strings: base64 has several spellings of the same bytes.
		if hmac.Equal([]byte(sign(secret, id)), []byte(signed)) {
			return id, true
		}
	}
	return "", false
}

// sign is cookie-signature's.
func sign(secret []byte, id string) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id))
	return id + "." + base64.RawStdEncoding.EncodeToString(mac.Sum(nil))
}

// parse returns the value of a cookie as the package cookie does, given how it
// stands in the header: without one pair of quotes, and decoded if that can be done.
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

// latin1 returns the text that Node makes of a header: a character for each byte.
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

// decodeURIComponent is ECMAScript's: every sequence of escapes is a character of
// UTF-8, or it is an error.
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

// length returns how many bytes a character has that begins with c.
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

// encodeURIComponent is ECMAScript's, of valid UTF-8.
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
