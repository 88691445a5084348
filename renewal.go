package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// A renewal replaces the key of a session and keeps its id. It is explicit (Renew, Remember, or a
// Login of the same user) or automatic (Options.RenewAfter, see maintenanceOf). draftNext makes the
// new token and changes the keys in the record, package body decides which keys keep their access,
// and resolve finds out whether a renewal was stored whose write had an unknown outcome.

// Renew gives the session a new token. Id, values and absolute end stay. Call it when the
// privileges of the session change (OWASP Session Management Cheat Sheet, "Renew the Session ID
// After Any Privilege Level Change"). In-flight requests with the previous token lose nothing:
// for [Options].RenewGrace, by default 10 seconds, they see the session as it was just before, and
// their changes are kept. After that the previous token gives [ErrReplaced], and Done is closed
// for the requests that hold it. Of concurrent Renews one makes a token. A Renew or Remember of a
// request whose own token was replaced meanwhile is dropped ([EventDropped], and Err returns the
// reason). A session that is not stored yet needs no Renew.
//
// The grace is measured by the clock of the process that renews. In a process whose clock is
// ahead it is shorter by the difference.
//
// With Options.Tokens, Renew changes nothing.
func (s *Session) Renew() {
	if s.refuses("Renew") != nil || s.m.keyless {
		return
	}
	s.revise("Renew", func(t *tx, p *pending) { t.renew(p) })
}

// renew adds a Renew to p. A session that is not stored needs none.
func (t *tx) renew(p *pending) {
	p.renew = p.renew || !p.logout && t.stored.status != statusNone
}

// Remember makes the session end d from now, instead of by [Options].IdleTimeout and Lifetime,
// and its cookie survive the closing of the browser. It issues a new token as [Session.Renew]
// does, but not with Options.Tokens. Renew and a Login of the same user keep the end; Logout and a
// later Login of another user end the session. A d of zero or less fails the request. Browsers
// keep a cookie for at most 400 days (RFC 6265bis, 5.5). A remembered session has no idle timeout,
// so it does not meet AAL2; with more than 30 days it does not meet AAL1 either (NIST SP 800-63B-4,
// 2.2.3 and 2.1.3).
func (s *Session) Remember(d time.Duration) {
	if s.refuses("Remember") != nil {
		return
	}
	if d <= 0 {
		s.refuse(errors.New("session: Remember: the duration is not positive"))
		return
	}
	s.revise("Remember", func(_ *tx, p *pending) { p.remember = milliseconds(time.Now().Add(d)) })
}

// dropRenewal drops a Renew or Remember of a request whose token was replaced meanwhile: a new
// token would have more access than the request's own. If that renewal was explicit, the Renew is
// done already; otherwise the drop is reported. A Login is an authentication and is never
// dropped.
func (t *tx) dropRenewal(p *pending) {
	st := &t.stored
	if !p.needsToken() || p.user != "" || st.frozen == nil && body.HasAccess(st.rec.Data, st.ref.Key, time.Now()) {
		return
	}
	call := ""
	switch {
	case !p.remember.IsZero():
		call = "Remember"
	case st.frozen == nil:
		call = "Renew"
	}
	p.renew, p.remember = false, time.Time{}
	if call != "" {
		err := fmt.Errorf("session: %s: the request's token was replaced meanwhile: call it in a request with the newer token", call)
		t.note(EventDropped, st.rec, err)
		t.problem = problem{problemLate, err}
	}
}

// maintenanceOf returns the maintenance that st.rec needs. A key that this request made needs no
// maintenance, because the key did not come with the request. A key that was overtaken is not
// renewed: the client now has an older key, which the response would overwrite.
func (t *tx) maintenanceOf(st *stored, now time.Time) body.Maintenance {
	if st.isOwn {
		return body.Maintenance{}
	}
	renewAfter := t.m.renewAfter
	if st.rec.User == "" {
		renewAfter = 0
	}
	due := body.MaintenanceFor(st.rec.Data, st.ref.Key, st.rec.Created, renewAfter, now)
	due.Renew = due.Renew && !st.isOvertaken
	return due
}

// resolve asks the store whether the Save of the renewal d was applied, after the Save has
// returned err, an unknown outcome. It returns nil if the Save was applied, otherwise err. A Save
// was applied if the key of d has access. (The key of d need not be the current key: another Login
// may have replaced it since.) If the record cannot be loaded, a later Reload finds the outcome
// out.
func (t *tx) resolve(d draft, err error) error {
	t.stored.unresolved = &d.issued
	rec, failed := t.outcome(d.rec.ID)
	if failed == nil && rec != nil && body.HasAccess(rec.Data, d.ref.Key, time.Now()) {
		return nil
	}
	return err
}

// outcome loads a record after a Save of unknown outcome. The load has a deadline of its own,
// because a slow store may have used up the deadline of the commit.
func (t *tx) outcome(id string) (*Record, error) {
	c := storectx.New(t.s.ctx, t.m.timeout)
	defer c.Release()
	return loadRecord(c, t.m.store, id)
}
