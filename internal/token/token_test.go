package token_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session/internal/token"
	"github.com/gorilla/securecookie"
)

var (
	one = bytes.Repeat([]byte("one!"), 8)
	two = bytes.Repeat([]byte("two!"), 8)
)

func newSigner(t testing.TB, purpose, name string, secrets ...[]byte) *token.Signer {
	t.Helper()
	s, err := token.NewSigner(purpose, name, secrets)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// raw returns the 32 bytes that a value carries.
func raw(t testing.TB, value string) []byte {
	t.Helper()
	outer, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(value, "="))
	parts := bytes.SplitN(outer, []byte("|"), 3) // timestamp, base64 of the token, signature
	if err != nil || len(parts) != 3 {
		t.Fatalf("%q is not a value of securecookie: %v", value, err)
	}
	b, err := base64.URLEncoding.DecodeString(string(parts[1]))
	if err != nil || len(b) != 32 {
		t.Fatalf("a token of %d bytes: %v", len(b), err)
	}
	return b
}

// TestNew checks that a value contains an id and a key, and refers to the id and a hash of the
// key.
func TestNew(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	seen := map[string]bool{}
	for range 100 {
		value, ref := s.New("")
		b := raw(t, value)
		sum := sha256.Sum256(b[16:])
		want := token.Ref{ID: base64.RawURLEncoding.EncodeToString(b[:16]), Key: base64.RawURLEncoding.EncodeToString(sum[:16])}
		if ref != want || len(ref.ID) != token.RefLength || len(ref.Key) != token.RefLength || len(value) != 118 {
			t.Fatalf("ref %+v, want %+v; %d characters", ref, want, len(value))
		}
		if got, ok := s.Verify(value); !ok || got != ref {
			t.Fatalf("verifies as %+v, %v", got, ok)
		}
		for _, half := range []string{string(b[:16]), string(b[16:])} {
			if seen[half] {
				t.Fatal("two tokens share bytes")
			}
			seen[half] = true
		}
	}
}

// TestNewKey checks that a new key for a session keeps the id and has another hash.
func TestNewKey(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	value, ref := s.New("")
	again, renewed := s.New(ref.ID)
	if renewed.ID != ref.ID || renewed.Key == ref.Key || again == value {
		t.Errorf("%+v becomes %+v", ref, renewed)
	}
	if got, ok := s.Verify(again); !ok || got != renewed {
		t.Errorf("verifies as %+v, %v", got, ok)
	}
	if got, ok := s.Verify(value); !ok || got != ref {
		t.Errorf("the first value verifies as %+v, %v", got, ok)
	}
	for _, id := range []string{"x", "=", "\n", strings.Repeat("A", 21) + "\n", ref.ID[:10] + "." + ref.ID[11:], ref.ID + "\n" + ref.ID, ref.ID[:20], ref.ID[:21], ref.ID + "A", strings.Repeat("!", 22)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%q) does not panic", id)
				}
			}()
			s.New(id)
		}()
	}
}

// TestVerifyOthers checks that a value is valid only for its purpose, its name and its secrets.
func TestVerifyOthers(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	value, _ := s.New("")
	for what, other := range map[string]*token.Signer{
		"another purpose": newSigner(t, "header", "session", one),
		"another name":    newSigner(t, "cookie", "shop", one),
		"another secret":  newSigner(t, "cookie", "session", two),
		"the two moved":   newSigner(t, "cookie sess", "ion", one),
	} {
		if _, ok := other.Verify(value); ok {
			t.Error(what, "verifies the value")
		}
	}
	both, moved := newSigner(t, "cookie", "session", one, two), newSigner(t, "cookie", "session", two, one)
	for what, other := range map[string]*token.Signer{"added": both, "moved": moved} {
		if _, ok := other.Verify(value); !ok {
			t.Error("a secret was", what, "and the value is no longer valid")
		}
	}
	last, _ := moved.New("")
	if _, ok := s.Verify(last); ok {
		t.Error("the first secret does not sign")
	}
	if _, ok := newSigner(t, "cookie", "session", two).Verify(last); !ok {
		t.Error("the first secret does not sign")
	}
}

