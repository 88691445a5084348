package session

import (
	"errors"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

// A source is where a session's token comes from.
type source interface {
	tokens() candidates
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
		c = s.context()
		defer c.Release()
	}
	s.settle(look{s, c}.find(&found, new(stored)))
}

// settle keeps what a look at the store has found. mu is held.
func (s *Session) settle(st stored, p problem) {
	s.stored, s.problem = st, p
	switch st.is {
	case nothing, ended, replaced:
		s.brought = overToken
	}
}

// carry returns the tokens in the request. s.mu is held.
func (s *Session) carry() candidates {
	found := s.source.tokens()
	switch s.brought = noToken; {
	case found.n > 0:
		s.brought = goodToken
	case found.carried:
		s.brought = badToken
		s.note(EventRejected, nil, errBadSignature)
	}
	return found
}

// A look at the store finds the session of a request, or what became of it. mu
// is held.
type look struct {
	*Session
	c *storectx.Context
}

// find asks the store which of the tokens opens a session. was is what a Reload
// knew before it.
func (k look) find(found *candidates, was *stored) (best stored, _ problem) {
	var other stored // what became of the first session that is over
	for i := range found.refs[:found.n] {
		this := stored{held: found.refs[i]}
		if this.rec = best.rec; this.held.ID != best.held.ID { // else two tokens of one session
			var err error
			if this.rec, err = k.loadWithKey(this.held.ID); err != nil {
				k.note(EventStoreFailed, &Record{ID: this.held.ID}, err)
				failed := *was
				failed.is = unknown
				return failed, problem{lasting, err}
			}
		}
		k.recognise(&this, was)
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
		if was.held.ID == "" { // a Reload is no replay: its request came in time
			k.note(EventReplayed, other.rec, ErrReplaced)
		}
		other.rec = nil // lest a later Reload take it for what this request had
		return other, problem{}
	case other.is != unread:
		return other, problem{}
	case was.held.ID != "", time.Since(k.m.start)-k.arrived >= tombstoneLife:
		// Nothing is where a session was, or a tombstone may have come and gone
		// since the request began.
		return stored{is: ended, held: found.refs[0]}, problem{}
	}
	return stored{is: nothing}, problem{}
}

var (
	errBadSignature = errors.New("session: what looks like a token of ours has no good signature")
	errTwins        = errors.New("session: two live sessions in one request: a Login or Logout ends them")
	errNoKey        = storeError("load", errors.New("the stored data does not begin with a session.key"))
	errPanicked     = storeError("load", errors.New("it panicked"))
)

// loadWithKey is load of a record that a token may open: one without a key is
// damaged, unless tokens have none.
func (k look) loadWithKey(id string) (*Record, error) {
	rec, err := k.m.load(k.c, id)
	if err == nil && rec != nil && !k.m.keyless && values(rec.Data) == 0 && whatIs(rec) == live {
		return nil, errNoKey
	}
	return rec, err
}

// recognise tells what st.rec is to who holds st.held, which has its id.
func (k look) recognise(st, was *stored) {
	rec, held, now := st.rec, &st.held, k.c.Began()
	if st.is = whatIs(rec); rec == nil {
		st.is = nothing
	}
	switch newest := st.is == live && opensNewest(rec.Data, held.Key); {
	case st.is != live:
		st.rec = nil
	case newest, k.source == nil, isGood(rec.Data, held.Key, now), was.keeps(st):
		st.due = k.m.upkeep(rec, newest, now)
	default:
		if st.then = asItWas(rec, held.Key, now); st.then == nil {
			st.is = stale
		}
	}
}

// keeps tells whether a Reload finds the session that the request had, and nobody
// asked for a renewal since: across renewals by age a request keeps it.
func (was *stored) keeps(st *stored) bool {
	return st.held == was.held && was.then == nil && was.rec != nil && firstKey(was.rec.Data) == firstKey(st.rec.Data)
}

// upkeep returns what the record's key needs now that a request is here whose
// token is good, and perhaps the newest.
func (m *Manager) upkeep(rec *Record, newest bool, now time.Time) (due upkeep) {
	at, unseen := made(rec)
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
		rec = nil
	case err != nil:
		return nil, storeError("load", err)
	}
	switch whatIs(rec) {
	case live:
	case renewed:
		next, _ := isTombstone(rec.Data)
		m.watch.moved(id, next)
	default:
		m.watch.over(id)
	}
	return rec, nil
}

// follow is load of a session that may have got another id by a renewal since.
func (m *Manager) follow(c *storectx.Context, id string) (*Record, error) {
	for {
		rec, err := m.load(c, id)
		if err != nil || whatIs(rec) != renewed {
			return rec, err
		}
		id, _ = isTombstone(rec.Data)
	}
}
