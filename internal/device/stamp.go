package device

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"
	"time"
)

// A Kind is what a stamp is for. A stamp of one kind is not valid as another.
type Kind byte

const (
	KindCookie       Kind = 1 + iota // the short-lived cookie; its time is the end
	KindRegistration                 // the challenge of a registration; its time is when it was made
	KindRefresh                      // the challenge of a refresh; its time is when it was made
	KindIdentifier                   // the identifier of a binding; its time is that of the registration's challenge
)

// Stamps make and verify stamps. A stamp says that the server has made it, for a purpose, with a
// time, for one session: 24 bytes, of which 16 are of an HMAC-SHA256 over the rest and the id of
// the session, in base64url. So nothing about a challenge or a cookie has to be stored, and a
// leaked store does not help to make one.
type Stamps struct {
	keys []*macs        // the first makes stamps, all verify
	uses []atomic.Int64 // number of identifiers that each key has verified
}

const (
	macLength   = 16
	rawLength   = 8 + macLength // a byte of the kind, 7 bytes of the time in milliseconds
	stampLength = rawLength * 8 / 6
	idLength    = 22 // of a session's id: see package token
)

// NewStamps returns stamps for the sessions of one cookie name. The keys are derived from the
// secrets (HKDF, RFC 5869), so that other signatures made with the same secrets are not valid. An
// error begins with the number of the secret and never contains the secret.
func NewStamps(name string, secrets [][]byte) (*Stamps, error) {
	s := &Stamps{uses: make([]atomic.Int64, len(secrets))}
	for i, secret := range secrets {
		key, err := hkdf.Key(sha256.New, secret, nil, "github.com/coatcheck/session device "+name, sha256.Size)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		s.keys = append(s.keys, newMacs(key))
	}
	return s, nil
}

// New returns a stamp for the session with this id.
func (s *Stamps) New(kind Kind, at time.Time, id string) string {
	var raw [rawLength]byte
	binary.BigEndian.PutUint64(raw[:], uint64(at.UnixMilli()))
	raw[0] = byte(kind)
	s.keys[0].sum(raw[8:], raw[:8], id)
	return encoding.EncodeToString(raw[:])
}

// Verify reports whether stamp was made for this kind and session, and returns its time.
func (s *Stamps) Verify(kind Kind, stamp, id string) (at time.Time, ok bool) {
	var raw, want [rawLength]byte
	if len(stamp) != stampLength || len(id) > maxID {
		return time.Time{}, false
	}
	var text [stampLength]byte
	copy(text[:], stamp)
	if n, err := encoding.Decode(raw[:], text[:]); n != rawLength || err != nil || raw[0] != byte(kind) {
		return time.Time{}, false
	}
	for i, key := range s.keys {
		key.sum(want[8:], raw[:8], id)
		if hmac.Equal(want[8:], raw[8:]) {
			if kind == KindIdentifier {
				s.uses[i].Add(1)
			}
			ms := raw
			ms[0] = 0
			return time.UnixMilli(int64(binary.BigEndian.Uint64(ms[:8]))), true
		}
	}
	return time.Time{}, false
}

// Identifier returns the name by which a browser knows that it has bound the session with this id
// to a key, in the registration whose challenge was made at this time.
func (s *Stamps) Identifier(id string, registration time.Time) string {
	return id + s.New(KindIdentifier, registration, id)
}

// ParseIdentifier returns what is in an identifier that [Stamps.Identifier] made.
func (s *Stamps) ParseIdentifier(identifier string) (id string, registration time.Time, ok bool) {
	return s.parse(KindIdentifier, identifier)
}

// Uses returns how many identifiers each secret has verified. Browsers keep an identifier for as long
// as the session lives, which is longer than other stamps are valid.
func (s *Stamps) Uses() []int64 {
	all := make([]int64, len(s.uses))
	for i := range s.uses {
		all[i] = s.uses[i].Load()
	}
	return all
}

// RegistrationChallenge returns a challenge that contains the id of the session: a browser that
// registers after a login from another site sends no cookie that could name it.
func (s *Stamps) RegistrationChallenge(id string, at time.Time) string {
	return id + s.New(KindRegistration, at, id)
}

// ParseRegistrationChallenge returns the id and the time of a challenge that
// [Stamps.RegistrationChallenge] made.
func (s *Stamps) ParseRegistrationChallenge(challenge string) (id string, at time.Time, ok bool) {
	return s.parse(KindRegistration, challenge)
}

func (s *Stamps) parse(kind Kind, text string) (id string, at time.Time, ok bool) {
	if len(text) != idLength+stampLength {
		return "", time.Time{}, false
	}
	at, ok = s.Verify(kind, text[idLength:], text[:idLength])
	return text[:idLength], at, ok
}

// maxID is the longest id that a stamp is verified for, in bytes. It bounds the size of a buffer.
const maxID = 128

// macs are HMAC states of one key with their buffers, so that a stamp is verified without an
// allocation.
type macs struct{ pool sync.Pool }

type mac struct {
	hash.Hash
	message [8 + maxID]byte
	result  [sha256.Size]byte
}

func newMacs(key []byte) *macs {
	return &macs{sync.Pool{New: func() any { return &mac{Hash: hmac.New(sha256.New, key)} }}}
}

// sum writes the first macLength bytes of the HMAC of head and id to to.
func (m *macs) sum(to, head []byte, id string) {
	h := m.pool.Get().(*mac)
	defer m.pool.Put(h)
	n := copy(h.message[:], head)
	n += copy(h.message[n:], id)
	h.Reset()
	h.Write(h.message[:n])
	copy(to[:macLength], h.Sum(h.result[:0]))
}
