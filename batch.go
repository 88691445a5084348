package session

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"weak"

	"github.com/coatcheck/session/internal/batch"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/object"
)

// batched implements batch.Session.
type batched struct{ s weak.Pointer[Session] }

// Read implements batch.Session.
func (b batched) Read(f func(name string, raw []byte)) (batch.State, error) {
	s := b.s.Value()
	if s == nil {
		return batch.State{}, batch.ErrOver
	}
	st := s.use()
	if !st.stored.isKnown() {
		return batch.State{}, st.problem.err
	}
	if f == nil {
		return st.summary(), nil
	}
	data, changes := st.data(), st.pending.changes
	if len(changes) == 0 { // linear: no search for each name
		for values := object.Scan(data); values.Next(); {
			if name, ok := nameOf(string(values.Name)); ok {
				f(name, values.Raw)
			}
		}
		return st.summary(), nil
	}
	for _, quoted := range changes.Names(data) {
		if name, ok := nameOf(quoted); ok {
			f(name, changes.Value(data, quoted))
		}
	}
	return st.summary(), nil
}

// Commit implements batch.Session.
func (b batched) Commit(ctx context.Context, c batch.Commit) (is batch.State, err error) {
	s := b.s.Value()
	if s == nil {
		return batch.State{}, batch.ErrOver
	}
	if ctx == nil {
		ctx = s.ctx
	}
	err = s.transactWithin(ctx, func(t *tx) error {
		s.saves.Add(1)
		err := t.commitBatch(&c)
		is = t.summary()
		return err
	})
	return is, err
}

// summary returns what package gorillastore knows of a session.
func (st *state) summary() batch.State {
	return batch.State{ID: st.record().ID, User: st.user(), IsAmbiguous: st.stored.status == statusAmbiguous && !st.pending.logout}
}

// commitBatch makes the changes of c pending and commits. It repeats this while the commit has
// found values with the prefix of c that other requests have added.
func (t *tx) commitBatch(c *batch.Commit) error {
	if err := t.refusesBatch(c); err != nil {
		t.problem.report()
		return err
	}
	if t.phase() != phaseOpen {
		t.takeBack()
	}
	for isFirst := true; ; isFirst = false {
		before := t.pending
		t.keepBatch(c, isFirst)
		if t.phase() != phaseOpen {
			t.takeBack()
		}
		asksEnd := t.pending.logout || t.pending.hasEnded(time.Now())
		err := t.commit()
		if err != nil && !isEnding(err) && !t.problem.isLasting() {
			t.withdraw(c, before)
		}
		err = t.saved(err, asksEnd)
		if err != nil || c.Prefix == "" || len(t.namesWith(c.Prefix)) == 0 {
			return err
		}
	}
}

// refusesBatch returns an error if nothing of c may become pending.
func (t *tx) refusesBatch(c *batch.Commit) error {
	switch {
	case !t.stored.isKnown(), t.problem.isLasting() && !c.Logout:
		return t.problem.err
	case len(c.Login) > maxUser:
		return fmt.Errorf("session: Login: the user has %d bytes, the limit is %d", len(c.Login), maxUser)
	case t.phase() == phaseOpen:
		return nil
	case c.Login != "":
		t.tooLate("Login", t.changesUser(c.Login))
		return lateError("Login")
	case c.Renew && !t.m.keyless && t.stored.status != statusNone:
		t.tooLate("Renew", false)
		return lateError("Renew")
	}
	return nil
}

// keepBatch makes the changes of c pending. Only the first time they are more than the removal
// of the values with the prefix of c.
func (t *tx) keepBatch(c *batch.Commit, isFirst bool) {
	p := &t.pending
	if isFirst && c.Logout {
		t.logout(p)
	}
	if isFirst && c.Login != "" {
		t.login(p, c.Login)
	}
	if isFirst && c.Renew && !t.m.keyless {
		t.renew(p)
	}
	if c.Prefix != "" {
		for _, quoted := range t.namesWith(c.Prefix) {
			t.keep(body.Change{Call: "Save", Name: quoted})
		}
	}
	if !isFirst {
		return
	}
	for _, change := range c.Changes {
		quoted, _ := json.Marshal(change.Name) // a string always encodes
		kept := body.Change{Call: "Save", Name: string(quoted), Raw: change.Raw, Again: change.Merge}
		if change.Merge != nil {
			kept.In = notJSON
		}
		t.keep(kept)
	}
}

// withdraw drops what keepBatch has made pending, after a commit that failed. A Logout stays
// pending, and then nothing of before is.
func (t *tx) withdraw(c *batch.Commit, before pending) {
	if c.Logout {
		before = pending{logout: t.pending.logout}
	}
	t.pending = before
}

// namesWith returns the names, in JSON, of the values whose names begin with prefix.
func (t *tx) namesWith(prefix string) (names []string) {
	for _, quoted := range t.pending.changes.Names(t.data()) {
		if name, ok := nameOf(quoted); ok && strings.HasPrefix(name, prefix) {
			names = append(names, quoted)
		}
	}
	return names
}
