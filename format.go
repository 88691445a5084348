package session

import "github.com/coatcheck/session/internal/token"

// A TokenFormat makes and verifies tokens of another program, for sharing sessions with that
// program: see [Options].Tokens. Its methods must be safe for concurrent use. Package expressjs
// has an implementation.
//
// Such a token is an id without a key, and belongs to the other program too: that program may
// send it in any response, even after this package has replaced it. A session therefore keeps
// its token where that is safe. Renew changes nothing; Remember sets the end of the session and
// sends the cookie again; a Login of the user who is logged in already restarts the clocks. None
// of them ends a stolen token. Only a Login from anonymous, or as another user, takes another id
// (session fixation): the old token is [ErrReplaced] at once, for in-flight requests too, whose
// Logout still logs the user out. Options.RenewAfter and RenewGrace must be 0.
//
// With [CookieOptions].Persistent the token is sent again, with the current end of the session,
// in each response whose request has saved the session before the first byte or moves its
// clocks. The latter costs a Load, because the token of a session that has ended meanwhile must
// not replace a newer one.
//
// If the other program gives an id to another user, or logs the user out and keeps the id,
// in-flight requests are treated as after a Login as another user, and Done is closed.
//
// A leaked store does not reveal valid tokens if the format signs the id with a secret that is
// not in the store.
type TokenFormat interface {
	// New returns a new random token, as it stands in a cookie or header, and the id of the
	// record that it opens. An id has 1 to 128 bytes and at least 128 random bits (OWASP ASVS
	// 5, 7.2.3), and is never returned twice.
	New() (token, id string)

	// Verify returns the id that a token opens. The token is untrusted: at most 1024 bytes as
	// they stand in the header. Verify returns false unless New has made the token, in this
	// process or another one. The Manager caches valid tokens: the answer for a token must not
	// change.
	Verify(token string) (id string, ok bool)
}

const (
	longestToken = 1024
	longestID    = 128 // see Record
)

// foreign adapts a TokenFormat to [token.Format]: its tokens have no key.
type foreign struct{ format TokenFormat }

func (f foreign) New(string) (string, token.Ref) {
	value, id := f.format.New()
	return value, token.Ref{ID: id}
}

func (f foreign) Plausible(value string) bool { return value != "" && len(value) <= longestToken }

func (f foreign) Verify(value string) (token.Ref, bool) {
	id, ok := f.format.Verify(value)
	return token.Ref{ID: id}, ok && id != "" && len(id) <= longestID
}

func (f foreign) Uses() []int64 { return nil }
