package session

import (
	"errors"

	"github.com/coatcheck/session/internal/body"
)

// replace begins another session in place of the request's, for the user who logs in: it
// creates the new record, and then swaps a tombstone over the old one. What other requests
// save meanwhile in an anonymous session belongs to the new one too. A process that dies in
// between leaves a record whose token no client has.
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
	var n contender
	defer func() { n.leave() }()
	for isReported := false; old != nil; isReported = true {
		if n.id != old.ID {
			n.leave()
			n = contender{m: t.m, c: t.context(), id: old.ID, isEnding: true}
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
			n.leave()
			return t.overtaken(d.rec, old)
		default:
			return t.undo(d.rec, storeError("save", err))
		}
	}
	n.leave()
	t.install(d, &t.pending)
	t.limit()
	return nil
}

// predecessor returns the session that is to be replaced. If another Login has replaced the
// request's session already, that is the session which the user has now, or nil.
func (t *tx) predecessor() (*Record, error) {
	if t.stored.status != statusLive {
		return t.heir(t.stored.successor)
	}
	return t.stored.rec, nil
}

// nextPredecessor is predecessor after the record of old has become rec, or nil.
// inherits reports whether the new session's values have to be made again.
func (t *tx) nextPredecessor(old, rec *Record) (_ *Record, inherits bool, _ error) {
	s, successor, _ := statusOf(rec)
	switch {
	case s == statusLive && !isTaken(rec, old.User):
		return rec, t.inherited(rec) != nil, nil
	case s == statusEnded:
		// The new session began with a password and stays, but without the values:
		// another request may have used one of them up before the end.
		return nil, true, nil
	}
	heir, err := t.heir(successor)
	return heir, true, err
}

// heir returns the session that the user has now, if Logins have replaced another
// one by that of this id: a login form that was sent twice loses no values.
func (t *tx) heir(id string) (*Record, error) {
	for id != "" {
		rec, err := t.m.load(t.context(), id)
		if err != nil {
			return nil, err
		}
		if isLive(rec) && rec.User == t.pending.user {
			return rec, nil
		}
		_, id, _ = statusOf(rec)
	}
	return nil, nil
}

// isReplaced asks the store whether a session was replaced by another, when the outcome of
// the Save is unknown, so that a lost reply signs out no user.
func (t *tx) isReplaced(id, by string) bool {
	rec, err := t.outcome(id)
	if err != nil {
		return false
	}
	_, successor, _ := statusOf(rec)
	return successor == by
}

// overtaken is called if a request that found the new session in its user's list has changed
// it before its token was sent. Unless that has revoked it, the new session is undone, and
// the commit tries again. Else the old session ends too, for it is the same one to the user.
func (t *tx) overtaken(rec, old *Record) error {
	now, err := t.m.load(t.context(), rec.ID)
	if err != nil || isLive(now) {
		return t.undo(rec, err)
	}
	if old != nil {
		if _, _, err := t.m.end(t.context(), old.ID, "", body.ReasonRevoke, old); err != nil {
			return err
		}
	}
	t.lose(statusEnded)
	t.pending.user, t.pending.renew = "", true // which is dropped
	return nil
}

// inherited returns the values that a Login takes over from old: those of an
// anonymous session, or of the user who logs in once more. If the request sees the
// session as it was before an explicit renewal, it leaves out values that have changed since:
// the old ones are used up, and the request must not see the newer ones.
func (t *tx) inherited(old *Record) []byte {
	st := &t.stored
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
