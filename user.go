package session

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

var errNoUser = errors.New("session: the user is empty")

// List returns the live sessions of a user, most recently seen first, for a
// page that shows "your devices" (OWASP ASVS 5, 7.5.2). They are detached from
// any request: values and flashes may be changed and Logout ends one, all at
// its Save; Login, Renew and Remember make Save fail, for they need a cookie.
// A Save of a detached session is no use of it: LastSeen and Expires stay.
func (m *Manager) List(ctx context.Context, user string) ([]*Session, error) {
	if user == "" {
		return nil, errNoUser
	}
	records, err := m.list(ctx, user)
	if err != nil {
		return nil, err
	}
	sessions := make([]*Session, len(records))
	for i, rec := range records {
		sessions[i] = &Session{k: &m.keeper, ctx: ctx, loaded: true, late: true, rec: rec}
	}
	return sessions, nil
}

// Revoke ends one session of a user, by its ID. It returns nil if that is
// already gone or not this user's.
func (m *Manager) Revoke(ctx context.Context, user, id string) error {
	if user == "" {
		return errNoUser
	}
	return m.revoke(ctx, user, &Record{ID: id})
}

// RevokeOthers ends all sessions of s's user but s (OWASP ASVS 5, 7.4.3: offer
// it after a change of password). It is an error if s is anonymous. If another
// request of the same browser renews s at that very moment, it may end s too.
func (m *Manager) RevokeOthers(ctx context.Context, s *Session) error {
	user, id := s.User(), s.ID()
	if user == "" {
		return errors.New("session: RevokeOthers: the session is anonymous")
	}
	return m.revokeAll(ctx, user, id)
}

// RevokeAll ends all sessions of a user, and those that renewals make of them
// meanwhile. A login whose password was checked before this call and whose
// session is created after it is not covered: compare Session.Authenticated
// with the time of the password change.
func (m *Manager) RevokeAll(ctx context.Context, user string) error {
	if user == "" {
		return errNoUser
	}
	return m.revokeAll(ctx, user, "")
}

// revokeAll lists and ends until nothing authenticated before the call is left.
func (m *Manager) revokeAll(ctx context.Context, user, but string) error {
	called := milliseconds(time.Now())
	spared := map[string]bool{} // the session but, what it was renewed to, and what has ended
	for first := true; ; first = false {
		records, err := m.list(ctx, user)
		if err != nil {
			return err
		}
		if but != "" {
			if but, err = m.newest(ctx, but, spared); err != nil {
				return err
			}
		}
		// All of the first list were there before, whatever their clocks say.
		records = slices.DeleteFunc(records, func(r *Record) bool {
			return spared[r.ID] || !first && r.Created.After(called)
		})
		if len(records) == 0 {
			return nil
		}
		for _, rec := range records {
			if err := m.revoke(ctx, user, rec); err != nil {
				return err
			}
			spared[rec.ID] = true
		}
	}
}

// newest returns the id of the session that this one has become by renewals,
// and puts all the ids that it had into lineage.
func (m *Manager) newest(ctx context.Context, id string, lineage map[string]bool) (string, error) {
	c := m.until(ctx)
	defer c.release()
	for {
		lineage[id] = true
		rec, err := m.load(c, id)
		if err != nil || rec == nil {
			return id, err
		}
		next, _ := isEnded(rec.Data)
		if next == "" {
			return id, nil
		}
		id = next
	}
}

// revoke ends one session; rec may be known by its ID only.
func (k *keeper) revoke(ctx context.Context, user string, rec *Record) error {
	c := k.until(ctx)
	defer c.release()
	known := rec
	if rec.Version == 0 {
		known = nil
	}
	ended, err := k.end(c, rec.ID, user, known)
	if err != nil {
		k.emit(ctx, EventStoreFailed, rec, err)
	} else if ended != nil {
		k.emit(ctx, EventRevoked, ended, nil)
	}
	return err
}

// list returns the live records of a user, most recently seen first.
func (k *keeper) list(ctx context.Context, user string) ([]*Record, error) {
	c := k.until(ctx)
	defer c.release()
	records, err := k.live(c, user)
	if err != nil {
		k.emit(ctx, EventStoreFailed, &Record{User: user}, err)
	}
	return records, err
}

// live is list within a commit, whose events wait for its end.
func (k *keeper) live(c *storeContext, user string) ([]*Record, error) {
	records, err := k.store.List(c, user)
	if err != nil {
		return nil, storeError("list", err)
	}
	now := time.Now()
	records = slices.DeleteFunc(records, func(r *Record) bool {
		return fateOf(r) != alive || r.User != user || r.expired(now)
	})
	slices.SortStableFunc(records, func(a, b *Record) int { return b.LastSeen.Compare(a.LastSeen) })
	return records, nil
}

// limit ends the user's least recently used sessions beyond Options.MaxPerUser,
// now that rec has logged in. Of logins at the same time the newest stay, and
// that may end rec itself. If limit fails the login stands.
func (s *Session) limit(c *storeContext, rec *Record) {
	if rec.User == "" || s.k.maxUser == 0 {
		return
	}
	others, err := s.k.live(c, rec.User)
	room := s.k.maxUser - 1
	others = slices.DeleteFunc(others, func(r *Record) bool {
		newer := cmp.Or(r.Created.Compare(rec.Created), cmp.Compare(r.ID, rec.ID)) > 0
		if newer {
			room--
		}
		return newer || r.ID == rec.ID
	})
	if room < 0 {
		others = append(others, rec)
	}
	for i := max(room, 0); i < len(others) && err == nil; i++ {
		var ended *Record
		if ended, err = s.k.end(c, others[i].ID, rec.User, others[i]); ended != nil {
			s.mu.Lock()
			s.note(EventRevoked, ended, nil)
			if ended.ID == rec.ID {
				s.lose(rec.ID, gone)
			}
			s.mu.Unlock()
		}
	}
	if err != nil {
		s.mu.Lock()
		s.note(EventStoreFailed, rec, err)
		s.mu.Unlock()
	}
}
