//go:build unix

package redisstore_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/proxy"
	"github.com/redis/go-redis/v9"
)

// BenchmarkCrowd measures calls of n goroutines at once: their median latency, and the processor
// time of the server and of the application. CROWD_NETWORK=1ms adds that much to each round trip,
// by a proxy, whose work counts as the application's. The server's processor time has a resolution
// of 10 ms.
func BenchmarkCrowd(b *testing.B) {
	s := startServer(b)
	addr := s.Addr
	if delay, err := time.ParseDuration(os.Getenv("CROWD_NETWORK")); err == nil {
		addr = proxy.New(b, s.Addr, func(c proxy.Chunk) proxy.Fate {
			return proxy.Fate{Pass: len(c.Data), Wait: func() { time.Sleep(delay / 2) }}
		}).Addr
	}
	ctx := context.Background()
	for _, n := range []int{8, 32, 128} {
		store := newStore(b, s.client(func(o *redis.Options) { o.Addr = addr }))
		records := make([]*session.Record, n)
		for i := range records {
			records[i] = create(b, store, smallRecord())
		}
		for _, call := range []struct {
			name string
			do   func(r *session.Record) error
		}{
			{"load", func(r *session.Record) error {
				_, err := store.Load(ctx, r.ID)
				return err
			}},
			{"touch", func(r *session.Record) error {
				now := time.Now()
				return store.Touch(ctx, r.ID, now, now.Add(time.Hour))
			}},
			{"save", func(r *session.Record) error {
				r.Version++
				return store.Save(ctx, r, r.Version-1)
			}},
		} {
			b.Run(fmt.Sprint(call.name, "/", n), func(b *testing.B) {
				took := make([][]time.Duration, n)
				var calls sync.WaitGroup
				server, app := processorTime(b, s)
				b.ResetTimer()
				for i, r := range records {
					calls.Go(func() {
						for range max(b.N/n, 1) {
							begun := time.Now()
							if err := call.do(r); err != nil {
								b.Error(err)
								return
							}
							took[i] = append(took[i], time.Since(begun))
						}
					})
				}
				calls.Wait()
				b.StopTimer()
				serverNow, appNow := processorTime(b, s)
				all := slices.Concat(took...)
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2].Microseconds()), "median-µs")
				b.ReportMetric(float64(serverNow-server)/float64(len(all)), "redis-cpu-ns/op")
				b.ReportMetric(float64(appNow-app)/float64(len(all)), "app-cpu-ns/op")
			})
		}
	}
}
