package gorillastore_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/sessiontest"
	"github.com/gorilla/sessions"
)

var userKey = gorillastore.Options{UserKey: gorillastore.UserKey{Session: "a", Key: "user"}}

// user returns the user whom a request of its own sees.
func (a *app) user() (user string) {
	a.t.Helper()
	a.do(func(_ http.ResponseWriter, r *http.Request) { user = a.manager.From(r.Context()).User() })
	return user
}

func (a *app) id() (id string) {
	a.t.Helper()
	a.do(func(_ http.ResponseWriter, r *http.Request) { id = a.manager.From(r.Context()).ID() })
	return id
}

// bindElsewhere binds the session to the key of another browser, from now on.
func (a *app) bindElsewhere(store session.Store) {
	a.t.Helper()
	rec, err := store.Load(a.t.Context(), a.id())
	if err != nil {
		a.t.Fatal(err)
	}
	b, err := body.Parse(nil, rec.Data, time.Now())
	if err != nil {
		a.t.Fatal(err)
	}
	b.Bind(body.Device{Key: "ES256.another", From: time.Now()})
	rec.Data = b.Bytes()
	old := rec.Version
	rec.Version++
	if err := store.Save(a.t.Context(), rec, old); err != nil {
		a.t.Fatal(err)
	}
}

// TestSaveWithoutProof checks requests of a browser that has not proved itself: they see no values
// and store none, until the user logs in again.
func TestSaveWithoutProof(t *testing.T) {
	store := session.NewMemoryStore(nil)
	a := newApp(t, &userKey, session.Options{Store: store, DeviceBound: time.Hour})
	a.set("a", "user", "alice")
	bound := a.id()
	a.bindElsewhere(store)
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		if len(gs.Values) > 0 || !gs.IsNew {
			t.Errorf("Get returned the values %v", gs.Values)
		}
		a.save(gs, w, r) // nothing is no error
		gs.Values["k"] = "v"
		if err := gs.Save(r, w); !errors.Is(err, session.ErrUnproven) {
			t.Errorf("Save returned %v", err)
		}
	})
	rec, err := store.Load(t.Context(), bound)
	if err != nil || strings.Contains(string(rec.Data), `"v"`) {
		t.Errorf("the record is %v, %v", rec, err)
	}
	a.set("a", "user", "alice")
	check(t, "Values after another login", a.values("a"), map[any]any{"user": "alice"})
	check(t, "the session is another one", a.id() != bound, true)
}

func TestLogin(t *testing.T) {
	for _, test := range []struct {
		v    any
		want string
	}{
		{"alice", "alice"}, {7, "7"}, {int64(8), "8"}, {uint8(9), "9"}, {role("admin"), "admin"}, {number{1, 2}, "no-1-2"},
	} {
		a := newApp(t, &userKey, session.Options{})
		a.edit("a", func(gs *sessions.Session) { gs.Values["cart"] = "tea" })
		a.set("b", "k", "v")
		anonymous := a.id()
		a.do(func(w http.ResponseWriter, r *http.Request) {
			gs := a.get(r, "a")
			values := gs.Values
			values["user"] = test.v
			a.save(gs, w, r)
			gs.AddFlash("Hello!")
			values["same map"] = true // an application may keep it
			a.save(gs, w, r)
		})
		check(t, "user", a.user(), test.want)
		check(t, "Values", a.values("a"), map[any]any{"user": test.v, "cart": "tea", "_flash": []any{"Hello!"}, "same map": true})
		check(t, "Values of the other name", a.values("b"), map[any]any{"k": "v"})
		if a.id() == anonymous {
			t.Error("the session has its id of before the login")
		}
		list, err := a.manager.List(t.Context(), test.want)
		if err != nil || len(list) != 1 {
			t.Errorf("List returned %v, %v", list, err)
		}
		if err := a.manager.RevokeAll(t.Context(), test.want); err != nil {
			t.Error(err)
		}
		check(t, "Values after RevokeAll", a.values("a"), map[any]any{})
	}
}

