package session

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session/internal/token"
	"github.com/coatcheck/session/internal/watch"
)

// A Manager provides sessions to the requests of an [http.Handler]. Create one with [New] and share
// it: it is safe for concurrent use. It need not be closed, and has a goroutine of its own only
// while requests wait for [Session.Done].
type Manager struct {
	store      Store
	carrier    carrier
	tokens     *token.Verified
	device     *devices // nil: Options.DeviceBound is off
	keyless    bool     // Options.Tokens have no key
	lifetime   time.Duration
	idle       time.Duration
	timeout    time.Duration
	renewAfter time.Duration // 0: never
	renewGrace time.Duration // 0 or less: no grace
	maxData    int
	maxUser    int
	persistent bool          // Options.Cookie.Persistent
	isShared   bool          // the store keeps records of another program: see package shared
	newIdle    time.Duration // the idle timeout of its own that a new session gets, if isShared; 0: none
	log        *slog.Logger
	onError    func(http.ResponseWriter, *http.Request, error)
	onEvent    func(context.Context, Event)
	start      time.Time   // when New was called
	lateUse    atomic.Bool // whether the line of this name was logged
	bypassed   atomic.Bool // likewise
	nested     atomic.Bool // likewise
	dropped    atomic.Bool // likewise
	unsaved    atomic.Bool // likewise
	watch      *watch.Watch
	queues     queues
	logins     logins
	touches    touches
	polls      polls
}

// New returns a Manager. A nil opts means all defaults. The error joins every mistake in opts
// ([errors.Join]), each as "session: Options.X: the rule". It contains no secrets.
func New(opts *Options) (*Manager, error) {
	if opts == nil {
		opts = &Options{}
	}
	o, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	carrier, tokens, err := newCarrier(&o)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		store: o.Store, carrier: carrier, tokens: tokens, keyless: o.Tokens != nil,
		lifetime: o.Lifetime, idle: o.IdleTimeout, timeout: o.StoreTimeout, renewAfter: o.RenewAfter, renewGrace: o.RenewGrace,
		maxData: o.MaxDataSize, maxUser: o.MaxPerUser, persistent: o.Cookie.Persistent,
		log: o.Logger, onError: o.ErrorHandler, onEvent: o.OnEvent,
		start:  time.Now(),
		queues: queues{store: o.Store}, polls: polls{store: o.Store, timeout: o.StoreTimeout},
	}
	if s, ok := sharedStore(o.Store); ok {
		m.isShared, m.newIdle = true, s.Lifetimes().MaxAge
	}
	if o.DeviceBound != 0 {
		if m.device, err = newDevices(m, &o); err != nil {
			return nil, err
		}
	}
	m.watch = watch.New(watch.Config{Every: o.WatchEvery, Timeout: o.StoreTimeout, Check: m.check, Random: random[time.Duration], Resumed: m.resumed})
	return m, nil
}

// Must returns m, or panics if err is not nil: session.Must(session.New(nil)).
func Must(m *Manager, err error) *Manager {
	if err != nil {
		panic(err)
	}
	return m
}

// Handler returns a handler that calls next with a session: [From] returns it. Wrap the whole
// application: a request that does not use its session costs one allocation and no store call. A
// request that already went through Handler of the same Manager passes on unchanged.
//
// The response has to be written to the response writer that next gets. If a middleware writes to
// another one, the cookie is not set (logged once, if it can be detected).
func (m *Manager) Handler(next http.Handler) http.Handler {
	if m == nil {
		panic("session: Handler: the Manager is nil: check the error of New, or use Must")
	}
	if next == nil {
		panic("session: Handler: next is nil: pass a handler, such as http.DefaultServeMux")
	}
	return &handler{m, next}
}

// A handler is what Manager.Handler returns. A func literal would cost an allocation for each
// request: the compiler inlines Handler, and then does not inline http.Request.WithContext in it.
type handler struct {
	m    *Manager
	next http.Handler
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m := h.m
	if r.Context().Value(m) != nil {
		h.next.ServeHTTP(w, r)
		return
	}
	if m.device != nil && m.device.isPath(r.URL.Path) {
		m.device.ServeHTTP(w, r)
		return
	}
	// One allocation, of 1144 bytes: 8 more would be 1280. The copy of r is not a field of request,
	// because fmt would print it.
	q := &struct {
		request
		sent http.Request
	}{}
	q.r, q.request.sent = r, &q.sent
	q.session.m, q.session.ctx, q.session.origin, q.session.arrived = m, r.Context(), &q.request, time.Since(m.start)
	q.before = fieldsOf(w.Header())
	q.sent = *r.WithContext(&q.request)
	defer q.finish()
	h.next.ServeHTTP(q.writer.Wrap(w, &q.request), &q.sent)
	q.returned = true
}

// wrapIt says how a context gets a session.
const wrapIt = ": serve sessions.Handler(mux) or sessions.Handler(engine) by http.ListenAndServe, not by the framework's Start or Run, and pass r.Context(); in a test, use sessiontest.Request"

// From returns the session of the request to which ctx belongs. If several Managers are nested, it
// returns that of the innermost one. It panics outside [Manager.Handler].
func From(ctx context.Context) *Session {
	if s, ok := ctx.Value(innermost{}).(*Session); ok {
		return s
	}
	panic("session: From: this context did not go through Manager.Handler" + wrapIt)
}

// From returns the session of this Manager, for programs that nest several, each with a cookie
// name of its own. It panics outside Handler of this Manager.
func (m *Manager) From(ctx context.Context) *Session {
	if s, ok := ctx.Value(m).(*Session); ok {
		return s
	}
	panic("session: Manager.From: this context did not go through this Manager's Handler" + wrapIt)
}

// SecretUses returns how many tokens each of [Options].Secrets has verified since New, in the
// order of Secrets. A token is counted when this process first verifies it, and again if it
// was evicted meanwhile from a cache of hundreds of thousands. It shows how far a rotation is:
// if the last secret has verified no token in any process for as long as Options.Lifetime, or
// the longest Remember, it can be removed. With Options.Tokens, SecretUses returns nil. With
// Options.DeviceBound it also counts each proof of a browser whose session was bound while the
// secret was the first: such a browser needs the secret until its session has ended, even if the
// user has logged in again since.
func (m *Manager) SecretUses() []int64 {
	uses := m.tokens.Uses()
	if m.device != nil {
		for i, n := range m.device.stamps.Uses() {
			uses[i] += n
		}
	}
	return uses
}

// newCarrier returns the carrier for the options, and the format of the tokens that it
// carries. A token of a cookie is not valid as a bearer token, nor the other way round.
func newCarrier(o *Options) (carrier, *token.Verified, error) {
	format, err := newFormat(o)
	if err != nil {
		return nil, nil, fmt.Errorf("session: Options.Secrets%w", err)
	}
	tokens := token.NewVerified(format)
	if o.Bearer {
		return &bearer{tokens: tokens, warnings: warnings{to: o.Logger}}, tokens, nil
	}
	return newCookies(o, tokens), tokens, nil
}

func newFormat(o *Options) (token.Format, error) {
	switch {
	case o.Tokens != nil:
		return foreign{o.Tokens}, nil
	case o.Bearer:
		return token.NewSigner("header", tokenHeader, o.Secrets)
	}
	return token.NewSigner("cookie", o.Cookie.Name, o.Secrets)
}

// emit calls OnEvent outside a transaction.
func (m *Manager) emit(ctx context.Context, kind EventKind, rec *Record, err error) {
	if m.onEvent != nil {
		m.onEvent(ctx, Event{Kind: kind, ID: rec.ID, User: rec.User, Err: err})
	}
}
