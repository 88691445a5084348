package session

import (
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
	d.rec, err = k.firstRecord(d.ref, data)
	return d, err
}

// event is what a renewal of the token is called.
func (k commit) event() EventKind {
	if k.todo.user != "" {
		return EventLoggedIn
	}
	return EventRenewed
}

func (k commit) firstRecord(ref token.Ref, data []byte) (*Record, error) {
	t, now := k.todo, milliseconds(time.Now())
	rec := &Record{ID: ref.ID, User: t.user, Created: now, LastSeen: now}
	if t.user != "" {
		rec.Created = t.at
	}
	rec.Deadline = rec.Created.Add(k.m.lifetime)
	rec.Expires = earlier(now.Add(k.m.idle), rec.Deadline)
	var room [16]object.Member
	members, _, err := membersOf(room[:0], data, now)
	if err != nil {
		return nil, err
	}
	members = object.Set(object.Set(members, remembered, nil), leases, nil) // which were another session's
	var ks keys
	if ref.Key != "" {
		ks.newest = quote(ref.Key)
	}
	return rec, k.complete(rec, members, ks)
}

// successor returns the record that takes the place of old under another id: another
// session, or the same one whose token has no key. A nil old leaves no values.
func (k commit) successor(old *Record, why string, ref token.Ref) (*Record, error) {
	if why == byLogin {
		return k.firstRecord(ref, k.inherited(old))
	}
	now := milliseconds(time.Now())
	members, ks, err := membersOf(nil, old.Data, now)
	if err != nil {
		return nil, err
	}
	rec := *old
	rec.ID = ref.ID
	return &rec, k.revise(&rec, members, ks, now)
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
		ks.present(st.held.Key, now)
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
	return d, k.revise(d.rec, members, ks, now)
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

// revise moves the clocks of rec as the request and a Login do, and completes it.
func (k commit) revise(rec *Record, members []object.Member, ks keys, now time.Time) error {
	t := k.todo
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
	return k.complete(rec, members, ks)
}

// complete puts the members, as the pending changes leave them, and the keys
// into rec, and makes it remembered if that was asked for.
func (k commit) complete(rec *Record, members []object.Member, ks keys) error {
	members, err := apply(k.todo.changes, members)
	if err != nil {
		return err
	}
	if end := k.todo.remember; !end.IsZero() {
		rec.Deadline, rec.Expires = end, end
		members = object.Set(members, remembered, []byte("true"))
	}
	var size int
	rec.Data, size = encode(ks.appendTo(members))
	rec.Version = newVersion()
	if size > k.m.maxData {
		return fmt.Errorf("session: Options.MaxDataSize: the values take %d bytes, the limit is %d", size, k.m.maxData)
	}
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
