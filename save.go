package session

import (
	"cmp"
	"context"
	"time"
)

// Save commits now, instead of at the first byte of the response. It counts as use: it touches
// the session if that is due. Save takes the values and the deadline of ctx, not its cancellation.
// The caller handles the error, which does not replace the response: an [ErrStore],
// [ErrTooLarge], [ErrEnded] if the session has ended, [ErrReplaced] if its token was replaced, or
// [ErrUnproven]. After the last three the changes are dropped.
func (s *Session) Save(ctx context.Context) error {
	if err := s.refuses("Save"); err != nil {
		return err
	}
	return s.saveAfter(ctx, func(*tx) error { return nil })
}

// saveAfter calls prepare and then saves, in one transaction. If prepare returns an error,
// nothing is saved.
func (s *Session) saveAfter(ctx context.Context, prepare func(t *tx) error) error {
	return s.transactWithin(ctx, func(t *tx) error {
		asksEnd := t.pending.logout || t.pending.hasEnded(time.Now())
		if err := prepare(t); err != nil {
			return err
		}
		s.saves.Add(1)
		if t.phase() != phaseOpen {
			t.takeBack() // calls that an earlier Save has failed to commit in time
		}
		return t.saved(t.commit(), asksEnd)
	})
}

// saved completes a Save whose commit has returned err: it touches the session if that is due,
// and returns what the program is told. asksEnd is whether the commit had to end the session.
func (t *tx) saved(err error, asksEnd bool) error {
	if err == nil && !asksEnd {
		err = t.stored.err()
	}
	if err == nil {
		err = t.touch(time.Now())
	}
	switch {
	case err == nil && t.problem.isLate():
		err = t.problem.err // all is saved but the call that came too late
	case err == nil:
		t.problem = problem{}
	case !isEnding(err) && t.problem.err == nil:
		t.problem = problem{problemPassing, err}
	}
	t.problem.report()
	return err
}

// Reload drops all pending changes, Login and Logout among them, and loads the session again. A
// long-lived request learns by it that its session has ended: Reload then returns [ErrEnded], or
// [ErrReplaced] if a Login or an explicit renewal has replaced its token, and User returns "". A
// session that the request had keeps its proof ([Options].DeviceBound), however old that is.
// Reload takes the values and the deadline of ctx, not its cancellation.
func (s *Session) Reload(ctx context.Context) error {
	if err := s.refuses("Reload"); err != nil {
		return err
	}
	if s.state.Load() == nil {
		st := s.useWithin(ctx)
		return cmp.Or(st.problem.err, st.stored.err())
	}
	return s.transactWithin(ctx, func(t *tx) error {
		s.saves.Add(1)
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
		t.cookie = was.unresolved.cookie()
	case t.stored.status != statusLive && t.cookie.action == cookieSend:
		t.cookie = cookie{}
	}
	return t.stored.err()
}
