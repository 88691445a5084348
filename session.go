package session

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/watch"
)

// A Session is a session as one request sees it. [From] returns it. It is safe for concurrent use,
// and may be read after the request.
//
// The first call of a method loads the session from the store (one round trip); a request that
// calls no method costs nothing. Changes are made in memory and committed once, just before the
// first byte of the response. Later changes are committed when the handler returns. Changes that
// a goroutine makes after that are stored only by [Session.Save], [Key.UpdateNow] or [Key.Take].
//
// A request that has loaded its session keeps it until the request ends, even if other requests
// renew its token: its changes are saved.
type Session struct {
	m       *Manager
	ctx     context.Context // of the request
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

// ID returns the id of the session's record. It is not a secret and may be logged and shown,
// because it opens nothing without a key. It stays the same until another user logs in. It is ""
// before the first save and after Logout.
func (s *Session) ID() string { return s.use().record().ID }

// User returns the user of the last Login, or "" while the session is anonymous.
func (s *Session) User() string {
	return s.use().user()
}

// IsNew reports whether the session is not stored yet.
func (s *Session) IsNew() bool { return s.use().record().ID == "" }

// Created returns when the session began, or when Login was last called. It is zero before the
// first save.
func (s *Session) Created() time.Time { return s.use().record().Created }

// LastSeen returns when the session was last used before this request, with a tolerance of 1/20
// of the idle timeout. It is zero before the first save.
func (s *Session) LastSeen() time.Time { return s.use().record().LastSeen }

// Expires returns when the session ends if it is not used again: the earlier of its idle and its
// absolute end. It is zero before the first save.
func (s *Session) Expires() time.Time { return s.use().record().Expires }

// AuthTime returns when Login was last called, or the zero time while the session is anonymous.
// Compare it before a highly sensitive step, and let the user reauthenticate if it is long ago
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

// Remembered reports whether [Session.Remember] has set the end of the session. A pending
// Remember counts.
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

// Ended reports whether the request carries a valid token whose session has ended: it expired, or
// was ended by Logout, by a Revoke method or by a Login of another user. A login page can then say
// "your session has ended, please log in again". Ended returns false on a first visit, for a
// forged token, for a token that a renewal has replaced (see [ErrReplaced]), for one whose browser has
// not proved itself ([ErrUnproven]), while the store fails (see [Session.Err]), and once a user is
// logged in.
func (s *Session) Ended() bool {
	st := s.use()
	return st.carried == carriedEnded && st.user() == ""
}

// Err loads the session and returns why it cannot be committed now: nil, a failure of the store
// ([ErrStore]), the error of a call that was refused, [ErrReplaced], [ErrUnproven], or, once the response has
// begun, why changes were dropped. After a failure of the store the session looks anonymous, so
// check errors.Is(s.Err(), ErrStore) before a handler does something outside its response. A
// successful Save or Reload clears the error.
func (s *Session) Err() error {
	st := s.use()
	err := st.stored.err()
	hasNone := err == ErrReplaced || err == ErrUnproven
	if st.problem.err == nil && hasNone && st.pending.user == "" && !st.pending.logout {
		return err
	}
	return st.problem.err
}

// use returns the state. It loads the session at the first use.
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

// loadNow loads the session, unless another goroutine has loaded it meanwhile. prepare is called
// before the load. If the store panics, the next use tries again.
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
		s.m.log.WarnContext(s.ctx, "session: first used after the first byte of the response, so Vary and Cache-Control are not set; call a method of the session before writing (logged once)")
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
