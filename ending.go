package session

import (
	"bytes"
	"errors"
	"time"
)

// A tombstone takes the place of a session's record when it ends. It stays for
// a minute, so that requests under way learn of the ending and, after a
// renewal, which record is the successor. It belongs to no user and holds no
// values.
const (
	tombstone     = `{"session.ended":"`
	tombstoneLife = time.Minute
)

// bury returns the tombstone of rec; next is the id of a renewal's successor, or "".
func bury(rec *Record, next string) *Record {
	end := milliseconds(time.Now().Add(tombstoneLife))
	return &Record{
		ID:       rec.ID,
		Data:     []byte(tombstone + next + `"}`),
		Created:  rec.Created,
		LastSeen: rec.LastSeen,
		Deadline: end,
		Expires:  end,
		Version:  newVersion(),
	}
}

// isEnded tells whether Data is a tombstone's, and the successor it names.
func isEnded(data []byte) (next string, ok bool) {
	rest, ok := bytes.CutPrefix(data, []byte(tombstone))
	if !ok {
		return "", false
	}
	return string(bytes.TrimSuffix(rest, []byte(`"}`))), true
}

// fateOf tells what became of a session; nil: there is no record any more.
func fateOf(rec *Record) fate {
	if rec == nil {
		return gone
	}
	switch next, dead := isEnded(rec.Data); {
	case !dead:
		return alive
	case next == "":
		return gone
	}
	return replaced
}

// end ends the session with this id, whoever changes it meanwhile, and if it
// was renewed its successor. It returns the record that it ended, or nil if
// there was none, or none of this user's ("": anybody's). A rec that is not nil
// is what the caller knows of it and spares a load.
func (k *keeper) end(c *storeContext, id, user string, rec *Record) (*Record, error) {
	for try := 0; ; try++ {
		if rec == nil {
			var err error
			if rec, err = k.load(c, id); err != nil || rec == nil {
				return nil, err
			}
		}
		next, dead := isEnded(rec.Data)
		switch {
		case dead && next == "", !dead && user != "" && rec.User != user:
			return nil, nil
		case dead:
			id, rec, try = next, nil, -1
			continue
		}
		err := k.store.Save(c, bury(rec, ""), rec.Version)
		switch {
		case err == nil:
			return rec, nil
		case !moved(err):
			return nil, storeError("end", err)
		}
		if err := pause(c, try); err != nil {
			return nil, storeError("end", err)
		}
		rec = nil
	}
}

// moved tells whether a Save was refused because the record is another one now.
func moved(err error) bool {
	return !errors.Is(err, ErrIndeterminate) && (errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound))
}

// end carries out a Logout.
func (s *Session) end(c *storeContext) error {
	id, user := s.grave, ""
	if s.rec != nil {
		id = s.rec.ID
		if s.source == nil {
			user = s.rec.User // as for Revoke
		}
	}
	ids := []string{id}
	if id == "" && s.source != nil { // two live sessions: both end
		found := s.source.tokens()
		ids = found.ids[:found.n]
	}
	kind := EventLoggedOut
	if s.source == nil {
		kind = EventRevoked
	}
	ended := false
	for _, id := range ids {
		rec, err := s.k.end(c, id, user, s.rec)
		if err != nil {
			return err
		}
		if rec != nil {
			ended = true
			s.mu.Lock()
			s.note(kind, rec, nil)
			s.mu.Unlock()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stale := !ended && id != "" // somebody else ended it: the browser may have a newer cookie
	s.expire = s.carried && !stale
	s.rec, s.issued, s.resend, s.todo.logout = nil, nil, false, false
	if s.fate, s.grave = alive, ""; stale || s.source == nil { // nobody would hold a new one's token
		s.fate, s.grave = gone, id
	}
	return nil
}

// renew puts the session under a new token: it creates the successor, and then
// swaps a tombstone over the old record. Of many renewals at once one swap
// succeeds; the others take back what they created. A process that dies in
// between leaves a record whose token nobody holds.
func (s *Session) renew(c *storeContext) error {
	old, tok := s.rec, newToken()
	rec, err := s.next(old, tok.id())
	if err != nil {
		return err
	}
	if err := s.k.store.Create(c, rec); err != nil {
		return s.uncreated(rec, err)
	}
	login := s.todo.user != ""
	for try := 0; ; try++ {
		err = s.k.store.Save(c, bury(old, rec.ID), old.Version)
		if err == nil {
			break
		}
		if old, err = s.newer(c, old, try, err); old == nil {
			if err == nil && login {
				break // the old session has ended: this one began with a password
			}
			return s.undo(rec, err)
		}
		// Somebody saved values meanwhile: they belong to the successor too.
		newer, err := s.next(old, rec.ID)
		if err != nil {
			return s.undo(rec, err)
		}
		err = s.k.store.Save(c, newer, rec.Version)
		switch {
		case err == nil:
			rec = newer
		case !moved(err):
			return s.undo(rec, storeError("save", err))
		default:
			now, err := s.k.load(c, rec.ID)
			if err != nil {
				return s.undo(rec, err)
			}
			if fateOf(now) == alive { // a session that List returned was saved: begin again
				s.mu.Lock()
				s.rec = old
				s.mu.Unlock()
				return s.undo(rec, nil)
			}
			// It was revoked before its token was out, and is one with the old.
			if _, err := s.k.end(c, old.ID, "", old); err != nil {
				return err
			}
			s.mu.Lock()
			s.lose(old.ID, gone)
			s.todo.user, s.todo.renew = "", true // which is dropped
			s.mu.Unlock()
			return nil
		}
	}
	if login {
		s.install(rec, tok, EventLoggedIn)
		s.limit(c, rec)
	} else {
		s.install(rec, tok, EventRenewed)
	}
	return nil
}

// undo deletes a successor that is not to be, and returns err. Its own deadline
// lets it do so although the store's silence has used up the commit's.
func (s *Session) undo(rec *Record, err error) error {
	c := s.k.context(s.ctx)
	defer c.release()
	_ = s.k.store.Delete(c, rec.ID) // what is left if it fails is a record whose token nobody holds
	return err
}
