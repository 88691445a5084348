package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

const immutableDoc = "Data is immutable on both sides once passed: neither the store nor its caller changes a byte of it."

var valueCases = []testCase{
	{"Times", "All its times are in whole milliseconds; the Manager truncates them.", func(k *kit) {
		now := time.Now().Truncate(time.Second)
		for _, loc := range []*time.Location{time.UTC, time.Local, time.FixedZone("", 5*3600+45*60), time.FixedZone("odd", -12*3600+1)} {
			r := k.record(user())
			r.Created = now.Add(-400*24*time.Hour + time.Millisecond).In(loc)
			r.LastSeen = now.Add(-999 * time.Millisecond).In(loc)
			r.Expires = now.Add(time.Hour + 123*time.Millisecond).In(loc)
			r.Deadline = now.Add(time.Hour + 124*time.Millisecond).In(loc)
			k.holds(k.create(r))
			k.lists(r.User, r)
		}
		r := k.record("")
		r.Expires = r.Expires.AddDate(100, 0, 0)
		r.Deadline = r.Expires
		k.holds(k.create(r))
	}},
	{"Users", listDoc, func(k *kit) {
		u := user()
		long := u + strings.Repeat("😀", 1024/4)[:1023-len(u)] // a byte less than the longest user; the cut may be inside a character
		var all []*session.Record
		for _, odd := range []string{
			long, long + "a", long + "b",
			u, strings.ToUpper(u), " " + u, u + " ", u + "\x00", "\x00" + u, u + "\n", u + "é", u + "e\u0301", u + "😀",
			u + `"; DROP TABLE sessions; --`, u + "'", u + "%", u + "*", u + ":{}", u + "\xff", u + "/../", strings.Repeat("x", 255-len(u)) + u,
		} {
			r := k.create(k.record(odd))
			k.holds(r)
			all = append(all, r)
		}
		for _, r := range all {
			k.lists(r.User, r)
		}
	}},
	{"Data", "Data is a JSON object, opaque to stores: not to be parsed, reformatted or changed.", func(k *kit) {
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		random := make([]byte, 64<<10)
		rand.Read(random)
		for _, data := range [][]byte{
			nil, {}, {0}, []byte("{}"), []byte(" { \"b\" : 1.0 ,\n\"a\":1e2, \"a\":2 } "), []byte(`{"big":12345678901234567890,"text":"<>&\u0000\u2028 é 😀"}`),
			[]byte(`"; DROP TABLE sessions; --`), []byte("'\\' || $1 ? :a %s"), every, random, bytes.Repeat([]byte{0}, 64<<10),
		} {
			r := k.record("")
			r.Data = data
			k.holds(k.create(r))
			k.holds(k.save(k.create(k.record("")), func(r *session.Record) { r.Data = data }))
		}
	}},
	{"IDs", "ID is URL-safe text of 1 to 128 bytes.", func(k *kit) {
		id := rand.Text() + rand.Text() + "aB-_.~"
		long := id + strings.Repeat("z", 128-len(id))
		ids := []string{
			id, strings.ToLower(id), strings.ToUpper(id), id + "a", id + "A", id + "-", id + "_", id[:len(id)-1], id[1:],
			long, long[:127], long[:127] + "Z", "x", "X", "0", "00",
		}
		var all []*session.Record
		for _, id := range ids {
			r := k.record("")
			r.ID = id
			k.expect("Delete", k.store.Delete(k.Context(), id), nil) // left by an earlier run
			all = append(all, k.create(r))
		}
		for _, r := range all {
			k.holds(r)
			k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
			k.lacks(r.ID)
		}
	}},
	{"DataPassed", immutableDoc, func(k *kit) {
		// The slice has free capacity: a store that appends to it writes into the caller's memory.
		buffer := []byte(`{"name":"value"}and what the caller keeps behind it`)
		was := bytes.Clone(buffer)
		r := k.record(user())
		r.Data = buffer[:16]
		k.create(r)
		r = k.save(r, func(r *session.Record) { r.Data = buffer[:16] })
		k.lists(r.User, k.touch(r, r.LastSeen.Add(time.Second), r.Expires))
		k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
		if !bytes.Equal(buffer, was) {
			k.Errorf("the store changed the caller's memory from %q to %q", was, buffer)
		}
	}},
	{"DataReturned", immutableDoc, func(k *kit) {
		r := k.create(k.record(user()))
		got, err := k.store.Load(k.Context(), r.ID)
		if err != nil {
			k.Fatalf("Load: %v", err)
		}
		r = k.save(r, func(r *session.Record) { r.Data = []byte(`{"name":"other"}`) })
		newer, err := k.store.Load(k.Context(), r.ID)
		if err != nil {
			k.Fatalf("Load: %v", err)
		}
		k.touch(r, r.LastSeen.Add(time.Second), r.Expires)
		k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
		k.create(k.record("")) // may reuse memory that the store has freed
		for want, got := range map[string][]byte{`{"name":"value"}`: got.Data, `{"name":"other"}`: newer.Data} {
			if string(got) != want {
				k.Errorf("the store changed the Data that Load returned from %q to %q", want, got)
			}
		}
	}},
	{"EndedContext", "Its methods may be called by any number of goroutines at once and return soon after ctx ends.", func(k *kit) {
		r := k.create(k.record(user()))
		cancelled, cancel := context.WithCancel(k.Context())
		cancel()
		late, cancel := context.WithDeadline(k.Context(), time.Now().Add(-time.Second))
		defer cancel()
		for _, ctx := range []context.Context{cancelled, late} {
			_, err := k.store.Load(ctx, r.ID)
			k.ended("Load", err)
			k.ended("Create", k.store.Create(ctx, k.record("")))
			k.ended("Save", k.store.Save(ctx, next(r, nil), r.Version))
			k.ended("Touch", k.store.Touch(ctx, r.ID, r.LastSeen, r.Expires))
			_, err = k.store.List(ctx, r.User)
			k.ended("List", err)
			k.ended("Delete", k.store.Delete(ctx, r.ID))
		}
	}},
}

// ended checks the error of a method whose context had ended: it must not be nil, and must say
// nothing about a record, because the store must not have been asked.
func (k *kit) ended(call string, err error) {
	k.Helper()
	if err == nil {
		k.Errorf("%s returned nil although its context had ended", call)
	}
	for _, answer := range []error{session.ErrNotFound, session.ErrConflict, session.ErrExists} {
		if errors.Is(err, answer) {
			k.Errorf("%s returned %v although its context had ended", call, err)
		}
	}
}
