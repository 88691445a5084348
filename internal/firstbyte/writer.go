// Package firstbyte provides a response writer that runs a hook just before the first byte of a
// response, whichever method of the writer the handler uses.
package firstbyte

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// Hook is called before the first byte of a response.
type Hook interface {
	// BeforeFirstByte may change the header. hijack is set if the handler takes over the
	// connection: the header is then sent only if that fails. If BeforeFirstByte returns an
	// error, it has written the response itself, and the handler's calls of Write return the
	// error.
	BeforeFirstByte(hijack bool) error
}

// Writer runs a [Hook] once, just before the first byte of a response. An informational status
// (1xx) other than 101 is not the response.
//
// The optional methods of an http.ResponseWriter are on separate types, from which Wrap
// chooses, so that a type assertion finds Flush, Hijack and CloseNotify only where they work.
// Each type is one pointer, so its conversion to an interface does not allocate.
type Writer struct {
	http.ResponseWriter // the wrapped writer
	hook                Hook
	began               bool        // whether the hook has been called
	err                 error       // error of the hook
	unsent              http.Header // the handler's header after an error of the hook
}

// flushWriter adds Flush, which most recorders have.
type flushWriter struct{ *Writer }

// hijackWriter adds Hijack. All known writers that can be hijacked can also flush.
type hijackWriter struct{ flushWriter }

// flushNotifyWriter adds the methods that the writer of HTTP/2 has.
type flushNotifyWriter struct{ flushWriter }

// hijackNotifyWriter adds the methods that the writer of HTTP/1.1 has.
type hijackNotifyWriter struct{ hijackWriter }

// notifyWriter adds CloseNotify only.
type notifyWriter struct{ *Writer }

// Wrap makes w the writer of a response to to. w must be new. Wrap returns w with the optional
// methods that an http.ResponseController finds on to. w is not moved, so it can be a field of
// a larger struct.
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

// Begin runs the hook if it has not run, and returns its error. Call it for a handler that
// returned without writing.
func (w *Writer) Begin() error { return w.begin(false) }

func (w *Writer) begin(hijack bool) error {
	if !w.began {
		w.began = true
		w.err = w.hook.BeforeFirstByte(hijack)
	}
	return w.err
}

// Began reports whether the hook has been called.
func (w *Writer) Began() bool { return w.began }

// Err returns the error of the hook.
func (w *Writer) Err() error { return w.err }

// Header implements [http.ResponseWriter]. After an error of the hook, headers that the handler
// sets, such as trailers, are discarded.
func (w *Writer) Header() http.Header {
	if w.err == nil {
		return w.ResponseWriter.Header()
	}
	if w.unsent == nil {
		w.unsent = http.Header{}
	}
	return w.unsent
}

// WriteHeader implements [http.ResponseWriter].
func (w *Writer) WriteHeader(status int) {
	if status >= 100 && status <= 199 && status != http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
	} else if w.begin(false) == nil {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Write implements [http.ResponseWriter].
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.begin(false); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// WriteString implements [io.StringWriter].
func (w *Writer) WriteString(s string) (int, error) {
	if err := w.begin(false); err != nil {
		return 0, err
	}
	return io.WriteString(w.ResponseWriter, s)
}

// Unwrap returns the wrapped writer, so that an http.ResponseController can set deadlines and
// full duplex.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements [http.Flusher].
func (w flushWriter) Flush() { _ = w.FlushError() }

// FlushError is called by an http.ResponseController.
func (w flushWriter) FlushError() error {
	if err := w.begin(false); err != nil {
		return err
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// ReadFrom implements [io.ReaderFrom], which lets net/http use sendfile.
func (w hijackWriter) ReadFrom(src io.Reader) (int64, error) {
	if err := w.begin(false); err != nil {
		return 0, err
	}
	if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return to.ReadFrom(src)
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
}

// Hijack implements [http.Hijacker]. The hook runs first. A header that the hook sets is sent
// only if the connection cannot be hijacked.
func (w hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if err := w.begin(true); err != nil {
		return nil, nil, err
	}
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// CloseNotify implements [http.CloseNotifier].
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
