package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/sqlstore"
)

// networked is a database that is reached over a network, and its driver.
type networked struct {
	name    string
	dialect sqlstore.Dialect
	server  func(t testing.TB) *servers.Server
	open    func(t testing.TB) *sql.DB
	driver  string
	dsn     func(addr string) string
}

// overNetwork are the databases that are reached over a network, with the drivers that the
// README recommends.
var overNetwork = []networked{
	{"PostgreSQL", sqlstore.PostgreSQL, postgres, openPostgres, "pgx", servers.PostgresURL},
	{"MariaDB", sqlstore.MySQL, mariadb, openMariaDB, "mysql", servers.MariaDBDSN},
}

// libPQ is PostgreSQL with a driver that returns driver.ErrBadConn for statements that were
// sent. It is not in overNetwork, because lib/pq ignores the context's deadline while the
// server hangs, and for the reason in the comment of TestConnectionsClosedWhileIdle.
var libPQ = networked{"lib-pq", sqlstore.PostgreSQL, postgres, openLibPQ, "postgres", servers.PostgresURL}

// TestLostReply cuts the connection at every byte of the reply to a write, and at many bytes
// before that, from the server's greeting on. If one connection is lost, another try finds the
// outcome of the write. If the network stays down, the outcome that the store reports must be
// true. If another writer changes the record before the next try, the outcome is unknown, and
// never a conflict: the record may have been this write's in between.
func TestLostReply(t *testing.T) {
	for _, d := range append([]networked{libPQ}, overNetwork...) {
		for _, call := range []string{"Save", "Create"} {
			t.Run(d.name+"/"+call, func(t *testing.T) {
				l := &loss{t: t, call: call, table: newTable(), proxy: newProxy(t, d.server(t).Addr)}
				stride := 1
				if d.driver == libPQ.driver {
					l.prepares, stride = true, 5 // larger steps take less time
				}
				l.direct = openStore(t, d.open(t), d.dialect, l.table)
				l.through = func() *sqlstore.Store {
					if l.db != nil {
						l.db.Close() // because the number of connections of a server is limited
					}
					db, err := sql.Open(d.driver, d.dsn(l.proxy.Addr))
					must(t, err)
					l.db = db
					s, err := sqlstore.New(db, d.dialect, &sqlstore.Options{Table: l.table})
					must(t, err)
					return s
				}
				defer func() { l.db.Close() }()
				passes := []struct {
					warm, reply bool
					step        int
				}{{true, true, 1}, {false, true, 15}, {false, false, 15}}
				for _, pass := range passes {
					for n := 0; l.once(n, pass.warm, pass.reply); n += pass.step * stride {
					}
				}
				for _, pass := range passes {
					for n := 0; l.forGood(n, pass.warm, pass.reply); n += pass.step * stride {
					}
				}
				for n := 0; l.overwritten(n); n += stride {
				}
				t.Logf("%d lost once; %d overwritten; %d lost for good: %d returned nil; %d unknown, of which %d had been applied; %d not sent",
					l.single, l.others, l.cuts, l.fine, l.unknown, l.applied, l.unsent)
				if l.single == 0 || l.others == 0 || l.applied == 0 || l.applied == l.unknown || l.unsent == 0 {
					t.Error("the cuts did not fall on both sides of the write")
				}
			})
		}
	}
}

type loss struct {
	t        *testing.T
	call     string
	table    string
	proxy    *cutter
	direct   *sqlstore.Store
	through  func() *sqlstore.Store
	db       *sql.DB // the pool of the store that through returns
	prepares bool    // whether the driver prepares each write first, which has a reply of its own

	single, others, cuts, fine, unknown, applied, unsent int
}

func (l *loss) do(s *sqlstore.Store, old, r *session.Record) error {
	if l.call == "Create" {
		return s.Create(l.t.Context(), r)
	}
	return s.Save(l.t.Context(), r, old.Version)
}

// prepare returns the stored record, its replacement, and a store that writes it. If warm, the
// connection of the store was used before.
func (l *loss) prepare(warm bool) (s *sqlstore.Store, old, r *session.Record) {
	old = record("alice", time.Hour)
	if l.call == "Save" {
		must(l.t, l.direct.Create(l.t.Context(), old))
	}
	s = l.through()
	if warm {
		for range 2 { // pgx pings a connection before its second use
			_ = l.do(s, old, record("", time.Hour))
		}
	}
	return s, old, next(old)
}

