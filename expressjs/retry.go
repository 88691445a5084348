package expressjs

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	firstWait = 4 * time.Millisecond // before the second try; doubled for each further try
	maxWait   = 128 * time.Millisecond
	maxLosses = 3 // tries after a lost connection; more would only delay requests while the database is down
)

// retry calls f until it succeeds, or fails for a reason that another try does not correct. f may
// be executed more than once, so a repetition must do no harm.
//
// PostgreSQL rolls statements back because of concurrent ones, in deadlocks and at isolation levels
// above read committed: those are tried until ctx ends. Statements whose connection was lost are
// tried maxLosses times, because PostgreSQL may have closed it while it was idle.
func retry(ctx context.Context, f func() error) error {
	losses := 0
	for d := firstWait; ; d = min(2*d, maxWait) {
		err := f()
		switch {
		case isRolledBack(err):
		case isLost(err) && losses < maxLosses:
			losses++
		default:
			return err
		}
		if wait(ctx, rand.N(d)) != nil {
			return err
		}
	}
}

// isRolledBack reports whether err is a serialization failure or a deadlock. No part of the
// statements was applied.
func isRolledBack(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && (answer.Code == "40001" || answer.Code == "40P01")
}

// isLost reports whether err means that the connection broke, or that PostgreSQL closed it. A
// timeout is not a lost connection: PostgreSQL may still execute the statements.
func isLost(err error) bool {
	var answer *pgconn.PgError
	var network net.Error
	switch {
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &answer):
		const shutdown, exceptions = "57P", "08"
		return strings.HasPrefix(answer.Code, shutdown) || strings.HasPrefix(answer.Code, exceptions)
	case errors.As(err, &network):
		return !network.Timeout()
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || pgconn.SafeToRetry(err)
}
