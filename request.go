package session

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"weak"

	"github.com/coatcheck/session/internal/batch"
	"github.com/coatcheck/session/internal/device"
	"github.com/coatcheck/session/internal/firstbyte"
	"github.com/coatcheck/session/internal/token"
)

// A request holds the state of one HTTP request in one allocation: the context that carries the
// session, the session, and the response writer that commits it.
type request struct {
	r             *http.Request // the request that Handler received
	sent          *http.Request // the copy of r that the handler gets, with the context
	session       Session
	writer        firstbyte.Writer
	before        []field     // the response header when Handler was entered
	kept          http.Header // the header of a replaced response after ErrorHandler; nil: not replaced
	returned      bool        // the handler has returned
	panicked      bool        // the handler has panicked: the session does not write the response
	vary, control [1]string
}

type innermost struct{} // the key of the innermost session in a context

// Value implements context.Context.
func (q *request) Value(key any) any {
	if key == (innermost{}) || key == any(q.session.m) {
		return &q.session
	}
	if k, ok := key.(batch.Key); ok && k.Manager == any(q.session.m) {
		return batched{weak.Make(&q.session)}
	}
	return q.session.ctx.Value(key)
}

// Deadline, Done and Err implement context.Context with the values of the request's context.
func (q *request) Deadline() (time.Time, bool) { return q.session.ctx.Deadline() }

func (q *request) Done() <-chan struct{} { return q.session.ctx.Done() }

func (q *request) Err() error { return q.session.ctx.Err() }

// String keeps the request and its cookies out of the text of a context.
func (q *request) String() string { return "session.Manager.Handler" }

// tokens implements origin.
func (q *request) tokens() candidates { return q.session.m.carrier.read(q.r) }

// allTokens implements origin.
func (q *request) allTokens() []token.Ref { return q.session.m.carrier.readAll(q.r) }

// proves implements origin.
func (q *request) proves(id string, at time.Time) bool { return q.session.m.device.proves(q.r, id, at) }

// skipped implements origin.
func (q *request) skipped() string { return device.Skipped(q.r.Header) }

// allows implements origin: a request may call every method.
func (q *request) allows(string) error { return nil }

// BeforeFirstByte implements firstbyte.Hook: it commits the session and completes the
// header, or writes another response in place of the handler's.
func (q *request) BeforeFirstByte(hijack bool) error {
	h, err := q.session.beforeFirstByte(hijack)
	if err == nil {
		err = q.complete(h)
	}
	if err != nil && !q.panicked {
		q.replace(err)
	}
	return err
}

// complete sets Vary, Cache-Control and the cookie.
func (q *request) complete(h header) error {
	if !h.isUsed {
		return nil
	}
	to, control := q.writer.Header(), ""
	canonicalize(to)
	switch {
	case h.cookie.action != cookieKeep:
		control = "no-store"
	case len(to["Cache-Control"]) > 0: // set by the handler
	case h.hasUser:
		control = "no-store"
	case h.exists:
		control = "private"
	}
	q.tellCaches(to, control)
	if h.cookie.action == cookieSend {
		q.session.m.warnNested(&q.session)
	}
	return q.session.m.carrier.apply(h.cookie, to, q.r, h.life)
}

// canonicalize merges header fields that the handler has set by another spelling with the
// canonical name, for the fields that this package sets.
func canonicalize(h http.Header) {
	for name, values := range h {
		switch len(name) {
		case len("Vary"), len("Set-Cookie"), len("Cache-Control"): // len(tokenHeader) is one of them
		default:
			continue
		}
		switch right := http.CanonicalHeaderKey(name); right {
		case name:
		case "Vary", "Set-Cookie", "Cache-Control", tokenHeader:
			h[right] = append(h[right][:len(h[right]):len(h[right])], values...)
			delete(h, name)
		}
	}
}

// tellCaches adds the header of the token to Vary, and sets Cache-Control unless control is "".
// complete has decided by these rules: no cache may store a response to a logged-in user (OWASP
// ASVS 5, 14.3.2), and only the browser one to an anonymous session, unless the handler has set
// Cache-Control. No cache may store a response with a new token, whatever the handler has set
// (RFC 9111, 7.3).
func (q *request) tellCaches(h http.Header, control string) {
	vary := h["Vary"]
	on := q.session.m.carrier.depends()
	if !slices.ContainsFunc(vary, func(v string) bool { return strings.EqualFold(v, on) || v == "*" }) {
		q.vary[0] = on
		h["Vary"] = append(q.vary[:1:1], vary...)
	}
	if control != "" {
		q.control[0] = control
		h["Cache-Control"] = q.control[:1:1]
	}
}

// finish ends the request when the handler has returned or panicked. It does not recover from a
// panic.
func (q *request) finish() {
	// net/http removes the temporary files of its own request, and outer middleware reads the
	// pattern of that request.
	q.r.MultipartForm, q.r.Pattern = q.sent.MultipartForm, q.sent.Pattern
	finished := false
	defer func() {
		if !finished { // the store panicked
			q.session.unwatch()
		}
	}()
	if q.panicked = !q.returned; q.panicked {
		q.session.abandon()
	}
	if !q.writer.Began() {
		if q.bypassed() {
			q.session.headerLeft(q.r.URL.Path)
		} else if err := q.writer.Begin(); err != nil && q.panicked {
			q.session.m.log.ErrorContext(q, "session: commit after a panic of the handler failed", "err", err)
		}
	}
	q.restore()
	q.session.finish(q.writer.Err() == nil)
	finished = true
}

// bypassed reports whether the handler has written the response to another writer, as inside a
// framework that keeps its own.
func (q *request) bypassed() bool {
	w, ok := q.writer.ResponseWriter.(interface{ Written() bool }) // gin has this method, among others
	return ok && w.Written()
}

// A field is one value of a header field.
type field struct{ name, value string }

// fieldsOf returns the fields of a header, those of the same name in order. It allocates once,
// unless a name has several values.
func fieldsOf(h http.Header) (fields []field) {
	if len(h) == 0 {
		return nil
	}
	fields = make([]field, 0, len(h))
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
	q.session.m.onError(w, q.sent, err)
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

// warnNested logs that another Manager around this one uses the same cookie or header, so that
// each replaces the token of the other.
func (m *Manager) warnNested(s *Session) {
	for outer, _ := s.ctx.Value(innermost{}).(*Session); outer != nil; outer, _ = outer.ctx.Value(innermost{}).(*Session) {
		if place := m.carrier.place(); outer.m.carrier.place() == place && m.nested.CompareAndSwap(false, true) {
			m.log.WarnContext(s.ctx, "session: nested Managers use the same cookie or header; give each a different Options.Cookie.Name (logged once)", "outer", place, "inner", place)
		}
	}
}
