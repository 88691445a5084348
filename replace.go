package session

import (
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"strings"
)

// A field is one value of a header field.
type field struct{ name, value string }

// fieldsOf returns the fields of a header, those of the same name in order. It allocates once
// if there are any.
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

// replace calls ErrorHandler to write the response. Header fields that were set when Handler was
// entered stay (CORS, HSTS, a request id). Those that were set since are removed, because they
// belong to the handler's own response: they could log the client out or deliver a file
// (HX-Redirect, Clear-Site-Data, X-Accel-Redirect). Content-Security-Policy stays, because it can
// only restrict.
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
			delete(h, f.name) // the handler's value
		}
		h[f.name] = append(h[f.name], f.value)
	}
	q.tellCaches(h, "")
	w := &errorWriter{ResponseWriter: q.writer.ResponseWriter, status: errorStatus(err)}
	q.m.onError(w, q.sent, err)
	w.Write(nil)
	q.kept = h.Clone()
}

// restore removes header fields that the handler has set after the response was replaced. The
// handler may still hold the header, and a trailer, or the header of a response that a middleware
// buffers, is sent after Handler has returned.
func (q *request) restore() {
	if q.kept != nil {
		h := q.writer.ResponseWriter.Header()
		clear(h)
		maps.Copy(h, q.kept)
	}
}

// An errorWriter sets Cache-Control to no-store, and a default status.
type errorWriter struct {
	http.ResponseWriter
	status int // used if ErrorHandler sets none
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

// answerError returns the default ErrorHandler, which logs the error and sends only the
// status to the client.
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

// retryAfter is the Retry-After header in seconds: about the time of a failover.
const retryAfter = "5"

func errorStatus(err error) int {
	if errors.Is(err, ErrStore) {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
