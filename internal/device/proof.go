package device

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
)

// A proof is a JSON Web Signature in compact form (RFC 7515) of the type "dbsc+jwt", signed by
// ES256 or RS256 (RFC 7518, 3.1). Two rules keep the pitfalls of that format out: the algorithm is
// the one of the key, whatever the header says, and nothing that the header refers to is used,
// apart from the public key of a registration. That is less code than the choice and the
// configuration of a library, and parses less: encryption, other algorithms and key formats are
// where the libraries had their vulnerabilities.

// ErrProof is returned for a proof that is malformed, or that the key has not signed.
var ErrProof = errors.New("device: the proof is not valid")

// A Key is the text form of a public key, as it is stored: "ES256.<x><y>" (P-256, coordinates of
// 32 bytes) or "RS256.<n>" (2048 to 4096 bits, exponent 65537), in base64url. The zero Key
// verifies nothing.
type Key string

const (
	es256 = "ES256"
	rs256 = "RS256"

	coordinate = 32    // length of a coordinate of P-256 in bytes
	exponent   = 65537 // of all RSA keys that platforms make
	minModulus = 2048  // NIST SP 800-131A, 3, in bits
	maxModulus = 4096  // bounds the time of a verification, in bits
)

// Register verifies the proof of a registration, which is signed by the key that it contains. It
// returns the key and the challenge in the proof.
func Register(proof string) (key Key, challenge string, err error) {
	p, err := parse(proof)
	if err != nil {
		return "", "", err
	}
	if key, err = keyOf(p.header["jwk"]); err != nil {
		return "", "", err
	}
	challenge, err = p.verify(key)
	return key, challenge, err
}

// Claimed returns the challenge in a proof that was not verified, or "". It lets the caller refuse a
// challenge that it has not made before it pays for a signature.
func Claimed(proof string) string {
	p, err := parse(proof)
	if err != nil {
		return ""
	}
	return stringOf(p.claims["jti"])
}

// Challenge verifies a proof that must be signed by the key. It returns the challenge in the
// proof.
func (k Key) Challenge(proof string) (challenge string, err error) {
	p, err := parse(proof)
	if err != nil {
		return "", err
	}
	return p.verify(k)
}

// A proof is a parsed proof whose signature was not verified.
type proof struct {
	signed    string // the text that is signed
	header    map[string]json.RawMessage
	claims    map[string]json.RawMessage
	signature []byte
}

// parse decodes a proof. Names are compared exactly, which encoding/json does only in maps.
// Unknown members are ignored, but not "crit", which says that they must be understood.
func parse(text string) (p proof, err error) {
	if len(text) > maxField {
		return p, ErrProof
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return p, ErrProof
	}
	p.signed = text[:len(text)-len("."+parts[2])]
	for i, to := range []any{&p.header, &p.claims, nil} {
		raw, err := decode(parts[i])
		switch {
		case err != nil:
			return p, ErrProof
		case to == nil:
			p.signature = raw
		case json.Unmarshal(raw, to) != nil:
			return p, ErrProof
		}
	}
	if _, isCritical := p.header["crit"]; isCritical || stringOf(p.header["typ"]) != "dbsc+jwt" {
		return p, ErrProof
	}
	return p, nil
}

// verify verifies the signature and returns the challenge.
func (p *proof) verify(k Key) (challenge string, err error) {
	alg, text, _ := strings.Cut(string(k), ".")
	raw, err := decode(text)
	challenge = stringOf(p.claims["jti"])
	if err != nil || challenge == "" || stringOf(p.header["alg"]) != alg || !verify(alg, raw, p.signed, p.signature) {
		return "", ErrProof
	}
	return challenge, nil
}

// verify reports whether signature is the key's signature of text.
func verify(alg string, key []byte, text string, signature []byte) bool {
	sum := sha256.Sum256([]byte(text))
	switch {
	case alg == es256 && len(key) == 2*coordinate && len(signature) == 2*coordinate:
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, key...))
		if err != nil { // not a point of the curve
			return false
		}
		r := new(big.Int).SetBytes(signature[:coordinate])
		s := new(big.Int).SetBytes(signature[coordinate:])
		return ecdsa.Verify(public, sum[:], r, s)
	case alg == rs256 && isModulus(key):
		public := &rsa.PublicKey{N: new(big.Int).SetBytes(key), E: exponent}
		return rsa.VerifyPKCS1v15(public, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}

// keyOf returns the key of a JSON Web Key (RFC 7517). Its kind decides the algorithm. Whether the
// numbers are a key is found by the verification that follows.
func keyOf(raw json.RawMessage) (Key, error) {
	var jwk map[string]json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &jwk) != nil {
		return "", ErrProof
	}
	number := func(name string) []byte { // nil: malformed
		b, err := decode(stringOf(jwk[name]))
		if err != nil {
			return nil
		}
		return b
	}
	switch stringOf(jwk["kty"]) {
	case "EC":
		x, y := number("x"), number("y")
		if stringOf(jwk["crv"]) == "P-256" && len(x) == coordinate && len(y) == coordinate {
			return Key(es256 + "." + encoding.EncodeToString(append(x, y...))), nil
		}
	case "RSA":
		n, e := number("n"), number("e")
		if isModulus(n) && new(big.Int).SetBytes(e).Cmp(big.NewInt(exponent)) == 0 {
			return Key(rs256 + "." + encoding.EncodeToString(n)), nil
		}
	}
	return "", ErrProof
}

// isModulus reports whether a number, without leading zeros, can be the modulus of an RSA key.
func isModulus(n []byte) bool {
	return len(n) >= minModulus/8 && len(n) <= maxModulus/8 && n[0] >= 0x80 && n[len(n)-1]&1 == 1
}

// encoding is base64url, of which only the canonical form is valid.
var encoding = base64.RawURLEncoding.Strict()

// decode decodes base64url. Package base64 skips line breaks, which decode does not accept.
func decode(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, ErrProof
	}
	return encoding.DecodeString(text)
}

// stringOf decodes a JSON string. It returns "" for anything else.
func stringOf(raw json.RawMessage) (s string) {
	if len(raw) == 0 || json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
