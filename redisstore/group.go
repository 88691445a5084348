package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	mostAlone   = 8   // commands sent alone at a time. With 2 the latency doubles on a real network
	mostGrouped = 100 // commands in one pipeline, so that no reply waits for very many others
)

// A group sends the commands of a Store. What a load costs Redis is mostly a read and a write of
// its connection, which the commands of a pipeline share. While fewer than mostAlone commands
// wait for replies, a command is sent alone, on a connection of its own. In a crowd a command
// waits for no connection: it leaves with the next pipeline, as soon as an earlier command or
// pipeline has ended.
//
// A group is for a *redis.Client, of one server or behind Sentinel. The pipeline of a Cluster
// would wait for the slowest node.
//
// Two libraries could replace this file. rueidis pipelines all commands and is a little cheaper,
// but while a server hangs it leaves a goroutine for each abandoned call. The AutoPipeline of
// go-redis ignores the deadlines of its callers.
type group struct {
	client *redis.Client

	mu     sync.Mutex
	places int         // how many more commands or pipelines may be sent now
	queue  []*pipeline // pipelines that wait for a place; all but the last are full
}

// A pipeline has the commands of several callers. It has a deadline of its own, so that a caller
// that gives up does not fail the others.
type pipeline struct {
	loads, others []*pending
	deadline      time.Time     // latest deadline of the callers
	isSent        bool          // guarded by group.mu; nothing is added from then on
	done          chan struct{} // closed when the pipeline has ended
	isAnswered    bool          // each command has a reply or an error. If false after done, a hook panicked
	panicked      any           // what the hook panicked with
}

// A pending is a command in a pipeline.
type pending struct {
	command
	callers int // callers that have not given up; guarded by group.mu
}

// errQueued reports that ctx ended before the command was sent.
var errQueued = errors.New("not sent, because too many commands wait for replies")

func newGroup(client *redis.Client) *group {
	return &group{client: client, places: min(mostAlone, client.Options().PoolSize)}
}

// process sends cmd and returns the command that has the reply: cmd, or an equal load of another
// caller. It returns when ctx ends. Then the command may have been sent, unless the error is
// errQueued.
func (g *group) process(ctx context.Context, cmd command) (command, error) {
	p, c := g.join(ctx, cmd)
	if p == nil {
		defer g.leave()
		return cmd, g.client.Process(ctx, cmd)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		if isSent := g.abandon(p, c); isSent {
			return cmd, ctx.Err()
		}
		return cmd, fmt.Errorf("%w: %w", errQueued, ctx.Err())
	}
	if !p.isAnswered {
		panic(p.panicked) // for each caller, as if each had sent its command alone
	}
	return c.command, c.failure()
}

// join takes a place and returns nil, or else adds cmd to the last pipeline of the queue. A load
// that is in the pipeline already is not added again: its reply is as new as both callers need,
// because both came before it was sent.
func (g *group) join(ctx context.Context, cmd command) (*pipeline, *pending) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.places > 0 {
		g.places--
		return nil, nil
	}
	if n := len(g.queue); n == 0 || len(g.queue[n-1].loads)+len(g.queue[n-1].others) == mostGrouped {
		g.queue = append(g.queue, &pipeline{done: make(chan struct{})})
	}
	p := g.queue[len(g.queue)-1]
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().AddDate(1, 0, 0) // the client's ReadTimeout ends the pipeline
	}
	if deadline.After(p.deadline) {
		p.deadline = deadline
	}
	list := &p.others
	if cmd.Name() == "get" {
		list = &p.loads
		for _, c := range p.loads {
			if c.Args()[1] == cmd.Args()[1] {
				c.callers++
				return p, c
			}
		}
	}
	c := &pending{cmd, 1}
	*list = append(*list, c)
	return p, c
}

// abandon removes a caller of c, and reports whether c was sent.
func (g *group) abandon(p *pipeline, c *pending) (isSent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	c.callers--
	return p.isSent
}

// leave passes the caller's place on to the next pipeline.
func (g *group) leave() {
	if p := g.next(); p != nil {
		go func() {
			defer g.leave()
			p.send(g.client)
		}()
	}
}

// next returns the first pipeline of the queue, without the commands that were abandoned. If
// there is none, it gives the caller's place back.
func (g *group) next() *pipeline {
	g.mu.Lock()
	defer g.mu.Unlock()
	isAbandoned := func(c *pending) bool { return c.callers == 0 }
	for len(g.queue) > 0 {
		p := g.queue[0]
		g.queue = slices.Delete(g.queue, 0, 1)
		p.loads, p.others = slices.DeleteFunc(p.loads, isAbandoned), slices.DeleteFunc(p.others, isAbandoned)
		p.isSent = true
		if len(p.loads)+len(p.others) > 0 {
			return p
		}
	}
	g.places++
	return nil
}

// send sends the pipeline and waits for the replies, until its deadline. The client sends no
// pipeline twice that has a command with NoRetry, as all of these are.
func (p *pipeline) send(client *redis.Client) {
	defer close(p.done)
	defer func() { p.panicked = recover() }()
	ctx, cancel := context.WithDeadline(context.Background(), p.deadline)
	defer cancel()
	pipe := client.Pipeline()
	// Loads come last: the client closes a connection whose server is no longer the master if the
	// first command of a pipeline is refused, and only writes are.
	for _, c := range slices.Concat(p.others, p.loads) {
		_ = pipe.Process(ctx, c.command)
	}
	cmds, err := pipe.Exec(ctx)
	hasFailed := func(c redis.Cmder) bool { return c.Err() != nil }
	if err != nil && !slices.ContainsFunc(cmds, hasFailed) {
		for _, c := range cmds {
			c.SetErr(err) // of a hook that has refused the pipeline
		}
	}
	p.isAnswered = true
}
