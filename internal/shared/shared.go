// Package shared is the interface between session.New and a store that keeps the records of
// another program. Package expressjs has two such stores.
package shared

import (
	"net/http"
	"time"
)

// Store is a session.Store that keeps the records of another program. The records determine how
// long their sessions and cookies last: a record with an idle timeout of its own has
// body.IdleTimeout in its Data.
type Store interface {
	// Lifetimes returns the idle timeouts of sessions.
	Lifetimes() Lifetimes

	// Agree merges the attributes that session.CookieOptions set for the cookies of new
	// sessions, which the other program also sends, with the options of the store. It returns
	// the result, or an error that joins all contradictions.
	Agree(Cookie) (Cookie, error)
}

// Lifetimes are the idle timeouts of sessions.
type Lifetimes struct {
	MaxAge time.Duration // idle timeout of a new session and lifetime of its cookie; 0: TTL, and a cookie without Max-Age
	TTL    time.Duration // idle timeout of a session whose record has none of its own

	IsTTLSet bool // TTL is set by the program, not a default
}

// Cookie is a part of session.CookieOptions. A zero field is not set.
type Cookie struct {
	Domain, Path          string
	SameSite              http.SameSite
	Insecure, Partitioned bool
}
