package sqlstore_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session/sqlstore"
)

// fill inserts n rows that expire after life, faster than through the store.
func fill(t testing.TB, db *sql.DB, d sqlstore.Dialect, table string, n int, life time.Duration) {
	t.Helper()
	quote := "x'%x'"
	if d == sqlstore.PostgreSQL {
		quote = `'\x%x'::bytea`
	}
	at := time.Now().Add(life).UnixMilli()
	for n > 0 {
		var values []string
		for ; n > 0 && len(values) < 1000; n-- {
			values = append(values, fmt.Sprintf("("+quote+", 1, "+quote+", "+quote+", 1, %d, 1, 1, %d)", rand.Text(), "alice", `{"name":"value"}`, at, at))
		}
		_, err := db.Exec("INSERT INTO " + table + " (id, version, username, data, created, deadline, checksum, seen, expires) VALUES " + strings.Join(values, ", "))
		must(t, err)
	}
}

// rows returns the number of rows, expired ones included.
func rows(t testing.TB, db *sql.DB, table string) (n int) {
	t.Helper()
	must(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&n))
	return n
}

// TestSweepAtOnce checks that several concurrent sweeps, while users log in, delete and count
// every expired record once, and no other.
func TestSweepAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		table := newTable()
		s := openStore(t, db, d, table)
		const expired, live = 5500, 700
		fill(t, db, d, table, expired/2, -time.Second)
		fill(t, db, d, table, live, time.Hour)
		fill(t, db, d, table, expired/2, -time.Hour)
		var wg sync.WaitGroup
		var deleted [4]int
		for i := range deleted {
			wg.Go(func() {
				n, err := s.Sweep(context.Background())
				if err != nil {
					t.Error(err)
				}
				deleted[i] = n
			})
		}
		for range 4 {
			wg.Go(func() {
				for range 25 {
					if err := s.Create(context.Background(), record("bob", time.Hour)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if sum := deleted[0] + deleted[1] + deleted[2] + deleted[3]; sum != expired {
			t.Errorf("the sweeps report %v, %d in all, want %d", deleted, sum, expired)
		}
		if n := rows(t, db, table); n != live+100 {
			t.Errorf("%d rows are left, want %d", n, live+100)
		}
		if n, err := s.Sweep(t.Context()); n != 0 || err != nil {
			t.Errorf("another sweep returned %d, %v", n, err)
		}
	})
}

// TestSweepSparesTheExtended extends thirty sessions in a transaction that is committed after
// they would have expired, while Sweep waits to delete them.
func TestSweepSparesTheExtended(t *testing.T) {
	for _, db := range []struct {
		name    string
		dialect sqlstore.Dialect
		open    func(t testing.TB) (sweeper, toucher *sql.DB)
		waiting string // query that counts the connections that wait for a lock
	}{
		{"PostgreSQL", sqlstore.PostgreSQL, func(t testing.TB) (_, _ *sql.DB) { return openPostgres(t), openPostgres(t) },
			"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM %s %%'"},
		{"MariaDB", sqlstore.MySQL, func(t testing.TB) (_, _ *sql.DB) { return openMariaDB(t), openMariaDB(t) },
			"SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS' -- %s"},
		{"SQLite", sqlstore.SQLite, func(t testing.TB) (_, _ *sql.DB) {
			path := filepath.Join(t.TempDir(), "sessions.db")
			return openSQLite(t, path, ""), openSQLite(t, path, "")
		}, ""},
	} {
		t.Run(db.name, func(t *testing.T) {
			sweeper, toucher := db.open(t)
			table := newTable()
			s := openStore(t, sweeper, db.dialect, table)
			const life = 300 * time.Millisecond
			end := time.Now().Add(life + 50*time.Millisecond)
			fill(t, sweeper, db.dialect, table, 30, life)
			fill(t, sweeper, db.dialect, table, 1, -time.Hour)

			tx, err := toucher.Begin()
			must(t, err)
			defer tx.Rollback()
			_, err = tx.Exec(fmt.Sprintf("UPDATE %s SET expires = expires + 3600000 WHERE expires > %d", table, time.Now().UnixMilli()))
			must(t, err)
			time.Sleep(time.Until(end))
			type answer struct {
				n   int
				err error
			}
			swept := make(chan answer)
			go func() {
				n, err := s.Sweep(context.Background())
				swept <- answer{n, err}
			}()
			if db.waiting == "" {
				time.Sleep(100 * time.Millisecond) // SQLite cannot report what waits
			}
			for n, since := 0, time.Now(); n == 0 && db.waiting != ""; time.Sleep(time.Millisecond) {
				if time.Since(since) > time.Minute {
					t.Fatal("Sweep does not wait for the lock")
				}
				must(t, toucher.QueryRow(fmt.Sprintf(db.waiting, table)).Scan(&n))
			}
			must(t, tx.Commit())
			if a := <-swept; a.n != 1 || a.err != nil {
				t.Errorf("Sweep returned %d, %v; want 1: the record that was not extended", a.n, a.err)
			}
			if n := rows(t, sweeper, table); n != 30 {
				t.Errorf("%d of 30 extended sessions are left", n)
			}
		})
	}
}

// TestSweepStops checks that a context that ends in the middle ends the sweep, and that Sweep
// returns the number of records deleted until then.
func TestSweepStops(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		s := newStore(t, db, d)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if n, err := s.Sweep(ctx); n != 0 || err == nil {
			t.Errorf("Sweep with a context that has ended: %d, %v", n, err)
		}
	})
}
