package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

// A line is a store behind a proxy, and one that reaches the server directly.
type line struct {
	proxy         *proxy
	store, direct *redisstore.Store
	length        int // of a save, request and reply
}

// newLine opens the line: the client has retries of its own, as by default, and
// one connection, so that what the proxy sees is one exchange after the other.
func newLine(t *testing.T) *line {
	s := startServer(t)
	l := &line{proxy: startProxy(t, s.addr), direct: newStore(t, s.client(nil))}
	l.store = newStore(t, s.client(func(o *redis.Options) {
		o.Addr, o.PoolSize, o.MaxRetries = l.proxy.addr(), 1, 3
	}))
	r := create(t, l.store, newRecord(""))
	must(t, l.store.Touch(t.Context(), r.ID, r.LastSeen, r.Expires))
	for range 2 { // the second knows the script
		n := next(r)
		must(t, l.store.Save(t.Context(), n, r.Version))
		r = n
	}
	l.length = l.proxy.requestSize + l.proxy.replySize
	if l.proxy.requestSize < 100 || l.proxy.replySize != len(":0\r\n") {
		t.Fatalf("the exchange is not what it was: %d and %d bytes", l.proxy.requestSize, l.proxy.replySize)
	}
	return l
}

// One reply is lost: the next try finds what the first has done.
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

// One reply is lost, and somebody saves before the next try: what that finds
// is no conflict, for the first may have been applied.
func TestLostAndOverwritten(t *testing.T) {
	l := newLine(t)
	r := create(t, l.direct, newRecord(""))
	for n := range l.length {
		rec, other := next(r), (*session.Record)(nil)
		l.proxy.cutAt(n, l.proxy.requestSize, false, func() {
			// After the request's last byte it depends on the server's pace
			// whose save comes first.
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
			t.Fatalf("cut at byte %d of %d: nobody overwrote the record", n, l.length)
		}
		holds(t, l.direct, other)
		r = other
	}
}

// All replies are lost: it is unknown whether the write was applied.
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
		is, err := l.direct.Load(t.Context(), r.ID)
		must(t, err)
		if is.Version != r.Version && is.Version != rec.Version {
			t.Fatalf("cut at byte %d of %d: somebody else's version", n, l.length)
		}
		r = is
	}
}