// Session fixation: a copy of the cookie from before the login is worth nothing after it.
func TestLoginGivesANewToken(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	resp := a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		gs.Values["k"] = "v"
		a.save(gs, w, r)
	})
	planted := resp.Cookies()[0]
	resp = a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		gs.Values["user"] = "alice"
		a.save(gs, w, r)
		check(t, "ID", gs.ID, a.manager.From(r.Context()).ID())
	})
	if n := len(resp.Cookies()); n != 1 || resp.Cookies()[0].Value == planted.Value {
		t.Fatalf("the login set %d cookies", n)
	}
	r := requestWith(planted)
	a.calls.Store(r.URL.Path, func(w http.ResponseWriter, r *http.Request) {
		check(t, "Values of the attacker", a.get(r, "a").Values, map[any]any{})
		check(t, "user of the attacker", a.manager.From(r.Context()).User(), "")
	})
	a.handler.ServeHTTP(discard{http.Header{}}, r)
	check(t, "user", a.user(), "alice")
}

// After the first byte the new token cannot be sent. A value that says who is logged in must not
// be stored under the token of before, which an attacker may have planted.
func TestLoginAfterTheFirstByte(t *testing.T) {
	for _, before := range []any{nil, "bob"} {
		a := newApp(t, &userKey, session.Options{})
		a.set("a", "k", "v")
		if before != nil {
			a.set("a", "user", before)
		}
		want := a.values("a")
		a.do(func(w http.ResponseWriter, r *http.Request) {
			gs, other := a.get(r, "a"), a.get(r, "b")
			w.Write([]byte("x"))
			gs.Values["user"], gs.Values["admin"] = "alice", true
			gs.AddFlash("Hello!")
			for range 2 {
				if err := gs.Save(r, w); err == nil || !strings.Contains(err.Error(), "Login") {
					t.Errorf("Save returned %v", err)
				}
			}
			other.Values["k"] = "v"
			_ = other.Save(r, w)
		})
		check(t, "Values", a.values("a"), want)
		if before == nil {
			check(t, "user", a.user(), "")
		} else {
			check(t, "user", a.user(), before)
			check(t, "Values of the other name, meant for the other user", a.values("b"), map[any]any{})
		}
	}
}

// A Logout that follows a Login that came too late ends the session.
func TestLogoutAfterALateLogin(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.set("a", "user", "bob")
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		w.Write([]byte("x"))
		gs.Values["user"] = "alice"
		if err := gs.Save(r, w); err == nil {
			t.Error("a Login after the first byte returned nil")
		}
		delete(gs.Values, "user")
		_ = gs.Save(r, w)
	})
	check(t, "user", a.user(), "")
}

// The absence of a user is written in three ways.
func TestLogout(t *testing.T) {
	for what, end := range map[string]func(gs *sessions.Session){
		"delete": func(gs *sessions.Session) { delete(gs.Values, "user") },
		"empty":  func(gs *sessions.Session) { gs.Values["user"] = "" },
		"nil":    func(gs *sessions.Session) { gs.Values["user"] = nil },
		"zero":   func(gs *sessions.Session) { gs.Values["user"] = 0 },
		"false":  func(gs *sessions.Session) { gs.Values["user"] = false },
	} {
		a := newApp(t, &userKey, session.Options{})
		a.edit("a", func(gs *sessions.Session) {
			gs.Values["user"], gs.Values["cart"], gs.Values[point{1, 1}] = "alice", "tea", 1
			gs.Values["list"] = []any{1, 2}
		})
		a.set("b", "k", "v")
		before := a.id()
		want := map[any]any{"cart": "tea", point{1, 1}: 1, "_flash": []any{"bye"}, "list": []any{1, 2}}
		a.edit("a", func(gs *sessions.Session) {
			end(gs)
			gs.AddFlash("bye")
			if v, ok := gs.Values["user"]; ok {
				want["user"] = v
			}
		})
		check(t, what+": user", a.user(), "")
		check(t, what+": Values", a.values("a"), want)
		check(t, what+": Values of the other name", a.values("b"), map[any]any{})
		if a.id() == before {
			t.Errorf("%s: the session has not ended", what)
		}
		list, err := a.manager.List(t.Context(), "alice")
		if err != nil || len(list) > 0 {
			t.Errorf("%s: List returned %v, %v", what, list, err)
		}
		a.set("a", "user", "carol") // and in again
		check(t, what+": user", a.user(), "carol")
	}
}

