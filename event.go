package session

// An EventKind names what happened to a session.
type EventKind string

// The kinds of events, for audit logs and metrics (OWASP ASVS 5, 16.3).
const (
	// EventCreated: an anonymous session was stored for the first time.
	EventCreated EventKind = "created"
	// EventLoggedIn: a Login was committed. ID is that of a new session, or the same as
	// before if the user was logged in already.
	EventLoggedIn EventKind = "logged_in"
	// EventLoggedOut: a Logout was committed, or an EndBy whose time had passed. ID is that of
	// the ended session.
	EventLoggedOut EventKind = "logged_out"
	// EventRenewed: Renew, Remember or Options.RenewAfter has replaced the token. With
	// Options.Tokens there is no such event.
	EventRenewed EventKind = "renewed"
	// EventRevoked: the session was ended from elsewhere: Revoke, RevokeOthers,
	// RevokeAll, Options.MaxPerUser, or in an Edit an EndBy whose time had passed.
	EventRevoked EventKind = "revoked"
	// EventRejected: no cookie of our name in the request has a valid signature, or the
	// request carries two live sessions. The request has no session.
	EventRejected EventKind = "rejected"
	// EventReplayed: a request has presented a token that was replaced and whose grace has
	// passed. The request is late, or an attack. It has no session. ID and User are those of
	// the session that the token once opened; Revoke ends it for both holders. Err is
	// ErrReplaced.
	EventReplayed EventKind = "replayed"
	// EventDeviceBound: a browser has proved for the first time that it has the key to which the
	// session is bound: see [Options].DeviceBound. If the store cannot say whether it has stored that,
	// the event may come twice.
	EventDeviceBound EventKind = "device_bound"
	// EventUnproven: a request has presented a valid token of a session that is bound to a
	// browser, without a recent proof of that browser. The request has no session. Err is
	// ErrUnproven itself if the request gives no reason: the cookie was copied, or the browser has
	// lost its key; Revoke ends the session for both holders. If the browser says why it could not
	// prove itself, Err wraps ErrUnproven with the reason. A reason is no evidence, because anybody
	// can send one.
	EventUnproven EventKind = "unproven"
	// EventConflict: a commit found a newer record, and reapplied its changes to it. No change
	// was lost.
	EventConflict EventKind = "conflict"
	// EventDropped: a change was dropped, and Err is the reason: the session has ended; the
	// change needs a cookie and was made after the first byte; it was made after the handler
	// had returned and no Save followed; flashes, or the values that a Login inherits from an
	// anonymous session, did not fit; the request could not begin a session because another
	// site made it.
	EventDropped EventKind = "dropped"
	// EventStoreFailed: a call of the store failed. Err wraps ErrStore.
	EventStoreFailed EventKind = "store_failed"
)

// An Event describes what has happened to a session: see [Options].OnEvent. ID is that of
// [Session.ID], or "" if it is not known; User is "" for an anonymous session or if it is not
// known; Err is nil unless the kind says otherwise. An Event never contains a token.
type Event struct {
	Kind EventKind
	ID   string
	User string
	Err  error
}
