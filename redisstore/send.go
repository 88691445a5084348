package redisstore

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// command is a command that the client sends at most once. NoRetry also excludes the command
// from client-side caching, whose answers lag.
type command struct{ *redis.Cmd }

func (command) NoRetry() bool { return true }

func (c command) Clone() redis.Cmder { return command{c.Cmd.Clone().(*redis.Cmd)} }

// failure returns the error of a command that was sent in a pipeline. If the pipeline fails, the
// client gives its error also to the commands whose reply it has read. A reply of which it has read
// a part is "" or a nil slice.
func (c command) failure() error {
	switch reply := c.Val().(type) {
	case nil:
		return c.Err()
	case string:
		if reply == "" {
			return c.Err()
		}
	case []any:
		if reply == nil {
			return c.Err()
		}
	}
	return nil
}

// policy is a set of rules for sending a command.
type policy int

const (
	// resendIfClosed: after a try whose outcome is unknown, the command is sent again only if the
	// server has closed the connection and so cannot apply the first copy later. A create that
	// arrived late would restore a session that the second copy created and that was deleted
	// since.
	resendIfClosed policy = 1 << iota
	// awaitReplicas: the command is a script, which counts as applied only when enough replicas
	// have what it wrote.
	awaitReplicas

	// resendAlways: the command has no effect if it was already applied, nor if the first copy
	// arrives late, after writes of other clients.
	resendAlways policy = 0
)

const (
	tries     = 4                    // of one command; bounds the load on a server that is failing over
	firstWait = 8 * time.Millisecond // before the second try; doubled for each further try
)

// run runs a script on one key. For unknown see send.
func (s *Store) run(ctx context.Context, p policy, sc script, key string, args ...any) (reply any, unknown bool, err error) {
	args = append([]any{"evalsha", sc.sha, 1, key}, args...)
	reply, unknown, err = s.send(ctx, p, args...)
	if !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return reply, unknown, err
	}
	args[0], args[1] = "eval", sc.source
	reply, still, err := s.send(ctx, p, args...)
	return reply, unknown || still, err
}

// send sends a command until it is answered, tries times at most. A missing value is a nil
// reply. unknown reports that the outcome of at least one try is unknown: a later reply then
// describes the current state, not the effect of this command.
func (s *Store) send(ctx context.Context, p policy, args ...any) (reply any, unknown bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	for try := 1; ; try++ {
		var cmd command
		cmd, err = s.process(ctx, p, command{redis.NewCmd(ctx, args...)})
		retry := false
		switch {
		case err == nil:
			return cmd.Val(), unknown, nil
		case err == redis.Nil:
			return nil, unknown, nil
		case errors.Is(err, errTooFewReplicas):
			unknown = true
		case refused(err):
			retry = passing(err)
		case unsent(err):
			retry = !errors.Is(err, redis.ErrClosed)
		default:
			unknown = true
			retry = p&resendIfClosed == 0 || hungUp(err)
		}
		if !retry || try == tries || !wait(ctx, try) {
			return nil, unknown, err
		}
	}
}

// process sends cmd once. The returned command has the reply.
func (s *Store) process(ctx context.Context, p policy, cmd command) (command, error) {
	switch {
	case p&awaitReplicas != 0:
		return cmd, s.processAndWait(ctx, cmd)
	case s.group != nil:
		return s.group.process(ctx, cmd)
	}
	return cmd, s.client.Process(ctx, cmd)
}

// refused reports whether the server replied with an error, and so applied nothing. By the
// convention of the protocol such a reply begins with a word in capitals; a proxy that has lost
// its server uses other words.
func refused(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	code, _, _ := strings.Cut(reply.Error(), " ")
	return code != "" && code == strings.ToUpper(code)
}

// passing reports whether err is temporary: a failover, or a server that is starting.
func passing(err error) bool {
	for _, code := range []string{"LOADING", "READONLY", "CLUSTERDOWN", "MOVED", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "max number of clients"} {
		if redis.HasErrorPrefix(err, code) {
			return true
		}
	}
	return false
}

// unsent reports whether the command was never sent.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) ||
		errors.Is(err, redis.ErrPoolExhausted) || errors.Is(err, redis.ErrClosed) || errors.Is(err, errQueued)
}

// hungUp reports whether the server closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// wait sleeps before the next try, or returns false early if ctx ends.
func wait(ctx context.Context, try int) bool {
	d := firstWait << (try - 1)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
