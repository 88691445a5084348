package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// This file is about when: commit.go says what and how.

// Save commits now, instead of at the first byte of the response. It takes
// ctx's values and deadline, not its cancellation. The error it returns is the
// caller's to handle and does not replace the response. It is ErrNotFound if the
// session has ended, and ErrReplaced too if that was by a Login or Renew; what
// was changed is dropped then.
func (s *Session) Save(ctx context.Context) error {
	s.turn.Lock()
	defer s.done()
	c := s.k.until(ctx)
	defer c.release()
	s.lockWithin(c)
	if s.late {
		s.takeBack() // what an earlier Save failed to do in time
	}
	s.mu.Unlock()
	logout := s.todo.logout
	err := s.commit(c)
	if err == nil && s.fate != alive && !logout {
		err = s.ending()
	}
	if err == ErrReplaced {
		err = errReplaced
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && s.tardy:
		err, s.tardy = s.err, false // saved, but for the call that came too late
	case err == nil:
		s.err = nil
	}
	s.told = err != nil
	return err
}

var errReplaced = fmt.Errorf("%w: %w", ErrReplaced, ErrNotFound)

// A head is what the session asks of the response's header.
type head struct {
	used   bool          // it was loaded or looked for
	found  bool          // and a stored one was there
	expire bool          // the cookie must be deleted
	token  *token        // the cookie must carry this one
	resend string        // or again the browser's own, of this id
	life   time.Duration // of the cookie
}

// answer commits before the first byte of the response and closes the header:
// what needs a cookie comes too late from here on, or, with Hijack, already.
// It returns an error only if that must replace the response.
func (s *Session) answer(hijack bool) (head, error) {
	s.turn.Lock()
	defer s.done()
	s.mu.Lock()
	if hijack {
		s.takeBack()
		s.late = true
	}
	if s.resend {
		s.todo.remember = true // once more: is it still the newest token?
	}
	var err error
	if s.loaded && !s.told && s.plan() != nothing {
		s.mu.Unlock()
		err = s.commitNow()
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	s.late = true
	h := head{used: s.loaded, found: s.rec != nil || s.fate != alive, expire: s.expire}
	switch {
	case s.issued != nil:
		h.token, h.life = s.issued(), s.life()
	case s.resend:
		h.resend, h.life, s.resend = s.rec.ID, s.life(), false
	}
	return h, err
}

// abandon drops what is pending, except a Logout: the handler panicked.
func (s *Session) abandon() {
	s.turn.Lock()
	defer s.done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo = pending{logout: s.todo.logout}
	if !s.unread {
		s.forgive()
	}
}

// finish commits what was changed after the first byte, now that the handler
// has returned, and touches the record if that is due.
func (s *Session) finish(answered bool) {
	s.turn.Lock()
	defer s.done()
	s.mu.Lock()
	s.over = true
	ready := answered && s.loaded && !s.told && (!s.stuck || s.todo.logout)
	known := s.err
	s.mu.Unlock()
	if !ready {
		return
	}
	if s.plan() != nothing {
		if err := s.commitNow(); err != nil && err != known {
			s.mu.Lock()
			s.report(err)
			s.mu.Unlock()
		}
	}
	s.touch()
}

// commitNow is commit for the response: an ending is no error of it.
func (s *Session) commitNow() error {
	c := s.k.context(s.ctx)
	defer c.release()
	err := s.commit(c)
	if err == ErrNotFound || err == ErrReplaced {
		return nil
	}
	return err
}

// touch moves the record's clocks forward, if they are old enough to bother. The
// cheap clock tells whether they are; what is written is wall time.
func (s *Session) touch() {
	rec := s.rec
	if rec == nil || s.asked.now().Sub(rec.LastSeen) <= s.k.idle/20 {
		return
	}
	c, now := s.k.context(s.ctx), milliseconds(time.Now())
	defer c.release()
	err := s.k.store.Touch(c, rec.ID, now, later(rec.Expires, earlier(now.Add(s.k.idle), rec.Deadline)))
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, ErrNotFound) {
		s.note(EventDropped, rec, ErrNotFound)
	} else {
		s.note(EventStoreFailed, rec, storeError("touch", err))
	}
}

// report tells of an error that came too late to replace the response.
func (s *Session) report(err error) {
	if !errors.Is(err, ErrStore) { // which has its event already
		s.note(EventDropped, s.rec, err)
	}
	slog.ErrorContext(s.ctx, "session: too late to answer with an error", "err", err)
}
