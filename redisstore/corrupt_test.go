package redisstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// TestCorruptRecords flips each bit of a stored record, cuts it at each length, and replaces it
// by the record of another session. Load must return an error each time.
func TestCorruptRecords(t *testing.T) {
	client := startServer(t).client(nil)
	store := newStore(t, client)
	ctx := t.Context()
	r := create(t, store, newRecord("alice"))
	key := "session:s:" + r.ID
	good, err := client.Get(ctx, key).Bytes()
	must(t, err)

	check := func(what string, n int, stored []byte) {
		t.Helper()
		must(t, client.Set(ctx, key, stored, redis.KeepTTL).Err())
		if got, err := store.Load(ctx, r.ID); err == nil || got != nil {
			t.Fatalf("%s %d: Load returned %+v", what, n, got)
		}
		if list, err := store.List(ctx, "alice"); err == nil && len(list) > 0 {
			t.Fatalf("%s %d: List returned %+v", what, n, list[0])
		}
		// No method gives the session to another user, or panics.
		_ = store.Create(ctx, next(r))
		_ = store.Touch(ctx, r.ID, time.Now(), r.Expires)
		_ = store.Save(ctx, next(r), 1)
		if got, err := store.Load(ctx, r.ID); err == nil && (got.User != "alice" || got.ID != r.ID) {
			t.Fatalf("%s %d: Load returns %+v after writes", what, n, got)
		}
	}
	for bit := range 8 * len(good) {
		bad := []byte(string(good))
		bad[bit/8] ^= 1 << (bit % 8)
		check("bit", bit, bad)
	}
	for n := range len(good) {
		check("length", n, good[:n])
	}
	check("longer by", 1, append([]byte(string(good)), 0))

	for i, other := range []*session.Record{newRecord("alice"), newRecord("mallory"), newRecord("")} {
		create(t, store, other)
		stored, err := client.Get(ctx, "session:s:"+other.ID).Bytes()
		must(t, err)
		must(t, client.Set(ctx, key, stored, redis.KeepTTL).Err())
		if got, err := store.Load(ctx, r.ID); err == nil || got != nil {
			t.Errorf("the record of another session %d: Load returned %+v", i, got)
		}
		// The clocks alone are copied from the other session.
		mixed := append([]byte(string(good)), good...)[:len(good)]
		copy(mixed[9:33], stored[9:33])
		check("the clocks of another session", i, mixed)
	}
	must(t, store.Delete(ctx, r.ID))
	if _, err := store.Load(ctx, r.ID); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Load after Delete: %v", err)
	}

	must(t, client.HSet(ctx, key, "field", "value").Err())
	for name, err := range everything(ctx, store, r) {
		if name != "List" && (err == nil || isAnswer(err)) {
			t.Errorf("%s of a key of another program returned %v", name, err)
		}
	}
}

// TestFullMemory checks that while memory is full all operations work that free memory or need
// none.
func TestFullMemory(t *testing.T) {
	s := startServer(t)
	client := s.client(nil)
	store := newStore(t, client)
	ctx := t.Context()
	anonymous, mine, other := newRecord(""), newRecord("alice"), newRecord("alice")
	anonymous.Data = []byte(`{}`)
	for _, r := range []*session.Record{anonymous, mine, other} {
		create(t, store, r)
	}
	s.set("maxmemory", "1")

	for name, err := range map[string]error{
		"a create":        store.Create(ctx, newRecord("")),
		"a user's create": store.Create(ctx, newRecord("alice")),
		"a save that grows": func() error {
			n := next(mine)
			n.Data = make([]byte, 1000)
			return store.Save(ctx, n, mine.Version)
		}(),
	} {
		if !redis.HasErrorPrefix(err, "OOM") || errors.Is(err, session.ErrIndeterminate) || isAnswer(err) {
			t.Errorf("%s returned %v, want the server's OOM", name, err)
		}
	}
	holds(t, store, mine)
	mine.Expires = mine.Expires.Add(time.Minute)
	must(t, store.Touch(ctx, mine.ID, time.Now(), mine.Expires))
	holds(t, store, mine)
	if err := store.Save(ctx, tombstone(mine), 1); !errors.Is(err, session.ErrConflict) {
		t.Errorf("a stale save returned %v", err)
	}
	for _, r := range []*session.Record{mine, anonymous} { // the anonymous record may be smaller than its tombstone
		n := tombstone(r)
		must(t, store.Save(ctx, n, r.Version))
		must(t, store.Save(ctx, n, r.Version)) // a repeated save has no effect
		holds(t, store, n)
	}
	must(t, store.Delete(ctx, other.ID))
	if ids := lists(t, store, "alice"); len(ids) != 0 {
		t.Errorf("List: %q", ids)
	}
}
