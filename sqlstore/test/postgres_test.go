package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/sqlstore"
)

// tracer records the statements that pgx sends, each of which is a round trip.
type tracer struct {
	mu      sync.Mutex
	queries []pgx.TraceQueryStartData
	rows    []int64 // affected
}

func (c *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, d pgx.TraceQueryStartData) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queries = append(c.queries, d)
	return ctx
}

func (c *tracer) TraceQueryEnd(_ context.Context, _ *pgx.Conn, d pgx.TraceQueryEndData) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows = append(c.rows, d.CommandTag.RowsAffected())
}

// take returns the statements since the last call of take.
func (c *tracer) take() (queries []pgx.TraceQueryStartData, rows []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	queries, rows, c.queries, c.rows = c.queries, c.rows, nil, nil
	return queries, rows
}

func traced(t *testing.T) (*sql.DB, *tracer) {
	config, err := pgx.ParseConfig(servers.PostgresURL(postgres(t).Addr))
	must(t, err)
	c := &tracer{}
	config.Tracer = c
	db := stdlib.OpenDB(*config)
	t.Cleanup(func() { db.Close() })
	return db, c
}

// TestPlans checks the plans of the statements: List uses the index of users in every kind of
// plan, Load the primary key, and a sweep reads physical ranges.
func TestPlans(t *testing.T) {
	db, trace := traced(t)
	db.SetMaxOpenConns(1)
	table := newTable()
	s := openStore(t, db, sqlstore.PostgreSQL, table)
	fill(t, db, sqlstore.PostgreSQL, table, 20_000, -time.Hour)
	for _, setting := range []string{"enable_seqscan = off", "plan_cache_mode = force_generic_plan"} {
		_, err := db.Exec("SET " + setting)
		must(t, err)
	}
	explain := func(queries []pgx.TraceQueryStartData, want string) {
		t.Helper()
		q := queries[len(queries)-1]
		// A prepared statement has one plan for all arguments.
		_, err := db.Exec("PREPARE p AS " + q.SQL)
		must(t, err)
		defer db.Exec("DEALLOCATE p")
		var args []string
		for _, arg := range q.Args {
			switch arg := arg.(type) {
			case []byte:
				args = append(args, fmt.Sprintf(`'\x%x'`, arg))
			case string, int64:
				args = append(args, fmt.Sprintf("'%v'", arg))
			}
		}
		lines, err := db.Query("EXPLAIN EXECUTE p (" + strings.Join(args, ", ") + ")")
		must(t, err)
		defer lines.Close()
		var plan, line string
		for lines.Next() {
			must(t, lines.Scan(&line))
			plan += line + "\n"
		}
		if !strings.Contains(plan, want) {
			t.Errorf("%s\n%s\nwant %s", q.SQL, plan, want)
		}
	}
	_, err := s.List(t.Context(), "alice")
	must(t, err)
	queries, _ := trace.take()
	explain(queries, table+"_username")
	_, err = s.Load(t.Context(), "absent")
	if err == nil {
		t.Fatal("Load found an id that does not exist")
	}
	queries, _ = trace.take()
	explain(queries, table+"_pkey")

	trace.take()
	n, err := s.Sweep(t.Context())
	if err != nil || n != 20_000 {
		t.Fatalf("Sweep returned %d, %v", n, err)
	}
	queries, affected := trace.take()
	t.Logf("a sweep of 20000 rows in %d statements: %v", len(queries), affected)
	for i, n := range affected {
		if i > 0 && n > 8192 {
			t.Errorf("one statement of the sweep deleted %d rows", n)
		}
	}
	_, err = db.Exec("RESET enable_seqscan") // the planner must choose the ranges by itself
	must(t, err)
	explain(queries, "Tid Range Scan")
}

// TestTouchesAreHOT checks that a touch changes no index and moves no row to another page.
func TestTouchesAreHOT(t *testing.T) {
	db := openPostgres(t)
	table := newTable()
	own := openPostgres(t)
	s := openStore(t, own, sqlstore.PostgreSQL, table)
	records := make([]*session.Record, 100)
	for i := range records {
		records[i] = record("alice", time.Hour)
		must(t, s.Create(t.Context(), records[i]))
	}
	const touches = 1500
	for i := range touches {
		r := records[rand.IntN(len(records))]
		later := time.Duration(i+1) * time.Millisecond
		must(t, s.Touch(t.Context(), r.ID, r.LastSeen.Add(later), r.Expires.Add(later)))
	}
	own.Close() // a connection reports its statistics when it ends
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var updates, hot int
		must(t, db.QueryRow("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = $1", table).Scan(&updates, &hot))
		if updates == touches {
			if hot != touches {
				t.Errorf("%d of %d touches were HOT updates", hot, touches)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL counts %d updates, want %d", updates, touches)
		}
	}
}

// TestClientGone closes the client's connection while its request runs, a hundred times: every
// change is stored nevertheless.
func TestClientGone(t *testing.T) {
	for _, d := range overNetwork {
		t.Run(d.name, func(t *testing.T) {
			hangUp, done := make(chan context.CancelFunc, 1), make(chan struct{})
			site := newSite(t, newStore(t, d.open(t), d.dialect), session.Options{}, func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				if r.URL.Path == "/gone" {
					(<-hangUp)()
					<-r.Context().Done() // the server has seen that the client is gone
				}
				count.Update(s, func(n int) int { return n + 1 })
				fmt.Fprint(w, count.Get(s))
				if r.URL.Path == "/gone" {
					http.NewResponseController(w).Flush()
					done <- struct{}{}
				}
			})
			b := site.browser()
			b.expect("/", http.StatusOK)
			for range 100 {
				ctx, cancel := context.WithCancel(t.Context())
				hangUp <- cancel
				r, err := http.NewRequestWithContext(ctx, "GET", site.server.URL+"/gone", nil)
				must(t, err)
				if resp, err := b.Do(r); err == nil {
					resp.Body.Close()
				}
				<-done
			}
			if _, body := b.get("/"); body != "102" {
				t.Errorf("the counter is %s, want 102", body)
			}
		})
	}
}
