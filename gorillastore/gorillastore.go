// Package gorillastore lets an application that is written against github.com/gorilla/sessions
// keep its sessions in a [session.Manager]. The application changes the line that makes its store,
// and wraps its handler once:
//
//	manager := session.Must(session.New(&session.Options{Store: store, Secrets: [][]byte{secret}}))
//	store := gorillastore.New(manager, &gorillastore.Options{
//		UserKey: gorillastore.UserKey{Session: "session-name", Key: "user"},
//	})
//	http.ListenAndServe("localhost:8080", manager.Handler(mux))
//
// All gorilla sessions of a browser, whatever their names, are in one session of the Manager. Each
// entry of Values is a value of its own: concurrent requests that change different entries do not
// overwrite each other, and flashes of concurrent requests are all kept. Values keep their Go types:
// they are encoded by encoding/gob, so a type of the application needs gob.Register, as before.
//
// Save writes what was added, changed or deleted since Get or New, and commits before it returns. A
// map or slice that was changed in place is noticed. Save of an unchanged session writes nothing.
//
// # Differences from gorilla's stores
//
// The Manager decides how long sessions live and how the cookie is set: Options.MaxAge > 0, Path,
// Domain, Secure, HttpOnly and SameSite of a gorilla session have no effect. MaxAge < 0 removes the
// entries of the gorilla session. The cookie is set at the first byte of the response, not by Save.
//
// ID is that of the record: the same for all names, "" before the first Save, another one after a
// login, and no secret. A Save with an ID that was set to "" gives the session a new token, as
// [session.Session.Renew] does.
//
// A Save after the first byte of the response is an error if it needs a cookie: a login, or the
// first Save of a new session. Nothing is stored then. A Save that changes a session that has ended
// meanwhile is [session.ErrEnded], or [session.ErrReplaced] if a login has replaced it. With
// Options.DeviceBound of the Manager, a browser that has not proved itself gets no Values, and a
// Save that changes them is [session.ErrUnproven].
//
// An entry that does not decode, because its type is not registered, is absent from Values, and Save
// leaves it stored. It can be set anew.
//
// Two concurrent requests that change the same entry, such as a counter, keep one of both values.
// [session.Key.Update] keeps both.
package gorillastore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"weak"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/batch"
	"github.com/gorilla/sessions"
)

// Options configure New. The zero value stores values and logs no user in.
type Options struct {
	// UserKey names the entry of Values that identifies the logged-in user. Zero: none. When Save
	// finds the entry added or changed, it calls [session.Session.Login] with fmt.Sprint of the
	// value. When the entry was deleted, or set to the zero value of its type, Save calls
	// [session.Session.Logout]. With UserKey, do not call Login or Logout directly.
	//
	// The value must be a string, an integer or a [fmt.Stringer]; Save returns an error for others:
	// a pointer has no text of its own, and a struct is another one when any of its fields changes.
	// A Login of another user forgets the values of the user before, except those that the same Save
	// sets. A Logout ends the values of all names; the values left in this one begin a new session.
	UserKey UserKey
}

// A UserKey names one entry of the Values of one gorilla session.
type UserKey struct {
	Session string      // name of the gorilla session
	Key     interface{} // key in its Values
}

func (k UserKey) check() {
	switch {
	case (k.Session == "") != (k.Key == nil):
		panic("gorillastore: Options.UserKey: set both Session and Key, or neither")
	case k.Session != "" && !isName(k.Session):
		panic("gorillastore: Options.UserKey: Session is not valid as the name of a gorilla session")
	case k.Key != nil && !reflect.ValueOf(k.Key).Comparable():
		panic("gorillastore: Options.UserKey: Key cannot be the key of a map")
	}
}

// ErrNoHandler is returned by Get, New and Save for a request that did not go through
// [session.Manager.Handler].
var ErrNoHandler = errors.New("gorillastore: the request did not go through Manager.Handler: wrap the outermost handler, as in http.ListenAndServe(addr, manager.Handler(mux))")

