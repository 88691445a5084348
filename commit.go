package session

import (
	"context"
	"errors"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/storectx"
)

// commit carries out what plan says, until nothing is left to do.
func (t *tx) commit() error {
	for {
		var err error
		isAsked := t.pending.logout || t.pending.hasWork()
		switch t.plan() {
		case actNothing:
			if t.problem.kind == problemPassing {
				t.problem = problem{}
			}
			return nil
		case actRefuse:
			return t.problem.err
		case actEnd:
			err = t.end()
		case actDrop:
			err = t.drop()
		case actCreate:
			err = t.create()
		case actSave:
			err = t.save(&t.pending)
		case actReplace:
			err = t.replace()
		}
		if err != nil {
			return t.fail(err, isAsked)
		}
	}
}

// create stores a new session and asks for its cookie.
func (t *tx) create() error {
	d, err := t.draftNew(nil)
	if err != nil {
		return err
	}
	if err := t.m.store.Create(t.context(), d.rec); err != nil {
		return t.uncreated(d.rec, err)
	}
	t.install(d, &t.pending)
	t.limit()
	return nil
}

// uncreated returns the error of a Create that failed with err. If the store may have created the
// record nevertheless, uncreated deletes the record.
func (t *tx) uncreated(rec *Record, err error) error {
	if err = storeError("create", err); errors.Is(err, ErrIndeterminate) {
		return t.undo(rec, err)
	}
	return err
}

// undo deletes a record whose token no client will get, and returns err. If the store does not
// delete the record, the record stays until it expires. The deletion has a deadline of its own,
// because a slow store may have used up the deadline of the commit.
func (t *tx) undo(rec *Record, err error) error {
	c := storectx.New(t.s.ctx, t.m.timeout)
	defer c.Release()
	_ = t.m.store.Delete(c, rec.ID)
	return err
}

// save applies p to the record and stores the result. If another commit was faster, save applies
// p to the newer record, and the commits of this process then take turns.
func (t *tx) save(p *pending) error {
	n := contender{queues: &t.m.queues, c: t.context(), id: t.stored.rec.ID}
	defer n.leave()
	newer, err := n.join()
	if err != nil {
		return err
	}
	isReported := newer != nil
	if isReported {
		t.merge(newer, false)
	}
	for t.stored.status == statusLive {
		t.dropRenewal(p)
		d, err := t.draftNext(p)
		if err != nil {
			return err
		}
		if d.rec == nil {
			t.install(draft{rec: t.stored.rec}, p)
			return nil
		}
		isLogin := p.user != ""
		err = n.save(d.rec, t.stored.rec.Version)
		if err != nil && d.token != nil && errors.Is(err, ErrIndeterminate) {
			err = t.resolve(d, err)
		}
		switch {
		case err != nil:
		case !isLive(d.rec):
			t.hasEnded(p)
			return nil
		default:
			t.install(d, p)
			if n.leave(); isLogin {
				t.limit()
			}
			return nil
		}
		if newer, err = n.reread(err); err != nil {
			return err
		}
		t.merge(newer, isReported)
		isReported = true
	}
	return nil // the session has ended: commit makes another plan
}

// install makes the stored draft d the session of this request, and makes the response send the
// token of d if that is new. p is the pending work from which d was made.
func (t *tx) install(d draft, p *pending) {
	st := &t.stored
	isRenewal := d.token != nil && st.rec != nil && st.rec.ID == d.rec.ID
	if d.token != nil {
		d.mayBind = d.mayBind || isRenewal && t.cookie.bindID != "" && !t.m.isBound(d.rec) // an earlier commit of this request was the Login
		t.cookie = d.cookie()
		*st = stored{ref: d.ref, isOwn: true}
	} else {
		movesEnd := !p.remember.IsZero() || p.user != "" && body.IsRemembered(d.rec.Data) // a Login removes the earlier end that EndBy had set
		t.sendAgain(d.rec, !movesEnd)
	}
	if d.event != "" {
		t.note(d.event, d.rec, nil)
	}
	if d.lost != nil {
		t.note(EventDropped, d.rec, d.lost)
	}
	if st.frozen != nil {
		st.freezeOwnChanges(p.changes)
	}
	st.status, st.rec, st.due = statusLive, d.rec, body.Maintenance{}
	*p = pending{}
	if isRenewal {
		t.hasNewKey = true
		t.rekey()
		if !d.isAutomatic {
			t.m.watch.Renewed(d.rec.ID, t.m.renewGrace)
		}
	}
}

// hasEnded is called when a tombstone is stored because the time of an EndBy has passed. The
// client may have a newer cookie if another request has renewed the session.
func (t *tx) hasEnded(p *pending) {
	t.m.watch.Ended(t.stored.rec.ID)
	t.note(EventLoggedOut, t.stored.rec, nil)
	mayHaveNewer := t.stored.frozen != nil
	t.lose(statusEnded)
	if t.carried != carriedNone && !mayHaveNewer {
		t.cookie.action = cookieDelete
	}
	*p = pending{}
}

// drop forgets the pending changes, because the request has no session that can hold them. It
// returns the reason.
func (t *tx) drop() error {
	err := t.stored.err()
	switch s := t.stored.status; {
	case s == statusAmbiguous:
		err = errTwins
	case s == statusNone && t.pending.hasEnded(time.Now()):
		err = ErrEnded
	case s == statusNone:
		err = errWithheld
		t.m.warnWithheld(t.s.ctx)
	}
	t.note(EventDropped, &Record{ID: t.stored.ref.ID}, err)
	t.pending = pending{}
	return err
}

// warnWithheld logs that a request from another site could not begin a session.
func (m *Manager) warnWithheld(ctx context.Context) {
	if m.dropped.CompareAndSwap(false, true) {
		m.log.WarnContext(ctx, "session: changes of a request from another site dropped; redirect to a page of this site and make them there; behind a proxy, pass Host on (logged once)")
	}
}

// maintain commits only the maintenance of the session's keys, not the changes of the request. It
// does nothing if the store has failed.
func (t *tx) maintain() {
	if errors.Is(t.problem.err, ErrStore) || !t.stored.isMaintenanceDue(t.phase()) {
		return
	}
	if err := t.save(new(pending)); err != nil {
		_ = t.fail(err, false)
	}
}
