package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/coatcheck/session/expressjs"
)

// cookie checks the value of the cookie, and returns the id that its signature verifies, or "".
func (e *examination) cookie(value, secretEnv string, getenv func(string) string) (id string, _ error) {
	value = strings.TrimSpace(value)
	if name, after, ok := strings.Cut(value, "="); ok && !strings.ContainsAny(name, "%:") {
		value, _, _ = strings.Cut(after, ";") // the argument is "name=value"
		e.app.cookieName = strings.TrimSpace(name)
	}
	plain, err := url.PathUnescape(value)
	switch {
	case err != nil && strings.HasPrefix(value, "s%3A"): // the value ends within an escape
		e.problem(notWhole)
		return "", nil
	case err != nil || !strings.HasPrefix(plain, "s:"):
		e.problem(`the cookie does not begin with "s%%3A", as every cookie of express-session does: copy the whole value of connect.sid, or of the cookie name of the app. A cookie of @fastify/session begins so with the option cookiePrefix: 's:'`)
		return "", nil
	}
	names := strings.Split(secretEnv, ",")
	for i, name := range names {
		secret := getenv(name)
		if secret == "" {
			return "", fmt.Errorf("the environment variable %s is empty: name the variables with the secrets by -secret-env", name)
		}
		if id, ok := verify(value, secret); ok {
			e.ok("the signature is valid, by %s; the id is %s, of %d characters", name, short(id), len(id))
			e.checked = append(e.checked, "the signature")
			if i > 0 {
				e.note("%s is an older secret. Express signs the cookie of a session again only when it sets the cookie: keep the secret on both sides for as long as sessions live", name)
			}
			if len(id) > 128 {
				e.problem("the id has more than 128 characters, the limit of Go: shorten the ids of the app's genid")
			}
			return id, nil
		}
		if trimmed := strings.Trim(secret, " \t\r\n\"'"); trimmed != secret {
			if _, ok := verify(value, trimmed); ok {
				e.problem("the signature is valid by %s without the spaces, line breaks or quotes around it: give Go the secret without them, as Express gets it", name)
				return "", nil
			}
		}
	}
	for _, name := range names {
		for _, part := range strings.Split(getenv(name), ",") {
			if _, ok := verify(value, strings.TrimSpace(part)); ok {
				e.problem("the signature is valid by one of the secrets in %s with commas between them: pass each secret to expressjs.Tokens as an argument of its own", name)
				return "", nil
			}
		}
	}
	if len(plain)-strings.LastIndexByte(plain, '.') != len(".")+43 {
		e.problem(notWhole)
		return "", nil
	}
	e.problem("the signature is none of %s: the Express app signs with another secret, or it has a Buffer where Go has text. If the app has several secrets, give all of them, in the same order", strings.Join(names, ", "))
	return "", nil
}

const notWhole = "the signature does not have 43 characters: the value was not copied whole"

func verify(value, secret string) (id string, ok bool) {
	tokens, err := expressjs.Tokens(secret)
	if err != nil {
		return "", false
	}
	return tokens.Verify(value)
}
