package session

import (
	"context"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// This file is about when: commit.go says what and how.

// Save commits now, instead of at the first byte of the response, and counts as
// use: it touches the session if that is due. It takes ctx's values and
// deadline, not its cancellation. The error it returns is the caller's to handle
// and does not replace the response. It is ErrEnded if the session has ended, and
// ErrReplaced if its token was replaced; what was changed is dropped then.
func (s *Session) Save(ctx context.Context) error {
	return s.saveAfter(ctx, func() error { return nil })
}

// saveAfter is Save after prepare, which is called once the session is loaded. No Reload
// comes between it and the commit. If it returns an error, nothing is saved.
func (s *Session) saveAfter(ctx context.Context, prepare func() error) error {
	s.changing.Lock()
	defer s.done()
	c := storectx.Within(ctx, s.m.timeout)
	defer c.Release()
	s.lockWithin(c)
	wantsEnd := s.todo.logout || s.todo.hasEnded(time.Now())
	if err := prepare(); err != nil {
		s.mu.Unlock()
		return err
	}
	s.saves++
	if s.at != open {
		s.takeBack() // what an earlier Save failed to do in time
	}
	s.mu.Unlock()
	err := commit{s, c, &s.todo}.run()
	if err == nil && !wantsEnd {
		err = s.stored.over()
	}
	if err == nil {
		err = s.touch(c, time.Now())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil && s.problem.late():
		err = s.problem.err // saved, but for the call that came too late
	case err == nil:
		s.problem = problem{}
	case !isEnding(err) && s.problem.err == nil:
		s.problem = problem{passing, err}
	}
	s.problem.report()
	return err
}

// Reload forgets all unsaved changes, a Login or Logout among them, and reads
// the store again. A long request learns this way that its session has ended:
// User is "" then, and Reload returns ErrEnded, or ErrReplaced if its token was
// replaced by a Login or an explicit renewal. It takes ctx's values and deadline, not
// its cancellation.
func (s *Session) Reload(ctx context.Context) error {
	s.changing.Lock()
	defer s.done()
	c := storectx.Within(ctx, s.m.timeout)
	defer c.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saves++
	was := s.stored
	if s.loaded.IsZero() {
		s.loaded = c.Began()
	}
	var found candidates
	switch {
	case was.maybe != nil:
		found.refs[0], found.refs[1], found.n = was.maybe.ref, was.held, 2
	case was.held.ID != "":
		found.refs[0], found.n = was.held, 1
	case was.is != nothing:
		found = s.carry()
	}
	s.todo = pending{}
	s.stored.is, s.problem = unknown, problem{lasting, errPanicked} // until it is known to be otherwise
	switch {
	case found.isCrowd:
		s.stored, s.problem = stored{is: twins}, problem{}
	case found.n == 0:
		s.stored, s.problem = stored{is: nothing}, problem{}
	default:
		s.settle(look{s, c}.find(&found, &was))
	}
	switch {
	case s.problem.err != nil:
		return s.problem.err
	case was.maybe != nil && s.stored.is == live && s.stored.held == was.maybe.ref:
		s.cookie = cookie{carry, was.maybe.token, was.maybe.isAutomatic}
	case s.stored.is != live && s.cookie.do == carry:
		s.cookie = cookie{}
	}
	return s.stored.over()
}

// A header is what the session asks of the response's header.
type header struct {
	used   bool // it was loaded or looked for
	found  bool // and a stored one was there
	user   bool // of somebody who is logged in
	cookie cookie
	life   time.Duration // of the cookie, 0: for as long as the browser is open
}

// beforeFirstByte commits and closes the header: what needs a cookie comes too
// late from here on, or, with Hijack, already. It returns an error only if that
// must replace the response.
func (s *Session) beforeFirstByte(hijack bool) (header, error) {
	s.changing.Lock()
	defer s.done()
	s.mu.Lock()
	if hijack {
		s.takeBack()
		s.at = sent
	}
	var err error
	saved := s.cookie.do == carry && s.brought != noToken
	if s.stored.is != unread && !s.problem.reported() && s.plan() != rest {
		s.mu.Unlock()
		err = s.commitNow()
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	isTouched := s.touchIsDue(s.loaded) // when the handler has returned
	if isTouched && s.cookie.do == leave {
		s.sendAgain(true)
		saved = true
	}
	if saved && err == nil {
		s.confirm()
	}
	s.at = max(s.at, sent)
	h := header{used: s.stored.is != unread, found: s.stored.is > nothing, cookie: s.cookie}
	if rec := s.stored.shown(); rec != nil {
		h.user = rec.User != ""
		switch {
		case s.cookie.do != carry, !s.m.persistent && !body.IsRemembered(rec.Data):
		case !s.m.keyless:
			h.life = time.Until(rec.Deadline)
		case isTouched:
			h.life = time.Until(s.m.used(rec).Expires)
		default:
			h.life = time.Until(rec.Expires)
		}
	}
	return h, err
}

// failResponse lets err replace the response, also if a Save or Reload has returned err
// to the program.
func (s *Session) failResponse(err error) {
	s.changing.Lock()
	defer s.done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == open {
		s.problem = problem{lasting, err}
	}
}

// sendAgain has the response carry the token that the request brought, if it is
// another program's and the cookie persistent: a renewal does not replace the token, and
// the browser is to keep the cookie for as long as the session lives now. isAutomatic is
// whether the program has not asked for that, by Remember. mu is held.
func (s *Session) sendAgain(isAutomatic bool) {
	if s.m.keyless && (s.m.persistent || !isAutomatic) && s.at == open && s.cookie.do == leave {
		s.cookie = cookie{do: carry, isAutomatic: isAutomatic}
	}
}

// confirm looks whether a cookie that was not made by the commit of just now has the newest
// token of a live session still, and forgets it if not: the browser, which had
// another one before, may have a newer one since. The token of a Login also leaves if
// another Login has made a newer one: it keeps full access, and may be the only one of
// the two that arrives. If the store cannot say, the cookie leaves. The cookie of an
// automatic renewal does neither: the one that the browser has is as good. mu is held.
func (s *Session) confirm() {
	if s.cookie.do != carry {
		return
	}
	c := s.context()
	defer c.Release()
	rec, err := s.m.load(c, s.stored.held.ID)
	if err != nil {
		if s.cookie.isAutomatic {
			s.cookie = cookie{}
		}
		return
	}
	key := s.stored.held.Key
	is, _ := statusOf(rec)
	if is != live || isTaken(rec, s.stored.rec.User) || !body.HasAccess(rec.Data, key, c.Began()) || s.cookie.isAutomatic && !body.IsCurrent(rec.Data, key) {
		s.cookie = cookie{}
	}
}

// headerLeft closes the header of a response that left without our knowledge,
// and if that matters logs the fix, once.
func (s *Session) headerLeft(path string) {
	s.changing.Lock()
	defer s.done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stored.is != unread {
		s.takeBack()
		if s.m.bypassed.CompareAndSwap(false, true) {
			s.m.log.ErrorContext(s.ctx, "session: the response was not written to the http.ResponseWriter that Manager.Handler gives to its handler, so that no cookie was set: wrap the whole framework (sessions.Handler(engine)), not a handler inside it (logged once)", "path", path)
		}
	}
	s.at = sent
}

// abandon drops what is pending, except a Logout: the handler panicked.
func (s *Session) abandon() {
	s.changing.Lock()
	defer s.done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo = pending{logout: s.todo.logout}
	if s.stored.is != unknown {
		s.problem = problem{}
	}
}

// finish commits what was changed after the first byte, now that the handler
// has returned, and touches the record if that is due.
func (s *Session) finish(answered bool) {
	s.changing.Lock()
	defer s.done()
	s.mu.Lock()
	s.unwatch()
	ready := answered && s.stored.is != unread && !s.problem.reported() && (!s.problem.lasts() || s.todo.logout)
	known := s.problem.err
	s.mu.Unlock()
	if !ready {
		return
	}
	if s.plan() != rest {
		if err := s.commitNow(); err != nil && err != known {
			s.mu.Lock()
			s.report(err)
			s.mu.Unlock()
		}
	}
	s.touch(nil, s.loaded)
}

// commitNow is a commit for the response. That no session is there to hold a change
// does not replace the response: Err tells of it.
func (s *Session) commitNow() error {
	c := s.context()
	defer c.Release()
	err := commit{s, c, &s.todo}.run()
	if !isEnding(err) {
		return err
	}
	if err != ErrReplaced { // which Err returns anyway
		s.mu.Lock()
		s.problem = problem{passingReported, err}
		s.mu.Unlock()
	}
	return nil
}

// plan is what a commit would do next.
func (s *Session) plan() action {
	withheld := s.withheld && s.stored.is == nothing && s.todo.holds()
	return plan(s.at, &s.stored, &s.todo, s.problem, withheld, time.Now())
}
