package session

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strings"
)

// A writer commits the session just before the first byte leaves, whichever
// way the handler makes it leave. After a commit that failed the response is
// ErrorHandler's, and what the handler writes is answered with the error.
//
// http.ResponseWriter's optional methods are on more types, so that type assertions
// tell the truth: a handler finds Flush, Hijack and CloseNotify where they work. Each
// type is one pointer, which needs no allocation as an interface.
type writer struct {
	http.ResponseWriter
	q      *request
	before []field     // what stood in the header when Handler was entered
	began  bool        // the header has left, or another program writes it
	err    error       // why the response was replaced
	unsent http.Header // the handler's, once the response was replaced
	kept   http.Header // of the other response, as ErrorHandler left it
}

// flushWriter is the writer of most recorders.
type flushWriter struct{ *writer }

// hijackWriter is a writer that can be hijacked. All known ones can flush.
type hijackWriter struct{ flushWriter }

// flushNotifyWriter is the writer of HTTP/2.
type flushNotifyWriter struct{ flushWriter }

// hijackNotifyWriter is the writer of HTTP/1.1.
type hijackNotifyWriter struct{ hijackWriter }

// notifyWriter is a writer that can do no more than tell of a lost connection.
type notifyWriter struct{ *writer }

// as returns w with the optional methods that an http.ResponseController
// would find on to.
func (w *writer) as(to http.ResponseWriter) http.ResponseWriter {
	flush, hijack, notify := false, false, false
	for to != nil {
		switch to.(type) {
		case http.Flusher, interface{ FlushError() error }:
			flush = true
		}
		if _, ok := to.(http.Hijacker); ok {
			hijack = true
		}
		if _, ok := to.(closeNotifier); ok {
			notify = true
		}
		to = unwrap(to)
	}
	switch {
	case hijack && notify:
		return hijackNotifyWriter{hijackWriter{flushWriter{w}}}
	case hijack:
		return hijackWriter{flushWriter{w}}
	case flush && notify:
		return flushNotifyWriter{flushWriter{w}}
	case flush:
		return flushWriter{w}
	case notify:
		return notifyWriter{w}
	}
	return w
}

// closeNotifier is http.CloseNotifier, which is deprecated; frameworks assert it.
type closeNotifier interface{ CloseNotify() <-chan bool }

// unwrap returns the writer that to wraps, or nil.
func unwrap(to http.ResponseWriter) http.ResponseWriter {
	if u, ok := to.(interface{ Unwrap() http.ResponseWriter }); ok {
		return u.Unwrap()
	}
	return nil
}

// closeNotify calls the CloseNotify that as has found.
func (w *writer) closeNotify() <-chan bool {
	for to := w.ResponseWriter; to != nil; to = unwrap(to) {
		if n, ok := to.(closeNotifier); ok {
			return n.CloseNotify()
		}
	}
	return nil
}

// CloseNotify implements http.CloseNotifier.
func (w hijackNotifyWriter) CloseNotify() <-chan bool { return w.closeNotify() }
func (w flushNotifyWriter) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w notifyWriter) CloseNotify() <-chan bool       { return w.closeNotify() }

// A field is one value of a header.
type field struct{ name, value string }

// fieldsOf returns the values of a header, those of a name one after the other. It
// allocates once if there are any.
func fieldsOf(h http.Header) (fields []field) {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	if n == 0 {
		return nil
	}
	fields = make([]field, 0, n)
	for name, values := range h {
		for _, v := range values {
			fields = append(fields, field{name, v})
		}
	}
	return fields
}

// Header implements http.ResponseWriter. What the handler sets once its response was
// replaced, such as trailers, goes nowhere.
func (w *writer) Header() http.Header {
	if w.unsent != nil {
		return w.unsent
	}
	return w.ResponseWriter.Header()
}

