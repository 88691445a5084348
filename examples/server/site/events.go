package site

import (
	"fmt"
	"net/http"
	"time"

	"github.com/coatcheck/session"
)

// events is a stream of server-sent events that tells an open page when its
// session has ended (see live.js): signed out in another tab or from another
// device, or because its time was up. The page names its session. If this browser has
// another one by now, or none, the answer is 204.
func (a app) events(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	s.MarkPassive() // a page that is only open is not in use
	if s.User() == "" || r.FormValue("session") != s.ID() {
		w.WriteHeader(http.StatusNoContent) // an EventSource does not connect again
		return
	}
	ended := s.Done()
	out := http.NewResponseController(w)
	out.SetWriteDeadline(time.Time{}) // the server's is for short answers
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
	alive := time.NewTicker(25 * time.Second) // lest a proxy think that nobody is there
	defer alive.Stop()
	for event := ":\n\n"; ; {
		fmt.Fprint(w, event)
		if out.Flush() != nil { // or the store failed, and that is the answer
			return
		}
		select {
		case <-ended:
			fmt.Fprint(w, "event: ended\ndata:\n\n")
			return
		case <-alive.C:
		case <-a.closing:
			return
		case <-r.Context().Done():
			return
		}
	}
}
