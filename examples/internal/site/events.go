package site

import (
	"fmt"
	"net/http"
	"time"

	"github.com/coatcheck/session"
)

// events is a stream of server-sent events that tells an open page (see live.js) when its
// session has ended: it was signed out in another tab or from another device, or has expired.
// The page names its session. If the browser has another session or none, the response is 204.
func (a app) events(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	s.MarkPassive() // an open page is no use of the session
	if s.User() == "" || r.FormValue("session") != s.ID() {
		w.WriteHeader(http.StatusNoContent) // tells an EventSource not to reconnect
		return
	}
	ended := s.Done()
	out := http.NewResponseController(w)
	out.SetWriteDeadline(time.Time{}) // the deadline of the server is for short responses
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // tells nginx not to buffer the stream
	alive := time.NewTicker(25 * time.Second) // proxies close idle connections, often after 30 s
	defer alive.Stop()
	for event := ":\n\n"; ; {
		fmt.Fprint(w, event)
		if out.Flush() != nil { // the client is gone, or the store failed and the error was sent
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
