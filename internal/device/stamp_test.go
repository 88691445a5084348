package device

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
	"time"
)

var (
	one   = bytes.Repeat([]byte("one!"), 8)
	two   = bytes.Repeat([]byte("two!"), 8)
	id    = strings.Repeat("i", idLength)
	other = strings.Repeat("o", idLength)
	at    = time.UnixMilli(1732639200123)
)

func newStamps(t testing.TB, name string, secrets ...[]byte) *Stamps {
	t.Helper()
	s, err := NewStamps(name, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A stamp is valid for one kind, session, cookie name and secret, and says its time.
func TestStamp(t *testing.T) {
	s := newStamps(t, "name", one)
	stamp := s.New(KindCookie, at, id)
	for _, c := range []struct {
		what  string
		s     *Stamps
		kind  Kind
		stamp string
		id    string
		ok    bool
	}{
		{"the same", s, KindCookie, stamp, id, true},
		{"another process", newStamps(t, "name", one), KindCookie, stamp, id, true},
		{"the secret comes second", newStamps(t, "name", two, one), KindCookie, stamp, id, true},
		{"the secret was removed", newStamps(t, "name", two), KindCookie, stamp, id, false},
		{"another cookie name", newStamps(t, "other", one), KindCookie, stamp, id, false},
		{"another kind", s, KindRefresh, stamp, id, false},
		{"another session", s, KindCookie, stamp, other, false},
		{"no session", s, KindCookie, stamp, "", false},
		{"a long id", s, KindCookie, stamp, strings.Repeat("i", maxID+1), false},
		{"nothing", s, KindCookie, "", id, false},
		{"shorter", s, KindCookie, stamp[1:], id, false},
		{"longer", s, KindCookie, stamp + "A", id, false},
		{"padded", s, KindCookie, stamp[:31] + "=", id, false},
		{"a line break", s, KindCookie, stamp[:31] + "\n", id, false},
		{"another alphabet", s, KindCookie, "+" + stamp[1:], id, false},
	} {
		got, ok := c.s.Verify(c.kind, c.stamp, c.id)
		if ok != c.ok || ok && !got.Equal(at) {
			t.Errorf("%s: %v, %v", c.what, got, ok)
		}
	}
	for i := range stamp {
		edited := []byte(stamp)
		edited[i] ^= 1
		if _, ok := s.Verify(KindCookie, string(edited), id); ok {
			t.Errorf("valid with another character at %d", i)
		}
	}
}

// The format of a stamp: other processes of the same version, and the next version, verify it.
func TestStampFormat(t *testing.T) {
	key, err := hkdf.Key(sha256.New, one, nil, "github.com/coatcheck/session device __Host-Http-session", 32)
	if err != nil {
		t.Fatal(err)
	}
	head := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))
	head[0] = 1
	mac := hmac.New(sha256.New, key)
	mac.Write(head)
	mac.Write([]byte(id))
	want := base64.RawURLEncoding.EncodeToString(append(head, mac.Sum(nil)[:16]...))
	if got := newStamps(t, "__Host-Http-session", one).New(KindCookie, at, id); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for i, kind := range []Kind{KindCookie, KindRegistration, KindRefresh, KindIdentifier} {
		if int(kind) != i+1 {
			t.Errorf("kind %d is %d: stamps of before are not valid any more", i+1, kind)
		}
	}
}

// An identifier and the challenge of a registration contain the id of the session, and neither is
// valid as the other.
func TestIdentifierAndChallenge(t *testing.T) {
	s := newStamps(t, "name", one)
	identifier, challenge := s.Identifier(id, at), s.RegistrationChallenge(id, at)
	if identifier != newStamps(t, "name", one).Identifier(id, at) {
		t.Error("the identifier of a binding changes")
	}
	if got, made, ok := s.ParseIdentifier(identifier); !ok || got != id || !made.Equal(at) {
		t.Errorf("the identifier: %q, %v, %v", got, made, ok)
	}
	if got, made, ok := s.ParseRegistrationChallenge(challenge); !ok || got != id || !made.Equal(at) {
		t.Errorf("the challenge: %q, %v, %v", got, made, ok)
	}
	rotated := newStamps(t, "name", two, one)
	for range 3 {
		rotated.ParseIdentifier(identifier)
	}
	rotated.ParseIdentifier(rotated.Identifier(id, at))
	rotated.ParseRegistrationChallenge(challenge)
	if got := rotated.Uses(); got[0] != 1 || got[1] != 3 {
		t.Errorf("the secrets have verified %v identifiers", got)
	}
	for _, text := range []string{challenge, "", id, identifier[1:], identifier + "A", other + identifier[idLength:]} {
		if _, _, ok := s.ParseIdentifier(text); ok {
			t.Errorf("%q is an identifier", text)
		}
	}
	for _, text := range []string{identifier, "", other + challenge[idLength:], id + s.New(KindRefresh, at, id)} {
		if _, _, ok := s.ParseRegistrationChallenge(text); ok {
			t.Errorf("%q is a challenge", text)
		}
	}
	if _, _, err := Register("x"); err == nil {
		t.Error("no error")
	}
}

func BenchmarkVerifyStamp(b *testing.B) {
	s := newStamps(b, "name", one)
	stamp := s.New(KindCookie, at, id)
	for b.Loop() {
		s.Verify(KindCookie, stamp, id)
	}
}

// FuzzStamp checks that no text causes a panic, and that none is valid but those that were made.
func FuzzStamp(f *testing.F) {
	s := newStamps(f, "name", one)
	made := map[string]bool{
		s.New(KindCookie, at, id): true, s.Identifier(id, at): true, s.RegistrationChallenge(id, at): true,
	}
	for text := range made {
		f.Add(byte(KindCookie), text, id)
	}
	f.Fuzz(func(t *testing.T, kind byte, text, of string) {
		if _, ok := s.Verify(Kind(kind), text, of); ok && !made[text] && !made[of+text] {
			t.Fatalf("%q is valid", text)
		}
		if _, _, ok := s.ParseIdentifier(text); ok && !made[text] {
			t.Fatalf("%q is an identifier", text)
		}
		if _, _, ok := s.ParseRegistrationChallenge(text); ok && !made[text] {
			t.Fatalf("%q is a challenge", text)
		}
	})
}
