package session

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/storectx"
)

// A Session is what one request sees of a session. From returns it; it may be
// used by any number of goroutines, and after the request for reading.
//
// The first method called loads the session from the store (one round trip); a
// request that calls none costs nothing. Changes are made in memory and
// committed once, just before the first byte of the response; what is changed
// later is saved when the handler returns. What is changed after that, by a goroutine
// that the handler has left behind, is stored only by Save, Key.UpdateNow or Key.Take.
//
// A request that has loaded its session keeps it for as long as it lasts, also
// while other requests renew its token: what it changes is saved.
type Session struct {
	m       *Manager
	ctx     context.Context  // the request's
	arrived time.Duration    // the request did, since Manager.start
	source  source           // nil: detached, made by Manager.List
	first   storectx.Context // of the first call of the store; constant once that was made

	// changing is held by whoever changes or commits, one at a time. It is taken
	// before mu.
	changing sync.Mutex

	// mu guards the fields below. It is held while loading, and never during a
	// commit's calls of the store: nobody who reads waits for a commit.
	mu         sync.Mutex
	at         phase
	brought    brought
	withheld   bool // the browser may have kept back a cookie that a new anonymous session would overwrite
	background bool // the request is not the user's doing
	stored     stored
	saves      int       // how often Save, Reload, Take and UpdateNow were called
	loaded     time.Time // when the session was first looked for in the store
	todo       pending
	cookie     cookie
	problem    problem
	watched    *waiter // for Done
	events     []Event // to hand over when the locks are released
}

// ID returns the session's public handle: the record's id, safe to log and to
// show, for it opens nothing without its key. It stays the same until another
// user logs in. It is "" before the first save and after Logout.
func (s *Session) ID() string { return s.record().ID }

// User returns who Login bound the session to, or "" while it is anonymous.
func (s *Session) User() string {
	s.lock()
	defer s.unlock()
	if s.todo.user != "" {
		return s.todo.user
	}
	return s.visible().User
}

// IsNew tells whether nothing of the session is stored yet.
func (s *Session) IsNew() bool { return s.record().ID == "" }

// Created returns when the session began; Login begins it anew. It is zero
// before the first save.
func (s *Session) Created() time.Time { return s.record().Created }

// LastSeen returns when the session was last used before this request, give or
// take 1/20 of the idle timeout. It is zero before the first save.
func (s *Session) LastSeen() time.Time { return s.record().LastSeen }

// Expires returns when the session ends if nobody uses it again: the nearer of
// its idle and its absolute end. It is zero before the first save.
func (s *Session) Expires() time.Time { return s.record().Expires }

// Authenticated returns when Login was last called. It is zero while the
// session is anonymous. If it is long ago, ask for the password again before a
// highly sensitive step (OWASP ASVS 5, 7.5.3).
func (s *Session) Authenticated() time.Time {
	s.lock()
	defer s.unlock()
	switch rec := s.visible(); {
	case s.todo.user != "":
		return s.todo.at
	case rec.User != "":
		return rec.Created
	}
	return time.Time{}
}

// Expired tells whether the request brought a token of ours whose session is
// over: it ran out, or was ended, or gave way to another user's. That is the time
// to say "your session has ended, please log in again". It is false on a first
// visit, for a forged token, while the store fails (see Err), and once somebody
// is logged in.
func (s *Session) Expired() bool {
	s.lock()
	defer s.unlock()
	return s.brought == overToken && s.todo.user == "" && s.visible().User == ""
}

// Keys returns the names of the values, sorted. With Options.Tokens another program may
// use names that NewKey refuses: those are left out.
func (s *Session) Keys() []string {
	s.lock()
	defer s.unlock()
	var names []string
	for _, quoted := range s.todo.changes.Names(s.base()) {
		if name, ok := nameOf(quoted); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Err loads the session and returns what stands between it and its store now:
// nil, a failure of the store (ErrStore), a call that was refused, ErrReplaced, or
// once the response has begun why changes were dropped. While it is a failure of the store the session only looks
// anonymous: guard with errors.Is(s.Err(), ErrStore) whatever a handler does
// outside its response. A Save or Reload that succeeds clears it.
func (s *Session) Err() error {
	s.lock()
	defer s.unlock()
	if s.problem.err == nil && s.stored.over() == ErrReplaced && s.todo.user == "" && !s.todo.logout {
		return ErrReplaced
	}
	return s.problem.err
}

// record returns a copy of visible, or of an empty record.
func (s *Session) record() Record {
	s.lock()
	defer s.unlock()
	return *s.visible()
}

var noRecord = new(Record)

// visible returns the record that the program sees, an empty one if none. s.mu
// is held.
func (s *Session) visible() *Record {
	if rec := s.stored.shown(); rec != nil && !s.todo.logout {
		return rec
	}
	return noRecord
}

// base returns the stored values that the changes apply to. Another user's are
// not among them. s.mu is held.
func (s *Session) base() []byte {
	rec := s.visible()
	if s.todo.user != "" && rec.User != "" && rec.User != s.todo.user {
		return nil
	}
	return rec.Data
}

// value returns a member's raw value, or nil.
func (s *Session) value(name string) []byte {
	s.lock()
	defer s.unlock()
	return s.todo.changes.Value(s.base(), name)
}

// lock locks mu and sees to it that the session is loaded.
func (s *Session) lock() { s.lockWithin(nil) }

// lockWithin is lock with the context of a call that the program gave one.
func (s *Session) lockWithin(c *storectx.Context) {
	s.mu.Lock()
	if s.stored.is != unread {
		return
	}
	isLoaded := false
	defer func() {
		if !isLoaded {
			s.mu.Unlock() // the store panicked: a caller that recovers must not wait for ever
		}
	}()
	if s.at == sent && s.m.lateUse.CompareAndSwap(false, true) {
		slog.WarnContext(s.ctx, "session: first used after the first byte of the response: Vary and Cache-Control could not be set; call a method of the session before writing (logged once)")
	}
	s.load(c)
	isLoaded = true
}

// context returns a context for a load, or for all calls of the store in one
// commit. The caller releases it. The first costs no allocation.
func (s *Session) context() *storectx.Context {
	if !s.first.Began().IsZero() {
		return storectx.New(s.ctx, s.m.timeout)
	}
	s.first.Begin(s.ctx, s.m.timeout)
	return &s.first
}

// unlock unlocks mu and hands over the events noted under it.
func (s *Session) unlock() {
	events := s.events
	s.events = nil
	s.mu.Unlock()
	for _, e := range events {
		s.m.onEvent(s.ctx, e)
	}
}

// done ends what changing was taken for, and hands over the events.
func (s *Session) done() {
	s.changing.Unlock()
	if s.m.onEvent != nil {
		s.mu.Lock()
		s.unlock()
	}
}

// note keeps an event until the session's locks are released. s.mu is held.
func (s *Session) note(kind EventKind, rec *Record, err error) {
	if s.m.onEvent == nil {
		return
	}
	e := Event{Kind: kind, Err: err}
	if rec != nil {
		e.ID, e.User = rec.ID, rec.User
	}
	s.events = append(s.events, e)
}
