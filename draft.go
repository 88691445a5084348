package session

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/object"
)

// A draft is a record that a commit wants to store.
type draft struct {
	rec    *Record   // nil: the stored record needs no change
	issued           // the new token, if there is one
	event  EventKind // the event of the commit; "": none
	lost   error     // why values or flashes are left out; nil: none are
}

// draftNew returns the draft of a new session with the values of data and the pending
// changes.
func (t *tx) draftNew(data []byte) (d draft, err error) {
	event := EventCreated
	if t.pending.user != "" {
		event = EventLoggedIn
	}
	d.newToken(t.m, "", event)
	return d, t.fillNew(&d, data)
}

// fillNew makes the record of a draft that has its token. If the values that a Login inherits
// do not fit beside those that this request has set, they are left out: an attacker may have
// planted them to keep the user from logging in.
func (t *tx) fillNew(d *draft, data []byte) error {
	err := t.fillNewWith(d, data)
	if data != nil && errors.Is(err, ErrTooLarge) {
		inherited := fmt.Errorf("session: Login: the values of the anonymous session are dropped: %w", err)
		if err = t.fillNewWith(d, nil); err == nil {
			d.lost = errors.Join(inherited, d.lost)
		}
	}
	return err
}

func (t *tx) fillNewWith(d *draft, data []byte) error {
	p, now := &t.pending, milliseconds(time.Now())
	var made struct { // one allocation
		rec  Record
		room [4]object.Member
	}
	rec := &made.rec
	*rec = Record{ID: d.ref.ID, User: p.user, Data: data, Created: now, LastSeen: now}
	if p.user != "" {
		rec.Created = p.at
	}
	rec.Deadline = rec.Created.Add(t.m.lifetime)
	rec.Expires = earlier(now.Add(cmp.Or(t.m.newIdle, t.m.idle)), rec.Deadline)
	b, err := parse(made.room[:0], data, now)
	if err != nil {
		return err
	}
	b.Begin(d.ref.Key)
	if t.m.newIdle > 0 {
		b.SetIdle(t.m.newIdle)
	}
	d.rec = rec
	return t.complete(d, &b, p)
}

// draftNext returns the draft of the stored record after p and the maintenance that is due. It
// is a tombstone if the time of an EndBy has passed.
func (t *tx) draftNext(p *pending) (d draft, err error) {
	st, now := &t.stored, milliseconds(time.Now())
	if p.hasEnded(now) {
		return draft{rec: tombstone(st.rec, body.ReasonLogout, "")}, nil
	}
	var room [16]object.Member
	b, err := parse(room[:0], st.rec.Data, now)
	if err != nil {
		return d, err
	}
	rec := *st.rec
	if p.user != "" {
		d.event = EventLoggedIn
	}
	if st.due.Present {
		st.present(&b, now)
	}
	switch {
	case p.needsToken() && t.m.keyless: // the token stays: it is another program's too
	case p.needsToken():
		d.newToken(t.m, rec.ID, cmp.Or(d.event, EventRenewed))
		d.mayBind = d.mayBind && !t.m.isBound(&rec)
		b.RenewExplicitly(d.ref.Key, p.user != "", t.m.renewGrace, rec.Created, now)
	case st.due.Renew && t.phase() == phaseOpen:
		d.newToken(t.m, rec.ID, EventRenewed)
		d.isAutomatic = true
		b.RenewAutomatically(d.ref.Key, st.ref.Key, now)
	case st.due.Present, st.due.Tidy:
	case !p.hasWork():
		return d, nil
	}
	d.rec = &rec
	if p.user != "" {
		rec.Created = p.at
		b.RemoveLimit()
		if end := b.Remembered(); !end.IsZero() {
			rec.Deadline, rec.Expires = end, end
		} else {
			rec.Deadline = p.at.Add(t.m.lifetime)
		}
	}
	if t.s.isUse() || p.user != "" {
		rec.LastSeen = later(rec.LastSeen, now)
		rec.Expires = earlier(later(rec.Expires, now.Add(t.m.idleOf(&rec))), rec.Deadline)
	}
	return d, t.complete(&d, &b, p)
}

// complete applies p to b and stores b in d.rec. Before, d.rec.Data is the data that b was
// parsed from.
func (t *tx) complete(d *draft, b *body.Body, p *pending) error {
	if err := b.Apply(p.changes); err != nil {
		return err
	}
	rec := d.rec
	limit, err := t.sizeLimit(rec.Data)
	if err != nil {
		return err
	}
	d.lost = nil
	if p.changes.Of(body.Flashes) {
		d.lost = trimFlashes(b, limit)
	}
	if size := b.Size(); size > limit {
		return fmt.Errorf("%w: %d bytes, the limit of Options.MaxDataSize is %d: keep them in a database, and their ids in the session", ErrTooLarge, size, t.m.maxData)
	}
	if end := p.remember; !end.IsZero() {
		rec.Deadline, rec.Expires = end, end
		b.Remember(end)
		if t.m.isShared {
			b.SetIdle(time.Until(end))
		}
	}
	b.EndBy(p.endBy)
	if end := b.Limit(); !end.IsZero() {
		rec.Deadline = earlier(rec.Deadline, end)
		rec.Expires = earlier(rec.Expires, rec.Deadline)
	}
	rec.Data = b.Bytes()
	rec.Version = newVersion()
	return nil
}

// sizeLimit returns how large a body that is made from data may be: MaxDataSize, or the size of
// data if that is larger. A larger size that another program has stored is accepted too.
func (t *tx) sizeLimit(data []byte) (int, error) {
	limit := t.m.maxData
	if len(data) <= limit {
		return limit, nil
	}
	before, err := parse(nil, data, time.Time{})
	size := before.Size()
	if t.m.keyless && size > limit {
		return size + limit, err
	}
	return max(size, limit), err
}

// newToken gives the draft a new token for the session of this id, or for a new session if id
// is "".
func (d *draft) newToken(m *Manager, id string, event EventKind) {
	var value string
	value, d.ref = m.tokens.New(id)
	d.token, d.event = func() string { return value }, event
	d.mayBind = m.device != nil && event == EventLoggedIn
}
