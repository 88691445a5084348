package session

import (
	"bytes"
	"errors"
	"time"

	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/storectx"
)

// A tombstone takes the place of a session's record when it ends. It stays for
// a minute, so that requests under way learn of the ending and, after a Login,
// which session took its place, or after a renewal, which id the session has now.
// It belongs to no user and holds no values:
//
//	{"session.ended":"logout"}, "revoked", "login" or "renewed"
//	,"session.next":"…"                    after the latter two, the other id
const (
	endedMember   = `"session.ended"`
	nextMember    = `"session.next"`
	tombstoneLife = time.Minute
)

// Why a session ended.
const (
	byLogout = "logout"
	byRevoke = "revoked"
	byLogin  = "login"
	byRenew  = "renewed" // it did not, but for its id: the token has no key
)

// tombstone returns what takes the place of rec. next is the id of the session
// that a Login began, or "".
func tombstone(rec *Record, why, next string) *Record {
	members := []object.Member{{Name: []byte(endedMember), Raw: []byte(`"` + why + `"`)}}
	if next != "" {
		raw, _ := encodeValue(next) // a string always encodes
		members = object.Set(members, nextMember, raw)
	}
	end := milliseconds(time.Now().Add(tombstoneLife))
	return &Record{
		ID:       rec.ID,
		Data:     object.Write(members),
		Created:  rec.Created,
		LastSeen: rec.LastSeen,
		Deadline: end,
		Expires:  end,
		Version:  newVersion(),
	}
}

// isTombstone tells whether Data is a tombstone's, and which session it names.
func isTombstone(data []byte) (next string, is bool) {
	if !bytes.HasPrefix(data, []byte("{"+endedMember)) {
		return "", false
	}
	next, _ = decode[string](object.Find(data, nextMember))
	return next, true
}

// whatIs tells what a record says of its session; nil: there is none any more.
func whatIs(rec *Record) knowledge {
	if rec == nil {
		return ended
	}
	switch next, dead := isTombstone(rec.Data); {
	case !dead:
		return live
	case next == "":
		return ended
	case string(object.Find(rec.Data, endedMember)) == `"`+byRenew+`"`:
		return renewed
	}
	return replaced
}

// end ends the session with this id, whoever changes it meanwhile, and if a
// Login gave its place to another session, or a renewal another id, that one. It returns the record that
// it ended, or nil if there was none, or none of this user's ("": anybody's). A
// rec that is not nil is what the caller knows of it and spares a load.
func (m *Manager) end(c *storectx.Context, id, user, why string, rec *Record) (*Record, error) {
	for try := 0; ; try++ {
		if rec == nil {
			var err error
			if rec, err = m.load(c, id); err != nil || rec == nil {
				return nil, err
			}
		}
		next, dead := isTombstone(rec.Data)
		switch {
		case dead && next == "", !dead && user != "" && rec.User != user:
			return nil, nil
		case dead:
			id, rec, try = next, nil, -1
			continue
		}
		err := m.store.Save(c, tombstone(rec, why, ""), rec.Version)
		switch {
		case err == nil:
			m.watch.ended(id)
			return rec, nil
		case !hasMoved(err):
			return nil, storeError("end", err)
		}
		if err := pause(c, betweenSaves, try); err != nil {
			return nil, storeError("end", err)
		}
		rec = nil
	}
}

