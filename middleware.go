package session

import (
	"context"
	"errors"
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
	keyless    bool // Options.Tokens have no key
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
		start: time.Now(),
	}
	if s, ok := sharedStore(o.Store); ok {
		m.isShared, m.newIdle = true, s.Lifetimes().MaxAge
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
// application: a request that does not use its session costs two allocations and no store call. A
// request that already went through Handler of the same Manager passes on unchanged.
//
// The response has to be written to the response writer that next gets. If a middleware writes to
// another one, the cookie is not set (logged once, if it can be detected).
func (m *Manager) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Value(m) != nil {
			next.ServeHTTP(w, r)
			return
		}
		q := &request{m: m, r: r}
		q.session.m, q.session.ctx, q.session.source, q.session.arrived = m, r.Context(), q, time.Since(m.start)
		q.before = fieldsOf(w.Header())
		q.sent = r.WithContext(q)
		defer q.finish()
		next.ServeHTTP(q.writer.Wrap(w, q), q.sent)
		q.returned = true
	})
}

// RequireUser returns a handler that calls next if a user is logged in, and otherwise if not. A
// pending Login counts. If the token of the request was replaced ([Session.Err] is [ErrReplaced])
// or the session has ended ([Session.Ended]), otherwise is called. A nil otherwise answers 401 with
// an empty body, and with [Options].Bearer the header WWW-Authenticate: Bearer (RFC 6750, 3).
//
// While the store fails, RequireUser calls neither: the response is that of Options.ErrorHandler,
// by default 503.
//
// RequireUser panics outside this Manager's Handler.
func (m *Manager) RequireUser(next, otherwise http.Handler) http.Handler {
	if otherwise == nil {
		otherwise = http.HandlerFunc(m.answerUnauthorized)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := m.From(r.Context())
		user, err := s.User(), s.Err()
		switch {
		case errors.Is(err, ErrStore):
			s.failResponse(err)
			w.WriteHeader(errorStatus(err)) // ErrorHandler replaces this response
		case user != "":
			next.ServeHTTP(w, r)
		default:
			otherwise.ServeHTTP(w, r)
		}
	})
}

// answerUnauthorized answers 401 with an empty body.
func (m *Manager) answerUnauthorized(w http.ResponseWriter, _ *http.Request) {
	if challenge := m.carrier.challenge(); challenge != "" {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.WriteHeader(http.StatusUnauthorized)
}

// From returns the session of the request to which ctx belongs. If several Managers are nested, it
// returns that of the innermost one. It panics outside [Manager.Handler].
func From(ctx context.Context) *Session {
	if s, ok := ctx.Value(innermost{}).(*Session); ok {
		return s
	}
	panic("session: From: this context is not of a request that went through Manager.Handler: wrap the handler, and pass it r.Context(), or the framework's own Start/Run replaced the handler")
}

// From returns the session of this Manager, for programs that nest several, each with a cookie
// name of its own. It panics outside Handler of this Manager.
func (m *Manager) From(ctx context.Context) *Session {
	if s, ok := ctx.Value(m).(*Session); ok {
		return s
	}
	panic("session: Manager.From: this context is not of a request that went through this Manager's Handler: wrap the handler, and pass it r.Context(), or the framework's own Start/Run replaced the handler")
}
