package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// A secret is one way to read a secret from the environment.
type secret struct {
	bytes   []byte
	label   string // says where it is from, without its value
	problem string // what the program must do differently to have this secret; "": nothing
	isOlder bool   // it is not the first
}

// minSecret is the shortest secret that session.New accepts, in bytes.
const minSecret = 32

// secrets returns the secrets of the variables -secret-env names, each in all the ways in which a
// program may have read it: as it stands there, or decoded.
func (p *program) secrets() (all []secret, _ error) {
	names := strings.Split(p.secretEnv, ",")
	for i, name := range names {
		name = strings.TrimSpace(name)
		text := p.getenv(name)
		if text == "" {
			return nil, usagef("the environment variable %s is empty: put the secret of session.Options.Secrets there, or name the variables by -secret-env; never give a secret as an argument", name)
		}
		if len(text) >= minSecret { // what is shorter verifies nothing
			p.hidden = append(p.hidden, text)
		}
		add := func(b []byte, how, problem string) {
			if len(b) >= minSecret {
				all = append(all, secret{b, name + how, problem, i > 0})
			}
		}
		add([]byte(text), "", "")
		trimmed := strings.Trim(text, " \t\r\n\"'")
		if b, err := hex.DecodeString(trimmed); err == nil {
			add(b, ", decoded from hex", "")
		}
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if b, err := e.DecodeString(strings.TrimRight(trimmed, "=")); err == nil {
				add(b, ", decoded from base64", "")
			}
		}
		if trimmed != text {
			add([]byte(trimmed), "", "the signature is valid only by "+name+" without the spaces, line breaks or quotes around it: the program that issued the token got the secret without them")
		}
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != trimmed {
				add([]byte(part), ", one of the secrets that commas separate there", "")
			}
		}
	}
	if len(all) == 0 {
		return nil, usagef("%s is shorter than %d bytes, which session.New does not accept", p.secretEnv, minSecret)
	}
	return all, nil
}

// labels names the secrets, each once.
func labels(secrets []secret) string {
	var all []string
	seen := map[string]bool{}
	for _, s := range secrets {
		name, _, _ := strings.Cut(s.label, ",")
		if !seen[name] {
			seen[name] = true
			all = append(all, name)
		}
	}
	if len(all) == 1 {
		return fmt.Sprintf("tried: %s, as it is and decoded", all[0])
	}
	return fmt.Sprintf("tried: %s, as they are and decoded", strings.Join(all, ", "))
}
