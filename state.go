package session

import (
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/token"
)

// The state of a Session is a few small types, which say what is so and know
// nothing of each other. plan, at the end, decides by them what a commit does.

// A phase is where the request is.
type phase uint8

const (
	open     phase = iota // the header has not left
	sent                  // it has, or somebody else writes it: no cookie can be set
	returned              // the handler has returned: only Save saves changes
)

// brought is what the request came with.
type brought uint8

const (
	noToken   brought = iota
	badToken          // none that we have signed
	goodToken         // one of ours, or several
	overToken         // likewise, and its session is over
)

// stored is what the store has, as far as this request knows.
type stored struct {
	is          knowledge
	due         body.Maintenance
	held        token.Ref   // the token by which the request has it; of a listed session only the id
	isOwn       bool        // this request made held, so that it was not presented
	isOvertaken bool        // a client has presented an older key since the request loaded: held ends none
	wasHad      bool        // the request had loaded the session live, before it ended or was replaced
	next        string      // the id of the session that replaced it
	why         body.Reason // the reason that its tombstone gives
	rec         *Record     // as it was last read or written, while live
	frozen      *Record     // the record from before an explicit renewal by another request. If set, this request sees it instead of rec
	frozenUntil time.Time   // until when a new request with this key sees frozen
	maybe       *draft      // a renewal whose write had an unknown outcome
	opened      []string    // of twins: the ids of the live sessions; nil: not looked for yet
}

// knowledge of the stored session.
type knowledge uint8

const (
	unread   knowledge = iota // nobody has asked yet
	unknown                   // the store failed: nothing can be changed
	nothing                   // nothing is stored, or this request has ended it: changes begin a session
	twins                     // two sessions are live, and neither counts
	live                      // it is there, and the token opens it
	stale                     // it is there, but the token's key was replaced, and not just now
	replaced                  // a Login gave its place to another session
	ended                     // a Logout or Revoke ended it, or its time was up
)

// shown is the record that the program sees, or nil.
func (st *stored) shown() *Record {
	switch {
	case st.is != live:
		return nil
	case st.frozen != nil:
		return st.frozen
	}
	return st.rec
}

// over is what Save says of a session that the request no longer has, or nil.
func (st *stored) over() error {
	switch st.is {
	case stale, replaced:
		return ErrReplaced
	case ended:
		return ErrEnded
	}
	return nil
}

// pending is what was asked for and is not committed.
type pending struct {
	logout   bool      // end the stored session first: all else came after
	user     string    // Login
	at       time.Time // Login
	renew    bool
	remember time.Time    // the end that Remember set
	endBy    time.Time    // the earliest time of EndBy since the last Login
	changes  body.Changes // of values and flashes
}

// asks tells whether there is anything to store of a stored session.
func (t *pending) asks() bool {
	return t.wantsToken() || len(t.changes) > 0 || !t.endBy.IsZero()
}

// hasEnded reports whether the time of an EndBy has passed: the commit ends the session,
// and begins none.
func (t *pending) hasEnded(now time.Time) bool { return !t.endBy.IsZero() && !now.Before(t.endBy) }

// wantsToken tells whether a stored session needs another token.
func (t *pending) wantsToken() bool { return t.user != "" || t.renew || !t.remember.IsZero() }

// holds tells whether there is anything to store of a session that is not.
func (t *pending) holds() bool {
	return t.changes.AddValues()
}

// cookie is what the response must do to the browser's cookie, or to the token
// that another client keeps.
type cookie struct {
	do          cookieAction
	value       func() string // for carry; nil: as the request brought it. A func has no contents that a log could print
	isAutomatic bool          // not asked for by the program: the client may do without
}

type cookieAction uint8

const (
	leave  cookieAction = iota
	carry               // a token that this request made, or the one that it brought
	remove              // the session has ended
)

// A problem is what stands between the session and the store.
type problem struct {
	is  gravity
	err error // nil if there is none
}

type gravity uint8

const (
	none            gravity = iota
	passing                 // the next commit may clear it
	passingReported         // likewise, and a Save returned it: until something is changed nothing is committed
	lasting                 // nothing is stored before a Reload
	lastingReported         // likewise, and a Save returned it: the response stays the handler's
	missed                  // a call came too late for its cookie; the next Save returns it
	missedLogin             // as somebody else: what follows it was not meant for this session
)

func (p problem) lasts() bool    { return p.is == lasting || p.is == lastingReported }
func (p problem) late() bool     { return p.is == missed || p.is == missedLogin }
func (p problem) reported() bool { return p.is == passingReported || p.is == lastingReported }

// report makes a problem the one of a Save's caller.
func (p *problem) report() {
	switch p.is {
	case passing, missed:
		p.is = passingReported
	case lasting:
		p.is = lastingReported
	}
}

// retry lets the next commit try again, now that something was changed.
func (p *problem) retry() {
	if p.is == passingReported {
		p.is = passing
	}
}

// An action is what a commit must do next.
type action uint8

const (
	rest    action = iota
	end            // the stored session; what came after is a second action
	refuse         // a problem stands in the way
	drop           // what was changed: there is no session to hold it
	create         // a record, and a cookie
	save           // the changes, perhaps with a new key
	replace        // the session by another user's
)

// plan decides what a commit does next. withheld is whether the browser may have
// kept a cookie back that a new anonymous session would overwrite.
func plan(at phase, st *stored, t *pending, p problem, withheld bool, now time.Time) action {
	switch {
	case t.logout && st.is > unknown:
		return end
	case p.lasts():
		return refuse
	case st.is == live && t.hasEnded(now):
		return save // a tombstone
	case t.hasEnded(now) && (t.user != "" || t.holds()):
		return drop
	case st.is == live && t.user != "" && t.user != st.rec.User,
		st.is == replaced && t.user != "": // the form was sent twice, perhaps
		return replace
	case st.is == live && (t.asks() || st.due.IsDue() || st.due.Renew && at == open):
		return save
	case st.is == live:
		return rest
	case t.user != "":
		return create
	case st.is == nothing && !t.holds():
		return rest
	case st.is == nothing && !withheld:
		return create
	case t.asks():
		return drop
	}
	return rest
}
