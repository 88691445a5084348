package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

// line is a store behind a proxy, and a store that reaches the same server directly.
type line struct {
	proxy         *cutter
	store, direct *redisstore.Store
	length        int // bytes of a save, request and reply together
}

// newLine returns a line whose client has its default retries and one connection, so that the
// proxy sees one exchange after the other.
func newLine(t *testing.T) *line {
	s := startServer(t)
	l := &line{proxy: startProxy(t, s.Addr), direct: newStore(t, s.client(nil))}
	l.store = newStore(t, s.client(func(o *redis.Options) {
		o.Addr, o.PoolSize, o.MaxRetries = l.proxy.Addr, 1, 3
	}))
	r := create(t, l.store, newRecord(""))
	must(t, l.store.Touch(t.Context(), r.ID, r.LastSeen, r.Expires))
	for range 2 { // the first sends the script, the second only its hash
		n := next(r)
		must(t, l.store.Save(t.Context(), n, r.Version))
		r = n
	}
	l.length = l.proxy.requestSize + l.proxy.replySize
	if l.proxy.requestSize < 100 || l.proxy.replySize != len(":0\r\n") {
		t.Fatalf("the exchange has %d and %d bytes: update this test", l.proxy.requestSize, l.proxy.replySize)
	}
	return l
}

// TestLostOnce loses one reply: the next try finds that the first was applied.
func TestLostOnce(t *testing.T) {
	l := newLine(t)
	r := create(t, l.direct, newRecord(""))
	for n := range l.length {
		rec := next(r)
		l.proxy.cutAt(n, l.proxy.requestSize, false, nil)
		if err := l.store.Save(t.Context(), rec, r.Version); err != nil {
			t.Fatalf("cut at byte %d of %d: %v", n, l.length, err)
		}
		holds(t, l.direct, rec)
		r = rec
	}
}

// TestLostAndOverwritten loses one reply, and another client saves before the next try. The
// next try must not return ErrConflict, because the first try may have been applied.
func TestLostAndOverwritten(t *testing.T) {
	l := newLine(t)
	r := create(t, l.direct, newRecord(""))
	for n := range l.length {
		rec, other := next(r), (*session.Record)(nil)
		l.proxy.cutAt(n, l.proxy.requestSize, false, func() {
			// Once the whole request was sent, either save may reach the record first.
			for _, version := range []uint64{r.Version, rec.Version} {
				o := next(r)
				if l.direct.Save(t.Context(), o, version) == nil {
					other = o
					return
				}
			}
		})
		err := l.store.Save(t.Context(), rec, r.Version)
		if !errors.Is(err, session.ErrIndeterminate) || errors.Is(err, session.ErrConflict) {
			t.Fatalf("cut at byte %d of %d: %v, want ErrIndeterminate", n, l.length, err)
		}
		if other == nil {
			t.Fatalf("cut at byte %d of %d: the record was not overwritten", n, l.length)
		}
		holds(t, l.direct, other)
		r = other
	}
}

// TestLostAlways loses all replies: the outcome of the write is unknown.
func TestLostAlways(t *testing.T) {
	l := newLine(t)
	r := create(t, l.direct, newRecord(""))
	step := 20
	for n := 0; n < l.length; n += step {
		if n+step >= l.proxy.requestSize {
			step = 1
		}
		rec := next(r)
		l.proxy.cutAt(n, l.proxy.requestSize, true, nil)
		err := l.store.Save(t.Context(), rec, r.Version)
		if !errors.Is(err, session.ErrIndeterminate) || errors.Is(err, session.ErrConflict) {
			t.Fatalf("cut at byte %d of %d: %v, want ErrIndeterminate", n, l.length, err)
		}
		l.proxy.heal()
		got, err := l.direct.Load(t.Context(), r.ID)
		must(t, err)
		if got.Version != r.Version && got.Version != rec.Version {
			t.Fatalf("cut at byte %d of %d: the version belongs to neither save", n, l.length)
		}
		r = got
	}
}

// TestLostReplies loses the replies of the other writes after they were applied.
func TestLostReplies(t *testing.T) {
	l := newLine(t)
	lose := func() { l.proxy.loseReply(0) }
	ctx := t.Context()
	var r *session.Record
	for after, name := range []string{"the index", "the session"} {
		r = newRecord("alice")
		l.proxy.loseReply(after)
		if err := l.store.Create(ctx, r); err != nil {
			t.Errorf("Create with the reply of %s lost: %v", name, err)
		}
		holds(t, l.direct, r)
	}
	lose()
	r.Expires = r.Expires.Add(time.Minute)
	if err := l.store.Touch(ctx, r.ID, time.Now(), r.Expires); err != nil {
		t.Errorf("Touch: %v", err)
	}
	holds(t, l.direct, r)
	n := tombstone(r)
	lose()
	if err := l.store.Save(ctx, n, r.Version); err != nil {
		t.Errorf("Save of a tombstone: %v", err)
	}
	holds(t, l.direct, n)
	lose()
	if err := l.store.Touch(ctx, "absent", time.Now(), time.Now()); !errors.Is(err, session.ErrNotFound) {
		t.Errorf("Touch of an absent record: %v", err)
	}
	lose()
	if err := l.store.Save(ctx, newRecord(""), 1); !errors.Is(err, session.ErrIndeterminate) {
		t.Errorf("Save of an absent record: %v, want ErrIndeterminate", err)
	}
	lose()
	if err := l.store.Create(ctx, next(n)); !errors.Is(err, session.ErrIndeterminate) {
		t.Errorf("Create of an existing record: %v, want ErrIndeterminate", err)
	}
}

// TestUnsent checks that a write that was not sent is never indeterminate.
func TestUnsent(t *testing.T) {
	s := startServer(t)
	unreachable := newStore(t, s.client(func(o *redis.Options) {
		o.Addr, o.DialerRetries = fmt.Sprintf("127.0.0.1:%d", servers.Port(t)), 1
	}))
	closed := s.client(nil)
	_ = closed.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, test := range []struct {
		name  string
		ctx   context.Context
		store *redisstore.Store
	}{
		{"no server listens", t.Context(), unreachable},
		{"the client is closed", t.Context(), newStore(t, closed)},
		{"the context has ended", ended, newStore(t, s.client(nil))},
	} {
		for name, err := range everything(test.ctx, test.store, newRecord("")) {
			if err == nil || errors.Is(err, session.ErrIndeterminate) || isAnswer(err) {
				t.Errorf("%s: %s returned %v", test.name, name, err)
			}
		}
	}
}

// everything calls each method of s and returns the errors by name.
func everything(ctx context.Context, s session.Store, r *session.Record) map[string]error {
	_, load := s.Load(ctx, r.ID)
	_, list := s.List(ctx, "alice")
	return map[string]error{
		"Load": load, "List": list,
		"Create": s.Create(ctx, r),
		"Save":   s.Save(ctx, next(r), r.Version),
		"Touch":  s.Touch(ctx, r.ID, r.LastSeen, r.Expires),
		"Delete": s.Delete(ctx, r.ID),
	}
}

func isAnswer(err error) bool {
	return errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrExists)
}
