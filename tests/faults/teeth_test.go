package faults_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/redis/go-redis/v9"
)

// plainStore stores only versions, with the simplest commands. Its save is one of those below.
type plainStore struct {
	client *redis.Client
	save   save
}

type save func(ctx context.Context, c *redis.Client, r *session.Record, old uint64) error

func (s plainStore) Load(ctx context.Context, id string) (*session.Record, error) {
	v, err := s.client.Get(ctx, id).Uint64()
	if errors.Is(err, redis.Nil) {
		return nil, session.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &session.Record{ID: id, User: owner(id), Version: v, Data: []byte(data(v))}, nil
}

func (s plainStore) Create(ctx context.Context, r *session.Record) error {
	set, err := s.client.SetNX(ctx, r.ID, r.Version, 0).Result()
	if err == nil && !set {
		return session.ErrExists
	}
	return lost(err)
}

func (s plainStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	return s.save(ctx, s.client, r, old)
}

func (s plainStore) Touch(ctx context.Context, id string, _, _ time.Time) error {
	n, err := s.client.Exists(ctx, id).Result()
	if err == nil && n == 0 {
		return session.ErrNotFound
	}
	return err
}

func (s plainStore) Delete(ctx context.Context, id string) error {
	return lost(s.client.Del(ctx, id).Err())
}

func (s plainStore) List(context.Context, string) ([]*session.Record, error) { return nil, nil }

func lost(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", session.ErrIndeterminate, err)
	}
	return nil
}

// blindSave replaces any version.
func blindSave(ctx context.Context, c *redis.Client, r *session.Record, _ uint64) error {
	set, err := c.SetXX(ctx, r.ID, r.Version, 0).Result()
	if err == nil && !set {
		return session.ErrNotFound
	}
	return lost(err)
}

// comparingSave replaces version old only. It does not recognize its own write, so a retry by
// the client returns a conflict.
func comparingSave(ctx context.Context, c *redis.Client, r *session.Record, old uint64) error {
	n, err := compareAndSet.Run(ctx, c, []string{r.ID}, old, r.Version).Int()
	if err != nil {
		return lost(err)
	}
	return []error{nil, session.ErrConflict, session.ErrNotFound}[n]
}

var compareAndSet = redis.NewScript(`
local is = redis.call('GET', KEYS[1])
if not is then return 2 end
if is ~= ARGV[1] then return 1 end
redis.call('SET', KEYS[1], ARGV[2])
return 0
`)

// TestBlindStoreIsCaught checks that the checker finds the lost updates of a store that saves
// without comparing, without any faults.
func TestBlindStoreIsCaught(t *testing.T) {
	caught(t, true, blindSave, 0)
}

// TestClientRetriesAreCaught checks that after a lost reply and a retry by the client, the
// checker finds a save that was applied although it returned a conflict.
func TestClientRetriesAreCaught(t *testing.T) {
	caught(t, true, comparingSave, 3, drop)
}

// TestSingleTriesAreInnocent checks that the checker accepts the same store with a client that
// does not retry.
func TestSingleTriesAreInnocent(t *testing.T) {
	caught(t, false, comparingSave, -1, drop)
}

func plainRun(t *testing.T, length time.Duration, how save, retries int, troubles ...trouble) *run {
	sys := system{startRedis(t), func(t testing.TB, addr string) session.Store {
		return plainStore{redisClient(t, addr, func(o *redis.Options) { o.MaxRetries = retries }), how}
	}}
	r := &run{seed: 1, troubles: troubles, length: length}
	r.do(t, sys)
	return r
}

// caught fails the test unless the checker finds a violation, or none if want is false. A run
// with too few operations, as on a slow machine, is repeated for longer.
func caught(t *testing.T, want bool, how save, retries int, troubles ...trouble) {
	t.Helper()
	length := time.Second
	if len(troubles) > 0 {
		length = 3 * time.Second
	}
	for ; ; length *= 2 {
		r := plainRun(t, length, how, retries, troubles...)
		t.Log(header + r.row())
		got := len(r.verdict.violations) > 0
		quiet := len(r.history) < 500 || len(troubles) > 0 && r.hits == 0
		if (quiet || want && !got) && length < time.Minute {
			continue
		}
		if quiet {
			t.Errorf("%d operations, %d frames hit: the run proves nothing", len(r.history), r.hits)
		}
		if got != want {
			t.Errorf("caught is %v, want %v:\n%s", got, want, strings.Join(r.verdict.violations, "\n"))
		} else if got {
			t.Log(r.verdict.violations[0])
		}
		return
	}
}
