package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/coatcheck/session/internal/mistake"
)

// An EventKind names what happened to a session.
type EventKind string

// The kinds of events, for audit logs and metrics (OWASP ASVS 5, 16.3).
const (
	// EventCreated: an anonymous session was stored for the first time.
	EventCreated EventKind = "created"
	// EventLoggedIn: Login took effect. ID is a new session's, or, if the user
	// was logged in already, the same as before.
	EventLoggedIn EventKind = "logged_in"
	// EventLoggedOut: Logout took effect, or an EndBy whose time had passed. ID is the
	// ended session's.
	EventLoggedOut EventKind = "logged_out"
	// EventRenewed: Renew, Remember or Options.RenewAfter replaced the token, which
	// with Options.Tokens none of them does.
	EventRenewed EventKind = "renewed"
	// EventRevoked: the session was ended from elsewhere: Revoke, RevokeOthers,
	// RevokeAll, Options.MaxPerUser, or Logout of a session that List returned.
	EventRevoked EventKind = "revoked"
	// EventRejected: a cookie with a bad signature, or two live sessions in one
	// request. The request goes on without a session.
	EventRejected EventKind = "rejected"
	// EventReplayed: a token came that was replaced too long ago: a straggler's,
	// or a thief's. The request goes on without a session, whose ID and User
	// these are; Revoke them to sign out both. Err is ErrReplaced.
	EventReplayed EventKind = "replayed"
	// EventConflict: a save met a newer record and merged with it. Nothing was lost.
	EventConflict EventKind = "conflict"
	// EventDropped: a change was lost to an ending, or came too late for the
	// cookie that it needs; or older flashes, or at a Login the values of the
	// anonymous session, did not fit; or it was made after the handler had returned,
	// and no Save followed. Err says which.
	EventDropped EventKind = "dropped"
	// EventStoreFailed: a call of the store failed. Err wraps ErrStore.
	EventStoreFailed EventKind = "store_failed"
)

// An Event tells Options.OnEvent what happened. ID is the session's public
// handle (see Session.ID) or ""; User is "" where it is not known; Err is nil
// unless something went wrong. An Event never holds a token.
type Event struct {
	Kind EventKind
	ID   string
	User string
	Err  error
}

// emit hands over an event of no session in particular.
func (m *Manager) emit(ctx context.Context, kind EventKind, rec *Record, err error) {
	if m.onEvent != nil {
		m.onEvent(ctx, Event{Kind: kind, ID: rec.ID, User: rec.User, Err: err})
	}
}

// storeError wraps what a store answered, so that ErrStore finds it, unless that is a
// mistake of the program.
func storeError(call string, err error) error {
	if m := (*mistake.Error)(nil); errors.As(err, &m) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrStore, call, err)
}