// A logout that ends what belongs to the name, and so the whole session.
func TestLogoutByMaxAge(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.set("a", "user", "alice")
	a.set("b", "k", "v")
	a.edit("b", func(gs *sessions.Session) { gs.Options.MaxAge = -1 })
	check(t, "user", a.user(), "alice")
	a.edit("a", func(gs *sessions.Session) { gs.Options.MaxAge = -1 })
	check(t, "user", a.user(), "")
	check(t, "Values", a.values("a"), map[any]any{})
	list, err := a.manager.List(t.Context(), "alice")
	if err != nil || len(list) > 0 {
		t.Errorf("List returned %v, %v", list, err)
	}
}

// A browser with two live sessions has none, until MaxAge < 0 or a login ends both.
func TestTwoLiveSessions(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	var cookies []string
	for range 2 {
		a.browser = sessiontest.NewBrowser(t, a.handler)
		resp := a.do(func(w http.ResponseWriter, r *http.Request) {
			gs := a.get(r, "a")
			gs.Values["user"] = "alice"
			a.save(gs, w, r)
		})
		cookies = append(cookies, resp.Cookies()[0].Name+"="+resp.Cookies()[0].Value)
	}
	r := requestWith(nil)
	r.Header.Set("Cookie", strings.Join(cookies, "; "))
	a.calls.Store(r.URL.Path, func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		check(t, "Values", gs.Values, map[any]any{})
		gs.Options.MaxAge = -1
		a.save(gs, w, r)
	})
	a.handler.ServeHTTP(discard{http.Header{}}, r)
	list, err := a.manager.List(t.Context(), "alice")
	if err != nil || len(list) > 0 {
		t.Errorf("List returned %v, %v", list, err)
	}
}

// MaxAge < 0 on the session of the user, while no user is logged in, ends what belongs to it only.
func TestMaxAgeOfAnAnonymousSession(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.set("a", "k", "v")
	a.set("b", "k", "v")
	a.edit("a", func(gs *sessions.Session) { gs.Options.MaxAge = -1 })
	check(t, "a", a.values("a"), map[any]any{})
	check(t, "b", a.values("b"), map[any]any{"k": "v"})
}

// A Save does not log out a user who was logged in by other means.
func TestUserWithoutAnEntry(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.do(func(w http.ResponseWriter, r *http.Request) { a.manager.From(r.Context()).Login("alice") })
	a.set("a", "k", "v")
	check(t, "user", a.user(), "alice")
}

// A Logout after the first byte ends the session, and says that what is left was not stored.
func TestLogoutAfterTheFirstByte(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.set("a", "user", "alice")
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		w.Write([]byte("x"))
		delete(gs.Values, "user")
		gs.AddFlash("bye")
		if err := gs.Save(r, w); err == nil {
			t.Error("Save returned nil, though the flash has no session")
		}
	})
	check(t, "user", a.user(), "")
	check(t, "Values", a.values("a"), map[any]any{})
}

// An anonymous visitor whose user is set to a zero value keeps what other names have.
func TestNobodyOfAnAnonymousSession(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.set("b", "k", "v")
	a.set("a", "user", "")
	a.edit("a", func(gs *sessions.Session) { delete(gs.Values, "user") })
	check(t, "Values of the other name", a.values("b"), map[any]any{"k": "v"})
	check(t, "Values", a.values("a"), map[any]any{})
}

func TestLoginOfAnotherUser(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.edit("a", func(gs *sessions.Session) {
		gs.Values["user"], gs.Values["secret"], gs.Values["theme"] = "alice", "of alice", "dark"
		gs.AddFlash("for alice")
	})
	a.set("b", "k", "of alice")
	want := map[any]any{"user": "bob", "theme": "light", "_flash": []any{"for bob"}}
	a.edit("a", func(gs *sessions.Session) {
		gs.Values["user"], gs.Values["theme"] = "bob", "light"
		gs.AddFlash("for bob")
	})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		check(t, "Values", gs.Values, want)
		gs.Values["user"] = "carol"
		a.save(gs, w, r)
		check(t, "Values in memory", gs.Values, map[any]any{"user": "carol"})
		gs.Values["more"] = 1
		a.save(gs, w, r)
	})
	check(t, "Values", a.values("a"), map[any]any{"user": "carol", "more": 1})
	check(t, "Values of the other name", a.values("b"), map[any]any{})
	check(t, "user", a.user(), "carol")
}

