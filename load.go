package session

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// A source is where a session's token comes from.
type source interface {
	tokens() candidates
}

// candidates are the ids of the verified tokens that a request carried.
type candidates struct {
	ids     [maxCandidates]string
	n       int
	carried bool // a cookie of our name was there, good or bad
}

// A keeper is what sessions need of their Manager: the store and the rules.
type keeper struct {
	store    Store
	lifetime time.Duration
	idle     time.Duration
	timeout  time.Duration
	maxData  int
	maxUser  int

	persistent bool // Options.Cookie.Persistent
	onEvent    func(context.Context, Event)
	start      time.Time   // when New was called
	lateUse    atomic.Bool // logged already
}

// lock locks mu and sees to it that the session is loaded.
func (s *Session) lock() { s.lockWithin(nil) }

// lockWithin is lock with the context of a call that the program gave one.
func (s *Session) lockWithin(c *storeContext) {
	s.mu.Lock()
	if s.loaded {
		return
	}
	defer func() {
		if !s.loaded {
			s.mu.Unlock() // the store panicked: who recovers must not wait for ever
		}
	}()
	if s.late && !s.over && s.k.lateUse.CompareAndSwap(false, true) {
		slog.WarnContext(s.ctx, "session: first used after the first byte of the response: Vary and Cache-Control could not be set; call a method of the session before writing (logged once)")
	}
	if found := s.carry(); found.n > 0 {
		if c == nil {
			if c = &s.asked; !c.began.IsZero() {
				c = new(storeContext) // that one is used up: the store panicked
			}
			c.begin(s.ctx, s.k.timeout)
			defer c.release()
		}
		s.read(c, found)
	}
	s.loaded = true
}

// carry returns the ids of the verified tokens in the request.
func (s *Session) carry() candidates {
	found := s.source.tokens()
	if s.carried = found.carried; found.carried && found.n == 0 {
		s.note(EventRejected, nil, errBadSignature)
	}
	return found
}

// unlock unlocks mu and hands over the events noted under it.
func (s *Session) unlock() {
	events := s.events
	s.events = nil
	s.mu.Unlock()
	for _, e := range events {
		s.k.onEvent(s.ctx, e)
	}
}

// read asks the store for the record of the one token that has a live one.
func (s *Session) read(c *storeContext, found candidates) {
	was, grave, fate := s.rec, "", alive
	s.rec, s.fate = nil, alive
	if was != nil {
		s.grave = was.ID // for the next Reload, should this one fail, and the one after it
	}
	s.err, s.unread, s.stuck = errPanicked, true, true // until it is known to be otherwise
	var last *Record
	live := 0
	for _, id := range found.ids[:found.n] {
		rec, err := s.k.load(c, id)
		if err != nil {
			s.err = err
			s.note(EventStoreFailed, &Record{ID: id}, err)
			return
		}
		switch f := fateOf(rec); {
		case rec == nil:
		case f == alive:
			last = rec
			live++
		case grave == "":
			fate, grave = f, id
		}
	}
	s.err, s.unread, s.stuck = nil, false, false
	switch s.grave = ""; {
	case live > 1:
		s.note(EventRejected, last, errors.New("session: two live sessions in one request"))
	case live == 1:
		s.rec = last
	case grave != "":
		s.fate, s.grave = fate, grave
	case was != nil, found.n > 0 && (s.source == nil || time.Since(s.k.start)-s.born >= tombstoneLife):
		// Nothing is where a session was, or a tombstone may have come and gone
		// since the request began.
		s.fate, s.grave = gone, found.ids[0]
	}
}

var errBadSignature = errors.New("session: no cookie of our name has a good signature")

var errPanicked = storeError("load", errors.New("it panicked"))

// load returns the record of this id, a tombstone too, or nil if there is none
// or its time is up.
func (k *keeper) load(c *storeContext, id string) (*Record, error) {
	rec, err := k.store.Load(c, id)
	switch {
	case err == nil && (rec == nil || rec.ID != id):
		return nil, storeError("load", errors.New("the store answered with another record"))
	case err == nil:
		if rec.expired(c.now()) {
			return nil, nil
		}
		return rec, nil
	case errors.Is(err, ErrNotFound):
		return nil, nil
	}
	return nil, storeError("load", err)
}

// Reload forgets all unsaved changes, a Login or Logout among them, and reads
// the store again. A long request learns this way that its session has ended:
// User is "" then. It takes ctx's values and deadline, not its cancellation.
func (s *Session) Reload(ctx context.Context) error {
	s.turn.Lock()
	defer s.done()
	c := s.k.until(ctx)
	defer c.release()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo, s.until, s.resend = pending{}, time.Time{}, false
	s.forgive()
	s.unread = false
	var found candidates
	switch {
	case s.rec != nil:
		found.ids[0], found.n = s.rec.ID, 1
	case s.grave != "":
		found.ids[0], found.n = s.grave, 1
	case s.source != nil:
		found = s.carry()
	}
	s.loaded = true
	s.read(c, found)
	if s.rec == nil && s.err == nil {
		s.issued = nil
	}
	switch {
	case s.err == nil && s.fate == replaced:
		return ErrReplaced
	case s.err == nil && s.rec == nil && s.source == nil:
		return ErrNotFound
	}
	return s.err
}

// Err loads the session and returns what stands between it and its store now:
// nil, a failure of the store (ErrStore), a call that was refused, or
// ErrReplaced. While it is a failure of the store the session only looks
// anonymous: guard with Err whatever a handler does outside its response. A
// Save or Reload that succeeds clears it.
func (s *Session) Err() error {
	s.lock()
	defer s.unlock()
	if s.err == nil && s.fate == replaced && s.todo.user == "" && !s.todo.logout {
		return ErrReplaced
	}
	return s.err
}
