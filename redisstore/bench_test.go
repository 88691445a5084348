package redisstore_test

import (
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// BenchmarkStore alternates each call with the same command sent by the client alone, so that
// both are measured under the same load. ratio is that of the medians.
func BenchmarkStore(b *testing.B) {
	s := startServer(b)
	client, watched := s.client(nil), s.client(nil)
	last := &recorder{}
	watched.AddHook(last)
	store := newStore(b, client)
	ctx := context.Background()
	r := newRecord("")
	r.Data = make([]byte, 200)
	must(b, store.Create(ctx, r))
	key := "session:s:" + r.ID
	b.Run("Load", func(b *testing.B) {
		inTurn(b, func() error {
			_, err := store.Load(ctx, r.ID)
			return err
		}, func() error { return client.Get(ctx, key).Err() })
	})

	// The exact command that Save sends, with the next version written into it, for a record of
	// its own.
	raw := create(b, store, newRecord(""))
	raw.Data = r.Data
	old := raw.Version
	raw.Version++
	must(b, store.Save(ctx, raw, old)) // the script is known from here on
	raw.Version++
	must(b, newStore(b, watched).Save(ctx, raw, raw.Version-1))
	args := last.args
	record, version := args[4].([]byte), args[7].([]byte)
	b.Run("Save", func(b *testing.B) {
		inTurn(b, func() error {
			r.Version++
			return store.Save(ctx, r, r.Version-1)
		}, func() error {
			copy(version, record[1:9])
			binary.BigEndian.PutUint64(record[1:], binary.BigEndian.Uint64(version)+1)
			return client.EvalSha(ctx, args[1].(string), []string{args[3].(string)}, args[4:]...).Err()
		})
	})
}

func inTurn(b *testing.B, ours, raw func() error) {
	var took [2][]time.Duration
	for b.Loop() {
		for i, f := range []func() error{ours, raw} {
			begun := time.Now()
			if err := f(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(begun))
		}
	}
	median := func(d []time.Duration) float64 {
		slices.Sort(d)
		return float64(d[len(d)/2].Nanoseconds())
	}
	b.ReportMetric(0, "ns/op") // would be the sum of both
	b.ReportMetric(median(took[0]), "ns/ours")
	b.ReportMetric(median(took[1]), "ns/raw")
	b.ReportMetric(median(took[0])/median(took[1]), "ratio")
}

// recorder keeps the arguments of the last script.
type recorder struct{ args []any }

func (*recorder) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*recorder) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" { // not the commands that open a connection
			r.args = cmd.Args()
		}
		return next(ctx, cmd)
	}
}
