package session

import "github.com/coatcheck/session/internal/token"

// A TokenFormat makes and verifies what a client holds, where that is another kind
// of token than ours: for sharing sessions with a program that has its own. It is
// safe for concurrent use. Package expressjs has one.
//
// Such a token is an id and no more: it has no key of its own, which could be
// replaced under the same id. So Renew, Remember and every Login give the session
// a new id, as the other program does it, and requests that come with the old
// token afterwards are nobody's (ErrReplaced). A request that has loaded the
// session by then keeps it: what it changes is saved under the new id. Done stays
// open. Options.RenewAfter is an error of New: it would sign out whoever has a slow
// request under way; and so is a WatchEvery above 30 seconds, which could miss the
// change of id. Where the other program gives an id to another user, requests under
// way are treated as after a Login of that one. And who reads the store can make no
// token only if the format signs the id, with a secret that the store does not have.
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
