package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/redisstore"
	"github.com/redis/go-redis/v9"
)

// TestHung checks that a hung server delays no call past the deadline of its context, on an
// open connection or on a new one. The outcome of a write that was sent is unknown.
func TestHung(t *testing.T) {
	s := startServer(t)
	hung(t, []*server{s}, func() *redisstore.Store { return newStore(t, s.client(patient)) })
}

func hung(t *testing.T, nodes []*server, open func() *redisstore.Store) {
	warm, cold := open(), open()
	r := create(t, warm, newRecord("alice"))
	for range 10 { // opens connections to every node
		create(t, warm, newRecord("alice"))
	}
	lists(t, warm, "alice")
	for _, s := range nodes {
		defer s.Suspend(t)()
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
			write := call != "Load" && call != "List"
			for limit := 200 * time.Millisecond; ; limit *= 2 {
				err := within(t, limit, do)
				if err == nil || isAnswer(err) {
					t.Errorf("%s on a connection that is %s returned %v", call, name, err)
				}
				indeterminate := errors.Is(err, session.ErrIndeterminate)
				if indeterminate && !write {
					t.Errorf("%s on a connection that is %s is indeterminate: %v", call, name, err)
				}
				if indeterminate || !write || name == "new" {
					break
				}
				if limit > time.Minute { // with a shorter limit the command may not have been sent in time
					t.Errorf("%s on a connection that is %s is never indeterminate: %v", call, name, err)
					break
				}
			}
		}
	}
}

// within calls do with a context that ends after limit, and fails the test if do has not
// returned a minute later.
func within(t *testing.T, limit time.Duration, do func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	returned := make(chan error, 1)
	go func() { returned <- do(ctx) }()
	select {
	case err := <-returned:
		return err
	case <-time.After(limit + time.Minute):
		t.Fatal("the call ignores the deadline of its context")
		return nil
	}
}

// patient gives the client timeouts that are longer than the test.
func patient(o *redis.Options) {
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = time.Hour, time.Hour, time.Hour, time.Hour
}

// TestHungCreateIsSentOnce checks that a create that hangs is not sent again. Its first copy
// could arrive after the second, and after the session was deleted, and restore the session.
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
		must(t, store.Save(t.Context(), r, r.Version)) // the server knows both scripts from here on
		openConnections(t, client, 4)
		must(t, s.client(nil).ConfigResetStat(t.Context()).Err())
		resume := s.Suspend(t)
		err := test.write(r)
		resume()
		if !errors.Is(err, session.ErrIndeterminate) {
			t.Errorf("%s returned %v, want ErrIndeterminate", test.name, err)
		}
		var n int
		_, _ = fmt.Sscanf(sent(t, s.client(nil)), "evalsha=%d", &n)
		if n == 0 || n > 1 != test.resent {
			t.Errorf("%s was sent %d times", test.name, n)
		}
	}
}

// openConnections leaves n open connections in the client's pool.
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

// TestUnreachable simulates a network that drops all packets, from the first on.
func TestUnreachable(t *testing.T) {
	s := startServer(t)
	store := newStore(t, s.client(func(o *redis.Options) {
		patient(o)
		o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
		}
	}))
	err := within(t, 200*time.Millisecond, func(ctx context.Context) error { return store.Save(ctx, newRecord(""), 1) })
	if err == nil || isAnswer(err) {
		t.Errorf("Save returned %v", err)
	}
}
