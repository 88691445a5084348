package session_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// TestMain disables the default logger, because warnings about plain HTTP to example hosts
// would hide the output of the tests.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// browser sends requests to a handler and keeps its cookies. It works inside a synctest bubble,
// because no network is involved.
type browser struct {
	t   testing.TB
	h   http.Handler
	jar http.CookieJar
}

// origin is the origin of the browser's requests. It is HTTPS, so that Secure cookies are sent
// back.
var origin, _ = url.Parse("https://localhost/")

// newBrowser returns a browser without cookies.
func newBrowser(t testing.TB, h http.Handler) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, h, jar}
}

// get requests a path and returns the response, with its body in memory.
func (b *browser) get(path string) *http.Response { return b.do(b.request(path)) }

// request returns a request with the browser's current cookies.
func (b *browser) request(path string) *http.Request {
	r := httptest.NewRequest("GET", "https://localhost"+path, nil)
	for _, c := range b.jar.Cookies(origin) {
		r.AddCookie(c)
	}
	return r
}

// do sends a prepared request and keeps the cookies of the response.
func (b *browser) do(r *http.Request) *http.Response {
	w := httptest.NewRecorder()
	b.h.ServeHTTP(w, r)
	if step, ok := r.Context().Value(answered{}).(func()); ok {
		step()
	}
	resp := w.Result()
	b.jar.SetCookies(origin, resp.Cookies())
	return resp
}

// cookie returns the browser's session cookie as "name=value", or "".
func (b *browser) cookie() string {
	for _, c := range b.jar.Cookies(origin) {
		if strings.HasSuffix(c.Name, "session") {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}

// replay returns another browser with the given cookie, in the form that cookie returns.
func (b *browser) replay(cookie string) *browser {
	other := newBrowser(b.t, b.h)
	name, value, _ := strings.Cut(cookie, "=")
	other.jar.SetCookies(origin, []*http.Cookie{{Name: name, Value: value, Path: "/", Secure: true}})
	return other
}

// body returns the body of a response.
func body(resp *http.Response) string {
	b, _ := io.ReadAll(resp.Body)
	return string(b)
}

// routes is a handler that dispatches on the path. Its functions get the request's session.
type routes map[string]func(w http.ResponseWriter, r *http.Request, s *session.Session)

func (rs routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f, ok := rs[r.URL.Path]; ok {
		f(w, r, session.From(r.Context()))
		return
	}
	http.NotFound(w, r)
}

// newManager returns a Manager, or fails the test. A store without secrets gets a secret.
func newManager(t testing.TB, o session.Options) *session.Manager {
	t.Helper()
	if o.Store != nil && o.Secrets == nil {
		o.Secrets = [][]byte{[]byte("0123456789abcdef0123456789abcdef")}
	}
	m, err := session.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var errDown = errors.New("store down")

// spyStore counts the calls of a store, can fail them, and can block them. before is called
// with the name of the method and the id (List: the user) before the call reaches the store; an
// error that it returns is the result of the call. after is called with the error of the store,
// which it may replace.
type spyStore struct {
	session.Store
	mu     sync.Mutex
	calls  map[string]int
	before func(ctx context.Context, call, id string) error
	after  func(ctx context.Context, call, id string, err error) error
	down   atomic.Bool // whether every call fails with errDown
}

func newSpy() *spyStore {
	return &spyStore{Store: session.NewMemoryStore(nil), calls: map[string]int{}}
}

// hook sets before. It may be called while requests are in flight.
func (s *spyStore) hook(before func(ctx context.Context, call, id string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// hookAfter sets after. It may be called while requests are in flight.
func (s *spyStore) hookAfter(after func(ctx context.Context, call, id string, err error) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = after
}

// count returns the number of calls of a method, or of all methods for "".
func (s *spyStore) count(call string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, k := range s.calls {
		if call == "" || c == call {
			n += k
		}
	}
	return n
}

func (s *spyStore) run(ctx context.Context, call, id string, f func() error) error {
	s.mu.Lock()
	s.calls[call]++
	before, after := s.before, s.after
	s.mu.Unlock()
	if s.down.Load() {
		return errDown
	}
	if before != nil {
		if err := before(ctx, call, id); err != nil {
			return err
		}
	}
	err := f()
	if after != nil {
		err = after(ctx, call, id, err)
	}
	return err
}

func (s *spyStore) Load(ctx context.Context, id string) (r *session.Record, err error) {
	err = s.run(ctx, "Load", id, func() (err error) { r, err = s.Store.Load(ctx, id); return })
	if err != nil {
		r = nil
	}
	return
}

func (s *spyStore) Create(ctx context.Context, r *session.Record) error {
	return s.run(ctx, "Create", r.ID, func() error { return s.Store.Create(ctx, r) })
}

func (s *spyStore) Save(ctx context.Context, r *session.Record, old uint64) error {
	return s.run(ctx, "Save", r.ID, func() error { return s.Store.Save(ctx, r, old) })
}

func (s *spyStore) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	return s.run(ctx, "Touch", id, func() error { return s.Store.Touch(ctx, id, seen, expires) })
}

func (s *spyStore) Delete(ctx context.Context, id string) error {
	return s.run(ctx, "Delete", id, func() error { return s.Store.Delete(ctx, id) })
}

func (s *spyStore) List(ctx context.Context, user string) (rs []*session.Record, err error) {
	err = s.run(ctx, "List", user, func() (err error) { rs, err = s.Store.List(ctx, user); return })
	return
}

// events records the events that OnEvent receives.
type events struct {
	mu  sync.Mutex
	all []session.Event
}

func (e *events) on(_ context.Context, ev session.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
}

// count returns the number of events of a kind.
func (e *events) count(kind session.EventKind) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.all {
		if ev.Kind == kind {
			n++
		}
	}
	return n
}