// TestVerifyChanged checks that a value with any changed character, with another length, or in
// another encoding of the same bytes is refused.
func TestVerifyChanged(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	value, _ := s.New("")
	v := token.NewVerified(s)
	if _, ok := v.Verify(value); !ok {
		t.Fatal("the unchanged value is refused")
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	refused := func(changed string) {
		t.Helper()
		if changed == value {
			return
		}
		_, a := s.Verify(changed)
		_, b := v.Verify(changed)
		if a || b {
			t.Fatalf("%q is accepted in place of %q", changed, value)
		}
	}
	for i := range value {
		for _, c := range []byte(alphabet + "+/=% \n\r\x00\xff") {
			if c != value[i] {
				b := []byte(value)
				b[i] = c
				refused(string(b))
			}
		}
		refused(value[:i])
		refused(value[:i] + "\n" + value[i:])
		refused(value[:i] + value[i+1:] + "A")
	}
	for _, changed := range []string{value + "=", value + "===", value + "=A", value + value, value[:116] + "\r\n", value[:114] + "\r\n\r\n", value[:116] + "==", " " + value[:117], strings.ToLower(value)} {
		refused(changed)
	}
}

// TestErrorNamesNoSecret checks that the error for a secret that the crypto library refuses,
// such as a short one in FIPS 140 mode, contains its number and not the secret. FIPS 140 mode
// applies to a whole process, so the test starts one.
func TestErrorNamesNoSecret(t *testing.T) {
	const asked = "TOKEN_TEST_FIPS"
	short := []byte("hushhush")
	if os.Getenv(asked) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestErrorNamesNoSecret$", "-test.v")
		cmd.Env = append(os.Environ(), asked+"=1", "GODEBUG=fips140=only")
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if _, err := token.NewSigner("cookie", "session", [][]byte{one, two}); err != nil {
		t.Error("long secrets are refused:", err)
	}
	for i, secrets := range [][][]byte{{short, one}, {one, short}, {one, two, short}} {
		s, err := token.NewSigner("cookie", "session", secrets)
		if s != nil || err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("[%d]: ", i)) {
			t.Fatalf("%v, %v, want an error about secret %d", s, err, i)
		}
		for _, secret := range secrets {
			for _, spelled := range []string{string(secret), fmt.Sprintf("%x", secret), strings.Trim(fmt.Sprint(secret), "[]"), base64.StdEncoding.EncodeToString(secret)} {
				if strings.Contains(err.Error(), spelled) {
					t.Errorf("%v contains a secret", err)
				}
			}
		}
	}
}

// TestVerifyNoToken checks that a signed text that is not a token is refused, even if the value
// has a plausible length.
func TestVerifyNoToken(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	key, err := hkdf.Key(sha256.New, one, nil, "github.com/coatcheck/session cookie session", 32)
	if err != nil {
		t.Fatal(err)
	}
	codec := securecookie.New(key, nil).SetSerializer(securecookie.NopEncoder{})
	for n, want := range map[int]bool{31: false, 32: true, 33: false} {
		value, err := codec.Encode("session", make([]byte, n))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Verify(value); ok != want || !s.Plausible(value) {
			t.Errorf("%d bytes in %d characters: %v", n, len(value), ok)
		}
	}
}

// TestShortValue checks values of the years when the timestamp has nine digits, which are
// shorter. Their encoding with four line breaks, which has the usual length, is refused.
func TestShortValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the clock of a bubble begins in the year 2000
		s := newSigner(t, "cookie", "session", one)
		value, ref := s.New("")
		if got, ok := s.Verify(value); len(value) != 116 || !ok || got != ref || !s.Plausible(value) {
			t.Errorf("%d characters: %+v, %v", len(value), got, ok)
		}
		if _, ok := s.Verify(value[:50] + "\n\n\n\n" + value[50:]); ok {
			t.Error("line breaks are accepted")
		}
	})
}

// TestSignedAt checks the time in a value, and what does not have one.
func TestSignedAt(t *testing.T) {
	before := time.Now().Truncate(time.Second)
	value, _ := newSigner(t, "cookie", "session", one).New("")
	for _, v := range []string{value, value + strings.Repeat("=", -len(value)&3)} {
		if at, ok := token.SignedAt(v); !ok || at.Before(before) || at.After(time.Now()) {
			t.Errorf("SignedAt returned %v, %v", at, ok)
		}
	}
	for _, v := range []string{"", "session", "s%3Aabc.def", base64.RawURLEncoding.EncodeToString([]byte("x|y|z"))} {
		if at, ok := token.SignedAt(v); ok {
			t.Errorf("SignedAt(%q) returned %v", v, at)
		}
	}
}

func TestPlausible(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	for n := range 200 {
		if got := s.Plausible(strings.Repeat("A", n)); got != (n == 116 || n == 118 || n == 120) {
			t.Errorf("%d characters are plausible: %v", n, got)
		}
		if _, ok := s.Verify(strings.Repeat("A", n)); ok {
			t.Errorf("%d characters verify", n)
		}
	}
}

// TestNothingToPrint checks that a printed Ref, Signer or Verified reveals neither a key nor a
// secret.
func TestNothingToPrint(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	value, ref := s.New("")
	key := raw(t, value)[16:]
	text := fmt.Sprintf("%v %+v %#v", ref, ref, ref)
	for _, secret := range []string{string(key), fmt.Sprintf("%x", key), strings.Trim(fmt.Sprint(key), "[]"), base64.RawURLEncoding.EncodeToString(key), value} {
		if strings.Contains(text, secret) {
			t.Errorf("%s contains %q", text, secret)
		}
	}
}

// TestVerified checks that Verified returns the same as its Signer for any number of values, in
// any order, from any number of goroutines.
func TestVerified(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	v := token.NewVerified(s)
	const n = 3000
	values, refs := make([]string, n), make([]token.Ref, n)
	for i := range values {
		values[i], refs[i] = s.New("")
	}
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			for round := range 3 {
				for i := range values {
					at := (i*(2*g+1) + round) % n
					if got, ok := v.Verify(values[at]); !ok || got != refs[at] {
						t.Errorf("value %d: %+v, %v", at, got, ok)
						return
					}
				}
			}
		})
	}
	all.Wait()
}

