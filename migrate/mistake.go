package migrate

import (
	"log/slog"
	"net/http"
	"sync"
)

// A mistake is an error that a retry does not correct. The request has no session, and the old
// session stays unchanged for a corrected version of the application.
type mistake struct{ error }

func (m mistake) Unwrap() error { return m.error }

// maxMistakes is the number of different mistakes that are logged. It is bounded because the text
// of an error may contain a part of a value, and could then differ for each session.
const maxMistakes = 32

// mistakes contains the mistakes that were logged.
type mistakes struct {
	mu     sync.Mutex
	logged map[string]bool
}

// log logs each mistake once: until the mistake is corrected, every request with such a session
// causes it.
func (ms *mistakes) log(r *http.Request, err error) {
	ms.mu.Lock()
	isNew := !ms.logged[err.Error()] && len(ms.logged) < maxMistakes
	if isNew {
		if ms.logged == nil {
			ms.logged = map[string]bool{}
		}
		ms.logged[err.Error()] = true
	}
	ms.mu.Unlock()
	if isNew {
		slog.ErrorContext(r.Context(), "migrate: an old session cannot be taken over and counts as none; correct migrate.Options or the configuration of the old library (logged once)", "err", err)
	}
}
