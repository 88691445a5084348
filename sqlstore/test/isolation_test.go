package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/sessiontest"
	"github.com/coatcheck/session/sqlstore"
)

// TestRaisedIsolation checks that fifty concurrent writers of one session are all answered 200
// and that no count is lost, in a database whose default isolation level was raised.
func TestRaisedIsolation(t *testing.T) {
	n := session.NewKey[int]("n")
	run := func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		var all sync.WaitGroup
		table := newTable()
		h := func() http.Handler { // a Manager of its own, as in another process: a Manager serializes its own writers
			m := session.Must(session.New(&session.Options{Store: openStore(t, db, d, table), Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}}))
			return m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if r.URL.Path == "/login" {
					s.Login("alice")
					return
				}
				n.Update(s, func(n int) int { return n + 1 })
				fmt.Fprint(w, n.Get(s))
			}))
		}
		processes := []http.Handler{h(), h(), h()}
		b := sessiontest.NewBrowser(t, processes[0])
		cookie := b.Get("/login").Cookies()[0]
		request := func(h http.Handler) *httptest.ResponseRecorder {
			r := httptest.NewRequest("GET", "https://localhost/add", nil)
			r.AddCookie(cookie)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		for i := range 50 {
			all.Go(func() {
				if w := request(processes[i%len(processes)]); w.Code != 200 {
					t.Errorf("a writer was answered %d", w.Code)
				}
			})
		}
		all.Wait()
		if got := request(processes[0]).Body.String(); got != "51" {
			t.Errorf("the counter is %s, want 51", got)
		}
	}
	for _, level := range []string{"read%20committed", "repeatable%20read", "serializable"} {
		t.Run("PostgreSQL "+level, func(t *testing.T) {
			run(t, open(t, "pgx", servers.PostgresURL(postgres(t).Addr)+"&default_transaction_isolation="+level), sqlstore.PostgreSQL)
		})
	}
	t.Run("MariaDB serializable", func(t *testing.T) {
		run(t, open(t, "mysql", servers.MariaDBDSN(mariadb(t).Addr)+"&tx_isolation=%27SERIALIZABLE%27"), sqlstore.MySQL)
	})
}

// TestMigrateWithoutRights checks that Migrate needs no right to create tables if the table
// exists.
func TestMigrateWithoutRights(t *testing.T) {
	db := openPostgres(t)
	table := newTable()
	openStore(t, db, sqlstore.PostgreSQL, table)
	for _, q := range []string{"CREATE ROLE app_" + table + " LOGIN", "GRANT SELECT, INSERT, UPDATE, DELETE ON " + table + " TO app_" + table} {
		_, err := db.Exec(q)
		must(t, err)
	}
	url := servers.PostgresURL(postgres(t).Addr)
	app := open(t, "pgx", strings.Replace(url, "postgres@", "app_"+table+"@", 1))
	store, err := sqlstore.New(app, sqlstore.PostgreSQL, &sqlstore.Options{Table: table})
	must(t, err)
	must(t, store.Migrate(t.Context()))
	must(t, store.Create(t.Context(), record("alice", time.Hour)))
}

// TestMigrateOverAnotherProgramsTable checks that Migrate returns an error for a table of
// another program, that the error names the option to set, and that the table is unchanged.
func TestMigrateOverAnotherProgramsTable(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		table := newTable()
		_, err := db.Exec("CREATE TABLE " + table + " (token VARCHAR(43) PRIMARY KEY, data VARCHAR(100) NOT NULL, expiry INTEGER NOT NULL)")
		must(t, err)
		s, err := sqlstore.New(db, d, &sqlstore.Options{Table: table})
		must(t, err)
		for range 2 {
			err = s.Migrate(t.Context())
			if err == nil || !strings.Contains(err.Error(), "belongs to another program") || !strings.Contains(err.Error(), "Options.Table") || !strings.Contains(err.Error(), "username") {
				t.Errorf("Migrate: %v", err)
			}
		}
	})
}

// TestSweepEvery checks that SweepEvery deletes expired records until its context ends.
func TestSweepEvery(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		table := newTable()
		s := openStore(t, db, d, table)
		expired := record("alice", time.Hour)
		expired.Expires = time.Now().Add(time.Millisecond).Truncate(time.Millisecond)
		must(t, s.Create(t.Context(), expired))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		defer func() { cancel(); <-done }()
		for began := false; ; {
			var rows int
			must(t, db.QueryRow("SELECT count(*) FROM "+table).Scan(&rows))
			if rows == 0 {
				break
			}
			if !began {
				began = true
				go func() {
					defer close(done)
					s.SweepEvery(ctx, time.Millisecond)
				}()
			}
			time.Sleep(time.Millisecond)
		}
	})
}
