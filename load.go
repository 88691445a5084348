package session

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
	"github.com/coatcheck/session/internal/token"
)

// A source is where a session's token comes from.
type source interface {
	tokens() candidates
	allTokens() []token.Ref
}

// load looks for the request's session, for the first time. s.mu is held. c is
// the context of a call that the program gave one, or nil.
func (s *Session) load(c *storectx.Context) {
	found := s.carry()
	switch {
	case found.isCrowd:
		s.note(EventRejected, nil, errCrowd)
		s.stored.is = twins
		return
	case found.n == 0:
		s.stored.is = nothing
		return
	}
	if c == nil {
		c = s.context()
		defer c.Release()
	}
	s.loaded = c.Began()
	s.settle(look{s, c}.find(&found, new(stored)))
	s.presentAtLoad(c)
	s.touchAtLoad(c)
}

// presentAtLoad notes at once that a key was presented of which a newer one was issued
// since: the handler may take longer than the key lasts. If it fails, the commit does it.
// mu is held.
func (s *Session) presentAtLoad(c *storectx.Context) {
	st := &s.stored
	if st.is != live || !st.due.Present || body.IsCurrent(st.rec.Data, st.held.Key) {
		return
	}
	now := milliseconds(time.Now())
	b, err := parse(nil, st.rec.Data, now)
	if err != nil {
		return
	}
	b.Present(st.held.Key, now)
	rec := *st.rec
	rec.Data, rec.Version = b.Bytes(), newVersion()
	if s.m.store.Save(c, &rec, st.rec.Version) == nil {
		st.rec, st.due.Present = &rec, false
	}
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
	s.withheld = found.withheld
	switch s.brought = noToken; {
	case found.n > 0, found.isCrowd:
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
	var over stored // of the first session that has ended or whose token was replaced
	var stales []*Record
	var opened []string
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
		rec := this.rec
		k.recognise(&this, was)
		switch {
		case this.is == live && best.is == live && best.held.ID != this.held.ID:
			if opened == nil {
				opened = append(opened, best.held.ID)
			}
			opened = append(opened, this.held.ID)
		case this.is == live && (best.is != live || best.frozen != nil):
			best = this
		case this.is == live, this.is == nothing:
		default:
			if over.is == unread {
				over = this
				over.rec = nil // else a later Reload takes it for what this request had
			}
			if this.is == stale {
				stales = append(stales, rec)
			}
		}
	}
	if was.held.ID == "" { // a Reload is no replay: its request came in time
		k.noteReplays(stales, &best)
	}
	switch {
	case opened != nil:
		k.note(EventRejected, best.rec, errTwins)
		return stored{is: twins, opened: opened}, problem{}
	case best.is == live:
		return best, problem{}
	case over.is != unread:
		over.wasHad = was.wasHad || was.is == live
		return over, problem{}
	case was.held.ID != "", time.Since(k.m.start)-k.arrived >= tombstoneLife:
		// Nothing is where a session was, or a tombstone may have come and gone
		// since the request began.
		return stored{is: ended, held: found.refs[0], wasHad: was.wasHad || was.is == live}, problem{}
	}
	return stored{is: nothing}, problem{}
}

// findAll returns the ids of the sessions that the tokens of a crowd open. Unlike
// those of find's callers, its mu is not held.
func (k look) findAll() (ids []string, _ error) {
	var stales []*Record
	for _, ref := range k.source.allTokens() {
		rec, err := k.loadWithKey(ref.ID)
		if err != nil {
			return nil, err
		}
		this := stored{held: ref, rec: rec}
		switch k.recognise(&this, new(stored)); this.is {
		case live:
			ids = append(ids, ref.ID)
		case stale:
			stales = append(stales, rec)
		}
	}
	stales = slices.DeleteFunc(stales, func(rec *Record) bool { return slices.Contains(ids, rec.ID) })
	k.mu.Lock()
	defer k.mu.Unlock()
	k.noteReplays(stales, new(stored))
	return ids, nil
}

