package session

import (
	"errors"

	"github.com/coatcheck/session/internal/body"
)

// replace begins another session for the user who logs in, in place of the request's. It creates
// the new record, and then replaces the old one by a tombstone. Values that other requests save
// meanwhile in an anonymous session are taken over too. If the process dies in between, a record
// stays whose token no client has.
func (t *tx) replace() error {
	old, err := t.predecessor()
	if err != nil {
		return err
	}
	d, err := t.draftNew(t.inherited(old))
	if err != nil {
		return err
	}
	if err := t.m.store.Create(t.context(), d.rec); err != nil {
		return t.uncreated(d.rec, err)
	}
	// Concurrent Logins of one session replace one another, each the session of the one before. Each
	// keeps its turn at the first session that another Login has replaced, so that they do not all
	// compete for each of the sessions that follow.
	var first, n contender
	leave := func() {
		n.leave()
		first.leave()
	}
	defer leave()
	for isReported := false; old != nil; isReported = true {
		if n.id != old.ID {
			if first.turn == nil {
				first = n
			} else {
				n.leave()
			}
			n = contender{queues: &t.m.queues, c: t.context(), id: old.ID, isEnding: true}
		}
		err := n.save(tombstone(old, body.ReasonLogin, d.rec.ID), old.Version)
		if errors.Is(err, ErrIndeterminate) && t.isReplaced(old.ID, d.rec.ID) {
			err = nil
		}
		if err == nil {
			t.m.watch.Ended(old.ID)
			break
		}
		rec, err := n.reread(err)
		if err != nil {
			return t.undo(d.rec, err)
		}
		if t.stored.status == statusLive {
			t.merge(rec, isReported)
		}
		var inherits bool
		switch old, inherits, err = t.nextPredecessor(old, rec); {
		case err != nil:
			return t.undo(d.rec, err)
		case !inherits:
			continue
		}
		newer := d
		if err := t.fillNew(&newer, t.inherited(old)); err != nil {
			return t.undo(d.rec, err)
		}
		err = t.m.store.Save(t.context(), newer.rec, d.rec.Version)
		switch {
		case err == nil:
			d = newer
		case hasMoved(err):
			leave()
			return t.overtaken(d.rec, old)
		default:
			return t.undo(d.rec, storeError("save", err))
		}
	}
	leave()
	t.install(d, &t.pending)
	t.limit()
	return nil
}

// predecessor returns the record of the session to replace. If another Login has replaced the
// request's session already, that is the user's present session, or nil.
func (t *tx) predecessor() (*Record, error) {
	switch st := &t.stored; st.status {
	case statusLive:
		return st.rec, nil
	case statusUnproven:
		rec, err := loadRecord(t.context(), t.m.store, st.ref.ID)
		if err != nil || isLive(rec) {
			return rec, err
		}
		_, successor, _ := statusOf(rec)
		return t.heir(successor)
	default:
		return t.heir(st.successor)
	}
}

// nextPredecessor returns the session to replace after a conflict: rec is the newer record of old,
// or nil. inherits is whether the values of the new session have to be made again.
func (t *tx) nextPredecessor(old, rec *Record) (_ *Record, inherits bool, _ error) {
	s, successor, _ := statusOf(rec)
	switch {
	case s == statusLive && !isTaken(rec, old.User):
		return rec, t.inherited(rec) != nil, nil
	case s == statusEnded:
		// The user was authenticated, so the new session stays, but without the values:
		// another request may have used one of them up before the session ended.
		return nil, true, nil
	}
	heir, err := t.heir(successor)
	return heir, true, err
}

// heir returns the user's present session if Logins have replaced the session with this id: a
// login form that is sent twice loses no values. If it visits more than one tombstone, it makes
// the first one lead to the present session, or the hundredth Login with one token would visit a
// hundred.
func (t *tx) heir(id string) (*Record, error) {
	var first *Record
	for visited := 0; id != ""; visited++ {
		rec, err := loadRecord(t.context(), t.m.store, id)
		if err != nil {
			return nil, err
		}
		if isLive(rec) && rec.User == t.pending.user {
			if visited > 1 {
				_ = t.m.store.Save(t.context(), redirected(first, id), first.Version) // if it fails, the next Login tries again
			}
			return rec, nil
		}
		if first == nil {
			first = rec
		}
		_, id, _ = statusOf(rec)
	}
	return nil, nil
}

// isReplaced asks the store whether the session with this id was replaced by the session by, after
// a Save with an unknown outcome, so that a lost reply signs no user out. A session that is gone
// needs no tombstone: the Login that had made it was undone.
func (t *tx) isReplaced(id, by string) bool {
	rec, err := t.outcome(id)
	if err != nil || rec == nil {
		return err == nil
	}
	_, successor, _ := statusOf(rec)
	return successor == by
}

// overtaken is called if another request has found the new session in the user's list and has
// changed it before its token was sent. If the session was revoked, the old session ends too,
// because to the user both are the same. Otherwise the new session is undone and the commit is
// retried.
func (t *tx) overtaken(rec, old *Record) error {
	now, err := loadRecord(t.context(), t.m.store, rec.ID)
	if err != nil || isLive(now) {
		return t.undo(rec, err)
	}
	if old != nil {
		if _, _, err := t.m.end(t.context(), old.ID, "", body.ReasonRevoke, old); err != nil {
			return err
		}
	}
	t.lose(statusEnded)
	t.pending.user, t.pending.renew = "", true // the Renew is dropped
	return nil
}

// inherited returns the values that a Login takes over from old, a session that is anonymous or
// of the same user. If the request sees the session as it was before an explicit renewal,
// inherited omits values that have changed since: the old ones may be used up, and the request
// must not see the newer ones. A request whose browser could not prove itself has no session, and
// takes over nothing.
func (t *tx) inherited(old *Record) []byte {
	st := &t.stored
	if old != nil && st.status == statusUnproven && old.ID == st.ref.ID {
		return nil
	}
	if old != nil && st.status == statusLive {
		old = st.shown()
	}
	if old == nil || old.User != "" && old.User != t.pending.user {
		return nil
	}
	if st.frozen != nil {
		if values, err := body.Unchanged(old.Data, st.rec.Data); err == nil {
			return values
		}
	}
	return old.Data
}