// end carries out a Logout.
func (k commit) end() error {
	st, user, why, kind := k.stored, "", byLogout, EventLoggedOut
	var known, last *Record
	if st.is == live {
		known = st.rec
	}
	if k.source == nil { // as Revoke does it
		why, kind = byRevoke, EventRevoked
		if known != nil {
			user = known.User
		}
	}
	for _, id := range k.toEnd() {
		rec, err := k.m.end(k.c, id, user, why, known)
		if err != nil {
			return err
		}
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
	k.lose(ended)
	switch {
	case st.is == stale:
		k.stored.is = stale
	case k.source == nil, // nobody would hold a new one's token
		st.then != nil, // and here the browser has, or may have, a newer cookie
		st.is == live && last != nil && firstKey(last.Data) != firstKey(st.rec.Data),
		(st.is == live || st.is >= replaced) && last == nil:
	default:
		k.stored = stored{is: nothing}
		if k.brought != noToken {
			k.cookie.do = remove
		}
	}
	return nil
}

// toEnd returns the ids of the sessions that a Logout ends: of two live ones
// both, for who signs out means whatever this browser could be signed in with.
func (k commit) toEnd() (ids []string) {
	switch k.stored.is {
	case twins:
		found := k.source.tokens()
		for _, ref := range found.refs[:found.n] {
			ids = append(ids, ref.ID)
		}
	case live:
		ids = append(ids, k.stored.rec.ID)
	case replaced, renewed, ended:
		ids = append(ids, k.stored.held.ID)
	}
	return ids
}

// replace gives the browser a new session for the user who logs in, or the same
// one under another id, where a token has no key: it creates that record, and then
// swaps a tombstone over the old one. What others save meanwhile in an anonymous
// session, or in the same, belongs to the new one too. A process that dies in
// between leaves a record whose token nobody holds.
func (k commit) replace() error {
	d, why := draft{}, byLogin
	if k.sameUser() {
		why = byRenew
	}
	d.newToken(k.m, "", k.event())
	var err error
	if d.rec, err = k.successor(d.ref); err != nil {
		return err
	}
	if err := k.m.store.Create(k.c, d.rec); err != nil {
		return k.uncreated(d.rec, err)
	}
	for try := 0; ; try++ {
		old := k.stored.rec
		err := k.m.store.Save(k.c, tombstone(old, why, d.rec.ID), old.Version)
		if err == nil || why == byRenew && errors.Is(err, ErrIndeterminate) && k.hasLeft(old.ID, d.rec.ID) {
			k.left(old.ID, why, d.rec.ID)
			break
		}
		if err := k.moved(old.ID, try, err); err != nil {
			return k.undo(d.rec, err)
		}
		switch {
		case k.stored.is == live && why == byRenew && k.stored.then != nil:
			return k.undo(d.rec, nil) // somebody else renewed it first, which is as good
		case k.stored.is == live:
		case k.todo.user == "":
			return k.undo(d.rec, nil) // no renewal survives an ending
		}
		if k.stored.is != live {
			break // the old session has ended: this one began with a password
		}
		if why == byLogin && k.inherited() == nil {
			continue
		}
		newer, err := k.successor(d.ref)
		if err != nil {
			return k.undo(d.rec, err)
		}
		err = k.m.store.Save(k.c, newer, d.rec.Version)
		switch {
		case err == nil:
			d.rec = newer
		case hasMoved(err):
			return k.overtaken(d.rec)
		default:
			return k.undo(d.rec, storeError("save", err))
		}
	}
	k.install(d)
	k.limit()
	return nil
}

// hasLeft asks the store whether a session has given its id for another, when the
// outcome of the Save is unknown, so that a renewal loses nobody.
func (k commit) hasLeft(id, next string) bool {
	rec, err := k.outcome(id)
	if err != nil || rec == nil {
		return false
	}
	is, _ := isTombstone(rec.Data)
	return is == next
}

// left tells those who wait for the end of a session that it has given its place
// to another, or its id for another.
func (k commit) left(id, why, next string) {
	if why == byRenew {
		k.m.watch.moved(id, next)
	} else {
		k.m.watch.ended(id)
	}
}

// sameUser tells whether what was asked for leaves the session its user's.
func (k commit) sameUser() bool { return k.todo.user == "" || k.todo.user == k.stored.rec.User }

// overtaken deals with a new session that somebody changed who found it in its
// user's list, before its token was out: it begins again, unless it was revoked.
// Then it is one with the old session, which ends too.
func (k commit) overtaken(rec *Record) error {
	now, err := k.m.load(k.c, rec.ID)
	if err != nil || whatIs(now) == live {
		return k.undo(rec, err)
	}
	old := k.stored.rec
	if _, err := k.m.end(k.c, old.ID, "", byRevoke, old); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lose(ended)
	k.todo.user, k.todo.renew = "", true // which is dropped
	return nil
}

// inherited returns the values that a Login takes over: an anonymous session's.
func (k commit) inherited() []byte {
	if rec := k.stored.shown(); rec.User == "" {
		return rec.Data
	}
	return nil
}
