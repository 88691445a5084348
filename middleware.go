package session

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A Manager gives the requests of an http.Handler their sessions. Make one with
// New, once, and share it: it may be used by any number of goroutines. It
// starts none of its own and need not be closed.
type Manager struct {
	keeper
	cookies *cookies
	onError func(http.ResponseWriter, *http.Request, error)
}

// New returns a Manager. A nil opts means all defaults. Every mistake in opts
// is reported at once (errors.Join), each as "session: Options.X: the rule";
// secrets are never printed.
func New(opts *Options) (*Manager, error) {
	if opts == nil {
		opts = &Options{}
	}
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	c, err := newCookies(&o.Cookie, o.Secrets)
	if err != nil {
		return nil, err
	}
	m := &Manager{cookies: c, onError: o.ErrorHandler}
	m.start = time.Now()
	m.keeper.store, m.onEvent = o.Store, o.OnEvent
	m.lifetime, m.idle, m.timeout = o.Lifetime, o.IdleTimeout, o.StoreTimeout
	m.maxData, m.maxUser, m.persistent = o.MaxDataSize, o.MaxPerUser, o.Cookie.Persistent
	if m.onError == nil {
		m.onError = answerError
	}
	return m, nil
}

// Must returns m, or panics if err is not nil: session.Must(session.New(nil)).
func Must(m *Manager, err error) *Manager {
	if err != nil {
		panic(err)
	}
	return m
}

// Handler wraps next: inside it, From finds the session of a request. Wrap
// everything; requests that never ask for their session cost two allocations
// and no call of the store. Inside itself it passes through.
func (m *Manager) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(m) != nil {
			next.ServeHTTP(w, r)
			return
		}
		x := &exchange{m: m, r: r}
		x.session.k, x.session.ctx, x.session.source, x.session.born = &m.keeper, r.Context(), x, time.Since(m.start)
		x.writer.ResponseWriter, x.writer.x = w, x
		defer x.finish()
		next.ServeHTTP(x.writer.like(w), r.WithContext(x))
		x.returned = true
	})
}

// An exchange is one request and its response, in one allocation: the context
// that carries the session, the session, and the response writer that commits it.
type exchange struct {
	m             *Manager
	r             *http.Request // as it came
	session       Session
	writer        writer
	returned      bool // the handler did
	panicked      bool // or it did not: the response is not ours to write
	vary, control [1]string
}

type key struct{} // of the innermost session in a context

// Value implements context.Context.
func (x *exchange) Value(k any) any {
	if k == (key{}) || k == any(x.m) {
		return &x.session
	}
	return x.session.ctx.Value(k)
}

// Deadline, Done and Err implement context.Context too, as the request's has them.
func (x *exchange) Deadline() (time.Time, bool) { return x.session.ctx.Deadline() }
func (x *exchange) Done() <-chan struct{}       { return x.session.ctx.Done() }
func (x *exchange) Err() error                  { return x.session.ctx.Err() }

// String keeps the request, with its cookies, out of what prints a context.
func (x *exchange) String() string { return "session.Manager.Handler" }

// tokens implements source.
func (x *exchange) tokens() candidates { return x.m.cookies.read(x.r.Header) }

// From returns the session of the request that ctx belongs to: the innermost,
// where several Managers are nested. It panics outside Manager.Handler.
func From(ctx context.Context) *Session {
	if s, ok := ctx.Value(key{}).(*Session); ok {
		return s
	}
	panic("session: From: this context is not of a request that went through Manager.Handler: wrap the handler, and pass it r.Context()")
}

// From returns this Manager's session, where several are nested, each with a
// cookie name of its own. It panics outside this Manager's Handler.
func (m *Manager) From(ctx context.Context) *Session {
	if s, ok := ctx.Value(m).(*Session); ok {
		return s
	}
	panic("session: Manager.From: this context is not of a request that went through this Manager's Handler: wrap the handler, and pass it r.Context()")
}

// answer commits the session just before the header leaves, and completes the
// header, or writes another response in place of the handler's.
func (x *exchange) answer(hijack bool) error {
	head, err := x.session.answer(hijack)
	if err == nil {
		err = x.header(head)
	}
	if err != nil && !x.panicked {
		x.replace(err)
	}
	return err
}

// header tells caches what the response depends on, and sets the cookie.
func (x *exchange) header(head head) error {
	if !head.used {
		return nil
	}
	t, h := head.token, x.writer.Header()
	if head.resend != "" {
		t = x.m.cookies.token(x.r.Header, head.resend)
	}
	cookie := t != nil || head.expire
	x.tellCaches(h, head.found, cookie)
	if !cookie {
		return nil
	}
	return x.m.cookies.set(h, x.r, t, head.life)
}

// tellCaches makes the response depend on the cookie. A response with a stored
// session is private unless the handler knows better; one with our Set-Cookie
// is nobody's to keep (RFC 9111, 7.3).
func (x *exchange) tellCaches(h http.Header, found, cookie bool) {
	vary := h["Vary"]
	if !slices.ContainsFunc(vary, func(v string) bool { return strings.EqualFold(v, "Cookie") || v == "*" }) {
		x.vary[0] = "Cookie"
		h["Vary"] = append(x.vary[:1:1], vary...)
	}
	switch {
	case cookie:
		x.control[0] = "no-store"
	case found && len(h["Cache-Control"]) == 0:
		x.control[0] = "private"
	default:
		return
	}
	h["Cache-Control"] = x.control[:1:1]
}

// finish ends the exchange when the handler has returned or panicked. It does
// not recover: the panic goes on.
func (x *exchange) finish() {
	if x.panicked = !x.returned; x.panicked {
		x.session.abandon()
	}
	if !x.writer.wrote {
		if err := x.writer.begin(false); err != nil && x.panicked {
			slog.ErrorContext(x, "session: not saved in a panic", "err", err)
		}
	}
	x.session.finish(x.writer.err == nil)
}
