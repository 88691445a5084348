package migrate

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// A writer adds the cookies of a takeover to a response, just before its header
// leaves, unless that is late: the browser may have newer ones by then.
type writer struct {
	http.ResponseWriter
	until   time.Time
	cookies func() []string // Set-Cookie, when the header leaves; nil: it has left
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.complete()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	w.complete()
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = w.FlushError() }

// FlushError is Flush for http.ResponseController.
func (w *writer) FlushError() error {
	w.complete()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Hijack implements http.Hijacker. Whoever hijacks writes the header himself, and the
// browser comes again with the old cookie.
func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *writer) complete() {
	cookies := w.cookies
	if w.cookies = nil; cookies == nil || time.Now().After(w.until) {
		return
	}
	if lines := cookies(); len(lines) > 0 {
		h := w.Header()
		h["Set-Cookie"] = append(lines, h["Set-Cookie"]...)
		h.Set("Cache-Control", "no-store") // a cache must not give them to others
	}
}
