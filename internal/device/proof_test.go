package device

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// signer signs proofs as a browser does, and as an attacker would.
type signer struct {
	alg  string
	jwk  string // the public key as JSON
	sign func(text string) []byte
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func newES256(t testing.TB) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	jwk := fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, b64(public[1:33]), b64(public[33:]))
	return signer{"ES256", jwk, func(text string) []byte {
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}}
}

func newRS256(t testing.TB, bits int) signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	jwk := fmt.Sprintf(`{"kty":"RSA","n":%q,"e":"AQAB"}`, b64(key.N.Bytes()))
	return signer{"RS256", jwk, func(text string) []byte {
		sum := sha256.Sum256([]byte(text))
		sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}}
}

// proof returns a signed proof with this header and these claims, both JSON.
func (s signer) proof(header, claims string) string {
	text := b64([]byte(header)) + "." + b64([]byte(claims))
	return text + "." + b64(s.sign(text))
}

func (s signer) registration(challenge string) string {
	return s.proof(`{"alg":"`+s.alg+`","jwk":`+s.jwk+`,"typ":"dbsc+jwt"}`, `{"jti":"`+challenge+`"}`)
}

func (s signer) refresh(challenge string) string {
	return s.proof(`{"alg":"`+s.alg+`","typ":"dbsc+jwt"}`, `{"jti":"`+challenge+`"}`)
}

// A key registers itself, and then verifies its own proofs and those of no other key.
func TestProofsOfBothAlgorithms(t *testing.T) {
	signers := []signer{newES256(t), newES256(t), newRS256(t, 2048), newRS256(t, 2048)}
	var keys []Key
	for _, s := range signers {
		key, challenge, err := Register(s.registration("c1"))
		if err != nil || challenge != "c1" {
			t.Fatalf("%s: %q, %v", s.alg, challenge, err)
		}
		if !strings.HasPrefix(string(key), s.alg+".") {
			t.Errorf("the key of %s is %s", s.alg, key)
		}
		if got := Claimed(s.registration("c1")); got != "c1" {
			t.Errorf("%s: the proof claims the challenge %q", s.alg, got)
		}
		keys = append(keys, key)
	}
	for i, s := range signers {
		for j, key := range keys {
			challenge, err := key.Challenge(s.refresh("c2"))
			if (err == nil && challenge == "c2") != (i == j) {
				t.Errorf("key %d, proof of %d: %q, %v", j, i, challenge, err)
			}
		}
	}
}

// What a browser of a later version may send is accepted: claims and members that are not known.
func TestUnknownMembersAreIgnored(t *testing.T) {
	s := newES256(t)
	key, challenge, err := Register(s.proof(
		`{"typ":"dbsc+jwt","kid":"x","ALG":"none","alg":"ES256","jwk":{"use":"sig","ext":true,`+s.jwk[1:]+`}`,
		`{"aud":"https://example.com/x","iat":1.5,"sub":null,"authorization":"tok","JTI":"other","jti":"c"}`))
	if err != nil || challenge != "c" {
		t.Fatalf("%q, %v", challenge, err)
	}
	if _, err := key.Challenge(s.proof(`{"alg":"ES256","typ":"dbsc+jwt","jwk":`+newES256(t).jwk+`}`, `{"jti":"c"}`)); err != nil {
		t.Errorf("a key in the header of a refresh is not ignored: %v", err)
	}
}

