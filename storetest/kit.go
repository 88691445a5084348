package storetest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"github.com/coatcheck/session"
)

// kit is the environment of a case: the store, and helpers that check it.
type kit struct {
	tester
	store session.Store
}

// soon is the lifetime of records whose expiry a case waits for.
const soon = 200 * time.Millisecond

// record returns a record that lives for an hour, with an id of its own.
func (k *kit) record(user string) *session.Record { return k.brief(user, time.Hour) }

// brief returns a record that expires after d.
func (k *kit) brief(user string, d time.Duration) *session.Record {
	now := time.Now().Truncate(time.Millisecond)
	return &session.Record{
		ID:       rand.Text() + "-_",
		User:     user,
		Data:     []byte(`{"name":"value"}`),
		Created:  now.Add(-time.Minute),
		LastSeen: now.Add(-time.Second),
		Deadline: now.Add(d),
		Expires:  now.Add(d),
		Version:  version(),
	}
}

// create stores a record and returns it.
func (k *kit) create(r *session.Record) *session.Record {
	k.Helper()
	if err := k.store.Create(k.Context(), r); err != nil {
		k.Fatalf("Create: %v", err)
	}
	return r
}

// save replaces old by a copy with a new version and new Data, to which edit is applied, and
// returns the copy.
func (k *kit) save(old *session.Record, edit func(r *session.Record)) *session.Record {
	k.Helper()
	r := next(old, edit)
	if err := k.store.Save(k.Context(), r, old.Version); err != nil {
		k.Fatalf("Save: %v", err)
	}
	return r
}

// next returns the record that save replaces old by.
func next(old *session.Record, edit func(r *session.Record)) *session.Record {
	r := *old
	r.Version = version()
	r.Data = []byte(`{"name":"` + rand.Text() + `"}`)
	if edit != nil {
		edit(&r)
	}
	return &r
}

// expect checks the error that a method returned. A nil want means no error.
func (k *kit) expect(call string, err, want error) {
	k.Helper()
	if want == nil && err != nil || !errors.Is(err, want) {
		k.Errorf("%s returned %v, want %v", call, err, want)
	}
}

// holds checks that the store contains r, equal in every field.
func (k *kit) holds(r *session.Record) {
	k.Helper()
	got, err := k.store.Load(k.Context(), r.ID)
	if err != nil || got == nil {
		k.Errorf("Load returned (%v, %v), want the record", got, err)
		return
	}
	k.same(got, r)
}

// lacks checks that the store has no record with this id.
func (k *kit) lacks(id string) {
	k.Helper()
	got, err := k.store.Load(k.Context(), id)
	if got != nil {
		k.Errorf("Load found a record of version %d, want none", got.Version)
	}
	k.expect("Load", err, session.ErrNotFound)
}

// lists checks that List returns these records, in any order.
func (k *kit) lists(user string, want ...*session.Record) {
	k.Helper()
	got, err := k.store.List(k.Context(), user)
	if err != nil {
		k.Errorf("List: %v", err)
		return
	}
	if len(got) != len(want) {
		k.Errorf("List returned %d records, want %d", len(got), len(want))
	}
	byID := map[string]*session.Record{}
	for _, r := range got {
		byID[r.ID] = r
	}
	for _, r := range want {
		if byID[r.ID] == nil {
			k.Errorf("List does not return a record of this user")
			continue
		}
		k.same(byID[r.ID], r)
	}
}

// same checks that got equals want in every field.
func (k *kit) same(got, want *session.Record) {
	k.Helper()
	differ := func(field string, a, b any) { k.Errorf("%s is %.200v, want %.200v", field, a, b) }
	if got.ID != want.ID {
		differ("ID", got.ID, want.ID)
	}
	if got.User != want.User {
		differ("User", fmt.Sprintf("%q", got.User), fmt.Sprintf("%q", want.User))
	}
	if !bytes.Equal(got.Data, want.Data) {
		differ("Data", fmt.Sprintf("%q", got.Data), fmt.Sprintf("%q", want.Data))
	}
	if got.Version != want.Version {
		differ("Version", got.Version, want.Version)
	}
	for _, c := range []struct {
		field     string
		got, want time.Time
	}{
		{"Created", got.Created, want.Created},
		{"LastSeen", got.LastSeen, want.LastSeen},
		{"Deadline", got.Deadline, want.Deadline},
		{"Expires", got.Expires, want.Expires},
	} {
		if !c.got.Equal(c.want) {
			differ(c.field, c.got, c.want)
		}
	}
}

// user returns a user that no other case uses.
func user() string { return "user " + rand.Text() }

func version() uint64 { return mathrand.Uint64()>>1 | 1 }
