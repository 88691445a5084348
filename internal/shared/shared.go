// Package shared is what session.New and a store agree on that keeps another program's
// records: package expressjs has two.
package shared

import (
	"net/http"
	"time"
)

// A Store keeps the records of another program, which say how long their sessions and
// cookies last: a record with a lifetime of its own has body.IdleTimeout in its Data.
type Store interface {
	// Lifetimes returns how long the sessions last that nobody uses.
	Lifetimes() Lifetimes

	// Agree is told what session.CookieOptions say of the cookie of new sessions, which
	// the other program sends too. It returns what they and the store's own options say,
	// or all contradictions.
	Agree(Cookie) (Cookie, error)
}

// Lifetimes are how long sessions last that nobody uses.
type Lifetimes struct {
	MaxAge time.Duration // of a new session, and its cookie; 0: it has none of its own
	TTL    time.Duration // of a session that has none of its own
}

// A Cookie is a part of session.CookieOptions. Zero is what nothing was said of.
type Cookie struct {
	Domain, Path          string
	SameSite              http.SameSite
	Insecure, Partitioned bool
}
