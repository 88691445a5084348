package gorillastore_test

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
	"github.com/coatcheck/session/sessiontest"
	"github.com/gorilla/sessions"
)

type role string

type profile struct {
	Name string
	Tags map[string]int
}

type point struct{ X, Y int }

type number [2]byte

func (n number) String() string { return fmt.Sprintf("no-%d-%d", n[0], n[1]) }

type unregistered struct{ A int }

var secret = []byte("0123456789abcdef0123456789abcdef")

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	for _, v := range []any{role(""), profile{}, point{}, number{}, nameless(0), time.Time{}, map[string]any{}} {
		gob.Register(v)
	}
	os.Exit(m.Run())
}

// An app is an application that keeps gorilla sessions in a Manager, and a browser that uses it.
// Each request runs the function that it is given.
type app struct {
	t       *testing.T
	manager *session.Manager
	store   sessions.Store
	handler http.Handler
	browser *sessiontest.Browser
	calls   sync.Map // of functions, by the path of the request
	n       atomic.Int64
}

func newApp(t *testing.T, opts *gorillastore.Options, o session.Options) *app {
	t.Helper()
	if o.Store != nil && o.Secrets == nil {
		o.Secrets = [][]byte{secret}
	}
	m, err := session.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{t: t, manager: m, store: gorillastore.New(m, opts)}
	a.handler = m.Handler(http.HandlerFunc(a.serve))
	a.browser = sessiontest.NewBrowser(t, a.handler)
	return a
}

func (a *app) serve(w http.ResponseWriter, r *http.Request) {
	f, _ := a.calls.Load(r.URL.Path)
	f.(func(http.ResponseWriter, *http.Request))(w, r)
}

// do sends a request of the browser, which runs f.
func (a *app) do(f func(w http.ResponseWriter, r *http.Request)) *http.Response {
	a.t.Helper()
	path := fmt.Sprintf("/%d", a.n.Add(1))
	a.calls.Store(path, f)
	return a.browser.Get(path)
}

// edit changes the gorilla session of this name in a request of its own, and saves it.
func (a *app) edit(name string, f func(gs *sessions.Session)) {
	a.t.Helper()
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, name)
		f(gs)
		a.save(gs, w, r)
	})
}

// set sets one entry in a request of its own.
func (a *app) set(name string, key, v any) {
	a.t.Helper()
	a.edit(name, func(gs *sessions.Session) { gs.Values[key] = v })
}

// values returns the Values of a gorilla session, as a request of its own sees them.
func (a *app) values(name string) (values map[any]any) {
	a.t.Helper()
	a.do(func(_ http.ResponseWriter, r *http.Request) { values = a.get(r, name).Values })
	return values
}

func (a *app) get(r *http.Request, name string) *sessions.Session {
	a.t.Helper()
	gs, err := a.store.Get(r, name)
	if err != nil {
		a.t.Errorf("Get %s: %v", name, err)
	}
	return gs
}

func (a *app) save(gs *sessions.Session, w http.ResponseWriter, r *http.Request) {
	a.t.Helper()
	if err := gs.Save(r, w); err != nil {
		a.t.Errorf("Save %s: %v", gs.Name(), err)
	}
}

// inRequest runs f in a request, and returns when f has returned or called pause. The function that
// it returns lets f go on and waits for the response.
func (a *app) inRequest(f func(w http.ResponseWriter, r *http.Request, pause func())) (finish func()) {
	paused, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		a.do(func(w http.ResponseWriter, r *http.Request) {
			f(w, r, func() { close(paused); <-goOn })
		})
	}()
	<-paused
	return func() { close(goOn); <-done }
}

// A counter counts the writes of a store.
type counter struct {
	session.Store
	writes atomic.Int64
}

func newCounter() *counter { return &counter{Store: session.NewMemoryStore(nil)} }

func (c *counter) Create(ctx context.Context, r *session.Record) error {
	c.writes.Add(1)
	return c.Store.Create(ctx, r)
}

func (c *counter) Save(ctx context.Context, r *session.Record, old uint64) error {
	c.writes.Add(1)
	return c.Store.Save(ctx, r, old)
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %#v, want %#v", what, got, want)
	}
}