// The other writes, with the reply lost after they were applied.
func TestLostReplies(t *testing.T) {
	l := newLine(t)
	lose := func() { l.proxy.loseReply(0) }
	ctx := t.Context()
	var r *session.Record
	for after, name := range []string{"the index", "the session"} {
		r = newRecord("alice")
		l.proxy.loseReply(after)
		if err := l.store.Create(ctx, r); err != nil {
			t.Errorf("Create, the reply about %s lost: %v", name, err)
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
		t.Errorf("Touch of what is absent: %v", err)
	}
	lose()
	if err := l.store.Save(ctx, newRecord(""), 1); !errors.Is(err, session.ErrIndeterminate) {
		t.Errorf("Save of what is absent: %v, want ErrIndeterminate", err)
	}
	lose()
	if err := l.store.Create(ctx, next(n)); !errors.Is(err, session.ErrIndeterminate) {
		t.Errorf("Create of what exists: %v, want ErrIndeterminate", err)
	}
}

// Before a write has left, nothing is unknown.
func TestUnsent(t *testing.T) {
	s := startServer(t)
	nobody := newStore(t, s.client(func(o *redis.Options) {
		o.Addr, o.DialerRetries = fmt.Sprintf("127.0.0.1:%d", freePort(t)), 1
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
		{"nobody listens", t.Context(), nobody},
		{"the client is closed", t.Context(), newStore(t, closed)},
		{"the context has ended", ended, newStore(t, s.client(nil))},
	} {
		for name, err := range everything(test.ctx, test.store, newRecord("")) {
			if err == nil || errors.Is(err, session.ErrIndeterminate) || isAnswer(err) {
				t.Errorf("%s: %s answered %v", test.name, name, err)
			}
		}
	}
}

// everything calls each method and returns what it answers.
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

// A server that hangs holds nobody past the context's deadline, whether the
// connection is open already or not. What was sent to it is unknown.
func TestHung(t *testing.T) {
	s := startServer(t)
	hung(t, []*server{s}, func() *redisstore.Store { return newStore(t, s.client(nil)) })
}

func hung(t *testing.T, nodes []*server, open func() *redisstore.Store) {
	warm, cold := open(), open()
	r := create(t, warm, newRecord("alice"))
	for range 10 { // also where the next ones will be
		create(t, warm, newRecord("alice"))
	}
	lists(t, warm, "alice")
	for _, s := range nodes {
		s.signal(syscall.SIGSTOP)
		defer s.signal(syscall.SIGCONT)
	}
	for name, s := range map[string]*redisstore.Store{"open": warm, "new": cold} {
		for call, do := range map[string]func(ctx context.Context) error{
			"Load":   func(ctx context.Context) error { _, err := s.Load(ctx, r.ID); return err },
			"List":   func(ctx context.Context) error { _, err := s.List(ctx, "alice"); return err },
			"Create": func(ctx context.Context) error { return s.Create(ctx, newRecord("")) },
			"Save":   func(ctx context.Context) error { return s.Save(ctx, next(r), r.Version) },
			"Touch":  func(ctx context.Context) error { return s.Touch(ctx, r.ID, r.LastSeen, r.Expires) },
			"Delete": func(ctx context.Context) error { return s.Delete(ctx, r.ID) },
		} {
			const limit = 200 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			begun := time.Now()
			err := do(ctx)
			took := time.Since(begun)
			cancel()
			if took > limit+100*time.Millisecond {
				t.Errorf("%s on a connection that is %s took %v", call, name, took)
			}
			if err == nil || isAnswer(err) {
				t.Errorf("%s on a connection that is %s answered %v", call, name, err)
			}
			write := call != "Load" && call != "List"
			if is := errors.Is(err, session.ErrIndeterminate); is && !write || !is && write && name == "open" {
				t.Errorf("%s on a connection that is %s: indeterminate is %v: %v", call, name, is, err)
			}
		}
	}
}

// A create that hangs is not sent again: if the first one arrived after the
// second, and after the session has ended, it would be back.
func TestHungCreateIsSentOnce(t *testing.T) {
	s := startServer(t)
	client := s.client(func(o *redis.Options) { o.ReadTimeout, o.MaxRetries = 50*time.Millisecond, 3 })
	store := newStore(t, client)
	for _, test := range []struct {
		name   string
		write  func(r *session.Record) error
		resent bool
	}{
		{"a create", func(r *session.Record) error { return store.Create(t.Context(), newRecord("")) }, false},
		{"a save", func(r *session.Record) error { return store.Save(t.Context(), next(r), r.Version) }, true},
	} {
		r := create(t, store, newRecord(""))
		must(t, store.Save(t.Context(), r, r.Version)) // both scripts are known
		openConnections(t, client, 4)
		must(t, s.client(nil).ConfigResetStat(t.Context()).Err())
		s.signal(syscall.SIGSTOP)
		err := test.write(r)
		s.signal(syscall.SIGCONT)
		if !errors.Is(err, session.ErrIndeterminate) {
			t.Errorf("%s answered %v, want ErrIndeterminate", test.name, err)
		}
		var n int
		_, _ = fmt.Sscanf(sent(t, s.client(nil)), "evalsha=%d", &n)
		if n == 0 || n > 1 != test.resent {
			t.Errorf("%s was sent %d times", test.name, n)
		}
	}
}

// openConnections leaves so many open connections in the client's pool.
func openConnections(t *testing.T, client *redis.Client, n int) {
	t.Helper()
	conns := make([]*redis.Conn, n)
	for i := range conns {
		conns[i] = client.Conn()
		must(t, conns[i].Ping(t.Context()).Err())
	}
	for _, c := range conns {
		must(t, c.Close())
	}
}

// A network that swallows everything, from the first packet on.
func TestUnreachable(t *testing.T) {
	s := startServer(t)
	store := newStore(t, s.client(func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
		}
	}))
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := store.Save(ctx, newRecord(""), 1)
	if took := time.Since(begun); took > 300*time.Millisecond || err == nil || isAnswer(err) {
		t.Errorf("Save took %v and answered %v", took, err)
	}
}
