package session

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// This file says when a session is committed: by the program's call, before the first byte
// of the response, and after the handler. commit.go says how.

// Save commits now, instead of at the first byte of the response, and counts as
// use: it touches the session if that is due. It takes ctx's values and
// deadline, not its cancellation. The error it returns is the caller's to handle
// and does not replace the response. It is ErrEnded if the session has ended, and
// ErrReplaced if its token was replaced; what was changed is dropped then.
func (s *Session) Save(ctx context.Context) error {
	return s.saveAfter(ctx, func(*tx) error { return nil })
}

// saveAfter is Save after prepare, in one transaction. If prepare returns an error, nothing is
// saved.
func (s *Session) saveAfter(ctx context.Context, prepare func(t *tx) error) error {
	return s.transactWithin(ctx, func(t *tx) error {
		asksEnd := t.pending.logout || t.pending.hasEnded(time.Now())
		if err := prepare(t); err != nil {
			return err
		}
		s.saves++
		if t.phase() != phaseOpen {
			t.takeBack() // what an earlier Save failed to do in time
		}
		err := t.commit()
		if err == nil && !asksEnd {
			err = t.stored.err()
		}
		if err == nil {
			err = t.touch(time.Now())
		}
		switch {
		case err == nil && t.problem.isLate():
			err = t.problem.err // saved, but for the call that came too late
		case err == nil:
			t.problem = problem{}
		case !isEnding(err) && t.problem.err == nil:
			t.problem = problem{problemPassing, err}
		}
		t.problem.report()
		return err
	})
}

// Reload forgets all unsaved changes, a Login or Logout among them, and reads
// the store again. A long request learns this way that its session has ended:
// User is "" then, and Reload returns ErrEnded, or ErrReplaced if its token was
// replaced by a Login or an explicit renewal. It takes ctx's values and deadline, not
// its cancellation.
func (s *Session) Reload(ctx context.Context) error {
	if s.state.Load() == nil {
		st := s.useWithin(ctx)
		return cmp.Or(st.problem.err, st.stored.err())
	}
	return s.transactWithin(ctx, func(t *tx) error {
		s.saves++
		return t.reload()
	})
}

func (t *tx) reload() error {
	was := t.stored
	if t.loaded.IsZero() {
		t.loaded = t.c.Began()
	}
	var found candidates
	switch {
	case was.unresolved != nil:
		found.refs[0], found.refs[1], found.n = was.unresolved.ref, was.ref, 2
	case was.ref.ID != "":
		found.refs[0], found.n = was.ref, 1
	case was.status != statusNone:
		found = t.carry()
	}
	t.pending = pending{}
	switch {
	case found.isCrowd:
		t.stored, t.problem = stored{status: statusAmbiguous}, problem{}
	case found.n == 0:
		t.stored, t.problem = stored{status: statusNone}, problem{}
	default:
		t.settle(t.find(&found, &was))
	}
	switch {
	case t.problem.err != nil:
		return t.problem.err
	case was.unresolved != nil && t.stored.status == statusLive && t.stored.ref == was.unresolved.ref:
		t.cookie = cookie{cookieSend, was.unresolved.token, was.unresolved.isAutomatic}
	case t.stored.status != statusLive && t.cookie.action == cookieSend:
		t.cookie = cookie{}
	}
	return t.stored.err()
}

// A header is what the session does to the response's header.
type header struct {
	isUsed  bool // the session was looked for
	exists  bool // the request's tokens opened a session
	hasUser bool // the page may be a user's: a user is logged in, the session was lost meanwhile, or a Login was not saved
	cookie  cookie
	life    time.Duration // of the cookie; 0: until the browser is closed
}

// header returns what the session does to the response's header. isTouched is whether the
// session is touched when the handler has returned.
func (s *Session) header(st *state, isTouched bool) header {
	h := header{isUsed: true, exists: st.stored.exists(), hasUser: st.stored.wasLoaded || st.pending.user != "", cookie: st.cookie}
	rec := st.stored.shown()
	if rec == nil {
		return h
	}
	h.hasUser = h.hasUser || rec.User != ""
	switch {
	case st.cookie.action != cookieSend, !s.m.isPersistent(rec) && !body.IsRemembered(rec.Data):
	case !s.m.keyless:
		h.life = time.Until(rec.Deadline)
	case isTouched:
		h.life = time.Until(s.m.used(rec).Expires)
	default:
		h.life = time.Until(rec.Expires)
	}
	return h
}

// beforeFirstByte commits, and ends phaseOpen: a call that needs a cookie is too late from
// here on, and with hijack already in this commit. It returns an error only if that must
// replace the response.
func (s *Session) beforeFirstByte(hijack bool) (h header, err error) {
	if !s.isUsed() {
		return header{}, nil
	}
	s.mu.Lock()
	st := s.state.Load()
	isTouched := s.isTouchDue(&st.stored, st.loaded)
	if !hijack && st.plan(s.phase.load(), time.Now()) == actNothing && st.cookie.action == cookieKeep && !(isTouched && s.m.sendsAgain(st.stored.rec)) {
		s.phase.advance(phaseSent)
		s.mu.Unlock()
		return s.header(st, isTouched), nil
	}
	err = s.transactLocked(func(t *tx) error {
		if hijack {
			t.takeBack()
			s.phase.advance(phaseSent)
		}
		isOlder := t.cookie.action == cookieSend && t.carried != carriedNone && t.phase() == phaseOpen
		var err error
		switch {
		case t.plan() == actNothing:
		case t.problem.isReported():
			t.maintain()
		default:
			err = t.commitForResponse()
		}
		isTouched := s.isTouchDue(&t.stored, t.loaded)
		if isTouched && t.cookie.action == cookieKeep {
			t.sendAgain(t.stored.rec, true)
			isOlder = true
		}
		if isOlder && err == nil {
			t.confirmCookie()
		}
		s.phase.advance(phaseSent)
		h = s.header(&t.state, isTouched)
		return err
	})
	return h, err
}

