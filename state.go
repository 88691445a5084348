package session

import (
	"sync/atomic"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/token"
)

// A state is what a request knows of its session, and what the program has asked for. The types
// of its fields do not use each other. The method plan decides from the state what a commit
// does.
//
// A published state is never modified: see [tx].
type state struct {
	carried  carried   // what the request came with
	withheld bool      // whether the browser may have withheld a cookie that a new anonymous session would overwrite
	loaded   time.Time // when the store was first asked for the session
	stored   stored
	pending  pending
	cookie   cookie
	problem  problem
}

// A phase is the progress of the response. A phase is not part of a state, because the phase
// advances without a transaction.
type phase int32

const (
	phaseOpen     phase = iota // the header has not left
	phaseSent                  // the header has left, or another writer sends it: no cookie can be set
	phaseReturned              // the handler has returned: changes are stored only by a call that saves at once, such as Save or Key.Take
)

func (p phase) String() string {
	return [...]string{"open", "sent", "returned"}[p]
}

// An atomicPhase is a phase that moves only forward.
type atomicPhase struct{ v atomic.Int32 }

func (p *atomicPhase) load() phase { return phase(p.v.Load()) }

func (p *atomicPhase) advance(to phase) {
	for is := p.v.Load(); is < int32(to) && !p.v.CompareAndSwap(is, int32(to)); is = p.v.Load() {
	}
}

// carried is which tokens a request came with.
type carried uint8

const (
	carriedNone  carried = iota
	carriedBad           // one or several tokens of our name, none of them signed by us
	carriedGood          // one or several tokens of ours
	carriedEnded         // one or several tokens of ours, whose session has ended or does not exist
)

func (c carried) String() string {
	return [...]string{"none", "bad", "good", "ended"}[c]
}

// A status is what the store has, as far as the request knows.
type status uint8

const (
	statusUnknown   status = iota // the store failed: nothing can be changed
	statusNone                    // no session is stored, or this request has ended the session: changes begin a new one
	statusAmbiguous               // the tokens open two or more live sessions, or are too many to verify: no session counts
	statusLive                    // the session exists, and the request's key opens it
	statusStale                   // the session exists, and the request's key was replaced
	statusUnproven                // the session exists, and the browser has not proved lately that it is bound to it
	statusReplaced                // a Login has replaced the session by another one, or another program has given it to another user
	statusEnded                   // a Logout or Revoke ended the session, or it expired
)

func (s status) String() string {
	return [...]string{"unknown", "none", "ambiguous", "live", "stale", "unproven", "replaced", "ended"}[s]
}

// stored is the session in the store.
type stored struct {
	ref         token.Ref // the token by which the request has the session
	status      status
	isOwn       bool        // whether this request made the token of ref: the token did not come with the request
	isOvertaken bool        // whether a client has presented an older key since this request loaded the session: the key of ref then ends no older key, and is not renewed
	wasLoaded   bool        // whether this request had the session live before the session ended or was replaced, or before a Reload failed
	successor   string      // id of the session by which a Login has replaced this one
	reason      body.Reason // why the session ended; "": the session expired, or the reason is not known
	rec         *Record     // the record as it was last read or written; nil: the session is not live
	due         body.Maintenance
	frozen      *Record   // the record from before an explicit renewal by another request, which this request sees instead of rec; nil: there was no such renewal
	frozenUntil time.Time // the time until which a new request with the key of ref sees frozen
	unresolved  *issued   // the token of a renewal whose write had an unknown outcome
	twins       []string  // ids of the live sessions, if the status is ambiguous; nil: findAll has not looked for them yet
}

// shown returns the record that the program sees, or nil.
func (st *stored) shown() *Record {
	switch {
	case st.status != statusLive:
		return nil
	case st.frozen != nil:
		return st.frozen
	}
	return st.rec
}

// wasLive reports whether the request has the session, or has had it.
func (st *stored) wasLive() bool { return st.status == statusLive || st.wasLoaded }

// isKnown reports whether the store has answered.
func (st *stored) isKnown() bool { return st.status != statusUnknown }

// exists reports whether the request's tokens opened a session, which may have ended since.
func (st *stored) exists() bool { return st.isKnown() && st.status != statusNone }

