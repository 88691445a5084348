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
// http.ResponseWriter's optional methods are on two more types, so that type
// assertions tell the truth: a handler finds Flush and Hijack where they work.
type writer struct {
	http.ResponseWriter
	q     *request
	began bool  // the header has left, or somebody else writes it
	err   error // why the response was replaced
}

// flushWriter is the writer of HTTP/2, and of most recorders.
type flushWriter struct{ *writer }

// hijackWriter is the writer of HTTP/1.1.
type hijackWriter struct{ flushWriter }

// as returns w with the optional methods that an http.ResponseController
// would find on to.
func (w *writer) as(to http.ResponseWriter) http.ResponseWriter {
	flush := false
	for {
		if _, ok := to.(http.Hijacker); ok {
			return hijackWriter{flushWriter{w}}
		}
		switch to.(type) {
		case http.Flusher, interface{ FlushError() error }:
			flush = true
		}
		u, ok := to.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		to = u.Unwrap()
	}
	if flush {
		return flushWriter{w}
	}
	return w
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

// replace lets ErrorHandler write the response, without what the handler had
// prepared for its own.
func (q *request) replace(err error) {
	h := q.writer.Header()
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		switch {
		case strings.HasPrefix(name, "Content-Security-Policy"): // is not about the content
		case strings.HasPrefix(name, "Content-"), name == "Etag", name == "Last-Modified",
			name == "Location", name == "Cache-Control", name == "Set-Cookie", name == tokenHeader:
			return true
		}
		return false
	})
	q.tellCaches(h, "")
	w := &errorWriter{ResponseWriter: q.writer.ResponseWriter, status: errorStatus(err)}
	q.m.onError(w, q.r.WithContext(q), err)
	w.Write(nil)
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

// answerError is the default ErrorHandler: the log gets the reason, the
// stranger gets none.
func answerError(w http.ResponseWriter, r *http.Request, err error) {
	status := errorStatus(err)
	slog.ErrorContext(r.Context(), "session: request failed", "err", err, "status", status, "method", r.Method, "path", r.URL.Path)
	http.Error(w, http.StatusText(status), status)
}

func errorStatus(err error) int {
	if errors.Is(err, ErrStore) {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
