package sqlstore_test

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
)

const poolSize = 16

// closeAll fills the pool with connections, and then has the database close all of them
// while they are idle, as in a failover.
func closeAll(t *testing.T, db, admin *sql.DB, d sqlstore.Dialect) {
	t.Helper()
	self, end, left := "SELECT pg_backend_pid()", "SELECT pg_terminate_backend(%d)", "SELECT count(*) FROM pg_stat_activity WHERE pid = %d"
	if d == sqlstore.MySQL {
		self, end, left = "SELECT connection_id()", "KILL %d", "SELECT count(*) FROM information_schema.processlist WHERE id = %d"
	}
	var conns []*sql.Conn
	var ids []int
	for len(ids) < poolSize {
		conn, err := db.Conn(t.Context())
		must(t, err)
		var id int
		if conn.QueryRowContext(t.Context(), self).Scan(&id) != nil { // closed the last time, and not used since
			_ = conn.Raw(func(any) error { return driver.ErrBadConn })
			continue
		}
		conns, ids = append(conns, conn), append(ids, id)
	}
	for _, conn := range conns {
		must(t, conn.Close())
	}
	for _, id := range ids {
		_, err := admin.Exec(fmt.Sprintf(end, id))
		must(t, err)
	}
	for _, id := range ids {
		for n := 1; n > 0; {
			must(t, admin.QueryRow(fmt.Sprintf(left, id)).Scan(&n))
		}
	}
}

// Connections that the database closed while they were idle fail no request, and lose no
// change.
func TestConnectionsClosedWhileIdle(t *testing.T) {
	for _, d := range overNetwork {
		t.Run(d.name, func(t *testing.T) {
			db, admin := d.open(t), d.open(t)
			site := newSite(t, newStore(t, db, d.dialect), session.Options{}, func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if r.URL.Path == "/add" {
					count.Update(s, func(n int) int { return n + 1 })
				}
				fmt.Fprint(w, count.Get(s))
			})
			b := site.browser()
			b.expect("/add", http.StatusOK)
			const rounds = 10
			for range rounds {
				closeAll(t, db, admin, d.dialect)
				var all sync.WaitGroup
				for i := range poolSize {
					all.Go(func() { b.expect([]string{"/look", "/add"}[i%2], http.StatusOK) })
				}
				all.Wait()
			}
			if _, body := b.get("/look"); body != fmt.Sprint(1+rounds*poolSize/2) {
				t.Errorf("the counter says %s, want %d", body, 1+rounds*poolSize/2)
			}
		})
	}
}

// The same, for each method by itself, with none but dead connections in the pool.
func TestEachCallOnDeadConnections(t *testing.T) {
	for _, d := range overNetwork {
		t.Run(d.name, func(t *testing.T) {
			db, admin := d.open(t), d.open(t)
			s := newStore(t, db, d.dialect)
			ctx := t.Context()
			for name, run := range map[string]func(r *session.Record) error{
				"Load":    func(r *session.Record) error { _, err := s.Load(ctx, r.ID); return err },
				"List":    func(r *session.Record) error { _, err := s.List(ctx, r.User); return err },
				"Create":  func(r *session.Record) error { return s.Create(ctx, record("bob", time.Hour)) },
				"Save":    func(r *session.Record) error { return s.Save(ctx, next(r), r.Version) },
				"Touch":   func(r *session.Record) error { return s.Touch(ctx, r.ID, r.LastSeen, r.Expires.Add(time.Minute)) },
				"Delete":  func(r *session.Record) error { return s.Delete(ctx, r.ID) },
				"Sweep":   func(*session.Record) error { _, err := s.Sweep(ctx); return err },
				"Migrate": func(*session.Record) error { return s.Migrate(ctx) },
			} {
				r := record("alice", time.Hour)
				must(t, s.Create(ctx, r))
				closeAll(t, db, admin, d.dialect)
				if err := run(r); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}