// err returns the error that Save returns for a session that the request no longer has, or nil.
func (st *stored) err() error {
	switch st.status {
	case statusStale, statusReplaced:
		return ErrReplaced
	case statusUnproven:
		return ErrUnproven
	case statusEnded:
		return ErrEnded
	}
	return nil
}

// pending is what the program has asked for and is not committed.
type pending struct {
	logout   bool      // whether to end the stored session first: the program has asked for all else after the Logout
	user     string    // of a Login; "": none
	at       time.Time // of the Login
	renew    bool
	remember time.Time    // the end that Remember set; zero: none
	endBy    time.Time    // the earliest time of EndBy since the last Login; zero: none
	changes  body.Changes // of values and flashes
}

// hasWork reports whether an existing record must be written.
func (p *pending) hasWork() bool { return p.needsToken() || len(p.changes) > 0 || !p.endBy.IsZero() }

// hasEnded reports whether the time of an EndBy has passed, so that the commit ends the session
// and begins none.
func (p *pending) hasEnded(now time.Time) bool { return !p.endBy.IsZero() && !now.Before(p.endBy) }

// now returns the current time for hasEnded, or the zero time if no EndBy is pending, because
// hasEnded then needs no time.
func (p *pending) now() time.Time {
	if p.endBy.IsZero() {
		return time.Time{}
	}
	return time.Now()
}

// needsToken reports whether a stored session must get another token.
func (p *pending) needsToken() bool { return p.user != "" || p.renew || !p.remember.IsZero() }

// A cookie is what the response does to the browser's cookie, or to the token that another
// client keeps.
type cookie struct {
	action      cookieAction
	value       func() string // returns the token to send; nil: send the token that the request brought. A log cannot print the token that a func returns
	isAutomatic bool          // whether the program has not asked for the new token, so that the client can do without the token
	bindID      string        // id of the session that the browser may bind to itself; "": none
}

type cookieAction uint8

const (
	cookieKeep   cookieAction = iota
	cookieSend                // send a token that this request made, or the token that the request brought
	cookieDelete              // delete the cookie: the session has ended
)

func (a cookieAction) String() string {
	return [...]string{"keep", "send", "delete"}[a]
}

// A problem is why a session cannot be committed.
type problem struct {
	kind problemKind
	err  error // nil if there is none
}

type problemKind uint8

const (
	problemNone            problemKind = iota
	problemPassing                     // the next commit may clear it
	problemPassingReported             // a passing problem that a Save has returned: nothing is committed before the next change
	problemLasting                     // nothing is stored before a Reload
	problemLastingReported             // a lasting problem that a Save has returned: the response of the handler is not replaced
	problemLate                        // a call came too late to set its cookie; the next Save returns the problem
	problemLateLogin                   // a Login as another user came too late: later changes were not meant for this session
)

func (k problemKind) String() string {
	return [...]string{"none", "passing", "passing, reported", "lasting", "lasting, reported", "late", "late Login"}[k]
}

func (p problem) isLasting() bool {
	return p.kind == problemLasting || p.kind == problemLastingReported
}

func (p problem) isLate() bool { return p.kind == problemLate || p.kind == problemLateLogin }

func (p problem) isReported() bool {
	return p.kind == problemPassingReported || p.kind == problemLastingReported
}

// report records that the problem was returned to the program, which now has to handle the
// problem.
func (p *problem) report() {
	switch p.kind {
	case problemPassing, problemLate:
		p.kind = problemPassingReported
	case problemLasting:
		p.kind = problemLastingReported
	}
}

// retry lets the next commit try again after the program has made a change.
func (p *problem) retry() {
	if p.kind == problemPassingReported {
		p.kind = problemPassing
	}
}

// user returns the result of Session.User.
func (st *state) user() string {
	if st.pending.user != "" {
		return st.pending.user
	}
	return st.record().User
}

var noRecord = new(Record)

// record returns the record that the program sees, or noRecord if there is none.
func (st *state) record() *Record {
	if rec := st.stored.shown(); rec != nil && !st.pending.logout {
		return rec
	}
	return noRecord
}

// data returns the stored values to which the pending changes apply. It returns nil if the
// session belongs to another user than the pending Login's.
func (st *state) data() []byte {
	rec := st.record()
	if st.changesUser(st.pending.user) {
		return nil
	}
	return rec.Data
}

// value returns the raw value of a member, or nil.
func (st *state) value(name string) []byte { return st.pending.changes.Value(st.data(), name) }