// TestVerifiedComparesTheWhole checks that a prefix of a value, and a value with more
// characters, are not accepted for it.
func TestVerifiedComparesTheWhole(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	v := token.NewVerified(s)
	for range 200 {
		value, ref := s.New("")
		v.Verify(value)
		for _, other := range []string{value + ref.ID, value + ref.ID + ref.Key, value[:len(value)-1], ""} {
			if _, ok := v.Verify(other); ok {
				t.Fatalf("%q is accepted in place of %q", other, value)
			}
		}
	}
}

// FuzzVerify checks three properties: no value causes a panic; a value that verifies has the
// canonical encoding and refers to its own id and key; and Verified returns the same as Format.
func FuzzVerify(f *testing.F) {
	s := newSigner(f, "cookie", "session", one)
	v := token.NewVerified(s)
	stranger := newSigner(f, "cookie", "session", two)
	for range 3 {
		value, _ := s.New("")
		f.Add(value)
		f.Add(value[:117] + "A")
		f.Add(value + "==")
		f.Add(value[:116])
		forged, _ := stranger.New("")
		f.Add(forged)
		f.Add(value[:60] + forged[60:])
	}
	f.Add("")
	f.Add(strings.Repeat("\n", 120))
	// A value contains the time and random bytes, so a fuzzing process has other valid values
	// than the process that wrote the corpus. FuzzVerifyEdited fuzzes edits of a process's own
	// values.
	f.Fuzz(func(t *testing.T, value string) {
		want, good := s.Verify(value)
		for range 2 {
			if got, ok := v.Verify(value); ok != good || got != want {
				t.Fatalf("%q: %+v, %v, then %+v, %v", value, want, good, got, ok)
			}
		}
		if !good {
			return
		}
		b := raw(t, value)
		sum := sha256.Sum256(b[16:])
		if want != (token.Ref{ID: base64.RawURLEncoding.EncodeToString(b[:16]), Key: base64.RawURLEncoding.EncodeToString(sum[:16])}) {
			t.Fatalf("%q refers to %+v", value, want)
		}
		padded := value
		if len(value) == 118 {
			padded += "=="
		}
		if outer, err := base64.URLEncoding.Strict().DecodeString(padded); err != nil || base64.URLEncoding.EncodeToString(outer) != padded {
			t.Fatalf("%q is not the canonical encoding", value)
		}
	})
}

// FuzzVerifyEdited checks that no edited value verifies, cached or not. The edit replaces cut
// characters, from position at on, by insert, followed by characters of another valid value.
func FuzzVerifyEdited(f *testing.F) {
	s := newSigner(f, "cookie", "session", one, two)
	v := token.NewVerified(s)
	value, ref := s.New("")
	other, _ := s.New(ref.ID)
	v.Verify(value)
	v.Verify(other)
	f.Add(0, 0, "")
	f.Add(0, 118, "")
	f.Add(117, 1, "A")
	f.Add(117, 1, "=")
	f.Add(118, 0, "==")
	f.Add(116, 4, "")
	f.Add(116, 4, "\r\n\r\n")
	f.Add(60, 1, "\n")
	f.Add(60, 0, "\n")
	f.Add(0, 1, "\xff")
	f.Add(118, 0, ref.ID+ref.Key)
	f.Fuzz(func(t *testing.T, at, cut int, insert string) {
		at = min(max(at, 0), len(value))
		cut = min(max(cut, 0), len(value)-at)
		for _, edited := range []string{value[:at] + insert + value[at+cut:], value[:at] + other[at:at+cut] + value[at+cut:]} {
			bare := edited
			if len(edited) == 120 {
				bare = strings.TrimSuffix(edited, "==")
			}
			good := bare == value || bare == other
			a, isA := s.Verify(edited)
			b, isB := v.Verify(edited)
			if isA != good || isB != good || a != b {
				t.Fatalf("%q verifies: %v, cached: %v, want %v", edited, isA, isB, good)
			}
		}
	})
}

// plain is a Format whose ids are of any length, without keys.
type plain struct{}

func (plain) New(string) (string, token.Ref)        { return "", token.Ref{} }
func (plain) Plausible(value string) bool           { return true }
func (plain) Uses() []int64                         { return nil }
func (plain) Verify(value string) (token.Ref, bool) { return token.Ref{ID: value}, value != "no" }

// TestVerifiedOfAnyLength checks that Verified distinguishes values of any length, with refs of
// any length.
func TestVerifiedOfAnyLength(t *testing.T) {
	v := token.NewVerified(plain{})
	for range 2 {
		for n := range 600 {
			value := strings.Repeat("a", n)
			if ref, ok := v.Verify(value); !ok || ref.ID != value || ref.Key != "" {
				t.Fatalf("%d bytes: %v, %v", n, ref, ok)
			}
		}
		if _, ok := v.Verify("no"); ok {
			t.Fatal("an invalid value was verified")
		}
	}
}
