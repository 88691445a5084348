package session

import (
	"context"
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

// load looks for the request's session, for the first time. s.mu is held. c is
// the context of a call that the program gave one, or nil.
func (s *Session) load(c *storectx.Context) {
	found := s.carry()
	if found.n == 0 {
		s.stored.is = nothing
		return
	}
	if c == nil {
		if c = &s.loading; !c.Began().IsZero() {
			c = new(storectx.Context) // that one is used up: the store panicked
		}
		c.Begin(s.ctx, s.m.timeout)
		defer c.Release()
	}
	s.stored, s.problem = s.look(c, found, stored{})
}

// carry returns the tokens in the request. s.mu is held.
func (s *Session) carry() candidates {
	found := s.source.tokens()
	if s.carried = found.carried; found.carried && found.n == 0 {
		s.note(EventRejected, nil, errBadSignature)
	}
	return found
}

// look asks the store which of the tokens opens a session. was is what a Reload
// knew before it. s.mu is held.
func (s *Session) look(c *storectx.Context, found candidates, was stored) (stored, problem) {
	var best, other stored // other: what became of the first session that is over
	for i, ref := range found.refs[:found.n] {
		var this stored
		if i > 0 && ref.ID == best.held.ID {
			this = s.recognise(best.rec, ref, c.Began(), was) // two tokens of one session
		} else {
			rec, err := s.m.load(c, ref.ID)
			if err == nil && whatIs(rec) == live && values(rec.Data) == 0 {
				err = errNoKey
			}
			if err != nil {
				s.note(EventStoreFailed, &Record{ID: ref.ID}, err)
				was.is = unknown
				return was, problem{lasting, err}
			}
			this = s.recognise(rec, ref, c.Began(), was)
		}
		switch {
		case this.is != live:
			if other.is == unread && this.is != nothing {
				other = this
			}
		case best.is == live && best.held.ID != this.held.ID:
			s.note(EventRejected, this.rec, errTwins)
			return stored{is: twins}, problem{}
		case best.is != live || best.then != nil:
			best = this
		}
	}
	switch {
	case best.is == live:
		return best, problem{}
	case other.is == stale && was.held.ID == "":
		s.note(EventReplayed, other.rec, ErrReplaced) // a Reload is no replay: its request came in time
		return other, problem{}
	case other.is != unread:
		return other, problem{}
	case was.held.ID != "", time.Since(s.m.start)-s.arrived >= tombstoneLife:
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
func (s *Session) recognise(rec *Record, held token.Ref, now time.Time, was stored) stored {
	st := stored{is: whatIs(rec), rec: rec, held: held}
	switch {
	case rec == nil:
		st.is = nothing
	case st.is != live || s.source == nil:
	case opensNewest(rec.Data, held.Key), isGood(rec.Data, held.Key, now),
		held == was.held && was.then == nil && was.rec != nil && firstKey(was.rec.Data) == firstKey(rec.Data):
		// The last: a request keeps its session across renewals by age.
		st.due = s.m.upkeep(rec, held, now)
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

// Reload forgets all unsaved changes, a Login or Logout among them, and reads
// the store again. A long request learns this way that its session has ended:
// User is "" then, and Reload returns ErrReplaced if its token was replaced by
// a Login or a renewal that was asked for. It takes ctx's values and deadline,
// not its cancellation.
func (s *Session) Reload(ctx context.Context) error {
	s.changing.Lock()
	defer s.done()
	c := storectx.Within(ctx, s.m.timeout)
	defer c.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.stored
	var found candidates
	switch {
	case was.maybe != nil:
		found.refs[0], found.refs[1], found.n = was.maybe.ref, was.held, 2
	case was.held.ID != "":
		found.refs[0], found.n = was.held, 1
	case was.is != nothing:
		found = s.carry()
	}
	s.todo = pending{}
	s.stored.is, s.problem = unknown, problem{lasting, errPanicked} // until it is known to be otherwise
	if found.n == 0 {
		s.stored, s.problem = stored{is: nothing}, problem{}
	} else {
		s.stored, s.problem = s.look(c, found, was)
	}
	switch {
	case s.problem.err != nil:
		return s.problem.err
	case was.maybe != nil && s.stored.held == was.maybe.ref:
		s.cookie = cookie{carry, was.maybe.token}
	case s.stored.is != live && s.cookie.do == carry:
		s.cookie = cookie{}
	}
	if s.source != nil && s.stored.is == ended {
		return nil
	}
	return s.stored.over()
}
