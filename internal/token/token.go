// Package token creates the tokens that clients hold, and verifies the values that clients
// send. It knows neither cookies nor headers.
//
// A token is an id and a key, 16 random bytes each (OWASP ASVS 5, 7.2.3). The id names the
// session and is not secret. The key is secret: only its hash is stored, so a leaked store does
// not reveal valid tokens.
//
// A value is a token that gorilla/securecookie has signed: the base64 of "timestamp|base64(id
// and key)|MAC".
package token

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/securecookie"
)

// Ref is what a value refers to: the id of a session, and the hash of the key by which the
// record of the session identifies the key. Key is "" if the Format has no keys. Neither is
// secret.
type Ref struct{ ID, Key string }

const (
	half = 16 // length of an id and of a key, in bytes
	// RefLength is the length of Ref.ID and of Ref.Key, in characters.
	RefLength = 22
)

func refOf(raw []byte) Ref {
	var text [2 * RefLength]byte
	sum := sha256.Sum256(raw[half:])
	base64.RawURLEncoding.Encode(text[:RefLength], raw[:half])
	base64.RawURLEncoding.Encode(text[RefLength:], sum[:half])
	both := string(text[:])
	return Ref{both[:RefLength], both[RefLength:]}
}

// Format creates and verifies values of one kind.
type Format interface {
	// New returns the value of a new token for a new session. If id is not "" and the Format
	// has keys, it returns the value of a new key for the session with that id.
	New(id string) (value string, ref Ref)

	// Plausible reports, at no cost, whether value is worth verifying.
	Plausible(value string) bool

	// Verify returns what value refers to, if value is valid.
	Verify(value string) (Ref, bool)

	// Uses returns the number of values that each secret has verified, or nil if the Format
	// does not count them.
	Uses() []int64
}

// Signer is the Format of the values that the package comment describes.
type Signer struct {
	name   string
	codecs []*securecookie.SecureCookie // the first signs, all verify
	uses   []atomic.Int64               // number of values that each codec has verified

	// shortest is the length of the shortest plausible value: that of a value that was signed
	// when the Signer was created. On a machine whose clock begins in 1970 the timestamp, and
	// so the value, is shorter.
	shortest int
}

// NewSigner returns a Signer whose values are valid for one purpose and one name only. The
// signing key is derived from the secret (HKDF, RFC 5869) with the purpose and the name, so
// that other signatures made with the same secret are not valid. The first secret signs, all
// verify. An error begins with the number of the secret and never contains the secret.
func NewSigner(purpose, name string, secrets [][]byte) (*Signer, error) {
	s := &Signer{name: name, uses: make([]atomic.Int64, len(secrets)), shortest: shortLength}
	for i, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "github.com/coatcheck/session "+purpose+" "+name, 32)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		// The age of a session is in its record, not in its token: MaxAge is off.
		codec := securecookie.New(key, nil).SetSerializer(securecookie.NopEncoder{}).MaxAge(0)
		// securecookie reports an invalid key at its first use: use the key now.
		value, err := codec.Encode(name, make([]byte, 2*half))
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		s.codecs = append(s.codecs, codec)
		value = strings.TrimRight(value, "=")
		s.shortest = min(s.shortest, len(value))
		if _, ok := s.Verify(value); !ok {
			return nil, fmt.Errorf("[%d]: the secret does not verify its own signature", i)
		}
		s.uses[i].Store(0)
	}
	return s, nil
}

// Uses implements [Format].
func (s *Signer) Uses() []int64 {
	all := make([]int64, len(s.uses))
	for i := range s.uses {
		all[i] = s.uses[i].Load()
	}
	return all
}

// New implements [Format].
func (s *Signer) New(id string) (value string, ref Ref) {
	var raw [2 * half]byte
	rand.Read(raw[:])
	if id != "" {
		if n, err := base64.RawURLEncoding.Decode(raw[:half], []byte(id)); n != half || err != nil {
			panic("token: the id was not made by this Format")
		}
	}
	value, err := s.codecs[0].Encode(s.name, raw[:])
	if err != nil {
		panic("token: signing fails, although it worked in NewSigner: " + err.Error())
	}
	return strings.TrimRight(value, "="), refOf(raw[:]) // old proxies and clients remove padding
}

// A value has 87 or 88 bytes before the outer base64: its timestamp has 10 digits from 2001 to
// 2286, 9 digits from 1973 and fewer before. Values are sent without padding, and accepted with
// it.
const (
	shortLength    = 116
	unpaddedLength = 118
	// MaxLength is the maximum length of a value.
	MaxLength = unpaddedLength + len("==")
)

// Plausible implements [Format].
func (s *Signer) Plausible(value string) bool {
	switch n := len(value); n {
	case shortLength, unpaddedLength, MaxLength:
		return true
	default:
		return n >= s.shortest && n < shortLength
	}
}

var strict = base64.URLEncoding.Strict()

// Verify implements [Format]: a value is valid if one of the secrets has signed it. Verify is
// the most expensive step of a request: see [Verified].
func (s *Signer) Verify(value string) (Ref, bool) {
	if !s.Plausible(value) {
		return Ref{}, false
	}
	value += strings.Repeat("=", -len(value)&3) // securecookie requires the padding
	// base64 has up to 16 encodings of one value, which differ in the unused bits of the last
	// four characters, and many more with line breaks. Only the canonical encoding is valid.
	// securecookie finds all other errors before it computes the MAC.
	var raw [3]byte
	_, err := strict.Decode(raw[:], []byte(value[len(value)-4:]))
	if err != nil || strings.ContainsAny(value, "\r\n") {
		return Ref{}, false
	}
	for i, codec := range s.codecs {
		var b []byte
		if codec.Decode(s.name, value, &b) == nil && len(b) == 2*half {
			s.uses[i].Add(1)
			return refOf(b), true
		}
	}
	return Ref{}, false
}

// SignedAt returns when value was signed, in whole seconds, and whether value has the form of a
// Signer's. It does not verify the signature.
func SignedAt(value string) (at time.Time, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(value, "="))
	timestamp, _, ok := strings.Cut(string(raw), "|")
	seconds, notNumber := strconv.ParseInt(timestamp, 10, 64)
	return time.Unix(seconds, 0), ok && err == nil && notNumber == nil
}