func TestValuesKeepTheirTypes(t *testing.T) {
	want := map[any]any{
		"string": "a \"quoted\" <text>\n", "empty": "", "int": -7, "int64": int64(1) << 60, "true": true, "false": false,
		"nil": nil, "float": 1.5, "uint8": uint8(3), "bytes": []byte{0, 255}, "not UTF-8": "\xff\x00", "role": role("admin"),
		"struct": profile{"Ann", map[string]int{"a": 1, "b": 2}}, "time": time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		"map": map[string]any{"n": 1}, "list": []any{"a", 1, profile{Name: "Bob"}}, "empty list": []any{}, "none": point{},
		7: "key of type int", role("x"): 1, "x": 2, "\xff": "key that is not UTF-8", "/": "slash", "/a/b": "slashes", "": "no text",
		point{1, 2}: "key of a struct", point{2, 1}: []any{"list under a struct"}, true: "bool", "ü&<": "html", int64(7): "other int",
	}
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) {
		for k, v := range want {
			gs.Values[k] = v
		}
	})
	check(t, "Values", a.values("a"), want)
	check(t, "Values of another name", a.values("b"), map[any]any{})
	for k := range want {
		a.edit("a", func(gs *sessions.Session) { delete(gs.Values, k) })
		delete(want, k)
		check(t, fmt.Sprintf("Values after %v was deleted", k), a.values("a"), want)
	}
	a.do(func(_ http.ResponseWriter, r *http.Request) {
		if names := a.manager.From(r.Context()).Names(); len(names) > 0 {
			t.Errorf("the deleted entries left %q", names)
		}
	})
}

// gorilla's README program.
func TestReadme(t *testing.T) {
	m := session.Must(session.New(nil))
	store := gorillastore.New(m, nil)
	handler := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Get a session. We're ignoring the error resulted from decoding an
		// existing session: Get() always returns a session, even if empty.
		session, _ := store.Get(r, "session-name")
		w.Header().Set("Was", fmt.Sprintf("%v %v", session.Values["foo"], session.Values[42]))
		// Set some session values.
		session.Values["foo"] = "bar"
		session.Values[42] = 43
		// Save it before we write to the response/return from the handler.
		err := session.Save(r, w)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}))
	b := sessiontest.NewBrowser(t, handler)
	for _, want := range []string{"<nil> <nil>", "bar 43", "bar 43"} {
		resp := b.Get("/")
		if was := resp.Header.Get("Was"); was != want || resp.StatusCode != http.StatusOK {
			t.Errorf("got %q with status %d, want %q", was, resp.StatusCode, want)
		}
	}
}

func TestConcurrentRequestsChangeDifferentEntries(t *testing.T) {
	const n = 50
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) {
		gs.Values["shared"] = map[string]any{"a": 1, "b": 2, "c": 3} // gob writes it in random order
		for i := range n / 2 {
			gs.Values[i] = "before"
		}
	})
	var read, done sync.WaitGroup
	read.Add(n)
	for i := range n {
		done.Go(func() {
			a.edit("a", func(gs *sessions.Session) {
				read.Done()
				read.Wait() // until all requests have read the session
				gs.Values[i] = fmt.Sprint("value ", i)
				gs.AddFlash(i)
				gs.AddFlash(i, "other")
			})
		})
	}
	done.Wait()
	values := a.values("a")
	for i := range n {
		check(t, fmt.Sprint("entry ", i), values[i], fmt.Sprint("value ", i))
	}
	for _, name := range []string{"_flash", "other"} {
		is := map[any]bool{}
		for _, v := range values[name].([]any) {
			is[v] = true
		}
		check(t, "flashes of "+name, len(is), n)
	}
}

func TestConcurrentSessionsOfDifferentNames(t *testing.T) {
	const n = 50
	a := newApp(t, nil, session.Options{})
	a.set("first", "k", "v")
	var read, done sync.WaitGroup
	read.Add(n)
	for i := range n {
		done.Go(func() {
			a.edit(fmt.Sprint("name", i), func(gs *sessions.Session) {
				read.Done()
				read.Wait()
				gs.Values["k"] = i
			})
		})
	}
	done.Wait()
	for i := range n {
		check(t, fmt.Sprint("session ", i), a.values(fmt.Sprint("name", i)), map[any]any{"k": i})
	}
}

// A request that reads a session takes nothing back of what another request has changed meanwhile.
func TestSaveOfAnUnchangedSession(t *testing.T) {
	c := newCounter()
	a := newApp(t, nil, session.Options{Store: c})
	many := map[string]any{}
	for i := range 20 {
		many[fmt.Sprint(i)] = i
	}
	a.edit("a", func(gs *sessions.Session) {
		gs.Values["map"], gs.Values["struct"], gs.Values["list"] = many, profile{"Ann", map[string]int{"a": 1, "b": 2, "c": 3}}, []any{many, 1}
		gs.Values["n"], gs.Values[point{1, 2}] = 1, many
	})
	before := c.writes.Load()
	for range 20 {
		a.edit("a", func(gs *sessions.Session) {})
	}
	check(t, "writes", c.writes.Load()-before, int64(0))

	finish := a.inRequest(func(w http.ResponseWriter, r *http.Request, pause func()) {
		gs := a.get(r, "a")
		pause()
		gs.Values["n"] = 2
		a.save(gs, w, r)
	})
	a.set("a", "map", map[string]any{"new": 1})
	finish()
	check(t, "the map", a.values("a")["map"], map[string]any{"new": 1})
	check(t, "n", a.values("a")["n"], 2)
}

