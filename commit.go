package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"
)

// Save commits now, instead of at the first byte of the response. It takes
// ctx's values and deadline, not its cancellation. The error it returns is the
// caller's to handle and does not replace the response. It returns ErrNotFound
// or ErrReplaced if the session has ended; what was changed is dropped then.
func (s *Session) Save(ctx context.Context) error {
	s.turn.Lock()
	defer s.done()
	s.lock()
	s.mu.Unlock()
	c := s.k.until(ctx)
	defer c.release()
	logout := s.todo.logout
	err := s.commit(c)
	if err == nil && s.fate != alive && !logout {
		err = s.ending()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && s.tardy:
		err = s.err // saved, but for the call that came too late
	case err == nil:
		s.err = nil
	}
	s.told = err != nil
	return err
}

// answer commits before the first byte of the response and closes the header:
// what needs a cookie comes too late from here on, or, with Hijack, already.
// It returns an error only if that must replace the response.
func (s *Session) answer(hijack bool) error {
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
	used, told := s.loaded, s.told
	s.mu.Unlock()
	var err error
	if used && !told {
		err = s.commitNow()
	}
	s.mu.Lock()
	s.late = true
	s.mu.Unlock()
	return err
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
	ready := answered && s.loaded && !s.told && !s.stuck
	s.mu.Unlock()
	if !ready {
		return
	}
	if err := s.commitNow(); err != nil {
		s.mu.Lock()
		s.report(err)
		s.mu.Unlock()
	}
	s.touch()
}

// commitNow is commit for the response: an ending is no error of it. It makes
// no context where there is nothing to do, as for most requests.
func (s *Session) commitNow() error {
	if s.plan() == nothing {
		return nil
	}
	c := s.k.context(s.ctx)
	defer c.release()
	err := s.commit(c)
	if err == ErrNotFound || err == ErrReplaced {
		return nil
	}
	return err
}

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
func (s *Session) commit(ctx context.Context) error {
	for {
		var err error
		switch s.plan() {
		case nothing:
			return nil
		case refuse:
			return s.err
		case end:
			err = s.end(ctx)
		case drop:
			err = s.drop()
		case create:
			err = s.create(ctx)
		case save:
			err = s.save(ctx)
		case renew:
			err = s.renew(ctx)
		}
		if err != nil {
			return s.failed(err)
		}
	}
}

// create stores a new session and asks for its cookie.
func (s *Session) create(ctx context.Context) error {
	tok := newToken()
	rec, err := s.next(nil, tok.id())
	if err != nil {
		return err
	}
	if err := s.k.store.Create(ctx, rec); err != nil {
		return s.uncreated(ctx, rec, err)
	}
	kind := EventCreated
	if rec.User != "" {
		kind = EventLoggedIn
	}
	s.install(rec, tok, kind)
	s.limit(ctx, rec)
	return nil
}

// uncreated tries to leave nothing behind of a Create that may have been applied.
func (s *Session) uncreated(ctx context.Context, rec *Record, err error) error {
	if errors.Is(err, ErrIndeterminate) {
		_ = s.k.store.Delete(ctx, rec.ID) // nobody will ever hold its token
	}
	return storeError("create", err)
}

// save replaces the record, and merges with whoever was faster.
func (s *Session) save(ctx context.Context) error {
	base := s.rec
	for try := 0; ; try++ {
		rec, err := s.next(base, base.ID)
		if err != nil {
			return err
		}
		err = s.k.store.Save(ctx, rec, base.Version)
		if err == nil {
			s.install(rec, nil, "")
			return nil
		}
		if base, err = s.newer(ctx, base, try, err); base == nil {
			return err // nil: it has ended, and the plan is to drop
		}
	}
}

// newer returns what old has become, after a Save of it answered err. Nil
// without an error: it has ended, which the session knows then.
func (s *Session) newer(ctx context.Context, old *Record, try int, err error) (*Record, error) {
	var rec *Record
	switch {
	case !moved(err):
		return nil, storeError("save", err)
	case errors.Is(err, ErrConflict):
		if err := pause(ctx, try); err != nil {
			return nil, storeError("save", err)
		}
		if rec, err = s.k.load(ctx, old.ID); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fate = fateOf(rec); s.fate == alive {
		s.note(EventConflict, rec, nil)
		return rec, nil
	}
	s.rec, s.grave, s.issued, s.resend = nil, old.ID, nil, false
	return nil, nil
}

// pause waits before the next try, longer and more at random with each.
func pause(ctx context.Context, try int) error {
	if try == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(rand.N(250 * time.Microsecond << min(try, 7)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// next returns the record that base, or nothing, becomes by what is pending.
func (s *Session) next(base *Record, id string) (*Record, error) {
	t, now := &s.todo, milliseconds(time.Now())
	changes, rec := t.changes, &Record{Created: now, Deadline: now.Add(s.k.lifetime)}
	var data []byte
	switch {
	case t.user != "":
		*rec = Record{User: t.user, Created: t.at, Deadline: t.at.Add(s.k.lifetime)}
		if base != nil && !t.forget {
			data = base.Data
		}
		changes = append([]change{{name: remembered}}, changes...) // an earlier Remember ends
	case base != nil:
		*rec = *base
		data = base.Data
	}
	if s.source != nil {
		rec.LastSeen = later(rec.LastSeen, now)
		rec.Expires = later(rec.Expires, earlier(now.Add(s.k.idle), rec.Deadline))
	}
	if t.remember || t.user != "" && !s.until.IsZero() {
		rec.Deadline, rec.Expires = s.until, s.until
		changes = append(slices.Clip(changes), change{name: remembered, raw: []byte("true")})
	}
	merged, size, err := merge(data, changes)
	if errors.Is(err, errData) {
		return nil, storeError("load", err)
	}
	if err == nil && size > s.k.maxData {
		err = fmt.Errorf("session: Options.MaxDataSize: the values take %d bytes, the limit is %d", size, s.k.maxData)
	}
	rec.ID, rec.Data, rec.Version = id, merged, newVersion()
	return rec, err
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
	s.stuck = errors.Is(err, ErrIndeterminate)
	if errors.Is(err, ErrStore) {
		s.note(EventStoreFailed, s.rec, err)
	}
	return err
}

// touch moves the record's clocks forward, if they are old enough to bother.
func (s *Session) touch() {
	now, rec := milliseconds(time.Now()), s.rec
	if rec == nil || now.Sub(rec.LastSeen) <= s.k.idle/20 {
		return
	}
	c := s.k.context(s.ctx)
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

// life returns for how long a cookie sent now is good, 0 for as long as the
// browser is open. s.mu is held.
func (s *Session) life(persistent bool) time.Duration {
	if !persistent && find(s.rec.Data, remembered) == nil {
		return 0
	}
	return time.Until(s.rec.Deadline)
}

// report tells of an error that came too late to replace the response.
func (s *Session) report(err error) {
	if !errors.Is(err, ErrStore) { // which has its event already
		s.note(EventDropped, s.rec, err)
	}
	slog.ErrorContext(s.ctx, "session: too late to answer with an error", "err", err)
}

func newVersion() uint64 {
	for {
		if v := rand.Uint64() >> 1; v != 0 {
			return v
		}
	}
}

func milliseconds(t time.Time) time.Time { return t.Truncate(time.Millisecond) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
