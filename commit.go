package session

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

// An action is what a commit must do next.
type action uint8

const (
	nothing action = iota
	end            // the stored session; what came after is a second action
	refuse         // an error stands in the way
	drop           // the changes: the session has ended while we ran
	create         // a record, and a cookie
	save           // the changes, under the same token
	renew          // under a new token, and end the old one
)

// plan decides. It is a pure function of the session's state.
func (s *Session) plan() action {
	switch t := &s.todo; {
	case t.logout && !s.unread:
		return end
	case s.stuck:
		return refuse
	case s.rec != nil && (t.user != "" || t.renew):
		return renew
	case t.user != "":
		return create
	case s.fate != alive && (len(t.changes) > 0 || t.renew || t.remember):
		return drop
	case s.rec != nil && (len(t.changes) > 0 || t.remember):
		return save
	case s.rec == nil && s.holds():
		return create
	}
	return nothing
}

// holds tells whether a session that is not stored has anything to store.
func (s *Session) holds() bool {
	return slices.ContainsFunc(s.todo.changes, func(c change) bool {
		return lookup(nil, s.todo.changes, c.name) != nil
	})
}

// commit acts until nothing is left to do. s.turn is held, so that nobody else
// writes the session's fields; they are read here without s.mu, and written
// under it.
func (s *Session) commit(c *storeContext) error {
	for {
		var err error
		switch s.plan() {
		case nothing:
			return nil
		case refuse:
			return s.err
		case end:
			err = s.end(c)
		case drop:
			err = s.drop()
		case create:
			err = s.create(c)
		case save:
			err = s.save(c)
		case renew:
			err = s.renew(c)
		}
		if err != nil {
			return s.failed(err)
		}
	}
}

// create stores a new session and asks for its cookie.
func (s *Session) create(c *storeContext) error {
	tok := newToken()
	rec, err := s.next(nil, tok.id())
	if err != nil {
		return err
	}
	if err := s.k.store.Create(c, rec); err != nil {
		return s.uncreated(rec, err)
	}
	kind := EventCreated
	if rec.User != "" {
		kind = EventLoggedIn
	}
	s.install(rec, tok, kind)
	s.limit(c, rec)
	return nil
}

// uncreated tries to leave nothing behind of a Create that may have been applied.
func (s *Session) uncreated(rec *Record, err error) error {
	if err = storeError("create", err); errors.Is(err, ErrIndeterminate) {
		return s.undo(rec, err) // nobody will ever hold its token
	}
	return err
}

// save replaces the record, and merges with whoever was faster.
func (s *Session) save(c *storeContext) error {
	base := s.rec
	for try := 0; ; try++ {
		rec, err := s.next(base, base.ID)
		if err != nil {
			return err
		}
		err = s.k.store.Save(c, rec, base.Version)
		if err == nil {
			s.install(rec, nil, "")
			return nil
		}
		if base, err = s.newer(c, base, try, err); base == nil {
			return err // nil: it has ended, and the plan is to drop
		}
	}
}

// newer returns what old has become, after a Save of it answered err. Nil
// without an error: it has ended, which the session knows then.
func (s *Session) newer(c *storeContext, old *Record, try int, err error) (*Record, error) {
	var rec *Record
	switch {
	case !moved(err):
		return nil, storeError("save", err)
	case errors.Is(err, ErrConflict):
		if err := pause(c, try); err != nil {
			return nil, storeError("save", err)
		}
		if rec, err = s.k.load(c, old.ID); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := fateOf(rec)
	if f == alive {
		s.note(EventConflict, rec, nil)
		return rec, nil
	}
	s.lose(old.ID, f)
	return nil, nil
}

// lose forgets the stored session with this id, which has ended, and with it
// any cookie that was due. s.mu is held.
func (s *Session) lose(id string, f fate) {
	s.rec, s.fate, s.grave, s.issued, s.resend = nil, f, id, nil, false
}

// pause waits before the next try, longer and more at random with each.
func pause(c *storeContext, try int) error {
	if try == 0 {
		return c.Err()
	}
	t := time.NewTimer(rand.N(250 * time.Microsecond << min(try, 7)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.Done():
		return c.Err()
	}
}

// install makes rec what is stored, and tok, unless nil, what the cookie gets.
func (s *Session) install(rec *Record, tok *token, kind EventKind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if tok != nil {
		s.issued, s.resend, s.expire = func() *token { return tok }, false, false
		s.note(kind, rec, nil)
	} else if s.todo.remember {
		s.resend = s.issued == nil
	}
	s.rec, s.fate, s.grave, s.todo = rec, alive, "", pending{}
}

// drop forgets the changes of a session that has ended while we ran.
func (s *Session) drop() error {
	err := s.ending()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(EventDropped, &Record{ID: s.grave}, err)
	s.todo = pending{}
	return err
}

func (s *Session) ending() error {
	if s.fate == replaced {
		return ErrReplaced
	}
	return ErrNotFound
}

// failed makes err the session's. An ending is none: see Err.
func (s *Session) failed(err error) error {
	if err == ErrNotFound || err == ErrReplaced {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	// A write that may have been applied is never repeated with the changes
	// applied anew: an Update would count twice.
	s.stuck = s.stuck || errors.Is(err, ErrIndeterminate) && !s.todo.logout // an ending may be repeated
	if errors.Is(err, ErrStore) {
		s.note(EventStoreFailed, s.rec, err)
	}
	return err
}
