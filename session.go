package session

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/watch"
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
	ctx     context.Context // the request's
	arrived time.Duration   // when the request arrived, relative to Manager.start
	origin  origin          // the request, or Manager.Edit

	phase     atomicPhase
	isPassive atomic.Bool                   // the request is not the user's doing
	watcher   atomic.Pointer[watch.Watcher] // of Done; nil: Done was not called

	state   atomic.Pointer[state] // nil: not loaded
	loading sync.Mutex            // serializes the first use
	load    tx                    // the first use; a field, so that it costs no allocation

	mu    sync.Mutex   // serializes transactions
	saves atomic.Int64 // how often Save, Reload, Take and UpdateNow were called
}

// ID returns the session's public handle: the record's id, safe to log and to
// show, for it opens nothing without its key. It stays the same until another
// user logs in. It is "" before the first save and after Logout.
func (s *Session) ID() string { return s.use().record().ID }

// User returns who Login bound the session to, or "" while it is anonymous.
func (s *Session) User() string {
	return s.use().user()
}

// IsNew reports whether nothing of the session is stored yet.
func (s *Session) IsNew() bool { return s.use().record().ID == "" }

// Created returns when the session began; Login begins it anew. It is zero
// before the first save.
func (s *Session) Created() time.Time { return s.use().record().Created }

// LastSeen returns when the session was last used before this request, give or
// take 1/20 of the idle timeout. It is zero before the first save.
func (s *Session) LastSeen() time.Time { return s.use().record().LastSeen }

// Expires returns when the session ends if nobody uses it again: the nearer of
// its idle and its absolute end. It is zero before the first save.
func (s *Session) Expires() time.Time { return s.use().record().Expires }

// AuthTime returns when Login was last called; the zero time while the session is
// anonymous. If it is long ago, ask for the password again before a highly sensitive step
// (OWASP ASVS 5, 7.5.3).
func (s *Session) AuthTime() time.Time {
	st := s.use()
	switch rec := st.record(); {
	case st.pending.user != "":
		return st.pending.at
	case rec.User != "":
		return rec.Created
	}
	return time.Time{}
}

// Remembered reports whether Remember set the session's end, in place of both clocks:
// a pending Remember counts.
func (s *Session) Remembered() bool {
	st := s.use()
	rec, p := st.record(), &st.pending
	switch {
	case !p.remember.IsZero():
		return true
	case rec == noRecord, p.user != "" && p.user != rec.User: // the Login begins another session
		return false
	}
	return body.IsRemembered(st.stored.rec.Data)
}

// Ended reports whether the request brought a token of ours whose session has ended: it
// expired, a Logout or Revoke ended it, or a Login of another user did. A login page says
// then "your session has ended, please log in again". Ended is false on a first visit, for a
// forged token, for a token that a renewal has replaced (see ErrReplaced), while the store
// fails (see [Session.Err]), and once a user is logged in.
func (s *Session) Ended() bool {
	st := s.use()
	return st.carried == carriedEnded && st.user() == ""
}

// Err loads the session and returns what stands between it and its store now:
// nil, a failure of the store (ErrStore), a call that was refused, ErrReplaced, or
// once the response has begun why changes were dropped. While it is a failure of the store the session only looks
// anonymous: guard with errors.Is(s.Err(), ErrStore) whatever a handler does
// outside its response. A Save or Reload that succeeds clears it.
func (s *Session) Err() error {
	st := s.use()
	if st.problem.err == nil && st.stored.err() == ErrReplaced && st.pending.user == "" && !st.pending.logout {
		return ErrReplaced
	}
	return st.problem.err
}

// use returns the state, and loads the session if this is the first use.
func (s *Session) use() *state {
	if st := s.state.Load(); st != nil {
		return st
	}
	return s.loadNow(func(*tx) {})
}

// useWithin is use for a call that the program has given a context.
func (s *Session) useWithin(ctx context.Context) *state {
	if st := s.state.Load(); st != nil {
		return st
	}
	return s.loadNow(func(t *tx) { t.within(ctx) })
}

// loadNow loads the session, unless another goroutine has done so meanwhile. If the store
// panics, the next use tries again. prepare is called before the load.
func (s *Session) loadNow(prepare func(t *tx)) *state {
	s.loading.Lock()
	if st := s.state.Load(); st != nil {
		s.loading.Unlock()
		return st
	}
	t := &s.load
	if t.s != nil {
		t = new(tx) // the store has panicked before
	}
	t.s, t.m = s, s.m
	defer t.deliver()
	defer s.loading.Unlock()
	defer t.release()
	if s.phase.load() == phaseSent && s.m.lateUse.CompareAndSwap(false, true) {
		s.m.log.WarnContext(s.ctx, "session: first used after the first byte of the response: Vary and Cache-Control could not be set; call a method of the session before writing (logged once)")
	}
	prepare(t)
	t.loadSession()
	s.state.Store(&t.state)
	return &t.state
}

// MarkPassive marks the request as not the user's doing: a poll, a prefetch, a request for the
// time that is left. Such a request moves neither LastSeen nor the idle end, whatever it changes,
// unless it calls Login. Call MarkPassive before any other method of the session, at the latest
// before Save and before the first byte of the response. It does not load the session.
func (s *Session) MarkPassive() {
	if s.refuses("MarkPassive") == nil {
		s.isPassive.Store(true)
	}
}
