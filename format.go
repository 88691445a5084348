package session

import "github.com/coatcheck/session/internal/token"

// A TokenFormat makes and verifies what a client holds, where that is another kind
// of token than ours: for sharing sessions with a program that has its own. It is
// safe for concurrent use. Package expressjs has one.
//
// Such a token is an id without a key, and it belongs to the other program too: that
// program may send it in any response, also after we have replaced it. So a session
// keeps its token where that is safe. Renew changes nothing; Remember sets the end of the
// session and sends the cookie again; a Login of the user who is logged in already starts
// the clocks again. A stolen token is not ended by any of them. Only a Login from
// anonymous or as another user takes another id (session fixation): the old token is
// ErrReplaced at once, for in-flight requests too, which may still log the user out.
// Options.RenewAfter and RenewGrace must be 0.
//
// With CookieOptions.Persistent the token is sent again, for as long as the session
// lives by then, in each response whose request has saved the session before the first
// byte, or moves its clocks. The latter costs a Load: a request whose session has ended
// meanwhile must not put its token over a newer one.
//
// Where the other program gives an id to another user, or logs the user out and keeps the
// id, in-flight requests are treated as after a Login as another user, and Done is closed.
//
// A leaked store does not reveal valid tokens only if the format signs the id, with a
// secret that the store does not have.
type TokenFormat interface {
	// New returns a new random token, as it stands in a cookie or header, and the
	// id of the record that it opens, of 1 to 128 bytes. Ids have at least 128
	// random bits (OWASP ASVS 5, 7.2.3), and none is returned twice.
	New() (token, id string)

	// Verify returns the id that a token opens. It is given a stranger's bytes, of
	// at most 1024, as they stand in the header, and answers false to all that New
	// did not make, here or in another process. The Manager remembers what was
	// good: the answer for one token must not change.
	Verify(token string) (id string, ok bool)
}

const (
	longestToken = 1024
	longestID    = 128 // see Record
)

// foreign is a TokenFormat as the rest of the package sees tokens: without a key.
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