// Every way to get a proof accepted that the key has not signed, or that is not one.
func TestProofsThatAreRefused(t *testing.T) {
	s, other, r := newES256(t), newES256(t), newRS256(t, 2048)
	good := s.registration("c")
	key, _, err := Register(good)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, _, err := Register(r.registration("c"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	const claims = `{"jti":"c"}`
	header := func(alg, jwk string) string { return `{"alg":"` + alg + `","jwk":` + jwk + `,"typ":"dbsc+jwt"}` }
	jwk := func(x, y string) string { return `{"kty":"EC","crv":"P-256","x":"` + x + `","y":"` + y + `"}` }
	unsigned := func(header string) string { return b64([]byte(header)) + "." + b64([]byte(claims)) + "." }
	zero := b64(make([]byte, 64))
	order := elliptic.P256().Params().N
	max := b64(append(order.FillBytes(make([]byte, 32)), order.FillBytes(make([]byte, 32))...))
	sig, _ := base64.RawURLEncoding.DecodeString(parts[2])
	der := b64(append([]byte{0x30, 0x44, 0x02, 0x20}, sig...)) // not the form of JWS

	// What is in the key is the registration's alone: a refresh has the stored key.
	badKeys := map[string]string{
		"another key":           s.proof(header("ES256", other.jwk), claims),
		"a key of RSA":          s.proof(header("ES256", r.jwk), claims),
		"no key":                s.refresh("c"),
		"key null":              s.proof(header("ES256", "null"), claims),
		"key is a list":         s.proof(header("ES256", "["+s.jwk+"]"), claims),
		"a symmetric key":       s.proof(header("ES256", `{"kty":"oct","k":"AAAA"}`), claims),
		"P-384":                 s.proof(header("ES256", strings.Replace(s.jwk, "P-256", "P-384", 1)), claims),
		"a point off the curve": s.proof(header("ES256", jwk(b64(make([]byte, 32)), b64(make([]byte, 32)))), claims),
		"a short coordinate":    s.proof(header("ES256", jwk(b64(make([]byte, 31)), b64(make([]byte, 32)))), claims),
		"a long coordinate":     s.proof(header("ES256", jwk(b64(make([]byte, 33)), b64(make([]byte, 32)))), claims),
		"no coordinates":        s.proof(header("ES256", `{"kty":"EC","crv":"P-256"}`), claims),
	}
	for what, proof := range badKeys {
		if key, challenge, err := Register(proof); err == nil || challenge != "" {
			t.Errorf("registered: %s: %q %q", what, key, challenge)
		}
	}
	malformed := map[string]string{
		"nothing":                 "",
		"one part":                "abc",
		"two parts":               parts[0] + "." + parts[1],
		"four parts":              good + ".x",
		"four parts, signed":      parts[0] + "." + parts[1] + "." + b64(s.sign(parts[0]+"."+parts[1]+".")) + ".",
		"no signature":            parts[0] + "." + parts[1] + ".",
		"zeros":                   parts[0] + "." + parts[1] + "." + zero,
		"the order of the curve":  parts[0] + "." + parts[1] + "." + max,
		"a signature of ASN.1":    parts[0] + "." + parts[1] + "." + der,
		"a longer signature":      good + "AAAA",
		"other claims":            parts[0] + "." + b64([]byte(`{"jti":"d"}`)) + "." + parts[2],
		"another header":          b64([]byte(header("ES256", s.jwk)+" ")) + "." + parts[1] + "." + parts[2],
		"padding":                 good + "==",
		"a line break":            parts[0] + "\r\n." + parts[1] + "." + parts[2],
		"a line break at the end": good + "\n",
		"bits after the end":      good[:len(good)-1] + string(good[len(good)-1]+1),
		"alg none":                unsigned(header("none", s.jwk)),
		"alg None, signed":        s.proof(header("None", s.jwk), claims),
		"alg HS256":               s.proof(header("HS256", s.jwk), claims),
		"alg of another key":      s.proof(header("RS256", s.jwk), claims),
		"alg in other letters":    s.proof(`{"ALG":"ES256","jwk":`+s.jwk+`,"typ":"dbsc+jwt"}`, claims),
		"alg is a list":           s.proof(`{"alg":["ES256"],"jwk":`+s.jwk+`,"typ":"dbsc+jwt"}`, claims),
		"no alg":                  s.proof(`{"jwk":`+s.jwk+`,"typ":"dbsc+jwt"}`, claims),
		"crit":                    s.proof(`{"crit":[],"alg":"ES256","jwk":`+s.jwk+`,"typ":"dbsc+jwt"}`, claims),
		"typ of the first trial":  s.proof(`{"alg":"ES256","jwk":`+s.jwk+`,"typ":"jwt"}`, claims),
		"no typ":                  s.proof(`{"alg":"ES256","jwk":`+s.jwk+`}`, claims),
		"no challenge":            s.proof(header("ES256", s.jwk), `{}`),
		"an empty challenge":      s.proof(header("ES256", s.jwk), `{"jti":""}`),
		"a challenge of numbers":  s.proof(header("ES256", s.jwk), `{"jti":1}`),
		"jti in other letters":    s.proof(header("ES256", s.jwk), `{"JTI":"c"}`),
		"claims are no object":    s.proof(header("ES256", s.jwk), `"c"`),
		"two objects":             s.proof(header("ES256", s.jwk), claims+claims),
		"the header is no object": s.proof(`[]`, claims),
		"more than 8 KiB":         s.proof(header("ES256", s.jwk), `{"jti":"c","x":"`+strings.Repeat("x", maxField)+`"}`),
	}
	if got := Claimed("a.b.c"); got != "" {
		t.Errorf("garbage claims the challenge %q", got)
	}
	for what, proof := range malformed {
		if key, challenge, err := Register(proof); err == nil || challenge != "" {
			t.Errorf("registered: %s: %q %q", what, key, challenge)
		}
		for _, key := range []Key{key, rsaKey} {
			if challenge, err := key.Challenge(proof); err == nil {
				t.Errorf("refreshed with the key %.5s: %s: %q", key, what, challenge)
			}
		}
	}
	for what, proof := range map[string]string{
		"none":        b64([]byte(`{"alg":"none","typ":"dbsc+jwt"}`)) + "." + b64([]byte(claims)) + ".",
		"other alg":   s.proof(`{"alg":"RS256","typ":"dbsc+jwt"}`, claims),
		"other key":   other.refresh("c"),
		"other kind":  r.refresh("c"),
		"HMAC by key": signer{sign: func(string) []byte { return make([]byte, 32) }}.proof(`{"alg":"HS256","typ":"dbsc+jwt"}`, claims),
	} {
		if _, err := key.Challenge(proof); err == nil {
			t.Errorf("refreshed: %s", what)
		}
	}
	for _, key := range []Key{"", ".", "ES256", "ES256.", "none.", "HS256.AAAA", "RS256.AAAA", "ES256." + Key(b64(make([]byte, 64)))} {
		if _, err := key.Challenge(s.refresh("c")); err == nil {
			t.Errorf("the key %q verifies a proof", key)
		}
	}
}

// An RSA key has 2048 to 4096 bits, an odd modulus and the usual exponent.
func TestKeysOfRSA(t *testing.T) {
	r := newRS256(t, 2048)
	modulus := func(n *big.Int, e string) string {
		return `{"kty":"RSA","n":"` + b64(n.Bytes()) + `","e":"` + e + `"}`
	}
	one := big.NewInt(1)
	n := func(bits uint) *big.Int { return new(big.Int).Add(new(big.Int).Lsh(one, bits-1), one) }
	for what, c := range map[string]struct {
		jwk string
		ok  bool
	}{
		"2048 bits":             {modulus(n(2048), "AQAB"), true},
		"4096 bits":             {modulus(n(4096), "AQAB"), true},
		"1024 bits":             {modulus(n(1024), "AQAB"), false},
		"2047 bits":             {modulus(n(2047), "AQAB"), false},
		"4104 bits":             {modulus(n(4104), "AQAB"), false},
		"even":                  {modulus(new(big.Int).Lsh(one, 2047), "AQAB"), false},
		"the exponent 3":        {modulus(n(2048), "Aw"), false},
		"the exponent 1":        {modulus(n(2048), "AQ"), false},
		"a long exponent":       {modulus(n(2048), "AQABAAAAAAAA"), false},
		"no exponent":           {modulus(n(2048), ""), false},
		"a leading zero":        {`{"kty":"RSA","n":"` + b64(append([]byte{0}, n(2048).Bytes()...)) + `","e":"AQAB"}`, false},
		"a key that has signed": {r.jwk, true},
	} {
		if key, err := keyOf([]byte(c.jwk)); (err == nil) != c.ok || c.ok != (key != "") {
			t.Errorf("%s: %q, %v", what, key, err)
		}
	}
}

// The vectors of RFC 7515, appendices A.2 and A.3.
func TestVectorsOfRFC7515(t *testing.T) {
	const payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	for _, c := range []struct{ alg, header, jwk, signature string }{
		{"ES256", "eyJhbGciOiJFUzI1NiJ9",
			`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
		{"RS256", "eyJhbGciOiJSUzI1NiJ9",
			`{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`,
			"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
	} {
		key, err := keyOf([]byte(c.jwk))
		if err != nil {
			t.Errorf("%s: %v", c.alg, err)
			continue
		}
		raw, _ := decode(strings.TrimPrefix(string(key), c.alg+"."))
		signature, _ := decode(c.signature)
		if text := c.header + "." + payload; !verify(c.alg, raw, text, signature) || verify(c.alg, raw, text+"x", signature) {
			t.Errorf("%s: the vector does not verify, or verifies another text", c.alg)
		}
	}
}

// FuzzProof checks that no proof causes a panic, and that a text that is not the signed one never
// verifies.
func FuzzProof(f *testing.F) {
	s := newES256(f)
	good := s.registration("challenge")
	key, _, err := Register(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(0), uint16(0), "")
	f.Add(uint16(5), uint16(1), "A")
	f.Add(uint16(len(good)), uint16(0), "=")
	f.Add(uint16(0), uint16(len(good)), "a.b.c")
	f.Add(uint16(0), uint16(len(good)), newRS256(f, 2048).registration("c"))
	f.Fuzz(func(t *testing.T, at, cut uint16, insert string) {
		from := min(int(at), len(good))
		to := min(from+int(cut), len(good))
		edited := good[:from] + insert + good[to:]
		_, challenge, err := Register(edited)
		if edited != good && err == nil && challenge == "challenge" {
			t.Fatalf("registered %q", edited)
		}
		if _, err := key.Challenge(edited); edited != good && err == nil {
			t.Fatalf("verified %q", edited)
		}
		_, _ = keyOf([]byte(insert))
		_, _ = Key(insert).Challenge(good)
	})
}
