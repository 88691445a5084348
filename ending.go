package session

import (
	"cmp"
	"errors"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// tombstoneLife is how long a tombstone stays: requests that were in flight when the
// session ended learn of it from there.
const tombstoneLife = time.Minute

// dropAfterEnd is for how long after a Logout or Revoke a request that arrives with
// the ended token begins no session: it may have been in flight together with a
// login, whose newer cookie it would overwrite.
const dropAfterEnd = 2 * time.Second

// tombstone returns the record that replaces rec when its session ends. next is the id of
// the session that a Login began, or "".
func tombstone(rec *Record, why body.Reason, next string) *Record {
	now := milliseconds(time.Now())
	end := now.Add(tombstoneLife)
	return &Record{
		ID:       rec.ID,
		Data:     body.Ending{Reason: why, At: now, Next: next}.Tombstone(),
		Created:  rec.Created,
		LastSeen: rec.LastSeen,
		Deadline: end,
		Expires:  end,
		Version:  newVersion(),
	}
}

// statusOf returns what a record says of its session, nil: that it has ended, and
// the id that a tombstone names.
func statusOf(rec *Record) (is knowledge, next string) {
	if rec == nil {
		return ended, ""
	}
	ending, ok := body.EndingOf(rec.Data)
	switch {
	case !ok:
		return live, ""
	case ending.Next == "":
		return ended, ""
	}
	return replaced, ending.Next
}

// reasonOf returns why a tombstone's session ended.
func reasonOf(rec *Record) body.Reason {
	ending, _ := body.EndingOf(rec.Data)
	return ending.Reason
}

// endOf returns when a tombstone's session ended.
func endOf(rec *Record) time.Time {
	ending, _ := body.EndingOf(rec.Data)
	if ending.At.IsZero() {
		return rec.Expires.Add(-tombstoneLife)
	}
	return ending.At
}

// end ends the session with this id, however often it is changed meanwhile, and if
// a Login gave its place to another session, that one. It
// returns the record that it ended. If there was none, or none of this user's ("":
// anybody's), it returns nil, and why the session had ended already if that is
// known. A rec that is not nil is what the caller knows of it and spares a load.
func (m *Manager) end(c *storectx.Context, id, user string, why body.Reason, rec *Record) (_ *Record, already body.Reason, _ error) {
	n := contender{m: m, c: c, id: id, isEnding: true}
	defer func() { n.leave() }()
	newer, err := n.join()
	if err != nil {
		return nil, "", err
	}
	rec = cmp.Or(newer, rec)
	for {
		if rec == nil {
			if rec, err = m.load(c, n.id); err != nil || rec == nil {
				return nil, "", err
			}
		}
		is, next := statusOf(rec)
		switch {
		case is == ended:
			return nil, reasonOf(rec), nil
		case is != live:
			n.leave()
			n, rec = contender{m: m, c: c, id: next, isEnding: true}, nil
			continue
		case user != "" && rec.User != user:
			return nil, "", nil
		}
		if err = n.save(tombstone(rec, why, ""), rec.Version); err == nil {
			m.watch.ended(n.id)
			return rec, "", nil
		}
		if rec, err = n.reread(err); err != nil || rec == nil {
			return nil, "", err
		}
	}
}

// end carries out a Logout.
func (k commit) end() error {
	st, user, why, kind := k.stored, "", body.ReasonLogout, EventLoggedOut
	var known, last *Record
	var already body.Reason
	if st.is == live {
		known = st.rec
	}
	if k.source == nil { // as Revoke does it
		why, kind = body.ReasonRevoke, EventRevoked
		if known != nil {
			user = known.User
		}
	}
	ids, err := k.toEnd()
	if err != nil {
		return err
	}
	for _, id := range ids {
		rec, reason, err := k.m.end(k.c, id, user, why, known)
		if err != nil {
			return err
		}
		already = reason
		if rec != nil {
			last = rec
			k.mu.Lock()
			k.note(kind, rec, nil)
			k.mu.Unlock()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.todo.logout = false
	if st.over() == ErrReplaced && !st.wasHad {
		return nil // the request had no session
	}
	if already == "" && last == nil {
		already = st.why
	}
	k.lose(ended)
	if k.source == nil || k.mayHaveNewer(&st, last, already) {
		return nil
	}
	k.stored = stored{is: nothing}
	if k.brought != noToken {
		k.cookie.do = remove
	}
	return nil
}

// mayHaveNewer reports whether the client may have a newer cookie than the one that
// a Logout would delete. last is the record that the Logout ended; if that is nil
// the session had ended already, for the reason given.
func (k commit) mayHaveNewer(st *stored, last *Record, already body.Reason) bool {
	switch {
	case st.is == nothing, st.is == twins:
		return false
	case last != nil:
		return st.frozen != nil || st.is != live || body.ExplicitKey(last.Data) != body.ExplicitKey(st.rec.Data)
	}
	return already != body.ReasonRevoke // by this request, or from another device
}

// toEnd returns the ids of the sessions that a Logout ends. If the request's tokens
// open several it ends them all; those that a crowd opens are looked for only now. A request that arrived after its session had ended
// or had been replaced ends nothing: a token that was planted or stolen must not
// sign out the user who has logged in since.
func (k commit) toEnd() (ids []string, _ error) {
	switch st := &k.stored; {
	case st.is == twins && st.opened == nil:
		return look{k.Session, k.c}.findAll()
	case st.is == twins:
		return st.opened, nil
	case st.is == live:
		ids = append(ids, st.rec.ID)
	case st.over() == ErrReplaced && st.is != stale && st.wasHad:
		ids = append(ids, st.held.ID)
	}
	return ids, nil
}

// replace gives the client a new session for the user who logs in: it creates that
// record, and then swaps a tombstone over the old one. What other requests save
// meanwhile in an anonymous session belongs to the new one too. A process that dies in
// between leaves a record whose token no client has.
func (k commit) replace() error {
	old, err := k.predecessor()
	if err != nil {
		return err
	}
	d, err := k.first(k.inherited(old))
	if err != nil {
		return err
	}
	if err := k.m.store.Create(k.c, d.rec); err != nil {
		return k.uncreated(d.rec, err)
	}
	var n contender
	defer func() { n.leave() }()
	for hasMerged := false; old != nil; hasMerged = true {
		if n.id != old.ID {
			n.leave()
			n = contender{m: k.m, c: k.c, id: old.ID, isEnding: true}
		}
		err := n.save(tombstone(old, body.ReasonLogin, d.rec.ID), old.Version)
		if errors.Is(err, ErrIndeterminate) && k.hasLeft(old.ID, d.rec.ID) {
			err = nil
		}
		if err == nil {
			k.m.watch.ended(old.ID)
			break
		}
		rec, err := n.reread(err)
		if err != nil {
			return k.undo(d.rec, err)
		}
		if k.stored.is == live {
			k.merge(rec, hasMerged)
		}
		var inherits bool
		switch old, inherits, err = k.nextPredecessor(old, rec); {
		case err != nil:
			return k.undo(d.rec, err)
		case !inherits:
			continue
		}
		newer := d
		if err := k.firstRecord(&newer, k.inherited(old)); err != nil {
			return k.undo(d.rec, err)
		}
		err = k.m.store.Save(k.c, newer.rec, d.rec.Version)
		switch {
		case err == nil:
			d = newer
		case hasMoved(err):
			n.leave()
			return k.overtaken(d.rec, old)
		default:
			return k.undo(d.rec, storeError("save", err))
		}
	}
	n.leave()
	k.install(d)
	k.limit()
	return nil
}

// predecessor returns the session whose place another one is to take. If another
// Login has replaced the request's session already, that is the session which the user
// has now, or nil.
func (k commit) predecessor() (*Record, error) {
	if k.stored.is != live {
		return k.heir(k.stored.next)
	}
	return k.stored.rec, nil
}

// nextPredecessor is predecessor after the record of old has become rec, or nil.
// inherits reports whether the new session's values have to be made again.
func (k commit) nextPredecessor(old, rec *Record) (_ *Record, inherits bool, _ error) {
	is, next := statusOf(rec)
	switch {
	case is == live && !isTaken(rec, old.User):
		return rec, k.inherited(rec) != nil, nil
	case is == ended:
		// The new session began with a password and stands, but without the values:
		// another request may have used one of them up before the end.
		return nil, true, nil
	}
	heir, err := k.heir(next)
	return heir, true, err
}

// heir returns the session that the user has now, if Logins have replaced another
// one by that of this id: a login form that was sent twice loses no values.
func (k commit) heir(id string) (*Record, error) {
	for id != "" {
		rec, err := k.m.load(k.c, id)
		if err != nil {
			return nil, err
		}
		is, next := statusOf(rec)
		if is == live && rec.User == k.todo.user {
			return rec, nil
		}
		id = next
	}
	return nil, nil
}

// hasLeft asks the store whether a session has given its place to another, when the
// outcome of the Save is unknown, so that a lost reply signs out no user.
func (k commit) hasLeft(id, next string) bool {
	rec, err := k.outcome(id)
	if err != nil {
		return false
	}
	_, got := statusOf(rec)
	return got == next
}

// overtaken deals with a new session that was changed by a request that found it in
// its user's list, before its token was out: it begins again, unless it was revoked.
// Then it is one with the old session, which ends too.
func (k commit) overtaken(rec, old *Record) error {
	now, err := k.m.load(k.c, rec.ID)
	if is, _ := statusOf(now); err != nil || is == live {
		return k.undo(rec, err)
	}
	if old != nil {
		if _, _, err := k.m.end(k.c, old.ID, "", body.ReasonRevoke, old); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lose(ended)
	k.todo.user, k.todo.renew = "", true // which is dropped
	return nil
}

// inherited returns the values that a Login takes over from old: those of an
// anonymous session, or of the user who logs in once more. If the request sees the
// session as it was before an explicit renewal, values that have changed since stay
// behind: the old ones are used up, and the newer ones not for this request to see.
func (k commit) inherited(old *Record) []byte {
	st := &k.stored
	if old != nil && st.is == live {
		old = st.shown()
	}
	if old == nil || old.User != "" && old.User != k.todo.user {
		return nil
	}
	if st.frozen != nil {
		if values, err := body.Unchanged(old.Data, st.rec.Data); err == nil {
			return values
		}
	}
	return old.Data
}
