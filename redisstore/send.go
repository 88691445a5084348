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

// A command is one that the client sends once at most. (It also keeps a
// client-side cache from answering: that lags.)
type command struct{ *redis.Cmd }

func (command) NoRetry() bool { return true }

func (c command) Clone() redis.Cmder { return command{c.Cmd.Clone().(*redis.Cmd)} }

// When may a command be sent again after a try that may have been carried out?
type again int

const (
	// always: it does nothing if it was, and nothing if the first one arrives
	// late, after others' writes.
	always again = iota
	// ifHungUp: only if the server has closed the connection and so will not
	// carry out the first one any more. A create that arrived late would bring
	// back what was created by the second and deleted since.
	ifHungUp
)

const (
	tries     = 4
	firstWait = 8 * time.Millisecond // doubled by each further try
)

// run runs a script on one key. Unknown: see send.
func (s *Store) run(ctx context.Context, re again, sc script, key string, args ...any) (reply any, unknown bool, err error) {
	args = append([]any{"evalsha", sc.sha, 1, key}, args...)
	reply, unknown, err = s.send(ctx, re, args...)
	if !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return reply, unknown, err
	}
	args[0], args[1] = "eval", sc.source
	reply, still, err := s.send(ctx, re, args...)
	return reply, unknown || still, err
}

// send sends a command until it is answered. A missing value is a nil reply.
// Unknown tells that a try failed in a way that does not say whether it was
// carried out: then an answer, if there is one at last, tells what is so now,
// not what this command did.
func (s *Store) send(ctx context.Context, re again, args ...any) (reply any, unknown bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	for try := 1; ; try++ {
		cmd := command{redis.NewCmd(ctx, args...)}
		err = s.client.Process(ctx, cmd)
		retry := false
		switch {
		case err == nil:
			return cmd.Val(), unknown, nil
		case err == redis.Nil:
			return nil, unknown, nil
		case refused(err):
			retry = passing(err)
		case unsent(err):
			retry = !errors.Is(err, redis.ErrClosed)
		default:
			unknown = true
			retry = re == always || hungUp(err)
		}
		if !retry || try == tries || !wait(ctx, try) {
			return nil, unknown, err
		}
	}
}

// refused tells whether the server answered with an error, and so did nothing:
// a word in capitals, by the protocol's convention. Proxies that lost the
// server say so in other words.
func refused(err error) bool {
	var reply redis.Error
	if !errors.As(err, &reply) {
		return false
	}
	code, _, _ := strings.Cut(reply.Error(), " ")
	return code != "" && code == strings.ToUpper(code)
}

// passing tells whether a refusal is one of a failover or a start.
func passing(err error) bool {
	for _, code := range []string{"LOADING", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "NOREPLICAS", "max number of clients"} {
		if redis.HasErrorPrefix(err, code) {
			return true
		}
	}
	return false
}

// unsent tells whether the command never left.
func unsent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) ||
		errors.Is(err, redis.ErrPoolExhausted) || errors.Is(err, redis.ErrClosed)
}

// hungUp tells whether the other side closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// wait waits before the next try, or answers false when ctx ends first.
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
