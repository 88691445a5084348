package redisstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// errTooFewReplicas reports that a write was applied, but may be undone by a failover.
var errTooFewReplicas = errors.New("too few replicas have acknowledged the write")

// canWait reports whether the client can send a script and WAIT on one connection.
func canWait(client redis.UniversalClient) bool {
	switch client.(type) {
	case *redis.Client, *redis.ClusterClient:
		return true
	}
	return false
}

// await returns awaitReplicas if Options.WaitReplicas applies to a write, which it does if the
// failover that loses the write would log a user out or in.
func (s *Store) await(applies bool) policy {
	if applies && s.replicas > 0 {
		return awaitReplicas
	}
	return 0
}

// processAndWait sends a script, and WAIT on the same connection. The pipeline has no other
// commands, because WAIT would delay them. If the script has written and too few replicas have
// acknowledged that, the error is errTooFewReplicas.
func (s *Store) processAndWait(ctx context.Context, cmd command) error {
	key := cmd.Args()[3].(string)
	client, err := s.serverOf(ctx, key)
	if err != nil {
		return err
	}
	wait := command{redis.NewCmd(ctx, "wait", s.replicas, waitLimit(ctx, client).Milliseconds())}
	pipe := client.Pipeline()
	_, _ = pipe.Process(ctx, cmd), pipe.Process(ctx, wait)
	_, refusal := pipe.Exec(ctx)
	if err := cmd.failure(); err != nil && err != redis.Nil {
		if c, ok := s.client.(*redis.ClusterClient); ok {
			c.ReloadState(ctx) // the server may no longer be the master of the key
		}
		return err
	}
	if reply, ok := cmd.Val().(int64); ok && reply != replyDone {
		return nil // nothing was written
	}
	count, ok := wait.Val().(int64)
	switch err := wait.Err(); {
	case err != nil:
		return fmt.Errorf("%w: %w", errTooFewReplicas, err)
	case !ok:
		return refusal // of a hook of the client
	case count < int64(s.replicas):
		return fmt.Errorf("%w: %d of %d", errTooFewReplicas, count, s.replicas)
	}
	return cmd.failure() // nil or redis.Nil
}

// serverOf returns a client of the server that has the key.
func (s *Store) serverOf(ctx context.Context, key string) (*redis.Client, error) {
	if c, ok := s.client.(*redis.ClusterClient); ok {
		return c.MasterForKey(ctx, key)
	}
	return s.client.(*redis.Client), nil
}

// waitLimit returns how long WAIT may take: so long that its reply arrives before the client stops
// to wait for it. It is not 0, which is no limit.
func waitLimit(ctx context.Context, client *redis.Client) time.Duration {
	const late = 200 * time.Millisecond // Redis ends a WAIT up to a tenth of a second late

	limit := client.Options().ReadTimeout
	if limit <= 0 {
		limit = time.Minute // the client has no limit
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline))
	}
	return max(limit-min(late, limit/2), time.Millisecond)
}
