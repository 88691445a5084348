package session

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/firstbyte"
	"github.com/coatcheck/session/internal/token"
)

// A request is one request on its way through Handler, in one allocation: the
// context that carries the session, the session, and the response writer that
// commits it.
type request struct {
	m             *Manager
	r             *http.Request // as it came
	sent          *http.Request // the copy that the handler gets
	session       Session
	writer        firstbyte.Writer
	before        []field     // what stood in the header when Handler was entered
	kept          http.Header // of a response that was replaced, as ErrorHandler left it
	returned      bool        // the handler did
	panicked      bool        // or it did not: the response is not ours to write
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

// Deadline, Done and Err implement context.Context too, as the request's has them.
func (q *request) Deadline() (time.Time, bool) { return q.session.ctx.Deadline() }
func (q *request) Done() <-chan struct{}       { return q.session.ctx.Done() }
func (q *request) Err() error                  { return q.session.ctx.Err() }

// String keeps the request, with its cookies, out of what prints a context.
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

// complete tells caches what the response depends on, and sets the cookie.
func (q *request) complete(h header) error {
	if !h.isUsed {
		return nil
	}
	to, control := q.writer.Header(), ""
	canonicalize(to)
	switch {
	case h.cookie.action != cookieKeep:
		control = "no-store"
	case len(to["Cache-Control"]) > 0: // the handler knows better
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

// canonicalize joins other spellings of the header fields that we set with those,
// so that none stands beside ours.
func canonicalize(h http.Header) {
	for name, values := range h {
		switch len(name) {
		case len("Vary"), len("Set-Cookie"), len("Cache-Control"): // which is len(tokenHeader) too
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

// tellCaches makes the response depend on the token. A response to somebody
// who is logged in is nobody's to keep (OWASP ASVS 5, 14.3.2), one in an
// anonymous session the browser's, unless the handler knows better; one with
// a token is nobody's whatever the handler says (RFC 9111, 7.3).
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

// finish ends the request when the handler has returned or panicked. It does
// not recover: the panic goes on, and the response is not ours to write.
func (q *request) finish() {
	// net/http removes the temporary files of its own request, and a middleware
	// around this one reads the pattern there.
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

// bypassed tells whether the response was written to another writer than ours,
// as happens inside a framework that keeps its own.
func (q *request) bypassed() bool {
	w, ok := q.writer.ResponseWriter.(interface{ Written() bool }) // gin's, among others
	return ok && w.Written()
}