// changesUser reports whether a Login of user would replace another user's session.
func (st *state) changesUser(user string) bool {
	was := st.record().User
	return user != "" && was != "" && was != user
}

// isOutdated reports whether a value that this request sees has changed since an explicit
// renewal by another request. The request then treats the value that it sees as used up, and must
// not see the newer value.
func (st *state) isOutdated(name string) bool {
	s := &st.stored
	return s.frozen != nil && st.data() != nil && string(body.Value(s.rec.Data, name)) != string(body.Value(s.frozen.Data, name))
}

// isShared reports whether other requests can have the values, now or after the commit: whether
// the session is stored, and neither a pending Logout nor a pending Login as another user ends
// the session.
func (st *state) isShared() bool {
	s, user := &st.stored, st.pending.user
	return s.status == statusLive && !st.pending.logout && (user == "" || s.rec.User == "" || user == s.rec.User)
}

// An action is what a commit does next.
type action uint8

const (
	actNothing action = iota
	actEnd            // end the stored session; the next plan is for what the program has asked for after the Logout
	actRefuse         // return the problem
	actDrop           // drop the changes: there is no session to hold them
	actCreate         // create a record, and send a cookie
	actSave           // save the changes, perhaps with a new key
	actReplace        // replace the session by a new session of the user who logs in
)

func (a action) String() string {
	return [...]string{"nothing", "end", "refuse", "drop", "create", "save", "replace"}[a]
}

// plan decides what a commit does next.
func (st *state) plan(at phase, now time.Time) action {
	s, p := &st.stored, &st.pending
	isAsked := p.logout || p.hasWork()
	switch {
	case !isAsked && !st.problem.isLasting() && !s.isMaintenanceDue(at): // most requests
		return actNothing
	case p.logout && s.isKnown():
		return actEnd
	case st.problem.isLasting():
		return actRefuse
	case s.status == statusLive && p.hasEnded(now):
		return actSave // save stores a tombstone
	case p.hasEnded(now) && (p.user != "" || p.changes.AddValues()):
		return actDrop
	case s.status == statusLive && p.user != "" && p.user != s.rec.User,
		s.status == statusUnproven && p.user != "", // or the user would find it in a list of sessions for ever
		s.status == statusReplaced && p.user != "": // perhaps the login form was sent twice
		return actReplace
	case s.status == statusLive && p.hasWork(), s.isMaintenanceDue(at):
		return actSave
	case s.status == statusLive:
		return actNothing
	case p.user != "":
		return actCreate
	case s.status == statusNone && !p.changes.AddValues():
		return actNothing
	case s.status == statusNone && !st.withheld:
		return actCreate
	case p.hasWork():
		return actDrop
	}
	return actNothing
}

// isMaintenanceDue reports whether a live record must be written because its keys need
// maintenance.
func (s *stored) isMaintenanceDue(at phase) bool {
	return s.status == statusLive && (s.due.IsDue() || s.due.Renew && at == phaseOpen)
}

// freezeOwnChanges applies the request's own changes to frozen, so that a request that sees the
// session as it was before a renewal also sees its own changes.
func (st *stored) freezeOwnChanges(changes body.Changes) {
	frozen := *st.frozen
	if values, err := changes.ApplyTo(frozen.Data); err == nil {
		frozen.Data = values
	}
	st.frozen = &frozen
}

// lose forgets the stored session, which has ended, and the cookie that was to be sent.
func (st *state) lose(s status) {
	st.stored = stored{status: s, ref: st.stored.ref, wasLoaded: st.stored.wasLive()}
	st.cookie = cookie{}
}

// present records in b that a request has arrived with the key of ref.
func (st *stored) present(b *body.Body, now time.Time) {
	if st.isOvertaken {
		b.Mark(st.ref.Key)
	} else {
		b.Present(st.ref.Key, now)
	}
}

// issued is a token that this request has made.
type issued struct {
	ref         token.Ref     // id and key of the token
	token       func() string // returns the token; nil: there is none
	isAutomatic bool          // whether an automatic renewal made the token
	mayBind     bool          // whether a Login made the token of a session that is not bound to a browser
}

// cookie returns the cookie that sends the token.
func (i *issued) cookie() cookie {
	c := cookie{action: cookieSend, value: i.token, isAutomatic: i.isAutomatic}
	if i.mayBind {
		c.bindID = i.ref.ID
	}
	return c
}
