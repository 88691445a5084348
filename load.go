package session

import (
	"errors"
	"time"

	"github.com/coatcheck/session/internal/storectx"
	"github.com/coatcheck/session/internal/token"
)

// A source is where a session's token comes from.
type source interface {
	tokens() candidates
}

// candidates are the tokens that a request carried, as far as they verify.
type candidates struct {
	refs     [maxCandidates]token.Ref
	n        int
	carried  bool // a cookie of our name was there, good or bad
	withheld bool // there was none, and the browser may have kept it back
}

// A look at the store finds the session of a request, or what became of it. mu
// is held.
type look struct {
	*Session
	c   *storectx.Context
	was stored // what a Reload knew before it
}

// find asks the store which of the tokens opens a session.
func (k look) find(found candidates) (stored, problem) {
	var best, other stored // other: what became of the first session that is over
	for i, ref := range found.refs[:found.n] {
		var this stored
		if i > 0 && ref.ID == best.held.ID {
			this = k.recognise(best.rec, ref) // two tokens of one session
		} else {
			rec, err := k.m.load(k.c, ref.ID)
			if err == nil && whatIs(rec) == live && values(rec.Data) == 0 {
				err = errNoKey
			}
			if err != nil {
				k.note(EventStoreFailed, &Record{ID: ref.ID}, err)
				k.was.is = unknown
				return k.was, problem{lasting, err}
			}
			this = k.recognise(rec, ref)
		}
		switch {
		case this.is != live:
			if other.is == unread && this.is != nothing {
				other = this
			}
		case best.is == live && best.held.ID != this.held.ID:
			k.note(EventRejected, this.rec, errTwins)
			return stored{is: twins}, problem{}
		case best.is != live || best.then != nil:
			best = this
		}
	}
	switch {
	case best.is == live:
		return best, problem{}
	case other.is == stale:
		if k.was.held.ID == "" { // a Reload is no replay: its request came in time
			k.note(EventReplayed, other.rec, ErrReplaced)
		}
		other.rec = nil // lest a later Reload take it for what this request had
		return other, problem{}
	case other.is != unread:
		return other, problem{}
	case k.was.held.ID != "", time.Since(k.m.start)-k.arrived >= tombstoneLife:
		// Nothing is where a session was, or a tombstone may have come and gone
		// since the request began.
		return stored{is: ended, held: found.refs[0]}, problem{}
	}
	return stored{is: nothing}, problem{}
}

var (
	errBadSignature = errors.New("session: no cookie of our name has a good signature")
	errTwins        = errors.New("session: two live sessions in one request: a Login or Logout ends them")
	errNoKey        = storeError("load", errors.New("the stored data does not begin with a session.key"))
	errPanicked     = storeError("load", errors.New("it panicked"))
)

// recognise tells what a record is to who holds a token that has its id.
func (k look) recognise(rec *Record, held token.Ref) stored {
	now, was := k.c.Began(), k.was
	st := stored{is: whatIs(rec), rec: rec, held: held}
	switch {
	case rec == nil:
		st.is = nothing
	case st.is != live || k.source == nil:
	case opensNewest(rec.Data, held.Key), isGood(rec.Data, held.Key, now),
		held == was.held && was.then == nil && was.rec != nil && firstKey(was.rec.Data) == firstKey(rec.Data):
		// The last: a request keeps its session across renewals by age.
		st.due = k.m.upkeep(rec, held, now)
	default:
		if st.then = asItWas(rec, held.Key, now); st.then == nil {
			st.is = stale
		}
	}
	if st.is != live && st.is != stale {
		st.rec = nil
	}
	return st
}

// upkeep returns what the record's key needs now that a request with this good
// token is here.
func (m *Manager) upkeep(rec *Record, held token.Ref, now time.Time) (due upkeep) {
	at, unseen := made(rec)
	newest := opensNewest(rec.Data, held.Key)
	due.seen = newest && unseen
	switch age := now.Sub(at); {
	case m.renewAfter == 0 || rec.User == "":
	case newest:
		due.renew = age >= m.renewAfter
	default:
		due.renew = unseen && age > overlap
	}
	return due
}

// load returns the record of this id, a tombstone too, or nil if there is none
// or its time was up when the store was asked.
func (m *Manager) load(c *storectx.Context, id string) (*Record, error) {
	rec, err := m.store.Load(c, id)
	switch {
	case err == nil && (rec == nil || rec.ID != id):
		return nil, storeError("load", errors.New("the store answered with another record"))
	case err == nil && rec.expired(c.Began()), errors.Is(err, ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, storeError("load", err)
	}
	return rec, nil
}
