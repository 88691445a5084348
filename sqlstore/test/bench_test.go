package sqlstore_test

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/sqlstore"
)

// The benchmarks measure what the store adds to its statements. Each statement is also sent
// raw, with the same arguments, in alternation, so that both are measured under the same load.

const (
	rawLoad = "SELECT id, version, username, data, created, deadline, checksum, seen, expires FROM TABLE WHERE id = ? AND expires > ?"
	rawSave = "UPDATE TABLE SET version = ?, username = ?, data = ?, created = ?, deadline = ?, checksum = ?, seen = ?, expires = ? WHERE id = ? AND version = ? AND expires > ?"
)

func raw(d sqlstore.Dialect, query, table string) string {
	query = strings.Replace(query, "TABLE", table, 1)
	for i := 1; d == sqlstore.PostgreSQL && strings.Contains(query, "?"); i++ {
		query = strings.Replace(query, "?", "$"+string("0123456789AB"[i:i+1]), 1)
	}
	return strings.NewReplacer("$A", "$10", "$B", "$11").Replace(query)
}

// BenchmarkLoad prepares the raw statement each time if the driver does, as that of SQLite. On
// SQLite the store is therefore faster than the raw statement: it prepares once.
func BenchmarkLoad(b *testing.B) {
	benchEach(b, func(b *testing.B, db *sql.DB, d sqlstore.Dialect) (raws, store func()) {
		table := newTable()
		s, r := openStore(b, db, d, table), record("alice", time.Hour)
		must(b, s.Create(b.Context(), r))
		query := raw(d, rawLoad, table)
		raws = func() {
			var id, user, data []byte
			var n [6]int64
			must(b, db.QueryRowContext(b.Context(), query, []byte(r.ID), time.Now().UnixMilli()).Scan(&id, &n[0], &user, &data, &n[1], &n[2], &n[3], &n[4], &n[5]))
		}
		return raws, func() {
			if _, err := s.Load(b.Context(), r.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkSave(b *testing.B) {
	benchEach(b, func(b *testing.B, db *sql.DB, d sqlstore.Dialect) (raws, store func()) {
		table := newTable()
		s, r := openStore(b, db, d, table), record("alice", time.Hour)
		must(b, s.Create(b.Context(), r))
		query := raw(d, rawSave, table)
		raws = func() {
			old := r.Version
			r.Version++
			res, err := db.ExecContext(b.Context(), query, int64(r.Version), []byte(r.User), r.Data, r.Created.UnixMilli(), r.Deadline.UnixMilli(), 1,
				r.LastSeen.UnixMilli(), r.Expires.UnixMilli(), []byte(r.ID), int64(old), time.Now().UnixMilli())
			must(b, err)
			if n, err := res.RowsAffected(); n != 1 || err != nil {
				b.Fatal(n, err)
			}
		}
		return raws, func() {
			old := r.Version
			r.Version++
			must(b, s.Save(b.Context(), r, old))
		}
	})
}

// benchEach runs a statement raw and through the store, in alternation, and reports the median
// of each and their ratio. The median ignores the few executions that wait long for the disk.
func benchEach(b *testing.B, prepare func(b *testing.B, db *sql.DB, d sqlstore.Dialect) (raws, store func())) {
	for _, d := range databases {
		b.Run(d.name, func(b *testing.B) {
			raws, store := prepare(b, d.open(b), d.dialect)
			var took [2][]time.Duration
			for b.Loop() {
				for i, f := range []func(){raws, store} {
					start := time.Now()
					f()
					took[i] = append(took[i], time.Since(start))
				}
			}
			var median [2]float64
			for i := range took {
				slices.Sort(took[i])
				median[i] = float64(took[i][len(took[i])/2].Nanoseconds()) / 1000
			}
			b.ReportMetric(median[0], "raw-µs/op")
			b.ReportMetric(median[1], "store-µs/op")
			b.ReportMetric(median[1]/median[0], "store/raw")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkSweep deletes 100 000 rows of a table of 200 000.
func BenchmarkSweep(b *testing.B) {
	for _, d := range databases {
		b.Run(d.name, func(b *testing.B) {
			db, table := d.open(b), newTable()
			s := openStore(b, db, d.dialect, table)
			var took time.Duration
			for b.Loop() {
				fill(b, db, d.dialect, table, 100_000, -time.Hour)
				fill(b, db, d.dialect, table, 100_000, time.Hour)
				start := time.Now()
				n, err := s.Sweep(context.Background())
				took += time.Since(start)
				if n != 100_000 || err != nil {
					b.Fatal(n, err)
				}
				_, err = db.Exec("DELETE FROM " + table)
				must(b, err)
			}
			b.ReportMetric(float64(b.N)*100_000/took.Seconds(), "deleted/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
