package session

import (
	"context"
	"errors"
	"time"
)

// Errors that a [Store] returns. A store may wrap them; callers compare with errors.Is.
var (
	// ErrNotFound: there is no live record with this id.
	ErrNotFound = errors.New("session: not found")

	// ErrConflict: the record has another version than the one to replace.
	ErrConflict = errors.New("session: the record was changed by another commit")

	// ErrExists: Create found the id taken.
	ErrExists = errors.New("session: the record exists already")

	// ErrIndeterminate: the store cannot say whether the write was applied
	// (a lost reply, a deadline). It is never reported as a conflict.
	ErrIndeterminate = errors.New("session: the store cannot say whether the write was applied")
)

// Errors that a [Session] returns beside those of its store.
var (
	// ErrStore wraps every failure of a store that reaches Session.Err,
	// Session.Save or Options.ErrorHandler: the session could not be read or
	// written. It is not known whether the user is logged in.
	ErrStore = errors.New("session: the store failed")

	// ErrEnded: the session has ended: it expired, or was ended by Logout, Revoke
	// or their like. Save, Reload, Take, UpdateNow, Refresh and Edit return it. Session.Err
	// does not: a request without a session is an ordinary one, and Session.Ended
	// tells.
	ErrEnded = errors.New("session: the session has ended")

	// ErrTooLarge: the values and flashes exceed Options.MaxDataSize, and are more
	// than before. Err, Save, UpdateNow and Edit return it; if a response fails by it, that is
	// 500. The changes stay pending until Reload forgets them, or until others make
	// them fit; those of an UpdateNow or Edit do not.
	ErrTooLarge = errors.New("session: the values are too large")

	// ErrReplaced: the token of the request was replaced, by a Login as another user
	// or by a renewal whose grace is over. The browser holds a newer one: such a
	// request is late, or comes from an attacker who has the old token. Err, Save,
	// Reload, Take, UpdateNow and Refresh return it. It is not a failure and not given
	// to ErrorHandler, and it is not an ErrEnded: the session may be live.
	ErrReplaced = errors.New("session: the token was replaced")

	// ErrUnproven: the session is bound to the browser that logged in ([Options].DeviceBound), and
	// the request has no recent proof that it comes from that browser. The request is that of a
	// copied cookie, or the browser could not prove itself: its next request may succeed. The
	// request has no session; only a Login or Logout is obeyed. Err, Save, Reload, Take, UpdateNow
	// and Refresh return ErrUnproven. It is not a failure and not given to ErrorHandler, and it is
	// not an ErrEnded.
	ErrUnproven = errors.New("session: the browser has not proved lately that it is the one that logged in")
)

// A Record is what a Store keeps of one session. All its times are in whole
// milliseconds; the Manager truncates them.
type Record struct {
	// ID is URL-safe text of 1 to 128 bytes. The Manager's are 22 bytes, random.
	// The store never sees a token, only the hash of its key, which is in Data: a leaked
	// store does not reveal valid tokens. The Manager never creates an id again that was
	// deleted.
	ID string

	// User is "" while the session is anonymous, and at most 1024 bytes, of whatever
	// value. It is set at Create; a Save keeps it or makes it "", and then the record
	// leaves the user's list.
	User string

	// Data is a JSON object, opaque to stores: not to be parsed, reformatted
	// or changed.
	Data []byte

	Created  time.Time
	LastSeen time.Time

	// Deadline is the absolute end: Touch never moves Expires past it.
	Deadline time.Time

	// Expires is never after Deadline. From this instant on the record does
	// not exist, for any method, whether or not its bytes are still there.
	Expires time.Time

	// Version is 63 random bits, never 0, chosen by the caller anew for every
	// Create and Save. A counter of the store's would repeat after a failover,
	// and only a version known before a write was sent can tell afterwards
	// whether it was applied.
	Version uint64
}

// A Store keeps records. Its methods may be called by any number of goroutines
// at once and return soon after ctx ends. Data is immutable on both sides once
// passed: neither the store nor its caller changes a byte of it. What a method
// answers without an error is so for every later call, in this process or
// another one: the promises of this package hold as far as a store keeps what
// it acknowledged.
//
// The package storetest checks a store against every sentence below.
type Store interface {
	// Load returns the live record with this id, or ErrNotFound. The caller
	// may change the fields of the Record it gets.
	Load(ctx context.Context, id string) (*Record, error)

	// Create adds a record. It returns ErrExists if the id is taken by a live
	// record, and nil if that record's version is r.Version already: then this
	// very call was applied before, and its reply lost.
	Create(ctx context.Context, r *Record) error

	// Save replaces the live record whose id is r.ID and whose version is old,
	// in one step. It returns ErrConflict if the version is another one,
	// ErrNotFound if there is no such live record (a Save never revives), and
	// nil if the version is r.Version already.
	//
	// LastSeen and Expires never move back: of each, the later of the stored and
	// the given one is kept, Expires at most r.Deadline. So a Save ends a record
	// only by its Deadline. The stored ones are those that Load would return.
	Save(ctx context.Context, r *Record, old uint64) error

	// Touch moves LastSeen and Expires of a live record, each only forward in
	// time and Expires never past Deadline. Data and Version stay. It returns
	// ErrNotFound if there is no such live record.
	Touch(ctx context.Context, id string, seen, expires time.Time) error

	// Delete removes a record. It returns nil if there is none.
	Delete(ctx context.Context, id string) error

	// List returns the live records whose User is user, in any order. The
	// user "" has none, although anonymous sessions exist.
	List(ctx context.Context, user string) ([]*Record, error)
}
