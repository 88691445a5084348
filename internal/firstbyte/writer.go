// Package firstbyte has the response writer that runs a hook just before the first byte
// of a response leaves, whichever way the handler makes it leave.
package firstbyte

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// A Hook runs before the first byte of a response.
type Hook interface {
	// BeforeFirstByte may change the header. hijack is set if the handler takes the
	// connection: then a header leaves only if that fails. After an error the response
	// is the hook's: what the handler writes is answered with the error.
	BeforeFirstByte(hijack bool) error
}

// A Writer runs a Hook once, just before the first byte of a response leaves. An
// informational status (1xx) other than 101 is not the response.
//
// http.ResponseWriter's optional methods are on more types, which Wrap chooses from, so
// that type assertions tell the truth: a handler finds Flush, Hijack and CloseNotify
// where they work. Each type is one pointer, which needs no allocation as an interface.
type Writer struct {
	http.ResponseWriter // the one that is wrapped
	hook                Hook
	began               bool // the header has left, or the handler has the connection
	err                 error
	unsent              http.Header // the handler's, after an error
}

// flushWriter is the writer of most recorders.
type flushWriter struct{ *Writer }

// hijackWriter is a writer that can be hijacked. All known ones can flush.
type hijackWriter struct{ flushWriter }

// flushNotifyWriter is the writer of HTTP/2.
type flushNotifyWriter struct{ flushWriter }

// hijackNotifyWriter is the writer of HTTP/1.1.
type hijackNotifyWriter struct{ hijackWriter }

// notifyWriter is a writer whose only optional method is CloseNotify.
type notifyWriter struct{ *Writer }

// Wrap makes w, which is new, the writer of a response to to, and returns w with the
// optional methods that an http.ResponseController finds on to. w stays where it is, so
// that it can be a part of something larger.
func (w *Writer) Wrap(to http.ResponseWriter, hook Hook) http.ResponseWriter {
	w.ResponseWriter, w.hook = to, hook
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

// Begin runs the hook if it has not run, and returns its error: for a handler that has
// returned and wrote nothing.
func (w *Writer) Begin() error { return w.begin(false) }

func (w *Writer) begin(hijack bool) error {
	if !w.began {
		w.began = true
		w.err = w.hook.BeforeFirstByte(hijack)
	}
	return w.err
}

// Began reports whether the hook has run, or runs.
func (w *Writer) Began() bool { return w.began }

// Err returns the hook's error.
func (w *Writer) Err() error { return w.err }

// Header implements http.ResponseWriter. What the handler sets after an error of the
// hook, such as trailers, goes nowhere.
func (w *Writer) Header() http.Header {
	if w.err == nil {
		return w.ResponseWriter.Header()
	}
	if w.unsent == nil {
		w.unsent = http.Header{}
	}
	return w.unsent
}

// WriteHeader implements http.ResponseWriter.
func (w *Writer) WriteHeader(status int) {
	if status >= 100 && status <= 199 && status != http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
	} else if w.begin(false) == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.begin(false); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// WriteString implements io.StringWriter.
func (w *Writer) WriteString(s string) (int, error) {
	if err := w.begin(false); err != nil {
		return 0, err
	}
	return io.WriteString(w.ResponseWriter, s)
}

// Unwrap lets http.ResponseController find deadlines and full duplex.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

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

// Hijack implements http.Hijacker. The hook runs first: what it sets in the header
// leaves only if the connection cannot be had.
func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.begin(true); err != nil {
		return nil, nil, err
	}
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// CloseNotify implements http.CloseNotifier.
func (w hijackNotifyWriter) CloseNotify() <-chan bool { return w.closeNotify() }
func (w flushNotifyWriter) CloseNotify() <-chan bool  { return w.closeNotify() }
func (w notifyWriter) CloseNotify() <-chan bool       { return w.closeNotify() }

// closeNotify calls the CloseNotify that Wrap has found.
func (w *Writer) closeNotify() <-chan bool {
	for to := w.ResponseWriter; to != nil; to = unwrap(to) {
		if n, ok := to.(closeNotifier); ok {
			return n.CloseNotify()
		}
	}
	return nil
}