// isUsed reports whether the session was looked for, at the first byte. If not, it ends
// phaseOpen.
func (s *Session) isUsed() bool {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.state.Load() != nil {
		return true
	}
	s.phase.advance(phaseSent)
	return false
}

// failResponse lets err replace the response, also if a Save or Reload has returned err
// to the program.
func (s *Session) failResponse(err error) {
	_ = s.transact(func(t *tx) error {
		if t.phase() == phaseOpen {
			t.problem = problem{problemLasting, err}
		}
		return nil
	})
}

// isPersistent reports whether the session's cookie survives the closing of the browser
// without a Remember. Where another program reads the record, the record says so.
func (m *Manager) isPersistent(rec *Record) bool {
	if m.isShared {
		return body.IdleOf(rec.Data) > 0
	}
	return m.persistent
}

// sendsAgain reports whether the session's token is sent again when the session is saved or
// touched: a renewal does not replace another program's token, and the browser is to keep a
// persistent cookie for as long as the session lives now.
func (m *Manager) sendsAgain(rec *Record) bool { return m.keyless && m.isPersistent(rec) }

// sendAgain has the response carry the token that the request brought for rec, if that is
// another program's. isAutomatic is whether the program has not asked for that, by Remember.
func (t *tx) sendAgain(rec *Record, isAutomatic bool) {
	if t.m.keyless && (!isAutomatic || t.m.isPersistent(rec)) && t.phase() == phaseOpen && t.cookie.action == cookieKeep {
		t.cookie = cookie{action: cookieSend, isAutomatic: isAutomatic}
	}
}

// confirmCookie removes the cookie that an earlier Save has asked for, unless it has the
// newest token of a live session still: the browser, which had another one before, may have
// a newer one since. The token of a Login also leaves if another Login has made a newer one:
// it keeps full access, and may be the only one of the two that arrives. If the store cannot
// say, the cookie leaves. The cookie of an automatic renewal does neither: the one that the
// browser has is as good.
func (t *tx) confirmCookie() {
	if t.cookie.action != cookieSend {
		return
	}
	rec, err := t.m.load(t.context(), t.stored.ref.ID)
	if err != nil {
		if t.cookie.isAutomatic {
			t.cookie = cookie{}
		}
		return
	}
	key := t.stored.ref.Key
	if !isLive(rec) || isTaken(rec, t.stored.rec.User) || !body.HasAccess(rec.Data, key, t.c.Began()) || t.cookie.isAutomatic && !body.IsCurrent(rec.Data, key) {
		t.cookie = cookie{}
	}
}

// headerLeft ends phaseOpen for a response that another writer has sent, and logs the fix,
// once, if that matters.
func (s *Session) headerLeft(path string) {
	if !s.isUsed() {
		return
	}
	_ = s.transact(func(t *tx) error {
		t.takeBack()
		s.phase.advance(phaseSent)
		return nil
	})
	if s.m.bypassed.CompareAndSwap(false, true) {
		s.m.log.ErrorContext(s.ctx, "session: the response was not written to the http.ResponseWriter that Manager.Handler gives to its handler, so that no cookie was set: wrap the whole framework (sessions.Handler(engine)), not a handler inside it (logged once)", "path", path)
	}
}

// abandon drops what is pending, except a Logout: the handler panicked.
func (s *Session) abandon() {
	if s.state.Load() == nil {
		return
	}
	_ = s.transact(func(t *tx) error {
		t.pending = pending{logout: t.pending.logout}
		if t.stored.isKnown() {
			t.problem = problem{}
		}
		return nil
	})
}

// finish commits what was changed after the first byte, now that the handler has returned,
// and touches the record if that is due. A store that has failed is left alone. isAnswered is
// whether the response is the handler's.
func (s *Session) finish(isAnswered bool) {
	s.unwatch()
	s.mu.Lock()
	s.phase.advance(phaseReturned)
	st := s.state.Load()
	if st == nil || st.plan(phaseReturned, time.Now()) == actNothing && !s.isTouchDue(&st.stored, st.loaded) {
		s.mu.Unlock()
		return
	}
	_ = s.transactLocked(func(t *tx) error {
		known := t.problem.err
		isReady := isAnswered && !t.problem.isReported() && (!t.problem.isLasting() || t.pending.logout)
		switch {
		case !isReady && errors.Is(known, ErrStore):
			return nil
		case isReady && t.plan() != actNothing:
			if err := t.commitForResponse(); err != nil && err != known {
				t.report(err)
			}
		}
		t.maintain()
		return t.touch(t.loaded)
	})
}

// commitForResponse is commit, but that there is no session to hold a change does not
// replace the response: Err tells of it.
func (t *tx) commitForResponse() error {
	err := t.commit()
	if !isEnding(err) {
		return err
	}
	if err != ErrReplaced { // which Err returns anyway
		t.problem = problem{problemPassingReported, err}
	}
	return nil
}
