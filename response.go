package session

import (
	"errors"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// A header describes the header fields that the session sets.
type header struct {
	isUsed  bool // the handler has used the session
	exists  bool // a token in the request opened a session
	hasUser bool // the response may contain data of a user: a user is logged in, the session has ended since the load, or a Login was not saved
	cookie  cookie
	life    time.Duration // of the cookie; 0: until the browser is closed
}

// header returns the header fields that the session sets. isTouched is whether the session is
// touched after the handler.
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

// beforeFirstByte commits and ends phaseOpen: calls that need a cookie are too late after it. With
// hijack they are too late for this commit already. It returns an error only if the error has to
// replace the response.
func (s *Session) beforeFirstByte(hijack bool) (h header, err error) {
	if !s.isUsed() {
		return header{}, nil
	}
	s.mu.Lock()
	st := s.state.Load()
	sendsAgain := s.m.keyless && s.isTouchDue(&st.stored, st.loaded) && s.m.sendsAgain(st.stored.rec)
	if !hijack && !sendsAgain && st.plan(s.phase.load(), st.pending.now()) == actNothing && st.cookie.action == cookieKeep {
		s.phase.advance(phaseSent)
		s.mu.Unlock()
		return s.header(st, false), nil
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

// isUsed reports, at the first byte, whether the handler has used the session. If not, isUsed
// ends phaseOpen.
func (s *Session) isUsed() bool {
	s.loading.Lock()
	defer s.loading.Unlock()
	if s.state.Load() != nil {
		return true
	}
	s.phase.advance(phaseSent)
	return false
}

// confirmCookie asks the store whether the token that an earlier Save has made is still the
// current one, and otherwise does not send it: the browser may have a newer cookie. The token of
// a Login is also sent if another Login has made a newer one, because it keeps full access and may
// be the only one that arrives. If the store fails, the cookie is sent. The cookie of an automatic
// renewal is sent in neither case, because the browser's cookie is still valid.
func (t *tx) confirmCookie() {
	if t.cookie.action != cookieSend {
		return
	}
	rec, err := loadRecord(t.context(), t.m.store, t.stored.ref.ID)
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

// headerLeft ends phaseOpen for a response that another writer has sent. If the session needed a
// header field, headerLeft logs how to fix that, once.
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
		s.m.log.ErrorContext(s.ctx, "session: response not written to the http.ResponseWriter of Manager.Handler, so no cookie was set; wrap the whole framework (sessions.Handler(engine)), not a handler inside it (logged once)", "path", path)
	}
}

// abandon drops all pending changes except a Logout, after a panic of the handler.
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

// finish commits changes that were made after the first byte, when the handler has returned, and
// touches the record if that is due. If the store has failed, finish does not call it again.
// isAnswered is whether the response is the handler's.
func (s *Session) finish(isAnswered bool) {
	s.unwatch()
	s.mu.Lock()
	s.phase.advance(phaseReturned)
	st := s.state.Load()
	if st == nil || st.plan(phaseReturned, st.pending.now()) == actNothing && !s.isTouchDue(&st.stored, st.loaded) {
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

// commitForResponse commits. An error that says that no session can hold the changes does not
// replace the response: Err returns it.
func (t *tx) commitForResponse() error {
	err := t.commit()
	if !isEnding(err) {
		return err
	}
	if err != ErrReplaced && err != ErrUnproven { // Err returns these in any case
		t.problem = problem{problemPassingReported, err}
	}
	return nil
}
