package session

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/token"
)

// A draft is a record that a commit wants to store, and the token that goes
// with it, if there is a new one.
type draft struct {
	rec         *Record // nil: what is stored is right as it is
	ref         token.Ref
	token       func() string // its value; nil: none
	isAutomatic bool          // an automatic renewal makes the token
	event       EventKind     // of the token
	lost        error         // nil, or why values or flashes are dropped
}

// newToken gives the draft a new token: to the session of this id, or with ""
// to a new one.
func (d *draft) newToken(m *Manager, id string, event EventKind) {
	var value string
	value, d.ref = m.tokens.New(id)
	d.token, d.event = func() string { return value }, event
}

// first returns the record of a new session, with the values of data and what
// this request asked for.
func (k commit) first(data []byte) (d draft, err error) {
	event := EventCreated
	if k.todo.user != "" {
		event = EventLoggedIn
	}
	d.newToken(k.m, "", event)
	return d, k.firstRecord(&d, data)
}

// firstRecord is first of a draft that has its token. Values that a Login inherits are
// dropped if they do not fit beside what this request has set: an attacker may have
// planted them, and must not keep the user from logging in.
func (k commit) firstRecord(d *draft, data []byte) error {
	err := k.beginWith(d, data)
	if data != nil && errors.Is(err, ErrTooLarge) {
		inherited := fmt.Errorf("session: Login: the values of before are dropped: %w", err)
		if err = k.beginWith(d, nil); err == nil {
			d.lost = errors.Join(inherited, d.lost)
		}
	}
	return err
}

// beginWith makes d the record of a new session that has the values of data.
func (k commit) beginWith(d *draft, data []byte) error {
	t, now := k.todo, milliseconds(time.Now())
	rec := &Record{ID: d.ref.ID, User: t.user, Data: data, Created: now, LastSeen: now}
	if t.user != "" {
		rec.Created = t.at
	}
	rec.Deadline = rec.Created.Add(k.m.lifetime)
	rec.Expires = earlier(now.Add(k.m.idle), rec.Deadline)
	var room [16]object.Member
	b, err := parse(room[:0], data, now)
	if err != nil {
		return err
	}
	b.Begin(d.ref.Key)
	d.rec = rec
	return k.complete(d, &b)
}

// next returns the record that the stored one becomes by what this request asked
// for, and by the maintenance that is due. It is a tombstone if the time of an EndBy has
// passed.
func (k commit) next() (d draft, err error) {
	st, t, now := &k.stored, k.todo, milliseconds(time.Now())
	if t.hasEnded(now) {
		return draft{rec: tombstone(st.rec, body.ReasonLogout, "")}, nil
	}
	var room [16]object.Member
	b, err := parse(room[:0], st.rec.Data, now)
	if err != nil {
		return d, err
	}
	rec := *st.rec
	if t.user != "" {
		d.event = EventLoggedIn
	}
	switch {
	case st.due.Present && st.isOvertaken:
		b.Mark(st.held.Key)
	case st.due.Present:
		b.Present(st.held.Key, now)
	}
	switch {
	case t.wantsToken() && k.m.keyless: // the token stays: it is another program's too
	case t.wantsToken():
		d.newToken(k.m, rec.ID, cmp.Or(d.event, EventRenewed))
		b.RenewExplicitly(d.ref.Key, t.user != "", k.m.renewGrace, rec.Created, now)
	case st.due.Renew && k.at == open:
		d.newToken(k.m, rec.ID, EventRenewed)
		d.isAutomatic = true
		b.RenewAutomatically(d.ref.Key, st.held.Key, now)
	case st.due.Present, st.due.Tidy:
	case !t.asks():
		return d, nil
	}
	d.rec = &rec
	return d, k.revise(&d, &b, now)
}

// dropRenewal forgets a Renew or Remember whose request has a token that was
// replaced meanwhile: another token would be worth more than its own. The Renew is
// done already if the renewal was explicit; all else is reported. A Login is an
// authentication, and always obeyed.
func (k commit) dropRenewal() {
	st, t := &k.stored, k.todo
	if !t.wantsToken() || t.user != "" || st.frozen == nil && body.HasAccess(st.rec.Data, st.held.Key, time.Now()) {
		return
	}
	call := ""
	switch {
	case !t.remember.IsZero():
		call = "Remember"
	case st.frozen == nil:
		call = "Renew"
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	t.renew, t.remember = false, time.Time{}
	if call != "" {
		err := fmt.Errorf("session: %s: the request's token was replaced meanwhile: call it in a request with the newer one", call)
		k.note(EventDropped, st.rec, err)
		k.problem = problem{missed, err}
	}
}

// revise moves the clocks of d.rec as the request and a Login do, and completes it.
func (k commit) revise(d *draft, b *body.Body, now time.Time) error {
	t, rec := k.todo, d.rec
	if t.user != "" {
		rec.Created = t.at
		b.RemoveLimit()
		if end := b.Remembered(); !end.IsZero() {
			rec.Deadline, rec.Expires = end, end
		} else {
			rec.Deadline = t.at.Add(k.m.lifetime)
		}
	}
	if k.isUse() || t.user != "" {
		rec.LastSeen = later(rec.LastSeen, now)
		rec.Expires = earlier(later(rec.Expires, now.Add(k.m.idle)), rec.Deadline)
	}
	return k.complete(d, b)
}

// complete applies the pending changes to b and puts it into d.rec, whose Data is what b
// was made from.
func (k commit) complete(d *draft, b *body.Body) error {
	if err := b.Apply(k.todo.changes); err != nil {
		return err
	}
	d.lost = nil
	if k.todo.changes.Of(body.Flashes) {
		d.lost = trimFlashes(b, k.m.maxData)
	}
	rec := d.rec
	if size := b.Size(); size > k.m.maxData {
		before, err := parse(nil, rec.Data, time.Time{})
		if err != nil {
			return err
		}
		if size > before.Size() {
			return fmt.Errorf("%w: %d bytes, the limit of Options.MaxDataSize is %d", ErrTooLarge, size, k.m.maxData)
		}
	}
	if end := k.todo.remember; !end.IsZero() {
		rec.Deadline, rec.Expires = end, end
		b.Remember(end)
	}
	b.EndBy(k.todo.endBy)
	if end := b.Limit(); !end.IsZero() {
		rec.Deadline = earlier(rec.Deadline, end)
		rec.Expires = earlier(rec.Expires, rec.Deadline)
	}
	rec.Data = b.Bytes()
	rec.Version = newVersion()
	return nil
}

// parse is body.Parse. What is no JSON object is a failure of the store.
func parse(room []object.Member, data []byte, now time.Time) (body.Body, error) {
	b, err := body.Parse(room, data, now)
	if err != nil {
		err = storeError("load", fmt.Errorf("the stored data is %w", err))
	}
	return b, err
}

// expired tells whether one of the two clocks has run out.
func (r *Record) expired(now time.Time) bool {
	return !now.Before(r.Expires) || !now.Before(r.Deadline)
}

func newVersion() uint64 {
	for {
		if v := rand.Uint64() >> 1; v != 0 {
			return v
		}
	}
}

func milliseconds(t time.Time) time.Time { return t.Truncate(time.Millisecond) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
