package session

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/mistake"
)

// answerError returns the default ErrorHandler, which logs the error and sends only the
// status to the client.
func answerError(log *slog.Logger) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		status := errorStatus(err)
		logFailure(log, r, err, status)
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, http.StatusText(status), status)
	}
}

// logFailure logs why a request is answered with an error.
func logFailure(log *slog.Logger, r *http.Request, err error, status int) {
	log.ErrorContext(r.Context(), "session: request failed", "err", err, "status", status, "method", r.Method, "path", r.URL.Path)
}

// retryAfter is the Retry-After header in seconds: about the time of a failover.
const retryAfter = "5"

func errorStatus(err error) int {
	if errors.Is(err, ErrStore) {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// fail makes err the problem of the session, and returns err. Two errors are not problems of the
// session: an error of isEnding, and any error if the program has asked for nothing (isAsked is
// false). In the second case only maintenance has failed: fail returns nil, and the next request
// repeats the maintenance.
func (t *tx) fail(err error, isAsked bool) error {
	if isEnding(err) {
		return err
	}
	if errors.Is(err, ErrStore) {
		t.note(EventStoreFailed, t.stored.rec, err)
	}
	switch {
	case !isAsked:
		t.stored.due = body.Maintenance{}
		return nil
	case t.problem.isLasting(): // a lasting problem stays, even after an ending has succeeded
	case errors.Is(err, ErrIndeterminate) && !t.pending.logout:
		// After a write that may have been applied, the changes are not applied again,
		// because an Update would count twice. An ending may be repeated.
		t.problem = problem{problemLasting, err}
	default:
		t.problem = problem{problemPassing, err}
	}
	return err
}

// isEnding reports whether an error says that there is no session to hold a change.
func isEnding(err error) bool {
	return err == ErrEnded || err == ErrReplaced || err == ErrUnproven || err == errTwins || err == errWithheld
}

// refuse makes err the session's problem, so that nothing is stored.
func (s *Session) refuse(err error) {
	_ = s.transact(func(t *tx) error {
		if !t.problem.isLasting() {
			t.problem = problem{problemLasting, err}
			if t.phase() != phaseOpen {
				t.report(err)
			}
		}
		return nil
	})
}

// report logs an error that cannot replace the response any more.
func (t *tx) report(err error) {
	if !errors.Is(err, ErrStore) { // an ErrStore has an event
		t.note(EventDropped, t.stored.rec, err)
	}
	t.m.log.ErrorContext(t.s.ctx, "session: commit after the first byte failed", "err", err)
}

func lateError(call string) error {
	return fmt.Errorf("session: %s: the response header was sent, so no cookie can be set: call it before the first byte", call)
}

// storeError wraps err, the answer of a store, in an ErrStore, unless err is a mistake of the
// program.
func storeError(call string, err error) error {
	if m := (*mistake.Error)(nil); errors.As(err, &m) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrStore, call, err)
}

// failResponse makes err replace the response, even if a Save or Reload has returned it to the
// program.
func (s *Session) failResponse(err error) {
	_ = s.transact(func(t *tx) error {
		if t.phase() == phaseOpen {
			t.problem = problem{problemLasting, err}
		}
		return nil
	})
}

var errTwins = errors.New("session: two live sessions in one request: neither is accepted until a Login or Logout ends both")

var errWithheld = errors.New("session: a request from another site without a cookie begins no session, because its cookie would replace the one that the browser withheld: redirect to a page of this site and make the change there")
