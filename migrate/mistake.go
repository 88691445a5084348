package migrate

import (
	"log/slog"
	"net/http"
	"sync"
)

// A mistake is an error that no retry mends. The old session counts as none, and stays
// as it is, for a version of the application that makes no mistake.
type mistake struct{ error }

func (m mistake) Unwrap() error { return m.error }

// maxMistakes is how many different mistakes are logged at most: an error may have a part
// of a session's values in its text.
const maxMistakes = 32

// mistakes are those that were logged.
type mistakes struct {
	mu     sync.Mutex
	logged map[string]bool
}

// log logs a mistake, unless it has done so: until it is mended each request of each
// browser that has such a session makes it.
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
		slog.ErrorContext(r.Context(), "migrate: an old session cannot be taken over and counts as none; mend the options or the old library's configuration, and it is taken over then (logged once)", "err", err)
	}
}
