package session

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/token"
)

// An origin is where a session comes from: a request that carries its token, or
// [Manager.Edit].
type origin interface {
	// tokens returns the tokens of ours that the request carries, if they are not too many.
	tokens() candidates

	// allTokens returns the tokens of ours in a request that carries too many for tokens.
	allTokens() []token.Ref

	// proves reports whether the request carries a second cookie that was good at that time: see
	// [Options].DeviceBound.
	proves(id string, at time.Time) bool

	// skipped returns why the browser says that it could not prove itself, or "".
	skipped() string

	// allows returns an error if the program may not call this method of the Session.
	allows(call string) error
}

// loadSession looks for the request's session, for the first time.
func (t *tx) loadSession() {
	found := t.carry()
	switch {
	case found.isCrowd:
		t.note(EventRejected, nil, errCrowd)
		t.stored.status = statusAmbiguous
		return
	case found.n == 0:
		t.stored.status = statusNone
		return
	}
	t.loaded = t.context().Began()
	t.settle(t.find(&found, new(stored)))
	t.presentAtLoad()
	t.touchAtLoad()
}

// presentAtLoad stores at once, before the commit, that a key was presented for the first time.
// Until that is stored, older keys keep their access, and renewals by other requests can end the
// key; a slow handler would prolong both. If the store fails, the commit stores it.
func (t *tx) presentAtLoad() {
	st := &t.stored
	if st.status != statusLive || !st.due.Present {
		return
	}
	n := contender{queues: &t.m.queues, c: t.context(), id: st.rec.ID}
	defer n.leave()
	for st.status == statusLive && st.due.Present {
		now := milliseconds(time.Now())
		b, err := parse(nil, st.rec.Data, now)
		if err != nil {
			return
		}
		st.present(&b, now)
		rec := *st.rec
		rec.Data, rec.Version = b.Bytes(), newVersion()
		if err = n.save(&rec, st.rec.Version); err == nil {
			st.rec, st.due.Present, st.due.Tidy = &rec, false, false
			return
		}
		newer, err := n.reread(err)
		if err != nil {
			return
		}
		t.rebase(newer)
		t.settle(t.stored, t.problem)
	}
}

// settle puts the results of find into the state.
func (t *tx) settle(st stored, p problem) {
	t.stored, t.problem = st, p
	switch st.status {
	case statusNone, statusEnded, statusReplaced:
		t.carried = carriedEnded
	}
}

// carry returns the tokens in the request.
func (t *tx) carry() candidates {
	found := t.s.origin.tokens()
	t.withheld = found.withheld
	switch t.carried = carriedNone; {
	case found.n > 0, found.isCrowd:
		t.carried = carriedGood
	case found.carried:
		t.carried = carriedBad
		t.note(EventRejected, nil, errBadSignature)
	}
	return found
}

// find asks the store which of the tokens opens a session. was is what the request knew
// before a Reload, and zero at the first load.
func (t *tx) find(found *candidates, was *stored) (best stored, _ problem) {
	var closed stored // the first session that has ended or whose token was replaced
	isClosed := false
	var stales, unproven []*Record
	var twins []string
	isReload := was.ref.ID != ""
	for i := range found.refs[:found.n] {
		next := stored{ref: found.refs[i]}
		if next.rec = best.rec; next.ref.ID != best.ref.ID { // else two tokens of one session
			var err error
			if next.rec, err = t.loadWithKey(next.ref.ID); err != nil {
				t.note(EventStoreFailed, &Record{ID: next.ref.ID}, err)
				failed := *was
				failed.status, failed.wasLoaded = statusUnknown, was.wasLive()
				return failed, problem{problemLasting, err}
			}
		}
		rec := next.rec
		t.recognise(&next, was)
		switch {
		case next.status == statusLive && best.status == statusLive && best.ref.ID != next.ref.ID:
			if twins == nil {
				twins = append(twins, best.ref.ID)
			}
			twins = append(twins, next.ref.ID)
		case next.status == statusLive && (best.status != statusLive || best.frozen != nil):
			best = next
		case next.status == statusLive, next.status == statusNone:
		default:
			isUnproven := next.status == statusUnproven
			if !isClosed || isUnproven && closed.status != statusUnproven { // a Login or Logout ends an unproven session
				isClosed, closed = true, next
				closed.rec, closed.wasLoaded = nil, was.wasLive() // a later Reload must not take rec for a record that this request had
			}
			switch {
			case next.status == statusStale:
				stales = append(stales, rec)
			case isUnproven:
				unproven = append(unproven, rec)
			}
		}
	}
	if !isReload { // only the first load reports replays: the token may have been replaced after the request arrived
		t.noteReplays(stales, &best)
		t.noteUnproven(unproven, &best)
	}
	switch {
	case twins != nil:
		t.note(EventRejected, best.rec, errTwins)
		return stored{status: statusAmbiguous, twins: twins}, problem{}
	case best.status == statusLive:
		return best, problem{}
	case isClosed:
		return closed, problem{}
	case isReload, time.Since(t.m.start)-t.s.arrived >= tombstoneLife:
		// The record of a session is gone, or the request is so old that a tombstone may
		// have been stored and removed since the request arrived.
		return stored{status: statusEnded, ref: found.refs[0], wasLoaded: was.wasLive()}, problem{}
	}
	return stored{status: statusNone}, problem{}
}