func TestNoSessionForNothing(t *testing.T) {
	c := newCounter()
	a := newApp(t, nil, session.Options{Store: c})
	resp := a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		check(t, "IsNew", gs.IsNew, true)
		a.save(gs, w, r)
		gs.Options.MaxAge = -1
		a.save(gs, w, r)
		if err := sessions.Save(r, w); err != nil {
			t.Error(err)
		}
	})
	check(t, "cookies", len(resp.Cookies()), 0)
	check(t, "writes", c.writes.Load(), int64(0))
}

func TestSaveNoticesChangesInPlace(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) {
		gs.Values["map"], gs.Values["bytes"], gs.Values["list"] = map[string]any{"n": 1}, []byte{1, 2}, []any{"a", "b"}
		gs.Values["struct"] = profile{Tags: map[string]int{"a": 1}}
	})
	a.edit("a", func(gs *sessions.Session) {
		gs.Values["map"].(map[string]any)["n"] = 2
		gs.Values["bytes"].([]byte)[0] = 9
		gs.Values["list"].([]any)[0] = "c"
		gs.Values["struct"].(profile).Tags["b"] = 2
	})
	check(t, "Values", a.values("a"), map[any]any{"map": map[string]any{"n": 2}, "bytes": []byte{9, 2}, "list": []any{"c", "b"}, "struct": profile{Tags: map[string]int{"a": 1, "b": 2}}})
}

func TestTwoGetsAreOneSession(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.set("a", "k", "v")
	a.edit("new", func(gs *sessions.Session) {
		check(t, "IsNew", gs.IsNew, true)
		gs.Values["k"] = "v"
	})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "other")
		gs.Values["k"] = "v"
		a.save(gs, w, r)
		check(t, "IsNew after Save", gs.IsNew, false)
	})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs, again := a.get(r, "a"), a.get(r, "a")
		if gs != again {
			t.Error("two Gets returned two sessions")
		}
		if gs.Store() != a.store {
			t.Errorf("Store is %T, not the one that Get was called on", gs.Store())
		}
		check(t, "IsNew", gs.IsNew, false)
		other, err := a.store.New(r, "a")
		if other == gs || err != nil {
			t.Error("New returned the session of Get", err)
		}
		check(t, "Values of New", other.Values, gs.Values)
	})
}

// An outer middleware uses another gorilla store, and has made the registry before Handler.
func TestRegistryFromOutsideHandler(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	inside := a.handler
	others := sessions.NewCookieStore(secret)
	a.browser = sessiontest.NewBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := others.Get(r, "other"); err != nil {
			t.Error(err)
		}
		inside.ServeHTTP(w, r)
	}))
	a.set("a", "k", "v")
	check(t, "Values", a.values("a"), map[any]any{"k": "v"})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		a.get(r, "a").Values["k"] = "w"
		if err := sessions.Save(r, w); err != nil {
			t.Error(err)
		}
	})
	check(t, "Values", a.values("a"), map[any]any{"k": "w"})
}

// A wrapper around the store, as gin's applications have it.
func TestWrappedStore(t *testing.T) {
	type wrapper struct{ sessions.Store }
	a := newApp(t, nil, session.Options{})
	a.store = wrapper{a.store}
	a.set("a", "k", "v")
	check(t, "Values", a.values("a"), map[any]any{"k": "v"})
}

// Applications replace everything that a session has.
func TestReplacedValuesAndOptions(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) { gs.Values["k"], gs.Values["old"] = "v", 1 })
	a.edit("a", func(gs *sessions.Session) {
		gs.Values = map[any]any{"k": "w"}
		gs.Options = &sessions.Options{Path: "/x", MaxAge: 60}
	})
	check(t, "Values", a.values("a"), map[any]any{"k": "w"})
	a.edit("a", func(gs *sessions.Session) { gs.Values, gs.Options = nil, nil })
	check(t, "Values", a.values("a"), map[any]any{})
}

// A session that the application has made itself replaces what is stored, as with gorilla's stores.
func TestSessionOfTheApplication(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) { gs.Values["k"], gs.Values["old"] = "v", 1 })
	resp := a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := sessions.NewSession(a.store, "a")
		gs.Values["k"] = "w"
		a.save(gs, w, r)
		gs.Values["l"] = "x"
		if err := a.store.Save(nil, w, gs); err != nil {
			t.Error(err)
		}
	})
	check(t, "cookies", len(resp.Cookies()), 0)
	check(t, "Values", a.values("a"), map[any]any{"k": "w", "l": "x"})
	if err := a.store.Save(nil, nil, sessions.NewSession(a.store, "a")); err == nil {
		t.Error("Save of a session without a request returned nil")
	}
}

