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
	"github.com/coatcheck/session/sqlstore"
)

const (
	clients  = 16 // goroutines, and connections
	sessions = 100_000
)

// BenchmarkCapacity measures what one PostgreSQL holds. Its processors are used
// up when the sum of pg-cpu-ns/op × operations per second reaches 1e9 for each
// core; the README says which operations a request costs. n sessions take
// n × B/session, once the table has been vacuumed, at their smallest.
//
// The server has PostgreSQL's defaults, fsync and synchronous_commit on, so that
// every write waits for the disk, though many share one wait: ns/op is wall time
// over all operations, and here client and server share the cores. wal-B/op is
// without full-page images: the first change of a page after a checkpoint adds
// up to 8 KiB. Give -benchtime 10000x or more, for processor times come in
// hundredths of a second, and from 50000x on they have autovacuum's part too.
func BenchmarkCapacity(b *testing.B) {
	db, ctx := openPostgres(b), context.Background()
	db.SetMaxOpenConns(clients)
	db.SetMaxIdleConns(clients)
	var durable bool
	must(b, db.QueryRow("SELECT current_setting('fsync') = 'on' AND current_setting('synchronous_commit') = 'on'").Scan(&durable))
	if !durable {
		b.Fatal("PostgreSQL runs without its default durability")
	}
	_, err := db.Exec("CHECKPOINT") // so that none is due soon
	must(b, err)
	s, records, size := crowd(b, db, func() string { return "" })
	b.Run("disk", func(b *testing.B) {
		report := func(b *testing.B) { b.ReportMetric(size, "B/session"); b.ReportMetric(0, "ns/op") }
		b.Run("anonymous", report)
		_, _, size = crowd(b, db, func() string { return fmt.Sprintf("user-%016x", rand.Uint64()) })
		b.Run("user", report)
	})
	measure := func(name string, op func(client, _ int) error) {
		b.Run(name, func(b *testing.B) {
			share(b, clients*20, op) // a connection plans the first five executions each
			wal, pg, app := walPosition(b, db), postgresCPU(b), ownCPU(b)
			b.ResetTimer()
			share(b, b.N, op)
			b.StopTimer()
			app, pg, wal = ownCPU(b)-app, postgresCPU(b)-pg, walPosition(b, db)-wal
			b.ReportMetric(app/float64(b.N), "app-cpu-ns/op")
			if pg > 0 { // there is a /proc
				b.ReportMetric(pg/float64(b.N), "pg-cpu-ns/op")
			}
			if name != "load" {
				b.ReportMetric(wal/float64(b.N), "wal-B/op")
			}
		})
	}
	// Every client has sessions of its own, for versions must not conflict.
	pick := func(client int) *session.Record { return records[rand.IntN(sessions/clients)*clients+client] }
	measure("load", func(client, _ int) error {
		_, err := s.Load(ctx, pick(client).ID)
		return err
	})
	measure("save", func(client, _ int) error {
		r := pick(client)
		old := r.Version
		change(r)
		return s.Save(ctx, r, old)
	})
	measure("touch", func(client, _ int) error {
		now := time.Now()
		return s.Touch(ctx, pick(client).ID, now, now.Add(time.Hour))
	})
	measure("create", func(_, _ int) error { return s.Create(ctx, newcomer("")) })
}

// newcomer returns a session whose id is as long as a Manager's.
func newcomer(user string) *session.Record {
	r := record(user, time.Hour)
	r.ID = fmt.Sprintf("%022x%021x", rand.Uint64(), rand.Uint64())
	change(r)
	return r
}

// change does to a record what a request does that sets a counter.
func change(r *session.Record) {
	now := time.Now().Truncate(time.Millisecond)
	r.Data = fmt.Appendf(nil, `{"admin":true,"count":%d,"name":"0123456789abcdef"}`, 10_000+rand.IntN(90_000))
	r.LastSeen, r.Expires, r.Version = now, now.Add(time.Hour), rand.Uint64()>>1|1
}

// crowd makes a table, fills and vacuums it, and returns the bytes per session.
func crowd(b *testing.B, db *sql.DB, user func() string) (*sqlstore.Store, []*session.Record, float64) {
	table, records := newTable(), make([]*session.Record, sessions)
	s, server := openStore(b, db, sqlstore.PostgreSQL, table), postgres(b)
	hasty := openStore(b, server.open(b, "pgx", postgresDSN(server.port)+"&synchronous_commit=off"), sqlstore.PostgreSQL, table)
	share(b, sessions, func(_, i int) error {
		records[i] = newcomer(user())
		return hasty.Create(context.Background(), records[i])
	})
	_, err := db.Exec("VACUUM ANALYZE " + table)
	must(b, err)
	var size float64
	must(b, db.QueryRow("SELECT pg_total_relation_size($1::regclass)::float8", table).Scan(&size))
	return s, records, size / sessions
}

// share has the clients do n operations together.
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
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

func walPosition(b *testing.B, db *sql.DB) (bytes float64) {
	must(b, db.QueryRow("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8").Scan(&bytes))
	return bytes
}

// postgresCPU returns the nanoseconds that the server's processes have used,
// those that have ended among them: the postmaster inherits their times.
func postgresCPU(b *testing.B) (ns float64) {
	postmaster := strconv.Itoa(postgres(b).cmd.Process.Pid)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		line, _ := os.ReadFile(stat) // empty if the process has ended since
		_, rest, _ := strings.Cut(string(line), ") ")
		var times []string
		switch fields := strings.Fields(rest); { // state, parent, …
		case len(fields) < 15:
		case stat == "/proc/"+postmaster+"/stat":
			times = fields[11:15] // utime, stime, cutime, cstime
		case fields[1] == postmaster:
			times = fields[11:13]
		}
		for _, hundredths := range times {
			n, err := strconv.ParseFloat(hundredths, 64)
			must(b, err)
			ns += n * 1e7
		}
	}
	return ns
}

// ownCPU returns the nanoseconds that this process has used.
func ownCPU(b *testing.B) float64 {
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano() + u.Stime.Nano())
}
