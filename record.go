package session

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coatcheck/session/internal/object"
	"github.com/coatcheck/session/internal/token"
)

// A draft is a record that a commit wants to store, and the token that goes
// with it, if there is a new one.
type draft struct {
	rec   *Record // nil: what is stored is right as it is
	ref   token.Ref
	token func() string // its value; nil: none
	event EventKind     // of the token
	lost  error         // nil, or why values or flashes are dropped
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

// event is what a renewal of the token is called.
func (k commit) event() EventKind {
	if k.todo.user != "" {
		return EventLoggedIn
	}
	return EventRenewed
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
	members, _, err := membersOf(room[:0], data, now)
	if err != nil {
		return err
	}
	members = object.Set(object.Set(members, remembered, nil), leases, nil) // which were another session's
	var ks keys
	if d.ref.Key != "" {
		ks.newest = quote(d.ref.Key)
	}
	d.rec = rec
	return k.complete(d, members, ks)
}

// successor makes d the record that takes the place of old under another id: another
// session, or the same one whose token has no key. A nil old leaves no values.
func (k commit) successor(d *draft, old *Record, why string) error {
	if why == byLogin || old == nil {
		return k.firstRecord(d, k.inherited(old))
	}
	now := milliseconds(time.Now())
	members, ks, err := membersOf(nil, old.Data, now)
	if err != nil {
		return err
	}
	rec := *old
	rec.ID = d.ref.ID
	d.rec = &rec
	return k.revise(d, members, ks, now)
}

// next returns the record that the stored one becomes by what this request asked
// for, and by the maintenance that is due.
func (k commit) next() (d draft, err error) {
	st, t, now := &k.stored, k.todo, milliseconds(time.Now())
	var room [16]object.Member
	members, ks, err := membersOf(room[:0], st.rec.Data, now)
	if err != nil {
		return d, err
	}
	rec := *st.rec
	if st.due.seen {
		st.notePresented(&ks, now)
	}
	switch {
	case t.wantsToken() && k.m.keyless:
		d.event = k.event() // another request has given the session another id meanwhile
	case t.wantsToken():
		d.newToken(k.m, rec.ID, k.event())
		ks.renewExplicitly(d.ref.Key, t.user != "", k.m.renewGrace, rec.Created, now, withoutMetadata(members))
	case st.due.renew && k.at == open:
		d.newToken(k.m, rec.ID, EventRenewed)
		ks.renewByAge(d.ref.Key, st.held.Key, now)
	case st.due.seen, st.due.tidy:
	case len(t.changes) == 0:
		return d, nil
	}
	d.rec = &rec
	return d, k.revise(&d, members, ks, now)
}

// dropRenewal forgets a Renew or Remember whose request has a token that was
// replaced meanwhile: another token would be worth more than its own. The Renew is
// done already if the renewal was explicit; all else is reported. A Login is an
// authentication, and always obeyed.
func (k commit) dropRenewal() {
	st, t := &k.stored, k.todo
	if !t.wantsToken() || t.user != "" || st.then == nil && hasAccess(st.rec.Data, st.held.Key, time.Now()) {
		return
	}
	call := ""
	switch {
	case !t.remember.IsZero():
		call = "Remember"
	case st.then == nil:
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
func (k commit) revise(d *draft, members []object.Member, ks keys, now time.Time) error {
	t, rec := k.todo, d.rec
	if t.user != "" {
		rec.Created = t.at
		if object.Get(members, remembered) == nil {
			rec.Deadline = t.at.Add(k.m.lifetime)
		}
	}
	if k.isUse() || t.user != "" {
		rec.LastSeen = later(rec.LastSeen, now)
		rec.Expires = later(rec.Expires, earlier(now.Add(k.m.idle), rec.Deadline))
	}
	return k.complete(d, members, ks)
}

// complete puts the members, as the pending changes leave them, and the keys into
// d.rec, whose Data is what it was made from, and makes it remembered if that was
// asked for.
func (k commit) complete(d *draft, members []object.Member, ks keys) error {
	members, err := apply(k.todo.changes, members)
	if err != nil {
		return err
	}
	d.lost = nil
	if slices.ContainsFunc(k.todo.changes, func(c change) bool { return c.name == flashes }) {
		members, d.lost = trimFlashes(members, k.m.maxData)
	}
	rec := d.rec
	if size := sizeOfValues(members); size > k.m.maxData {
		before, _, err := membersOf(nil, rec.Data, time.Time{})
		if err != nil {
			return err
		}
		if size > sizeOfValues(before) {
			return fmt.Errorf("%w: %d bytes, the limit of Options.MaxDataSize is %d", ErrTooLarge, size, k.m.maxData)
		}
	}
	if end := k.todo.remember; !end.IsZero() {
		rec.Deadline, rec.Expires = end, end
		members = object.Set(members, remembered, []byte("true"))
	}
	rec.Data = encode(ks.appendTo(members))
	rec.Version = newVersion()
	return nil
}

// membersOf returns the members of Data, the keys apart.
func membersOf(room []object.Member, data []byte, now time.Time) ([]object.Member, keys, error) {
	members, err := object.Append(room, data)
	if err != nil {
		return nil, keys{}, storeError("load", fmt.Errorf("the stored data is %w", err))
	}
	k, members := keysOf(members, now)
	return members, k, nil
}

func withoutMetadata(members []object.Member) []object.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m object.Member) bool { return isMetadata(m.Name) })
}

// isRemembered tells whether Remember set the end of the session.
func isRemembered(r *Record) bool {
	return object.FindAfter(r.Data, values(r.Data), remembered) != nil
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
