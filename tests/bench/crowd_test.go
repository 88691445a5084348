package bench

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/parallel"
	"github.com/coatcheck/session/internal/testing/crowds"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/coatcheck/session/sqlstore"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/redis/go-redis/v9"
)

// stores are what BenchmarkCrowd measures.
var stores = []struct {
	name string
	open func(b *testing.B) session.Store
}{
	{"memory", func(*testing.B) session.Store { return session.NewMemoryStore(nil) }},
	{"redis", openRedis},
	{"postgres", openPostgres},
}

func openRedis(b *testing.B) session.Store {
	client := redis.NewClient(&redis.Options{Addr: servers.Redis(b).Addr, ContextTimeoutEnabled: true, MaxRetries: -1})
	b.Cleanup(func() { client.Close() })
	store, err := redisstore.New(client, nil)
	if err != nil {
		b.Fatal(err)
	}
	return store
}

func openPostgres(b *testing.B) session.Store {
	db, err := sql.Open("pgx", servers.PostgresURL(servers.Postgres(b).Addr))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	store, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
	if err == nil {
		err = store.Migrate(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	return store
}

// BenchmarkCrowd counts the store calls of each of n concurrent requests of one session or one
// user. TestCostOfACrowd of package session checks that they do not grow with n.
func BenchmarkCrowd(b *testing.B) {
	for _, s := range stores {
		b.Run(s.name, func(b *testing.B) {
			store := s.open(b)
			for _, d := range crowds.Deeds {
				for _, n := range []int{1, 10, 100, 1000} {
					b.Run(fmt.Sprint(d.Name, "/", n), func(b *testing.B) {
						calls := 0.0
						for b.Loop() {
							calls += d.Run(b, store, n)
						}
						b.ReportMetric(calls/float64(b.N), "calls/request")
					})
				}
			}
		})
	}
}

// BenchmarkRevokeAll ends the 5 000 sessions of a user.
func BenchmarkRevokeAll(b *testing.B) {
	const n = 5000
	for _, s := range stores {
		b.Run(s.name, func(b *testing.B) {
			m := session.Must(session.New(&session.Options{Store: s.open(b), Secrets: [][]byte{[]byte("0123456789abcdef0123456789abcdef")}}))
			login := m.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("alice") }))
			for b.Loop() {
				b.StopTimer()
				_ = parallel.Do(n, 16, func(int) error {
					login.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", "https://localhost/", nil))
					return nil
				})
				b.StartTimer()
				if err := m.RevokeAll(context.Background(), "alice"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
