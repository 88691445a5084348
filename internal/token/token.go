// Package token makes what a client holds of a session, and verifies what a
// stranger says he holds. It knows of neither cookies nor headers.
//
// A token is an id and a key, 16 random bytes each (OWASP ASVS 5, 7.2.3). The
// id names the session and is no secret. The key is: of it only the hash is
// ever stored, so that who reads a store can make nobody's token.
//
// As a value it is signed by gorilla/securecookie, which makes base64 of
// "timestamp|base64(id and key)|MAC" of it.
package token

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/gorilla/securecookie"
)

// A Ref is what a value refers to: the session's id, and the hash of the key by
// which the session's record knows it, "" if the Format has none. Neither is a
// secret.
type Ref struct{ ID, Key string }

const (
	half = 16 // bytes of id, and of key
	// RefLength is how long an ID is, and how long a Key.
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

// A Format makes and verifies values of one kind.
type Format interface {
	// New returns the value of a new token for a new session, or, if id is not ""
	// and the Format has keys, of a new key to the session of that id.
	New(id string) (value string, ref Ref)

	// Plausible tells whether a value is worth verifying, at no cost.
	Plausible(value string) bool

	// Verify returns what a value refers to, if it is good.
	Verify(value string) (Ref, bool)

	// Uses returns how many values each secret has verified, if that is counted.
	Uses() []int64
}

// A Signer is the Format of the values that the package comment describes.
type Signer struct {
	name   string
	codecs []*securecookie.SecureCookie // the first signs, all verify
	uses   []atomic.Int64               // how many values each has verified

	// shortest is the length of the shortest value that is plausible: that of one made
	// when the Signer was. A machine whose clock begins in 1970 makes shorter ones.
	shortest int
}

// NewSigner returns a Signer whose values are good for one purpose under one
// name, and for no other: each secret is only what the key of the signature is
// derived from (HKDF, RFC 5869), so that a secret used elsewhere too signs
// nothing that is good here. The first secret signs, all verify. An error begins
// with the number of the secret, and never contains it.
func NewSigner(purpose, name string, secrets [][]byte) (*Signer, error) {
	s := &Signer{name: name, uses: make([]atomic.Int64, len(secrets)), shortest: shortLength}
	for i, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "github.com/coatcheck/session "+purpose+" "+name, 32)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		// The age of a session is in its record, not in its token: MaxAge is off.
		codec := securecookie.New(key, nil).SetSerializer(securecookie.NopEncoder{}).MaxAge(0)
		// securecookie reports a bad key on first use: let that be now.
		value, err := codec.Encode(name, make([]byte, 2*half))
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		s.codecs = append(s.codecs, codec)
		value = strings.TrimRight(value, "=")
		s.shortest = min(s.shortest, len(value))
		if _, ok := s.Verify(value); !ok {
			return nil, fmt.Errorf("[%d]: does not verify what it signs", i)
		}
		s.uses[i].Store(0)
	}
	return s, nil
}

// Uses implements Format.
func (s *Signer) Uses() []int64 {
	all := make([]int64, len(s.uses))
	for i := range s.uses {
		all[i] = s.uses[i].Load()
	}
	return all
}

// New implements Format.
func (s *Signer) New(id string) (value string, ref Ref) {
	var raw [2 * half]byte
	rand.Read(raw[:])
	if id != "" {
		if n, err := base64.RawURLEncoding.Decode(raw[:half], []byte(id)); n != half || err != nil {
			panic("token: the id is none of ours")
		}
	}
	value, err := s.codecs[0].Encode(s.name, raw[:])
	if err != nil {
		panic("token: it signed when it was made, and now it does not: " + err.Error())
	}
	return strings.TrimRight(value, "="), refOf(raw[:]) // old proxies and clients cut padding off
}

// A value is 87 or 88 bytes before the outer base64: the timestamp has 9 or 10
// digits, 10 from 2001 to 2286, fewer before 1973. It is sent without padding and accepted with it.
const (
	shortLength    = 116
	unpaddedLength = 118
	// MaxLength is how long a value is at most.
	MaxLength = unpaddedLength + len("==")
)

// Plausible implements Format.
func (s *Signer) Plausible(value string) bool {
	switch n := len(value); n {
	case shortLength, unpaddedLength, MaxLength:
		return true
	default:
		return n >= s.shortest && n < shortLength
	}
}

var strict = base64.URLEncoding.Strict()

// Verify implements Format: one of the secrets has signed a good value. It costs
// more than everything else that a request does: see Verified.
func (s *Signer) Verify(value string) (Ref, bool) {
	if !s.Plausible(value) {
		return Ref{}, false
	}
	value += strings.Repeat("=", -len(value)&3) // which securecookie demands
	// base64 has up to 15 spellings of one value, which differ in the bits that
	// the last four characters have too many, and many with line breaks in them.
	// Only ours is good. All other mistakes securecookie finds before it hashes.
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
