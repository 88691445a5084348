package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/coatcheck/session/expressjs"
)

// cookie looks at the cookie's value, and returns the id that it opens, or "".
func (e *examination) cookie(value, secretEnv string, getenv func(string) string) (id string, _ error) {
	value = strings.TrimSpace(value)
	if name, after, ok := strings.Cut(value, "="); ok && !strings.ContainsAny(name, "%:") {
		value, _, _ = strings.Cut(after, ";") // the whole "name=value"
		e.app.cookieName = strings.TrimSpace(name)
	}
	plain, err := url.PathUnescape(value)
	switch {
	case err != nil && strings.HasPrefix(value, "s%3A"): // the value ends within an escape
		e.problem(notWhole)
		return "", nil
	case err != nil || !strings.HasPrefix(plain, "s:"):
		e.problem(`the cookie does not begin with "s%%3A", as every cookie of express-session does: copy the whole value of connect.sid, or of the name that the app gives it. A cookie of @fastify/session does so with its option cookiePrefix: 's:'`)
		return "", nil
	}
	names := strings.Split(secretEnv, ",")
	for i, name := range names {
		secret := getenv(name)
		if secret == "" {
			return "", fmt.Errorf("the environment variable %s is empty: give those that hold the secrets by -secret-env", name)
		}
		if id, ok := verify(value, secret); ok {
			e.ok("the signature is good, by %s; the id is %s, of %d characters", name, short(id), len(id))
			e.checked = append(e.checked, "the signature")
			if i > 0 {
				e.note("that is an older secret. Express signs a session's cookie anew only when it sets one: keep %s on both sides for as long as sessions live", name)
			}
			if len(id) > 128 {
				e.problem("the id has more than 128 characters, and Go takes none of them: shorten what the app's genid makes")
			}
			return id, nil
		}
		if trimmed := strings.Trim(secret, " \t\r\n\"'"); trimmed != secret {
			if _, ok := verify(value, trimmed); ok {
				e.problem("the signature is good by %s without the spaces, line breaks or quotes around it: Go must be given the secret without them, as Express is", name)
				return "", nil
			}
		}
	}
	for _, name := range names {
		for _, part := range strings.Split(getenv(name), ",") {
			if _, ok := verify(value, strings.TrimSpace(part)); ok {
				e.problem("the signature is good by one of the secrets that stand in %s with commas between them: give each to expressjs.Tokens by itself, as the app gives them to Express", name)
				return "", nil
			}
		}
	}
	if len(plain)-strings.LastIndexByte(plain, '.') != len(".")+43 {
		e.problem(notWhole)
		return "", nil
	}
	e.problem("the signature is none of %s: the Express app signs with another secret, or is given a Buffer where Go is given text. If it has several, give all of them, in its order", strings.Join(names, ", "))
	return "", nil
}

const notWhole = "the signature has not the 43 characters that it must have: the value was not copied whole"

func verify(value, secret string) (id string, ok bool) {
	tokens, err := expressjs.Tokens(secret)
	if err != nil {
		return "", false
	}
	return tokens.Verify(value)
}
