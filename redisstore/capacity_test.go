//go:build unix

package redisstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/redis/go-redis/v9"
)

const goroutines, sessions = 32, 100_000 // sessions is a multiple of goroutines

// BenchmarkCapacity measures what one Redis server can hold. The server runs commands on one
// processor, so it is saturated when the redis-cpu-ns of the operations of one second add up to
// 1e9, even if the wall clock shows less because the application shares the processors. Redis's
// processor time has a resolution of 10 ms: measure many operations (-benchtime 100000x).
// maxmemory divided by B/session is the number of sessions that fit; a user's name, of 11
// letters here, is stored twice.
func BenchmarkCapacity(b *testing.B) {
	s, records, perSession := fill(b, false)
	store, ctx := newStore(b, s.client(allAtOnce)), context.Background()
	measure := func(name string, f func(i int) error) {
		b.Run(name, func(b *testing.B) {
			server, app := processorTime(b, s)
			together(b, b.N, f)
			serverNow, appNow := processorTime(b, s)
			b.ReportMetric(float64(appNow-app)/float64(b.N), "app-cpu-ns/op")
			if serverNow > 0 {
				b.ReportMetric(float64(serverNow-server)/float64(b.N), "redis-cpu-ns/op")
			}
		})
	}
	// Each goroutine has sessions of its own, so that no save conflicts with another.
	own := func(i int) *session.Record {
		return records[i%goroutines+goroutines*rand.IntN(sessions/goroutines)]
	}
	measure("load", func(i int) error {
		_, err := store.Load(ctx, own(i).ID)
		return err
	})
	measure("save", func(i int) error {
		r, now := own(i), time.Now()
		r.Version, r.LastSeen, r.Expires = r.Version+1, now, now.Add(time.Hour)
		return store.Save(ctx, r, r.Version-1)
	})
	measure("touch", func(i int) error { // moves both clocks; most sessions are touched for the first time
		now := time.Now()
		return store.Touch(ctx, own(i).ID, now, now.Add(time.Hour))
	})
	measure("create", func(int) error { return store.Create(ctx, smallRecord()) }) // last, because the store grows

	b.Run("memory/anonymous", func(b *testing.B) {
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(perSession, "B/session")
	})
	perSession = 0
	b.Run("memory/user", func(b *testing.B) {
		if perSession == 0 { // once, not again for a larger b.N
			_, _, perSession = fill(b, true)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(perSession, "B/session")
	})
}

// fill starts a server and creates sessions in it, all anonymous or each of a user of its own.
// perSession is the memory that the server uses for each, in bytes.
func fill(b *testing.B, users bool) (s *server, records []*session.Record, perSession float64) {
	s = startServer(b, "--appendonly", "yes", "--appendfsync", "always") // as the README recommends
	asking, filling := s.client(nil), s.client(allAtOnce)
	info := func(name string) (n float64) {
		text, err := asking.Info(b.Context()).Result()
		must(b, err)
		_, after, _ := strings.Cut(text, "\r\n"+name+":")
		_, err = fmt.Sscan(after, &n)
		must(b, err)
		return n
	}
	before, connected := info("used_memory"), info("connected_clients")
	store := newStore(b, filling)
	records = make([]*session.Record, sessions)
	together(b, sessions, func(i int) error {
		records[i] = smallRecord()
		if users {
			records[i].User = fmt.Sprintf("user-%06d", i)
		}
		return store.Create(b.Context(), records[i])
	})
	must(b, filling.Close()) // because connections use memory of the server
	servers.Eventually(b, "the connections are closed", func() bool { return info("connected_clients") == connected })
	return s, records, (info("used_memory") - before) / sessions
}

func smallRecord() *session.Record {
	r := newRecord("")
	r.Data = []byte(`{"admin":true,"count":12345,"name":"0123456789abcdef"}`)
	return r
}

// allAtOnce gives every goroutine a connection of its own.
func allAtOnce(o *redis.Options) { o.PoolSize = goroutines }

// together calls f for each i < n, from the goroutine i%goroutines.
func together(b *testing.B, n int, f func(i int) error) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < n; i += goroutines {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// processorTime returns the processor time that the server (0 where there is no /proc) and this
// process have used.
func processorTime(b *testing.B, s *server) (ofServer, ofApp time.Duration) {
	line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID()))
	_, after, _ := strings.Cut(string(line), ") ") // the process name in parentheses may contain spaces
	if fields := strings.Fields(after); len(fields) > 12 {
		user, _ := strconv.Atoi(fields[11])
		system, _ := strconv.Atoi(fields[12])
		ofServer = time.Duration(user+system) * 10 * time.Millisecond
	}
	var u syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return ofServer, time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
