package session

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"strings"
)

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
	for i, f := range q.before {
		switch http.CanonicalHeaderKey(f.name) {
		case "Cache-Control", "Content-Length":
			continue
		}
		if i == 0 || q.before[i-1].name != f.name {
			delete(h, f.name) // what the handler put in its place
		}
		h[f.name] = append(h[f.name], f.value)
	}
	q.tellCaches(h, "")
	w := &errorWriter{ResponseWriter: q.writer.ResponseWriter, status: errorStatus(err)}
	q.m.onError(w, q.sent, err)
	w.Write(nil)
	q.kept = h.Clone()
}

// restore takes out of the header of a replaced response what the handler has set
// there since. A handler may hold the header from before, and trailers, or a
// middleware that keeps the response back, are sent after Handler has returned.
func (q *request) restore() {
	if q.kept != nil {
		h := q.writer.ResponseWriter.Header()
		clear(h)
		maps.Copy(h, q.kept)
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
