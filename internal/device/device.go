// Package device speaks the protocol of Device Bound Session Credentials (W3C editor's draft of
// February 2026): a browser holds a private key, and proves every few minutes that it has the key.
// The package reads the browser's proofs and headers, and writes the server's headers and
// instructions. It also makes and verifies the stamps by which the server recognises its own
// challenges, identifiers and cookies without storing them. It does no I/O and knows no sessions.
//
// The protocol, as Chromium 156 speaks it:
//
//	server   Secure-Session-Registration: (ES256 RS256);path="…";challenge="…"   in the response to a login
//	browser  POST path, Secure-Session-Response: <proof with the public key>
//	server   200, Set-Cookie of a short-lived cookie, Secure-Session-Challenge, instructions in JSON
//
// When the short-lived cookie is missing or about to expire:
//
//	browser  POST path, Sec-Secure-Session-Id: <identifier>
//	server   403, Secure-Session-Challenge: "…";id="<identifier>"
//	browser  POST path, Sec-Secure-Session-Id: <identifier>, Secure-Session-Response: <proof>
//	server   200, Set-Cookie, Secure-Session-Challenge, instructions
//
// A browser that has a challenge from an earlier response skips the 403.
package device

import (
	"encoding/json"
	"net/http"
	"strings"
)

// The header fields of the protocol, in the spelling of package http.
const (
	RegistrationHeader = "Secure-Session-Registration" // to the browser: register a key
	ChallengeHeader    = "Secure-Session-Challenge"    // to the browser: what the next proof must contain
	ResponseHeader     = "Secure-Session-Response"     // from the browser: a proof
	IdentifierHeader   = "Sec-Secure-Session-Id"       // from the browser: the session that it refreshes
	SkippedHeader      = "Secure-Session-Skipped"      // from the browser: why it did not refresh
)

// Registration returns the value of the header that asks a browser to register a key. path must
// not contain quotes or backslashes. ES256 stands first, because a browser takes the first
// algorithm that it has, and the signatures of RS256 are larger.
func Registration(path, challenge string) string {
	return `(ES256 RS256);path="` + path + `";challenge="` + challenge + `"`
}

// Challenge returns the value of the header with the challenge of the browser's next proof.
// identifier must be one that [Stamps.Identifier] made.
func Challenge(challenge, identifier string) string {
	return `"` + challenge + `";id="` + identifier + `"`
}

// maxField is the longest value of a browser's header that is read, in bytes: a proof by a key of
// 4096 bits with unknown claims fits.
const maxField = 8 << 10

// Field returns the value of a header of the browser. A value may be bare, as Chromium sends it,
// or a string of RFC 9651 (structured fields), as the draft has it. Parameters are ignored. ok is
// false if the header is missing, repeated, empty, too long or malformed.
func Field(h http.Header, name string) (value string, ok bool) {
	lines := h[name]
	if len(lines) != 1 || len(lines[0]) > maxField {
		return "", false
	}
	text := strings.Trim(lines[0], " ")
	if quoted, ok := strings.CutPrefix(text, `"`); ok {
		return unquote(quoted)
	}
	value, _, _ = strings.Cut(text, ";")
	return value, value != "" && strings.IndexFunc(value, isSpecial) < 0
}

// isSpecial reports whether r cannot stand in a bare value. Bare values are base64, which is
// separated by dots in a proof.
func isSpecial(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`",\`, r)
}

// unquote decodes a string of RFC 9651, 3.3.3, whose opening quote was removed. What follows the
// closing quote must be parameters.
func unquote(text string) (value string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			rest := strings.TrimLeft(text[i+1:], " ")
			return b.String(), b.Len() > 0 && (rest == "" || rest[0] == ';')
		case c == '\\':
			if i++; i == len(text) || text[i] != '"' && text[i] != '\\' {
				return "", false
			}
			b.WriteByte(text[i])
		case c < ' ' || c > '~':
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}

// Skipped returns why a browser did not refresh, according to its header Secure-Session-Skipped:
// "quota_exceeded", "server_error", "unreachable" or another word of the draft. It returns "" if
// the browser does not say. Anybody can send the header, so the word is no permission: it is for
// logs.
func Skipped(h http.Header) string {
	const longest = 32 // the longest word of the draft has half of that
	word, ok := Field(h, SkippedHeader)
	if !ok || len(word) > longest || strings.IndexFunc(word, isNotOfWord) >= 0 {
		return ""
	}
	return word
}

func isNotOfWord(r rune) bool { return (r < 'a' || r > 'z') && r != '_' }

// Instructions tell a browser how to refresh: the JSON of a successful answer.
type Instructions struct {
	Identifier string // of the session, for Sec-Secure-Session-Id
	Path       string // where the browser refreshes
	Cookie     string // the name of the short-lived cookie
	Attributes string // the cookie's attributes, as Set-Cookie has them. Those about its life do not count
}

// JSON returns the instructions in the format of the draft. The scope is the origin of the
// answer. Every site may cause a refresh, because a link from another site to a page of this one
// would otherwise arrive without the short-lived cookie.
func (i Instructions) JSON() []byte {
	type scope struct {
		IncludeSite bool `json:"include_site"`
	}
	type credential struct {
		Type       string `json:"type"`
		Name       string `json:"name"`
		Attributes string `json:"attributes"`
	}
	text, _ := json.Marshal(struct {
		Identifier  string       `json:"session_identifier"`
		Path        string       `json:"refresh_url"`
		Scope       scope        `json:"scope"`
		Credentials []credential `json:"credentials"`
		Initiators  []string     `json:"allowed_refresh_initiators"`
	}{i.Identifier, i.Path, scope{}, []credential{{"cookie", i.Cookie, i.Attributes}}, []string{"*"}})
	return text
}

// Ended returns the JSON that makes a browser forget a session.
func Ended(identifier string) []byte {
	text, _ := json.Marshal(struct {
		Identifier string `json:"session_identifier"`
		Continue   bool   `json:"continue"`
	}{identifier, false})
	return text
}
