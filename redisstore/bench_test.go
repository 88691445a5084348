package redisstore_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Beside each call the same thing done by the client alone, in the same run.
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
	save := func() {
		old := r.Version
		r.Version = old + 1
		must(b, store.Save(ctx, r, old))
	}
	save()
	b.Run("Load", func(b *testing.B) {
		for b.Loop() {
			if _, err := store.Load(ctx, r.ID); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("LoadRaw", func(b *testing.B) {
		for b.Loop() {
			if err := client.Get(ctx, key).Err(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Save", func(b *testing.B) {
		for b.Loop() {
			save()
		}
	})

	// The very command that Save sends, with the next version in its place.
	old := r.Version
	r.Version++
	must(b, newStore(b, watched).Save(ctx, r, old))
	args := last.args
	record, version := args[4].([]byte), args[7].([]byte)
	b.Run("SaveRaw", func(b *testing.B) {
		for b.Loop() {
			copy(version, record[1:9])
			binary.BigEndian.PutUint64(record[1:], binary.BigEndian.Uint64(version)+1)
			if n, err := client.EvalSha(ctx, args[1].(string), []string{key}, args[4:]...).Int(); n != 0 || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}

// A recorder keeps the arguments of the last script.
type recorder struct{ args []any }

func (*recorder) DialHook(next redis.DialHook) redis.DialHook { return next }

func (*recorder) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (r *recorder) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "evalsha" { // and not what opens a connection
			r.args = cmd.Args()
		}
		return next(ctx, cmd)
	}
}
