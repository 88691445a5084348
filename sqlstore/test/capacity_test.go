//go:build unix

package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/sqlstore"
)

const (
	clients  = 16 // goroutines, and connections
	sessions = 100_000
)

// BenchmarkCapacity measures what one PostgreSQL server can hold. Its processors are saturated
// when the sum of pg-cpu-ns/op × operations per second reaches 1e9 for each core; the README
// lists the operations of a request. n sessions use at least n × B/session, measured after a
// VACUUM.
//
// The server has PostgreSQL's defaults with fsync and synchronous_commit on. Every write waits
// for the disk, but concurrent writes share a wait: ns/op is wall time divided by all
// operations, and client and server share the cores here. wal-B/op does not include full-page
// images, which add up to 8 KiB for the first change of a page after a checkpoint. Use
// -benchtime 10000x or more, because PostgreSQL's processor times have a resolution of 10 ms.
// They include autovacuum, if it runs.
func BenchmarkCapacity(b *testing.B) {
	db, ctx := openPostgres(b), context.Background()
	db.SetMaxOpenConns(clients)
	db.SetMaxIdleConns(clients)
	_, err := db.Exec("CHECKPOINT") // so that none begins during the benchmark
	must(b, err)
	s, records, size := crowd(b, db, func() string { return "" })
	b.Run("disk", func(b *testing.B) {
		report := func(b *testing.B) { b.ReportMetric(size, "B/session"); b.ReportMetric(0, "ns/op") }
		b.Run("anonymous", report)
		_, _, size = crowd(b, db, func() string { return fmt.Sprintf("user-%016x", rand.Uint64()) })
		b.Run("user", report)
	})
	measure := func(name string, do func(r *session.Record) error) {
		// Every client has sessions of its own, so that no save conflicts with another.
		op := func(client, _ int) error { return do(records[rand.IntN(sessions/clients)*clients+client]) }
		b.Run(name, func(b *testing.B) {
			share(b, clients*20, op) // a connection plans the first five executions each
			before := used(b, db)
			b.ResetTimer()
			share(b, b.N, op)
			b.StopTimer()
			after := used(b, db)
			for i, unit := range []string{"app-cpu-ns/op", "pg-cpu-ns/op", "wal-B/op"} {
				if n := after[i] - before[i]; n > 0 && (name != "load" || i < 2) {
					b.ReportMetric(n/float64(b.N), unit)
				}
			}
		})
	}
	measure("load", func(r *session.Record) error {
		_, err := s.Load(ctx, r.ID)
		return err
	})
	measure("save", func(r *session.Record) error {
		old := r.Version
		change(r)
		return s.Save(ctx, r, old)
	})
	measure("touch", func(r *session.Record) error { return s.Touch(ctx, r.ID, time.Now(), time.Now().Add(time.Hour)) })
	measure("create", func(*session.Record) error { return s.Create(ctx, newcomer("")) })
}

// newcomer returns a session with an id of the length that a Manager uses.
func newcomer(user string) *session.Record {
	r := record(user, time.Hour)
	r.ID = fmt.Sprintf("%022x%021x", rand.Uint64(), rand.Uint64())
	change(r)
	return r
}

// change changes r as a request does that sets a counter.
func change(r *session.Record) {
	now := time.Now().Truncate(time.Millisecond)
	r.Data = fmt.Appendf(nil, `{"admin":true,"count":%d,"name":"0123456789abcdef"}`, 10_000+rand.IntN(90_000))
	r.LastSeen, r.Expires, r.Version = now, now.Add(time.Hour), rand.Uint64()>>1|1
}

// crowd creates a table, fills and vacuums it, and returns the bytes per session. Only the
// filling does not wait for the disk.
func crowd(b *testing.B, db *sql.DB, user func() string) (*sqlstore.Store, []*session.Record, float64) {
	table, records, size := newTable(), make([]*session.Record, sessions), 0.0
	s, server := openStore(b, db, sqlstore.PostgreSQL, table), postgres(b)
	hasty := openStore(b, open(b, "pgx", servers.PostgresURL(server.Addr)+"&synchronous_commit=off"), sqlstore.PostgreSQL, table)
	share(b, sessions, func(_, i int) error {
		records[i] = newcomer(user())
		return hasty.Create(context.Background(), records[i])
	})
	_, err := db.Exec("VACUUM ANALYZE " + table)
	must(b, err)
	must(b, db.QueryRow("SELECT pg_total_relation_size($1::regclass)::float8", table).Scan(&size))
	return s, records, size / sessions
}

// share runs n operations, distributed over the clients.
func share(b *testing.B, n int, op func(client, i int) error) {
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			for i := client; i < n; i += clients {
				if err := op(client, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	if wg.Wait(); b.Failed() {
		b.FailNow()
	}
}

// used returns the processor time of this process and that of PostgreSQL's processes, in
// nanoseconds (0 without /proc), and the bytes of its write-ahead log.
func used(b *testing.B, db *sql.DB) (sum [3]float64) {
	var own syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &own))
	sum[0] = float64(own.Utime.Nano() + own.Stime.Nano())
	must(b, db.QueryRow("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8").Scan(&sum[2]))
	postmaster := strconv.Itoa(postgres(b).PID())
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		line, _ := os.ReadFile(stat) // empty if the process has ended since
		_, rest, _ := strings.Cut(string(line), ") ")
		var times []string
		switch fields := strings.Fields(rest); { // state, parent, …
		case len(fields) < 15:
		case stat == "/proc/"+postmaster+"/stat": // the postmaster inherits the times of processes that have ended
			times = fields[11:15] // utime, stime, cutime, cstime
		case fields[1] == postmaster:
			times = fields[11:13]
		}
		for _, hundredths := range times {
			n, err := strconv.ParseFloat(hundredths, 64)
			must(b, err)
			sum[1] += n * 1e7
		}
	}
	return sum
}