func TestKeysThatCannotBeToldApart(t *testing.T) {
	gob.Register(silent{})
	a := newApp(t, nil, session.Options{})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		gs.Values[silent{1}], gs.Values[silent{2}] = 1, 2
		if err := gs.Save(r, w); err == nil || !strings.Contains(err.Error(), "told apart") {
			t.Errorf("Save returned %v", err)
		}
	})
	check(t, "Values", a.values("a"), map[any]any{})
	for i := range 20 { // one of them at a time is no problem, in whatever order they are compared
		a.edit("a", func(gs *sessions.Session) { gs.Values = map[any]any{silent{i}: 1} })
		check(t, "Values", a.values("a"), map[any]any{silent{i}: 1})
	}
}

type silent struct{ N int }

func (silent) GoString() string { return "silent" }

func TestNoHandler(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	r := httptest.NewRequest("GET", "/", nil)
	w := httptest.NewRecorder()
	gs, err := a.store.Get(r, "a")
	if gs == nil || !errors.Is(err, gorillastore.ErrNoHandler) {
		t.Fatalf("Get returned %v, %v", gs, err)
	}
	gs.Values["k"] = "v"
	if err := gs.Save(r, w); !errors.Is(err, gorillastore.ErrNoHandler) {
		t.Errorf("Save returned %v", err)
	}
	gs, err = a.store.New(r, "a")
	if gs == nil || !errors.Is(err, gorillastore.ErrNoHandler) {
		t.Errorf("New returned %v, %v", gs, err)
	}
	if err := a.store.Save(r, w, sessions.NewSession(a.store, "a")); !errors.Is(err, gorillastore.ErrNoHandler) {
		t.Errorf("Save returned %v", err)
	}
	other := newApp(t, nil, session.Options{})
	other.do(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := a.store.Get(r, "a"); !errors.Is(err, gorillastore.ErrNoHandler) {
			t.Errorf("Get in the Handler of another Manager returned %v", err)
		}
	})
}

func TestNestedManagers(t *testing.T) {
	outer := newApp(t, nil, session.Options{Cookie: session.CookieOptions{Name: "__Host-outer"}})
	inner := newApp(t, nil, session.Options{Cookie: session.CookieOptions{Name: "__Host-inner"}})
	outer.handler = outer.manager.Handler(inner.handler)
	inner.browser = sessiontest.NewBrowser(t, outer.handler)
	inner.do(func(w http.ResponseWriter, r *http.Request) {
		gs, _ := outer.store.New(r, "a")
		gs.Values["k"] = "outer"
		inner.save(gs, w, r)
		gs, _ = inner.store.New(r, "a")
		gs.Values["k"] = "inner"
		inner.save(gs, w, r)
	})
	inner.do(func(w http.ResponseWriter, r *http.Request) {
		gs, _ := outer.store.New(r, "a")
		check(t, "outer", gs.Values["k"], "outer")
		gs, _ = inner.store.New(r, "a")
		check(t, "inner", gs.Values["k"], "inner")

		cart, auth := outer.get(r, "cart"), inner.get(r, "auth")
		cart.Values["k"], auth.Values["k"] = "tea", "alice"
		if err := sessions.Save(r, w); err != nil {
			t.Error(err)
		}
		inner.manager.From(r.Context()).Logout()
	})
	inner.do(func(w http.ResponseWriter, r *http.Request) {
		check(t, "the cart outlives the logout", outer.get(r, "cart").Values["k"], "tea")
		check(t, "auth", inner.get(r, "auth").Values["k"], nil)
	})
}

func TestMistakesPanic(t *testing.T) {
	m := session.Must(session.New(nil))
	for _, test := range []struct {
		name string
		m    *session.Manager
		opts *gorillastore.Options
	}{
		{"no Manager", nil, nil},
		{"no Key", m, &gorillastore.Options{UserKey: gorillastore.UserKey{Session: "a"}}},
		{"no Session", m, &gorillastore.Options{UserKey: gorillastore.UserKey{Key: "user"}}},
		{"a Session that gorilla refuses", m, &gorillastore.Options{UserKey: gorillastore.UserKey{Session: "a/b", Key: "user"}}},
		{"a Key that is no key of a map", m, &gorillastore.Options{UserKey: gorillastore.UserKey{Session: "a", Key: []int{1}}}},
	} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "gorillastore: ") {
					t.Errorf("%s: New panicked with %q", test.name, text)
				}
			}()
			gorillastore.New(test.m, test.opts)
		}()
	}
}