// New returns a Store that keeps gorilla sessions in the sessions of m. A nil opts means all
// defaults. It panics if m is nil, or if only one field of Options.UserKey is set. The Store may be
// used by any number of goroutines.
func New(m *session.Manager, opts *Options) sessions.Store {
	if m == nil {
		panic("gorillastore: New: the Manager is nil")
	}
	s := &store{manager: m}
	if opts != nil {
		opts.UserKey.check()
		s.userKey = opts.UserKey
	}
	return s
}

// store implements sessions.Store.
type store struct {
	manager *session.Manager
	userKey UserKey

	// snapshots holds a *snapshot for each *sessions.Session that New has returned. It is keyed by
	// a weak.Pointer of the session, because everything else may change before Save: the request
	// may be nil, and applications assign new Values and Options.
	snapshots sync.Map
}

// Get implements sessions.Store. It returns the same session for all calls with the same name in
// one request. The session is never nil.
func (s *store) Get(r *http.Request, name string) (*sessions.Session, error) {
	registry := sessions.GetRegistry(r)
	gs, err := registry.Get(within{s, r}, name)
	if gs == nil { // the name is not valid
		gs, _ = s.New(r, name)
		return gs, err
	}
	_, _ = registry.Get(s, name) // so that gs.Store returns s
	return gs, err
}

// within is the store for one request. A registry calls New with the request that has made the
// registry, which may be one from outside Manager.Handler.
type within struct {
	*store
	r *http.Request
}

func (w within) New(_ *http.Request, name string) (*sessions.Session, error) {
	return w.store.New(w.r, name)
}

// New implements sessions.Store. The session is never nil. If it could not be loaded, its Save
// returns the same error.
func (s *store) New(r *http.Request, name string) (*sessions.Session, error) {
	gs := sessions.NewSession(s, name)
	gs.Options.Path = "/"
	gs.IsNew = true
	snap, err := s.load(r, name, gs.Values)
	if err != nil {
		snap = &snapshot{err: err}
	}
	gs.ID, gs.IsNew = snap.id, !snap.exists
	s.keep(gs, snap)
	return gs, err
}

// load returns a snapshot of the gorilla session of this name, and puts its entries into values.
func (s *store) load(r *http.Request, name string, values map[any]any) (*snapshot, error) {
	if !isName(name) {
		return nil, fmt.Errorf("gorillastore: %q is not valid as the name of a gorilla session", name)
	}
	if r == nil {
		return nil, ErrNoHandler
	}
	to, ok := r.Context().Value(batch.Key{Manager: s.manager}).(batch.Session)
	if !ok {
		return nil, ErrNoHandler
	}
	snap := &snapshot{to: to, prefix: prefixOf(name)}
	return snap, snap.read(values)
}

// keep remembers the snapshot for as long as gs is in memory.
func (s *store) keep(gs *sessions.Session, snap *snapshot) {
	key := weak.Make(gs)
	s.snapshots.Store(key, snap)
	runtime.AddCleanup(gs, func(key weak.Pointer[sessions.Session]) { s.snapshots.Delete(key) }, key)
}

// Save implements sessions.Store. r may be nil if gs is from Get or New.
func (s *store) Save(r *http.Request, _ http.ResponseWriter, gs *sessions.Session) error {
	snap, err := s.snapshotOf(r, gs)
	if err != nil {
		return err
	}
	ctx := context.Context(nil)
	if r != nil {
		ctx = r.Context()
	}
	return s.save(ctx, gs, snap)
}

// snapshotOf returns the snapshot of gs. A session that this store has not made replaces what is
// stored under its name now.
func (s *store) snapshotOf(r *http.Request, gs *sessions.Session) (*snapshot, error) {
	if kept, ok := s.snapshots.Load(weak.Make(gs)); ok {
		snap := kept.(*snapshot)
		return snap, snap.err
	}
	snap, err := s.load(r, gs.Name(), map[any]any{})
	if err == nil {
		snap.id = gs.ID
		s.keep(gs, snap)
	}
	return snap, err
}

// isName reports whether a gorilla session may have this name: that of a cookie (RFC 6265, 4.1.1).
func isName(name string) bool {
	return name != "" && strings.IndexFunc(name, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c)
	}) < 0
}
