package main

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
	gorilla "github.com/gorilla/sessions"
	icza "github.com/icza/session"
)

// library is a net/http session library, configured as in its README. open returns its
// middleware, and a function that returns the handle of a request.
type library struct {
	name, module string
	open         func(dir string) (middleware, func(w http.ResponseWriter, r *http.Request) handle)
}

type middleware func(http.Handler) http.Handler

// handle is a handler's access to its session. Each method makes all calls that the library's
// README requires.
type handle interface {
	get(key string) string
	set(key, value string)
	count() int
	add(between func()) // increments the count; between runs between the read and the write
	login(user string)  // with a new token, if the library has a call for that
	renew()             // issues a new token and keeps the values
	logout()
	user() string
}

// libraries are the columns of the table. The last one is this package.
var libraries = []library{
	{"alexedwards/scs", "github.com/alexedwards/scs/v2", func(string) (middleware, func(http.ResponseWriter, *http.Request) handle) {
		m := scs.New()
		m.Lifetime = 24 * time.Hour
		return m.LoadAndSave, func(_ http.ResponseWriter, r *http.Request) handle { return scsHandle{m, r} }
	}},
	{"gorilla/sessions, files,", "github.com/gorilla/sessions", func(dir string) (middleware, func(http.ResponseWriter, *http.Request) handle) {
		return nil, gorillaHandler(gorilla.NewFilesystemStore(dir, secret))
	}},
	{"gorilla/sessions, cookies,", "github.com/gorilla/sessions", func(string) (middleware, func(http.ResponseWriter, *http.Request) handle) {
		return nil, gorillaHandler(gorilla.NewCookieStore(secret))
	}},
	{"gorillastore", "github.com/coatcheck/session/gorillastore", func(string) (middleware, func(http.ResponseWriter, *http.Request) handle) {
		m := session.Must(session.New(nil))
		return m.Handler, gorillaHandler(gorillastore.New(m, &gorillastore.Options{UserKey: gorillastore.UserKey{Session: "session-name", Key: "user"}}))
	}},
	{"icza/session", "github.com/icza/session", func(string) (middleware, func(http.ResponseWriter, *http.Request) handle) {
		m := icza.NewCookieManager(icza.NewInMemStoreOptions(&icza.InMemStoreOptions{Logger: icza.NoopLogger}))
		return nil, func(w http.ResponseWriter, r *http.Request) handle { return &iczaHandle{m, m.Get(r), w} }
	}},
	{"ours", "github.com/coatcheck/session", func(string) (middleware, func(http.ResponseWriter, *http.Request) handle) {
		return session.Must(session.New(nil)).Handler, func(_ http.ResponseWriter, r *http.Request) handle {
			return ourHandle{session.From(r.Context())}
		}
	}},
}

var secret = []byte("0123456789abcdef0123456789abcdef")

// ---- this package

type ourHandle struct{ s *session.Session }

var countKey = session.NewKey[int]("count")

func (h ourHandle) get(key string) string { return session.NewKey[string](key).Get(h.s) }
func (h ourHandle) set(key, value string) { session.NewKey[string](key).Set(h.s, value) }
func (h ourHandle) count() int            { return countKey.Get(h.s) }
func (h ourHandle) login(user string)     { h.s.Login(user) }
func (h ourHandle) renew()                { h.s.Renew() }
func (h ourHandle) logout()               { h.s.Logout() }
func (h ourHandle) user() string          { return h.s.User() }

func (h ourHandle) add(between func()) {
	h.count() // loads the session
	between()
	countKey.Update(h.s, func(n int) int { return n + 1 })
}

// ---- alexedwards/scs

type scsHandle struct {
	m *scs.SessionManager
	r *http.Request
}

func (h scsHandle) get(key string) string { return h.m.GetString(h.r.Context(), key) }
func (h scsHandle) set(key, value string) { h.m.Put(h.r.Context(), key, value) }
func (h scsHandle) count() int            { return h.m.GetInt(h.r.Context(), "count") }
func (h scsHandle) renew()                { check(h.m.RenewToken(h.r.Context())) }
func (h scsHandle) logout()               { check(h.m.Destroy(h.r.Context())) }
func (h scsHandle) user() string          { return h.get("user") }

func (h scsHandle) add(between func()) {
	n := h.count()
	between()
	h.m.Put(h.r.Context(), "count", n+1)
}

func (h scsHandle) login(user string) {
	check(h.m.RenewToken(h.r.Context()))
	h.set("user", user)
}

// ---- gorilla/sessions

type gorillaHandle struct {
	s *gorilla.Session
	w http.ResponseWriter
	r *http.Request
}

func gorillaHandler(store gorilla.Store) func(http.ResponseWriter, *http.Request) handle {
	return func(w http.ResponseWriter, r *http.Request) handle {
		s, _ := store.Get(r, "session-name") // "Get() always returns a session, even if empty"
		return gorillaHandle{s, w, r}
	}
}

// save accepts the errors that gorillastore returns in a request whose session has ended or was
// replaced meanwhile.
func (h gorillaHandle) save() {
	if err := h.s.Save(h.r, h.w); !errors.Is(err, session.ErrEnded) && !errors.Is(err, session.ErrReplaced) {
		check(err)
	}
}

func (h gorillaHandle) get(key string) string {
	v, _ := h.s.Values[key].(string)
	return v
}

func (h gorillaHandle) set(key, value string) {
	h.s.Values[key] = value
	h.save()
}

func (h gorillaHandle) count() int {
	n, _ := h.s.Values["count"].(int)
	return n
}

func (h gorillaHandle) add(between func()) {
	n := h.count()
	between()
	h.s.Values["count"] = n + 1
	h.save()
}

func (h gorillaHandle) login(user string) { h.set("user", user) } // the library has no call for a new token

// The library has no call for a renewal. A session without an ID gets a new ID and a new file;
// a session in a cookie has no ID.
func (h gorillaHandle) renew() {
	h.s.ID = ""
	h.save()
}

func (h gorillaHandle) logout() {
	h.s.Options.MaxAge = -1
	h.save()
}

func (h gorillaHandle) user() string { return h.get("user") }

// ---- icza/session

type iczaHandle struct {
	m icza.Manager
	s icza.Session // nil: not created
	w http.ResponseWriter
}

func (h *iczaHandle) get(key string) string {
	if h.s == nil {
		return ""
	}
	v, _ := h.s.Attr(key).(string)
	return v
}

func (h *iczaHandle) set(key, value string) {
	if h.s == nil {
		h.s = icza.NewSession()
		h.m.Add(h.s, h.w)
	}
	h.s.SetAttr(key, value)
}

func (h *iczaHandle) count() int {
	n, _ := strconv.Atoi(h.get("count"))
	return n
}

func (h *iczaHandle) add(between func()) {
	n := h.count()
	between()
	h.set("count", strconv.Itoa(n+1))
}

func (h *iczaHandle) login(user string) {
	if h.s != nil {
		h.m.Remove(h.s, h.w)
	}
	h.s = icza.NewSessionOptions(&icza.SessOptions{CAttrs: map[string]any{"user": user}})
	h.m.Add(h.s, h.w)
}

// The library has no call for a renewal: a new session gets the attributes of the old one.
func (h *iczaHandle) renew() {
	old := h.s
	h.login(h.user())
	for name, value := range old.Attrs() {
		h.s.SetAttr(name, value)
	}
}

func (h *iczaHandle) logout() {
	if h.s != nil {
		h.m.Remove(h.s, h.w)
	}
}

func (h *iczaHandle) user() string {
	if h.s == nil {
		return ""
	}
	v, _ := h.s.CAttr("user").(string)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