// findAll returns the ids of the live sessions that are opened by the tokens of a request that
// carries too many.
func (t *tx) findAll() (ids []string, _ error) {
	var stales []*Record
	for _, ref := range t.s.origin.allTokens() {
		rec, err := t.loadWithKey(ref.ID)
		if err != nil {
			return nil, err
		}
		st := stored{ref: ref, rec: rec}
		switch t.recognise(&st, new(stored)); st.status {
		case statusLive, statusUnproven:
			ids = append(ids, ref.ID)
		case statusStale:
			stales = append(stales, rec)
		}
	}
	stales = slices.DeleteFunc(stales, func(rec *Record) bool { return slices.Contains(ids, rec.ID) })
	t.noteReplays(stales, new(stored))
	return ids, nil
}

// noteReplays reports the sessions whose tokens are stale, once each, unless another
// token in the request opens the same one.
func (t *tx) noteReplays(stales []*Record, best *stored) {
	for i, rec := range stales {
		isOpen := best.status == statusLive && best.ref.ID == rec.ID
		isNoted := slices.ContainsFunc(stales[:i], func(r *Record) bool { return r.ID == rec.ID })
		if !isOpen && !isNoted {
			t.note(EventReplayed, rec, ErrReplaced)
		}
	}
}

var (
	errBadSignature = errors.New("session: no token in the request has a valid signature")
	errCrowd        = fmt.Errorf("session: more than %d cookies of our name: none is accepted until a Login or Logout ends their sessions", maxCandidates)
	errNoKey        = storeError("load", errors.New("the stored data does not begin with a session.key"))
)

// loadWithKey loads a record that a token may open. A record without a key is damaged, unless
// Options.Tokens is set, whose tokens have no keys.
func (t *tx) loadWithKey(id string) (*Record, error) {
	rec, err := loadRecord(t.context(), t.m.store, id)
	if err == nil && rec != nil && !t.m.keyless && !body.HasKey(rec.Data) && !body.IsTombstone(rec.Data) {
		return nil, errNoKey
	}
	return rec, err
}

// recognise determines the status of st.rec for a request that holds the token of st.ref. st.rec
// is the record with the id of st.ref, or nil.
func (t *tx) recognise(st, was *stored) {
	rec, ref, now := st.rec, st.ref, t.context().Began()
	st.isOwn = was.isOwn && ref == was.ref || was.unresolved != nil && ref == was.unresolved.ref
	if was.rec != nil && rec != nil && ref == was.ref {
		st.isOvertaken = was.isOvertaken || body.IsOvertaken(was.rec.Data, rec.Data, ref.Key)
	}
	st.setStatus(rec)
	switch {
	case rec == nil:
		st.status = statusNone
	case st.status == statusEnded && !t.wasInFlight(endOf(rec), now):
		st.status, st.rec = statusNone, nil
	case st.status != statusLive:
		st.rec = nil
	case body.HasAccess(rec.Data, ref.Key, now), was.keeps(st):
		st.due = t.maintenanceOf(st, now)
	default:
		was, ok := body.FrozenFor(rec.Data, ref.Key, now)
		if !ok {
			st.status = statusStale
			return
		}
		frozen := *rec
		frozen.Created, frozen.Data = was.Created, was.Values
		st.frozen, st.frozenUntil = &frozen, was.Until
	}
	if st.status == statusLive && !(was.status == statusLive && was.ref.ID == ref.ID) && t.lacksProof(rec) {
		*st = stored{status: statusUnproven, ref: ref}
	}
}

// wasInFlight reports whether the request may have been in flight when its session ended at end.
// A tombstone of the future was written before the clock was set back: it is old.
func (t *tx) wasInFlight(end, now time.Time) bool {
	return !t.arrival().After(end.Add(dropAfterEnd)) && !end.After(now.Add(maxAhead))
}

// arrival returns when the request arrived.
func (t *tx) arrival() time.Time { return time.Now().Add(t.s.arrived - time.Since(t.m.start)) }

// keeps reports whether st, which a Reload has found, is the session that the request had, and was
// not renewed explicitly since. A request keeps its session across automatic renewals.
func (was *stored) keeps(st *stored) bool {
	return st.ref == was.ref && was.frozen == nil && was.rec != nil && body.ExplicitKey(was.rec.Data) == body.ExplicitKey(st.rec.Data)
}

// merge calls rebase after a conflict, and reports the conflict unless isReported: the commit has
// reported one before.
func (t *tx) merge(newer *Record, isReported bool) {
	if t.rebase(newer); t.stored.status == statusLive && !isReported {
		t.note(EventConflict, newer, nil)
	}
}

// rebase continues with rec, the current record. If rec is nil or a tombstone, or another
// program has given the session to another user, the session has ended.
func (t *tx) rebase(rec *Record) {
	if !isLive(rec) {
		t.lose(statusEnded)
		t.stored.setStatus(rec)
		return
	}
	st, now := &t.stored, time.Now()
	if isTaken(rec, st.rec.User) {
		t.lose(statusReplaced)
		return
	}
	isRenewed := body.ExplicitKey(rec.Data) != body.ExplicitKey(st.rec.Data) && !body.HasAccess(rec.Data, st.ref.Key, now)
	if st.frozen == nil && isRenewed {
		was, _ := body.FrozenFor(rec.Data, st.ref.Key, now)
		st.frozen, st.frozenUntil = st.rec, was.Until
	}
	st.isOvertaken = st.isOvertaken || body.IsOvertaken(st.rec.Data, rec.Data, st.ref.Key)
	st.rec = rec
	st.due = t.maintenanceOf(st, now)
}