// once cuts one connection, and reports whether byte n was reached.
func (l *loss) once(n int, warm, reply bool) bool {
	s, old, r := l.prepare(warm)
	l.proxy.arm(n, reply, false, nil)
	err := l.do(s, old, r)
	cut := l.proxy.disarm()
	if err != nil || !l.done(r) {
		l.t.Errorf("cut once at byte %d (of the reply: %v): %v, applied: %v", n, reply, err, l.done(r))
	}
	l.single++
	return cut
}

// forGood cuts the connection and refuses all that follow, and reports whether byte n was
// reached.
func (l *loss) forGood(n int, warm, reply bool) bool {
	s, old, r := l.prepare(warm)
	l.proxy.arm(n, reply, true, nil)
	err := l.do(s, old, r)
	if !l.proxy.disarm() {
		must(l.t, err)
		return false
	}
	done := l.done(r)
	l.cuts++
	switch what := fmt.Sprintf("cut at byte %d (of the reply: %v)", n, reply); {
	case errors.Is(err, session.ErrConflict), errors.Is(err, session.ErrExists), errors.Is(err, session.ErrNotFound):
		l.t.Errorf("%s: %v", what, err)
	case err == nil:
		if l.fine++; !done {
			l.t.Errorf("%s: acknowledged, but not applied", what)
		}
	case errors.Is(err, session.ErrIndeterminate):
		if l.unknown++; done {
			l.applied++
		}
	default:
		if l.unsent++; done {
			l.t.Errorf("%s: applied, although it returned %v", what, err)
		}
	}
	if err := l.do(l.direct, old, r); err != nil || !l.done(r) {
		l.t.Errorf("cut at byte %d: the repeated write returned %v", n, err)
	}
	return true
}

// overwritten cuts the reply while another writer replaces the record, and reports whether byte
// n was reached.
func (l *loss) overwritten(n int) bool {
	s, old, r := l.prepare(true)
	other := next(r)
	prepared := false // whether the cut is in the reply to the preparation, before the write was sent
	l.proxy.arm(n, true, false, func() {
		err := l.direct.Save(l.t.Context(), other, r.Version)
		if prepared = l.prepares && (errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrNotFound)); err != nil && !prepared {
			l.t.Errorf("the write was not applied before its reply: %v", err)
		}
	})
	err := l.do(s, old, r)
	if !l.proxy.disarm() {
		must(l.t, err)
		return false
	}
	if prepared {
		must(l.t, err)
		return true
	}
	l.others++
	// The bytes before the cut may have told the driver that the write was applied.
	if err != nil && !errors.Is(err, session.ErrIndeterminate) || errors.Is(err, session.ErrConflict) || !l.done(other) {
		l.t.Errorf("overwritten after byte %d: %v", n, err)
	}
	return true
}

// done reports whether the write has been applied.
func (l *loss) done(r *session.Record) bool {
	got, err := l.direct.Load(l.t.Context(), r.ID)
	if l.call == "Create" && errors.Is(err, session.ErrNotFound) {
		return false
	}
	must(l.t, err)
	return got.Version == r.Version
}

