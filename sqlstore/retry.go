package sqlstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"time"
)

const (
	firstWait = 4 * time.Millisecond // before the second try; doubled for each further try
	maxWait   = 128 * time.Millisecond
	maxLosses = 3 // tries after a lost connection; more would only hold requests up while the database is down
)

// retry calls f until it succeeds or shouldRetry returns false. f may be executed more than
// once, so a repetition must do no harm.
func (s *Store) retry(ctx context.Context, f func() error) error {
	for t := (tries{}); ; {
		err := f()
		if err == nil || !s.shouldRetry(ctx, &t, err) {
			return err
		}
	}
}

// tries counts the failed tries of one call.
type tries struct{ rolledBack, lost int }

// shouldRetry reports whether a call that failed with err is tried again, and sleeps before it
// returns true. A statement that the database rolls back because of a concurrent one, as
// happens in deadlocks and at isolation levels above read committed, is tried until ctx ends. A
// statement whose connection was lost is tried maxLosses times.
func (s *Store) shouldRetry(ctx context.Context, t *tries, err error) bool {
	switch {
	case rolledBack(err):
		t.rolledBack++
	case isLost(err) && t.lost < maxLosses:
		t.lost++
	default:
		return false
	}
	if pause(ctx, t.rolledBack+t.lost-1) != nil {
		return false
	}
	if t.lost > 0 {
		s.dropDead(ctx)
	}
	return true
}

// rolledBack reports whether the database undid a statement because of a concurrent one: a
// serialization failure or a deadlock. No part of the statement was applied.
func rolledBack(err error) bool {
	state := sqlState(err)
	return state == "40001" || state == "40P01"
}

// isLost reports whether err says that the connection broke, or that the database closed it. A
// timeout is not a lost connection: the database may still execute the statement.
func isLost(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	switch state := sqlState(err); {
	case state == "57P01", state == "57P02", state == "57P03": // shutdown, crash, still starting
		return true
	case len(state) == 5:
		return state[:2] == "08" // connection exceptions
	}
	var network net.Error
	if errors.As(err, &network) {
		return !network.Timeout()
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		hasText(err, "invalid connection") // go-sql-driver/mysql
}

// hasText reports whether err is or wraps an error with this text.
func hasText(err error, text string) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if err.Error() == text {
			return true
		}
	}
	return false
}

// dropDead removes dead connections from the idle ones of the pool. An event that closes one
// connection, such as a failover, usually closes all. Each dead connection that stayed would
// cost a call one try, and leave the outcome of a write unknown.
//
// dropDead holds the live connections until it has checked all, because the pool hands out the
// connection that was returned last. Of concurrent calls only one checks, because otherwise
// each would wait for connections that another one holds.
func (s *Store) dropDead(ctx context.Context) {
	begun := s.drops.Load()
	select {
	case s.dropping <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-s.dropping }()
	if s.drops.Load() != begun {
		return // another call has checked since this call's connection was lost
	}
	s.drops.Add(1)
	for left := s.db.Stats().Idle; left > 0 && s.db.Stats().Idle > 0; left-- {
		conn, err := s.db.Conn(ctx)
		if err != nil {
			return
		}
		if err := conn.PingContext(ctx); err != nil {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // makes the pool close conn
			if !isLost(err) {
				return
			}
			continue
		}
		defer conn.Close()
	}
}

// pause sleeps before try number try+2: exponential backoff from firstWait with jitter, capped
// at maxWait. It returns early with ctx.Err().
func pause(ctx context.Context, try int) error {
	d := min(firstWait<<min(try, 10), maxWait)
	t := time.NewTimer(d/2 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
