package token

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

// TestClockOf1970 checks that a machine without a battery-backed clock, which starts in 1970,
// accepts the values that it signs. On other machines such short values are not plausible.
func TestClockOf1970(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	key, err := hkdf.Key(sha256.New, secret, nil, "github.com/coatcheck/session cookie session", 32)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner("cookie", "session", [][]byte{secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, timestamp := range []string{"0", "59", "3600", "86400", "31536000"} {
		signed := timestamp + "|" + base64.URLEncoding.EncodeToString(make([]byte, 2*half)) + "|"
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte("session|" + strings.TrimSuffix(signed, "|")))
		value := base64.RawURLEncoding.EncodeToString(append([]byte(signed), mac.Sum(nil)...))
		if _, ok := s.Verify(value); ok {
			t.Errorf("a value of %d characters verifies", len(value))
		}
		early := *s
		early.shortest = len(value)
		if ref, ok := early.Verify(value); !ok || ref != refOf(make([]byte, 2*half)) {
			t.Errorf("at second %s: %v, %v", timestamp, ref, ok)
		}
		if _, ok := early.Verify(value[:len(value)-1]); ok {
			t.Error("a shorter value verifies")
		}
	}
}
