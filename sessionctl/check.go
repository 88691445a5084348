package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"github.com/coatcheck/session/sqlstore"
	"github.com/redis/go-redis/v9"
)

// A checkup examines a store.
type checkup struct{ report }

// check reports what can lose sessions. Each line is one sentence that says what to do.
func (p *program) check(ctx context.Context, t *target, _ []string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	c := &checkup{}
	var err error
	switch {
	case t.redis != nil:
		err = c.redis(ctx, t.redis)
	case t.sql.dialect == sqlstore.PostgreSQL:
		err = c.postgres(ctx, t.sql)
	case t.sql.dialect == sqlstore.MySQL:
		err = c.mysql(ctx, t.sql)
	default:
		err = c.sqlite(ctx, t.sql)
	}
	if err != nil {
		return exitStore, err
	}
	status := c.status()
	p.answer(c.report, func(w io.Writer) {
		c.print(w)
		bad, unseen := c.count(markBad), c.count(markUnseen)
		sum := "Nothing was found that loses sessions."
		if bad > 0 {
			sum = plural(bad, "finding") + " (!!)."
		}
		if unseen > 0 {
			sum += " Could not be examined (??): " + plural(unseen, "point") + "."
		}
		_, _ = io.WriteString(w, "\n"+sum+"\n")
	})
	return status, nil
}

// expect adds a finding if a setting is bad, and otherwise what is good.
func (c *checkup) expect(isGood bool, good, bad string, args ...any) {
	if isGood {
		c.say(markOK, "%s", good)
	} else {
		c.say(markBad, bad, args...)
	}
}

// maxSkew is how far the clocks of two machines may be apart.
const maxSkew = 2 * time.Second

// clock compares the clock of this machine with that of a server, which ask returns.
func (c *checkup) clock(of string, ask func() (time.Time, error)) error {
	before := time.Now()
	server, err := ask()
	if err != nil {
		return err
	}
	ahead := skew(before, server, time.Now())
	direction := "ahead of"
	if ahead < 0 {
		direction = "behind"
	}
	c.expect(ahead.Abs() <= maxSkew,
		"the clock of this machine and that of "+of+" are within "+span(maxSkew)+" of each other",
		"the clock of this machine is %s %s that of %s: sessions end by the clocks of the machines that serve requests, so set all of them by NTP (timedatectl tells whether a machine does)",
		span(ahead.Abs()), direction, of)
	return nil
}

// skew returns by how much the clock of this machine is ahead of that of a server at least. The
// server read its clock at some time between before and after.
func skew(before, server, after time.Time) time.Duration {
	switch {
	case before.After(server):
		return before.Sub(server)
	case server.After(after):
		return after.Sub(server)
	}
	return 0
}

// redis reports what [redisstore.Store.Check] finds, and the clocks.
func (c *checkup) redis(ctx context.Context, r *redisTarget) error {
	err := r.store.Check(ctx)
	joined, ok := err.(interface{ Unwrap() []error })
	if err != nil && !ok {
		return err
	}
	if ok {
		for _, err := range joined.Unwrap() {
			text, isFinding := strings.CutPrefix(err.Error(), "redisstore: check: ")
			switch {
			case !isFinding || errors.Unwrap(err) != nil: // a failure of the call
				return err
			case strings.Contains(text, "not allowed to ask: "):
				c.say(markUnseen, "%s; let an account that may ask run this", text)
			default:
				c.say(markBad, "%s", text)
			}
		}
	}
	if len(c.Lines) == 0 {
		c.say(markOK, "no eviction, every write is on the disk before it is acknowledged, and no replica can lack one unnoticed")
	}
	return r.eachMaster(ctx, func(name string, node redis.Cmdable) error {
		err := c.clock(name, func() (time.Time, error) { return node.Time(ctx).Result() })
		if isReply(err) {
			c.say(markUnseen, "this account may not ask for the clock of %s (TIME); compare the clocks of the machines by hand", name)
			return nil
		}
		return err
	})
}