// Values that are no user.
func TestUsersThatAreRefused(t *testing.T) {
	for _, v := range []any{true, 1.5, profile{Name: "alice"}, &point{1, 2}, []any{"alice"}, []byte("alice"), strings.Repeat("x", 2000), nameless(1)} {
		a := newApp(t, &userKey, session.Options{})
		a.set("a", "k", "v")
		a.do(func(w http.ResponseWriter, r *http.Request) {
			gs := a.get(r, "a")
			gs.Values["user"], gs.Values["k"] = v, "w"
			if err := gs.Save(r, w); err == nil {
				t.Errorf("Save of %T returned nil", v)
			}
		})
		check(t, "Values", a.values("a"), map[any]any{"k": "v"})
	}
}

// UserKey in a running system: a value that was there before logs no user in, so that a Logout by
// other means stays one.
func TestUserOfBeforeUserKey(t *testing.T) {
	store := session.NewMemoryStore(nil)
	a := newApp(t, nil, session.Options{Store: store})
	a.set("a", "user", "alice")
	a.store = gorillastore.New(a.manager, &userKey)
	a.set("a", "k", "v")
	check(t, "user", a.user(), "")
	a.set("a", "user", "bob")
	check(t, "user", a.user(), "bob")
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		a.manager.From(r.Context()).Logout()
		gs.Values["k"] = "w"
		a.save(gs, w, r)
	})
	check(t, "user after a Logout", a.user(), "")
}

// An ID that is set to "" gives the session a new token. A request in flight loses nothing by it.
func TestRenew(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.edit("a", func(gs *sessions.Session) { gs.Values["user"], gs.Values["k"] = "alice", 1 })
	finish := a.inRequest(func(w http.ResponseWriter, r *http.Request, pause func()) {
		gs := a.get(r, "a")
		pause()
		gs.Values["in flight"] = 1
		gs.AddFlash("in flight")
		a.save(gs, w, r)
	})
	var ids [2]string
	resp := a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		ids[0] = gs.ID
		gs.ID = ""
		gs.Values["renewed"] = 1
		a.save(gs, w, r)
		ids[1] = gs.ID
	})
	check(t, "cookies", len(resp.Cookies()), 1)
	if ids[0] == "" || ids[0] != ids[1] {
		t.Errorf("the ids are %q", ids)
	}
	finish()
	check(t, "Values", a.values("a"), map[any]any{"user": "alice", "k": 1, "renewed": 1, "in flight": 1, "_flash": []any{"in flight"}})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		w.Write([]byte("x"))
		gs.ID = ""
		gs.Values["k"] = 2
		if err := gs.Save(r, w); err == nil || !strings.Contains(err.Error(), "Renew") {
			t.Errorf("Save after the first byte returned %v", err)
		}
	})
	check(t, "k", a.values("a")["k"], 1)
}

// A Save that has stored a session lets the next one of the request renew it.
func TestRenewAfterTheFirstSave(t *testing.T) {
	renewed := 0
	a := newApp(t, nil, session.Options{OnEvent: func(_ context.Context, e session.Event) {
		if e.Kind == session.EventRenewed {
			renewed++
		}
	}})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		gs.Values["k"] = "v"
		a.save(gs, w, r)
		check(t, "renewed", renewed, 0)
		gs.ID = ""
		a.save(gs, w, r)
		check(t, "renewed", renewed, 1)
	})
}

type nameless int

func (nameless) String() string { return "" }

// requestWith returns a request with a cookie, unless that is nil.
func requestWith(c *http.Cookie) *http.Request {
	r, _ := http.NewRequest("GET", "https://example.test/planted", nil)
	if c != nil {
		r.AddCookie(c)
	}
	return r
}

// A discard is a response that is not looked at.
type discard struct{ header http.Header }

func (w discard) Header() http.Header         { return w.header }
func (w discard) Write(b []byte) (int, error) { return len(b), nil }
func (w discard) WriteHeader(int)             {}