// begin is the moment before the first byte.
func (w *writer) begin(hijack bool) error {
	if !w.began {
		w.began = true
		w.err = w.q.beforeFirstByte(hijack)
	}
	return w.err
}

// WriteHeader implements http.ResponseWriter. An informational status (1xx)
// other than 101 is not the response.
func (w *writer) WriteHeader(status int) {
	if status >= 100 && status <= 199 && status != http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
	} else if w.begin(false) == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	if err := w.begin(false); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// WriteString implements io.StringWriter.
func (w *writer) WriteString(s string) (int, error) {
	if err := w.begin(false); err != nil {
		return 0, err
	}
	return io.WriteString(w.ResponseWriter, s)
}

// Unwrap lets http.ResponseController find deadlines and full duplex.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w flushWriter) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController calls.
func (w flushWriter) FlushError() error {
	if err := w.begin(false); err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// ReadFrom implements io.ReaderFrom, which net/http makes a sendfile of.
func (w hijackWriter) ReadFrom(src io.Reader) (int64, error) {
	if err := w.begin(false); err != nil {
		return 0, err
	}
	if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return to.ReadFrom(src)
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
}

// Hijack implements http.Hijacker. It commits first; a cookie can no longer be
// set, for whoever hijacks writes the header.
func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.begin(true); err != nil {
		return nil, nil, err
	}
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// replace lets ErrorHandler write the response. Of the header stays what stood in it
// when Handler was entered (CORS, HSTS, a request id); what was added since was meant
// for the handler's own response, and would log the client out or deliver a file
// (HX-Redirect, Clear-Site-Data, X-Accel-Redirect). A Content-Security-Policy only
// restricts, and stays.
func (q *request) replace(err error) {
	h := q.writer.ResponseWriter.Header()
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		return !strings.HasPrefix(http.CanonicalHeaderKey(name), "Content-Security-Policy")
	})
	for i, f := range q.writer.before {
		switch http.CanonicalHeaderKey(f.name) {
		case "Cache-Control", "Content-Length":
			continue
		}
		if i == 0 || q.writer.before[i-1].name != f.name {
			delete(h, f.name) // what the handler put in its place
		}
		h[f.name] = append(h[f.name], f.value)
	}
	q.writer.unsent = http.Header{}
	q.tellCaches(h, "")
	w := &errorWriter{ResponseWriter: q.writer.ResponseWriter, status: errorStatus(err)}
	q.m.onError(w, q.sent, err)
	w.Write(nil)
	q.writer.kept = h.Clone()
}

// restore takes out of the header of a replaced response what the handler has set
// there since. A handler may hold the header from before, and trailers, or a
// middleware that keeps the response back, are sent after Handler has returned.
func (w *writer) restore() {
	if w.kept != nil {
		h := w.ResponseWriter.Header()
		clear(h)
		maps.Copy(h, w.kept)
	}
}

// An errorWriter sees to it that the error is not cached, and is an error.
type errorWriter struct {
	http.ResponseWriter
	status int // if ErrorHandler sets none
	wrote  bool
}

func (w *errorWriter) WriteHeader(status int) {
	if !w.wrote {
		w.wrote = status >= 200
		w.Header().Set("Cache-Control", "no-store")
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *errorWriter) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(w.status)
	}
	return w.ResponseWriter.Write(p)
}

func (w *errorWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// answerError returns the default ErrorHandler: the log gets the reason, the client
// gets only the status.
func answerError(log *slog.Logger) func(http.ResponseWriter, *http.Request, error) {
	return func(w http.ResponseWriter, r *http.Request, err error) {
		status := errorStatus(err)
		log.ErrorContext(r.Context(), "session: request failed", "err", err, "status", status, "method", r.Method, "path", r.URL.Path)
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, http.StatusText(status), status)
	}
}

// retryAfter is in seconds: a store that fails over is back in about this time.
const retryAfter = "5"

func errorStatus(err error) int {
	if errors.Is(err, ErrStore) {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