// TestHungServer checks that every call to a hung server ends with its context, and that no
// error of a write that was sent says that it was not applied.
func TestHungServer(t *testing.T) {
	for _, d := range overNetwork {
		t.Run(d.name, func(t *testing.T) {
			s := newStore(t, d.open(t), d.dialect)
			r := record("alice", time.Hour)
			must(t, s.Create(t.Context(), r))
			resume := d.server(t).Suspend(t)
			const timeout = 200 * time.Millisecond
			for _, c := range []struct {
				name  string
				write bool
				run   func(ctx context.Context) error
			}{
				{"Load", false, func(ctx context.Context) error { _, err := s.Load(ctx, r.ID); return err }},
				{"List", false, func(ctx context.Context) error { _, err := s.List(ctx, "alice"); return err }},
				{"Sweep", false, func(ctx context.Context) error { _, err := s.Sweep(ctx); return err }},
				{"Migrate", false, s.Migrate},
				{"Create", true, func(ctx context.Context) error { return s.Create(ctx, record("", time.Hour)) }},
				{"Save", true, func(ctx context.Context) error { return s.Save(ctx, next(r), r.Version) }},
				{"Touch", true, func(ctx context.Context) error { return s.Touch(ctx, r.ID, r.LastSeen, r.Expires) }},
				{"Delete", true, func(ctx context.Context) error { return s.Delete(ctx, r.ID) }},
			} {
				err := within(t, timeout, c.run)
				if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, session.ErrIndeterminate) {
					t.Errorf("%s: %v", c.name, err)
				}
			}
			resume()
			if _, err := s.List(t.Context(), "alice"); err != nil {
				t.Errorf("a write after the resume: %v", err)
			}
		})
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

// TestUnknownOrUnsent checks that a write that was sent to a hung server has an unknown
// outcome, and that a write that got no connection is known not to be applied.
func TestUnknownOrUnsent(t *testing.T) {
	for _, d := range overNetwork {
		t.Run(d.name, func(t *testing.T) {
			db := d.open(t)
			db.SetMaxOpenConns(1)
			s := newStore(t, db, d.dialect)
			r := record("alice", time.Hour)
			must(t, s.Create(t.Context(), r))
			short := func() context.Context {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				t.Cleanup(cancel)
				return ctx
			}
			conn, err := db.Conn(t.Context())
			must(t, err)
			if err := s.Save(short(), next(r), r.Version); err == nil || errors.Is(err, session.ErrIndeterminate) {
				t.Errorf("a write without a free connection: %v", err)
			}
			conn.Close()
			var resume func()
			for limit := 200 * time.Millisecond; ; limit *= 2 { // on a slow machine the limit may pass before the write is sent
				r, err = s.Load(t.Context(), r.ID)
				must(t, err)
				resume = d.server(t).Suspend(t)
				err := within(t, limit, func(ctx context.Context) error { return s.Save(ctx, next(r), r.Version) })
				if errors.Is(err, session.ErrIndeterminate) {
					break
				}
				resume()
				if limit > 30*time.Second {
					t.Fatalf("a write that was sent without a reply: %v", err)
				}
			}
			if err := s.Save(short(), next(r), r.Version); err == nil || errors.Is(err, session.ErrIndeterminate) {
				t.Errorf("a write before the server's greeting: %v", err)
			}
			resume()
			canceled, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.Delete(canceled, r.ID); !errors.Is(err, context.Canceled) || errors.Is(err, session.ErrIndeterminate) {
				t.Errorf("a write with a cancelled context: %v", err)
			}
			if _, err := s.Load(t.Context(), r.ID); err != nil {
				t.Errorf("a write after the resume: %v", err)
			}
		})
	}
}

// TestRefused checks that a write that the server refused is known not to be applied.
func TestRefused(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		s, err := sqlstore.New(db, d, &sqlstore.Options{Table: newTable()}) // no Migrate
		must(t, err)
		if err := s.Create(t.Context(), record("", time.Hour)); err == nil || errors.Is(err, session.ErrIndeterminate) || !strings.Contains(err.Error(), "call Store.Migrate") {
			t.Errorf("Create without a table: %v", err)
		}
		if _, err := s.Load(t.Context(), "absent"); err == nil || !strings.Contains(err.Error(), "call Store.Migrate") {
			t.Errorf("Load without a table: %v", err)
		}
	})
}

// TestHungServerThroughHTTP checks that a request is answered while the server is stopped,
// whether the server stopped before the request or in the middle of it.
func TestHungServerThroughHTTP(t *testing.T) {
	const timeout = 250 * time.Millisecond
	for _, d := range overNetwork {
		t.Run(d.name, func(t *testing.T) {
			var during func()
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				s.User()
				if during != nil {
					during()
				}
				switch r.URL.Path {
				case "/set":
					count.Update(s, func(n int) int { return n + 1 })
				case "/login":
					s.Login("bob")
				case "/renew":
					s.Renew()
				case "/logout":
					s.Logout()
				}
			})
			store := newStore(t, d.open(t), d.dialect)
			hasty, patient := newSite(t, store, session.Options{StoreTimeout: timeout}, h), newSite(t, store, session.Options{StoreTimeout: time.Minute}, h)
			loggedIn := func() *browser { // logs in without a short StoreTimeout, which a slow machine may exceed
				b := patient.browser()
				b.expect("/login", http.StatusOK)
				return &browser{b.Browser, hasty}
			}
			b := loggedIn()
			for _, path := range []string{"/look", "/set", "/login", "/renew", "/logout"} {
				resume := d.server(t).Suspend(t)
				during = nil
				b.expect(path, http.StatusServiceUnavailable)
				resume()
			}
			for _, path := range []string{"/set", "/login", "/renew", "/logout"} {
				during = nil
				b := loggedIn()
				var resume func()
				during = func() { resume = d.server(t).Suspend(t) }
				b.expect(path, http.StatusServiceUnavailable)
				resume()
			}
		})
	}
}
