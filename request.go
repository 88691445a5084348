package session

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/firstbyte"
	"github.com/coatcheck/session/internal/token"
)

// A request holds the state of one HTTP request in one allocation: the context that carries the
// session, the session, and the response writer that commits it.
type request struct {
	m             *Manager
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
	if key == (innermost{}) || key == any(q.m) {
		return &q.session
	}
	return q.session.ctx.Value(key)
}

// Deadline, Done and Err implement context.Context with the values of the request's context.
func (q *request) Deadline() (time.Time, bool) { return q.session.ctx.Deadline() }
func (q *request) Done() <-chan struct{}       { return q.session.ctx.Done() }
func (q *request) Err() error                  { return q.session.ctx.Err() }

// String keeps the request and its cookies out of the text of a context.
func (q *request) String() string { return "session.Manager.Handler" }

// tokens implements source.
func (q *request) tokens() candidates { return q.m.carrier.read(q.r) }

// allTokens implements source.
func (q *request) allTokens() []token.Ref { return q.m.carrier.readAll(q.r) }

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
		q.m.warnNested(&q.session)
	}
	return q.m.carrier.apply(h.cookie, to, q.r, h.life)
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
	on := q.m.carrier.depends()
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
			q.m.log.ErrorContext(q, "session: not saved in a panic", "err", err)
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