// noteReplays reports the sessions whose tokens are stale, once each, unless another
// token in the request opens the same one.
func (k look) noteReplays(stales []*Record, best *stored) {
	for i, rec := range stales {
		isOpen := best.is == live && best.held.ID == rec.ID
		isNoted := slices.ContainsFunc(stales[:i], func(r *Record) bool { return r.ID == rec.ID })
		if !isOpen && !isNoted {
			k.note(EventReplayed, rec, ErrReplaced)
		}
	}
}

var (
	errBadSignature = errors.New("session: what looks like a token of ours has no good signature")
	errCrowd        = fmt.Errorf("session: more than %d cookies of our name: none counts until a Login or Logout ends their sessions", maxCandidates)
	errTwins        = errors.New("session: two live sessions in one request: a Login or Logout ends them")
	errNoKey        = storeError("load", errors.New("the stored data does not begin with a session.key"))
	errPanicked     = storeError("load", errors.New("it panicked"))
)

// loadWithKey is load of a record that a token may open: one without a key is
// damaged, unless tokens have none.
func (k look) loadWithKey(id string) (*Record, error) {
	rec, err := k.m.load(k.c, id)
	if err == nil && rec != nil && !k.m.keyless && !body.HasKey(rec.Data) {
		if is, _ := statusOf(rec); is == live {
			return nil, errNoKey
		}
	}
	return rec, err
}

// recognise determines the status of st.rec for a request that holds st.held, which
// has its id.
func (k look) recognise(st, was *stored) {
	rec, held, now := st.rec, &st.held, k.c.Began()
	st.isOwn = was.isOwn && *held == was.held || was.maybe != nil && *held == was.maybe.ref
	if was.rec != nil && rec != nil && *held == was.held && was.due.Present {
		st.isOvertaken = was.isOvertaken || body.IsOvertaken(was.rec.Data, rec.Data, held.Key)
	}
	st.is, st.next = statusOf(rec)
	switch {
	case rec == nil:
		st.is = nothing
	case st.is == ended && k.arrivedAfter(endOf(rec).Add(dropAfterEnd), now):
		st.is, st.rec = nothing, nil
	case st.is != live:
		st.why, st.rec = reasonOf(rec), nil
	case k.source == nil, body.HasAccess(rec.Data, held.Key, now), was.keeps(st):
		st.due = k.upkeep(st, now)
	default:
		was, ok := body.FrozenFor(rec.Data, held.Key, now)
		if !ok {
			st.is = stale
			return
		}
		frozen := *rec
		frozen.Created, frozen.Data = was.Created, was.Values
		st.frozen, st.frozenUntil = &frozen, was.Until
	}
}

// arrivedAfter reports whether the request arrived later than at t.
func (s *Session) arrivedAfter(t, now time.Time) bool {
	return now.Add(s.arrived - time.Since(s.m.start)).After(t)
}

// keeps tells whether a Reload finds the session that the request had, and nobody
// asked for a renewal since: across renewals by age a request keeps it.
func (was *stored) keeps(st *stored) bool {
	return st.held == was.held && was.frozen == nil && was.rec != nil && body.ExplicitKey(was.rec.Data) == body.ExplicitKey(st.rec.Data)
}

// upkeep returns the maintenance that st.rec needs. A key that this request made
// was not presented, and needs none.
func (s *Session) upkeep(st *stored, now time.Time) body.Maintenance {
	if s.source == nil || st.isOwn {
		return body.Maintenance{}
	}
	renewAfter := s.m.renewAfter
	if st.rec.User == "" {
		renewAfter = 0
	}
	return body.MaintenanceFor(st.rec.Data, st.held.Key, st.rec.Created, renewAfter, now)
}

// load returns the record of this id, a tombstone too, or nil if there is none
// or its time was up when the store was asked.
func (m *Manager) load(c *storectx.Context, id string) (*Record, error) {
	rec, err := m.store.Load(c, id)
	switch {
	case err == nil && (rec == nil || rec.ID != id):
		return nil, storeError("load", errors.New("the store answered with another record"))
	case err == nil && rec.expired(c.Began()):
		m.watch.expired(id, c.Began())
		return nil, nil
	case errors.Is(err, ErrNotFound):
		rec = nil
	case err != nil:
		return nil, storeError("load", err)
	}
	if is, _ := statusOf(rec); is != live {
		m.watch.over(id)
	}
	return rec, nil
}
