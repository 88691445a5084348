package gorillastore_test

import (
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
	"github.com/coatcheck/session/sessiontest"
	"github.com/gorilla/sessions"
)

// authboss-clientstate saves with a nil request.
func TestSaveWithoutARequest(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	for i := range 3 {
		a.do(func(w http.ResponseWriter, r *http.Request) {
			gs := a.get(r, "a")
			gs.Values["k"], gs.Values["user"] = i, "alice"
			if err := a.store.Save(nil, w, gs); err != nil {
				t.Error(err)
			}
		})
		check(t, "Values", a.values("a"), map[any]any{"k": i, "user": "alice"})
	}
	var late *sessions.Session
	a.do(func(w http.ResponseWriter, r *http.Request) {
		late = a.get(r, "a")
		late.Values["k"] = "late"
	})
	_ = a.store.Save(nil, nil, late) // no panic, whatever became of the request
}

// Neither a session nor its request stays in memory because of the store.
func TestSessionsAreCollected(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	inside := a.handler
	others := sessions.NewCookieStore(secret)
	a.browser = sessiontest.NewBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = others.Get(r, "other") // makes the registry, which the context of our session then refers to
		inside.ServeHTTP(w, r)
	}))
	var kept []weak.Pointer[sessions.Session]
	for i := range 10 {
		a.edit("a", func(gs *sessions.Session) {
			kept = append(kept, weak.Make(gs))
			gs.Values[i] = i
		})
		a.calls.Clear()
	}
	isLeft := func(gs weak.Pointer[sessions.Session]) bool { return gs.Value() != nil }
	for deadline := time.Now().Add(time.Minute); slices.ContainsFunc(kept, isLeft) || gorillastore.Kept(a.store) > 0; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatalf("sessions stay in memory, and %d snapshots", gorillastore.Kept(a.store))
		}
		a.do(func(http.ResponseWriter, *http.Request) {}) // so that no stack refers to the last one
		a.calls.Clear()
	}
}

// What cannot be encoded is an error of Save, which changes nothing and leaves the session usable.
func TestSaveOfWhatCannotBeEncoded(t *testing.T) {
	key := session.NewKey[int]("typed")
	for what, v := range map[string]any{
		"a value": unregistered{1}, "a function": func() {}, "an item": []any{1, unregistered{1}}, "a channel": make(chan int),
	} {
		a := newApp(t, &userKey, session.Options{})
		a.set("a", "k", "v")
		resp := a.do(func(w http.ResponseWriter, r *http.Request) {
			gs := a.get(r, "a")
			gs.Values["bad"], gs.Values["k"], gs.Values["user"] = v, "w", "alice"
			if err := gs.Save(r, w); err == nil || !strings.HasPrefix(err.Error(), "gorillastore: ") {
				t.Errorf("%s: Save returned %v", what, err)
			}
			check(t, "user", a.manager.From(r.Context()).User(), "")
			key.Set(a.manager.From(r.Context()), 1)
		})
		check(t, what+": status", resp.StatusCode, http.StatusOK)
		check(t, what+": Values", a.values("a"), map[any]any{"k": "v"})
		a.do(func(w http.ResponseWriter, r *http.Request) {
			check(t, what+": typed", key.Get(a.manager.From(r.Context())), 1)
		})
	}
	a := newApp(t, nil, session.Options{})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		gs.Values[unregistered{1}] = 1
		if err := gs.Save(r, w); err == nil {
			t.Error("Save of a key that cannot be encoded returned nil")
		}
	})
}

// A Save that was too large is taken back.
func TestSaveThatIsTooLarge(t *testing.T) {
	key := session.NewKey[int]("typed")
	a := newApp(t, nil, session.Options{MaxDataSize: 2000})
	a.set("a", "k", "v")
	resp := a.do(func(w http.ResponseWriter, r *http.Request) {
		key.Set(a.manager.From(r.Context()), 1)
		gs, other := a.get(r, "a"), a.get(r, "b")
		gs.Values["large"], gs.Values["k"] = strings.Repeat("x", 3000), "w"
		gs.AddFlash("f")
		if err := gs.Save(r, w); !errors.Is(err, session.ErrTooLarge) {
			t.Errorf("Save returned %v", err)
		}
		other.Values["k"] = "b"
		a.save(other, w, r)
		key.Set(a.manager.From(r.Context()), 2)
	})
	check(t, "status", resp.StatusCode, http.StatusOK)
	check(t, "Values", a.values("a"), map[any]any{"k": "v"})
	check(t, "Values of the other", a.values("b"), map[any]any{"k": "b"})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		check(t, "typed", key.Get(a.manager.From(r.Context())), 2)
		gs := a.get(r, "a")
		gs.Values["large"] = strings.Repeat("x", 3000)
		_ = gs.Save(r, w)
		delete(gs.Values, "large")
		gs.Values["k"] = "w"
		a.save(gs, w, r)
	})
	check(t, "Values", a.values("a"), map[any]any{"k": "w"})
}

// The second Save of a request compares with what Get saw, not with what the first has found.
func TestSecondSaveAfterAConflict(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) { gs.Values["k"] = 0; gs.AddFlash("old") })
	finish := a.inRequest(func(w http.ResponseWriter, r *http.Request, pause func()) {
		gs := a.get(r, "a")
		pause()
		gs.Values["k"] = 1
		a.save(gs, w, r)
		gs.Values["mine"] = 1
		if err := sessions.Save(r, w); err != nil {
			t.Error(err)
		}
	})
	a.edit("a", func(gs *sessions.Session) { gs.Values["theirs"] = 1; gs.AddFlash("new") })
	finish()
	check(t, "Values", a.values("a"), map[any]any{"k": 1, "mine": 1, "theirs": 1, "_flash": []any{"old", "new"}})
}

// What Get saw is brought up to date by each Save.
func TestSeveralSavesOfARequest(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.set("a", "k", "v")
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		for _, v := range []string{"w", "v"} { // and back
			gs.Values["k"], gs.Values["added"] = v, 1
			gs.AddFlash(v)
			a.save(gs, w, r)
		}
		delete(gs.Values, "added")
		a.save(gs, w, r)
	})
	check(t, "Values", a.values("a"), map[any]any{"k": "v", "_flash": []any{"w", "v"}})
	a.edit("a", func(gs *sessions.Session) {
		check(t, "flashes", gs.Flashes(), []any{"w", "v"})
	})
	check(t, "Values", a.values("a"), map[any]any{"k": "v"})
}

func TestLists(t *testing.T) {
	for _, test := range []struct{ before, after []any }{
		{[]any{}, []any{"a"}},
		{[]any{"a"}, []any{}},
		{[]any{"a", "b", "c"}, []any{"c", "b", "a"}},
		{[]any{"a", "b", "c"}, []any{"x", "a", "b", "c"}},
		{[]any{"a", "b", "c"}, []any{"a", "c"}},
		{[]any{"a", "a", "a"}, []any{"a", "a"}},
		{[]any{"a", "a"}, []any{"a", "x", "a", 1}},
		{[]any{map[string]any{"n": 1, "m": 2}, 2}, []any{map[string]any{"n": 1, "m": 3}, 2}},
		{[]any{nil, "e", []any{"x"}}, []any{[]any{"e"}, nil}},
	} {
		a := newApp(t, nil, session.Options{})
		a.set("a", "list", test.before)
		check(t, "before", a.values("a")["list"], test.before)
		a.set("a", "list", test.after)
		check(t, "after", a.values("a")["list"], test.after)
	}
}

// A request that has shown flashes removes those, and none that another has added meanwhile.
func TestFlashesThatAreShownAndAdded(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) { gs.AddFlash("one"); gs.AddFlash("two") })
	finish := a.inRequest(func(w http.ResponseWriter, r *http.Request, pause func()) {
		gs := a.get(r, "a")
		check(t, "flashes", gs.Flashes(), []any{"one", "two"})
		pause()
		gs.AddFlash("mine")
		a.save(gs, w, r)
	})
	a.edit("a", func(gs *sessions.Session) { gs.AddFlash("theirs") })
	finish()
	check(t, "flashes", a.values("a")["_flash"], []any{"theirs", "mine"})
	finish = a.inRequest(func(w http.ResponseWriter, r *http.Request, pause func()) {
		gs := a.get(r, "a")
		pause()
		gs.AddFlash("last")
		a.save(gs, w, r)
	})
	a.edit("a", func(gs *sessions.Session) { gs.Flashes() })
	finish()
	check(t, "flashes", a.values("a")["_flash"], []any{"last"})
}

// The same for a request that adds none.
func TestFlashesThatAreShownOnly(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) { gs.AddFlash("one") })
	finish := a.inRequest(func(w http.ResponseWriter, r *http.Request, pause func()) {
		gs := a.get(r, "a")
		gs.Flashes()
		pause()
		a.save(gs, w, r)
	})
	a.edit("a", func(gs *sessions.Session) { gs.AddFlash("two") })
	finish()
	check(t, "flashes", a.values("a"), map[any]any{"_flash": []any{"two"}})
}

// A list that takes the place of a value of another type, and the reverse.
func TestListsInPlaceOfValues(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.set("a", "k", "v")
	a.set("a", "k", []any{"a"})
	check(t, "list", a.values("a")["k"], []any{"a"})
	finish := a.inRequest(func(w http.ResponseWriter, r *http.Request, pause func()) {
		gs := a.get(r, "a")
		pause()
		gs.AddFlash("b", "k")
		a.save(gs, w, r)
	})
	a.set("a", "k", "text")
	check(t, "text", a.values("a")["k"], "text")
	finish()
	check(t, "list", a.values("a")["k"], []any{"a", "b"})
}

func TestMaxAge(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	for _, name := range []string{"a", "ab", "b"} {
		a.edit(name, func(gs *sessions.Session) {
			gs.Values["k"], gs.Values[point{}] = name, 1
			gs.AddFlash("f")
		})
	}
	a.do(func(w http.ResponseWriter, r *http.Request) { // as gothic.CompleteUserAuth does
		gs := a.get(r, "a")
		other, _ := a.store.New(r, "a")
		other.Values["later"] = 1
		a.save(other, w, r)
		gs.Options.MaxAge = -1
		gs.Values = map[any]any{}
		a.save(gs, w, r)
		a.save(gs, w, r)
	})
	check(t, "a", a.values("a"), map[any]any{})
	check(t, "ab", len(a.values("ab")), 3)
	check(t, "b", len(a.values("b")), 3)
	a.do(func(w http.ResponseWriter, r *http.Request) {
		check(t, "IsNew", a.get(r, "a").IsNew, true)
		check(t, "IsNew", a.get(r, "b").IsNew, false)
	})
}

// MaxAge < 0 ends what another session of the same name and request has stored.
func TestMaxAgeOfASessionThatWasEmpty(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		other, _ := a.store.New(r, "a")
		other.Values["k"] = 1
		a.save(other, w, r)
		gs.Options.MaxAge = -1
		a.save(gs, w, r)
	})
	check(t, "a", a.values("a"), map[any]any{})
}

// MaxAge < 0 also ends what other requests have added since Get.
func TestMaxAgeAndAConcurrentSave(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.set("a", "k", "v")
	a.set("b", "k", "v")
	finish := a.inRequest(func(w http.ResponseWriter, r *http.Request, pause func()) {
		gs := a.get(r, "a")
		pause()
		gs.Options.MaxAge = -1
		a.save(gs, w, r)
	})
	a.set("a", "l", "w")
	a.set("b", "l", "w")
	finish()
	check(t, "a", a.values("a"), map[any]any{})
	check(t, "b", a.values("b"), map[any]any{"k": "v", "l": "w"})
}

func TestNamesThatGorillaRefuses(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.set("a", "b/k", "v")
	for _, name := range []string{"a/b", "", "a b", "ä", "a;"} {
		a.do(func(w http.ResponseWriter, r *http.Request) {
			for what, f := range map[string]func(*http.Request, string) (*sessions.Session, error){"Get": a.store.Get, "New": a.store.New} {
				gs, err := f(r, name)
				if err == nil || gs == nil || len(gs.Values) > 0 {
					t.Fatalf("%s %q returned %v, %v", what, name, gs, err)
				}
				gs.Values["k"], gs.Options.MaxAge = "w", -1
				if err := gs.Save(r, w); err == nil {
					t.Errorf("Save %q returned nil", name)
				}
			}
		})
	}
	for _, name := range []string{"session.x", "a&b", "a.b", "x'y"} {
		a.set(name, "k", "v")
		check(t, name, a.values(name), map[any]any{"k": "v"})
	}
	check(t, "a", a.values("a"), map[any]any{"b/k": "v"})
}

// An empty session never takes the place of one that could not be loaded.
func TestStoreThatFails(t *testing.T) {
	inner := sessiontest.NewStore(nil)
	a := newApp(t, nil, session.Options{Store: inner})
	a.set("a", "k", "v")
	down := errors.New("down")
	resp := a.do(func(w http.ResponseWriter, r *http.Request) {
		inner.Fail(down)
		gs, err := a.store.Get(r, "a")
		if gs == nil || !errors.Is(err, session.ErrStore) || !errors.Is(err, down) {
			t.Fatalf("Get returned %v, %v", gs, err)
		}
		again, err := a.store.Get(r, "a")
		if again != gs || !errors.Is(err, session.ErrStore) {
			t.Errorf("the second Get returned %v", err)
		}
		other, err := a.store.New(r, "a") // as authboss-clientstate does after an error of Get
		if !errors.Is(err, session.ErrStore) {
			t.Errorf("New returned %v", err)
		}
		inner.Fail(nil)
		for _, gs := range []*sessions.Session{gs, other} {
			gs.Values["new"] = 1
			if err := gs.Save(r, w); !errors.Is(err, session.ErrStore) {
				t.Errorf("Save returned %v", err)
			}
		}
		if err := a.manager.From(r.Context()).Reload(r.Context()); err != nil {
			t.Error(err)
		}
		if err := gs.Save(r, w); !errors.Is(err, session.ErrStore) {
			t.Errorf("Save after Reload returned %v", err)
		}
		inner.Fail(down)
		_ = a.manager.From(r.Context()).Reload(r.Context())
	})
	inner.Fail(nil)
	check(t, "status of an application that ignores the errors", resp.StatusCode, http.StatusServiceUnavailable)
	check(t, "Values", a.values("a"), map[any]any{"k": "v"})

	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		gs.Values["k"] = "w"
		inner.Fail(down)
		if err := gs.Save(r, w); !errors.Is(err, session.ErrStore) {
			t.Errorf("Save returned %v", err)
		}
		inner.Fail(nil)
		a.save(gs, w, r)
	})
	check(t, "Values", a.values("a"), map[any]any{"k": "w"})
}

// An entry of a type that only another version registers is kept.
func TestEntriesThatDoNotDecode(t *testing.T) {
	for what, damaged := range map[string]string{
		"an unknown kind": `"zzz"`, "no kind": `""`, "no base64": `"g%"`, "no gob": `"gAAAA"`, "a number": `1`, "an array": `[1]`, "nothing": `{}`, "a bad int": `"ix"`,
	} {
		c := newCounter()
		a := newApp(t, nil, session.Options{Store: c})
		raw := session.NewKey[json.RawMessage]("gorilla/a/bad")
		a.set("a", "k", "v")
		a.do(func(w http.ResponseWriter, r *http.Request) {
			raw.Set(a.manager.From(r.Context()), json.RawMessage(damaged))
		})
		a.set("a", "k", "w")
		check(t, what, a.values("a"), map[any]any{"k": "w"})
		a.do(func(w http.ResponseWriter, r *http.Request) {
			check(t, what, string(raw.Get(a.manager.From(r.Context()))), damaged)
		})
		a.set("a", "bad", "new")
		check(t, what, a.values("a"), map[any]any{"k": "w", "bad": "new"})
		a.do(func(w http.ResponseWriter, r *http.Request) {
			raw.Set(a.manager.From(r.Context()), json.RawMessage(damaged))
		})
		a.edit("a", func(gs *sessions.Session) { gs.Options.MaxAge = -1 })
		a.do(func(w http.ResponseWriter, r *http.Request) {
			check(t, what+": names", a.manager.From(r.Context()).Names(), []string(nil))
		})
	}
}

// Items of a list that do not decode are kept, and so is an entry whose name needs a key.
func TestItemsThatDoNotDecode(t *testing.T) {
	list, named := session.NewKey[json.RawMessage]("gorilla/a/list"), session.NewKey[string]("gorilla/a//x")
	a := newApp(t, nil, session.Options{})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		s := a.manager.From(r.Context())
		list.Set(s, json.RawMessage(`{"l":[["1","sone"],["2","zzz"],["3","sthree"]]}`))
		named.Set(s, "stext")
	})
	check(t, "Values", a.values("a"), map[any]any{"list": []any{"one", "three"}})
	a.set("a", "list", []any{"three", "four"})
	check(t, "Values", a.values("a"), map[any]any{"list": []any{"three", "four"}})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		s := a.manager.From(r.Context())
		if got := string(list.Get(s)); !strings.HasPrefix(got, `{"l":[["2","zzz"],["3","sthree"],[`) {
			t.Errorf("the list is %s", got)
		}
		check(t, "the other entry", named.Get(s), "stext")
	})
}

// A Save after the first byte of the response.
func TestSaveAfterTheFirstByte(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	late := func(name string) (err error) {
		a.do(func(w http.ResponseWriter, r *http.Request) {
			gs := a.get(r, name)
			gs.Values["k"] = "late"
			w.Write([]byte("x"))
			err = gs.Save(r, w)
		})
		return err
	}
	if err := late("a"); err == nil {
		t.Error("a first Save whose cookie cannot be set returned nil")
	}
	check(t, "a", a.values("a"), map[any]any{})
	a.set("a", "k", "v")
	if err := late("a"); err != nil {
		t.Error(err)
	}
	check(t, "a", a.values("a"), map[any]any{"k": "late"})
}

func TestSaveOfASessionThatHasEnded(t *testing.T) {
	a := newApp(t, &userKey, session.Options{})
	a.set("a", "user", "alice")
	a.do(func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		if err := a.manager.RevokeAll(r.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
		a.save(gs, w, r)
		gs.Values["k"] = "v"
		if err := gs.Save(r, w); !errors.Is(err, session.ErrEnded) {
			t.Errorf("Save returned %v", err)
		}
		delete(gs.Values, "k")
		a.save(gs, w, r) // nothing is no error
		gs.Options.MaxAge = -1
		a.save(gs, w, r)
	})
	check(t, "Values", a.values("a"), map[any]any{})
}

// Two sessions of one browser, and the values of the Manager's own keys, live beside each other.
func TestTypedKeysBesideIt(t *testing.T) {
	key := session.NewKey[string]("typed")
	a := newApp(t, nil, session.Options{})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		s := a.manager.From(r.Context())
		key.Set(s, "x")
		s.AddFlash("info", "ours")
		gs := a.get(r, "a")
		gs.Values["typed"] = "y"
		a.save(gs, w, r)
	})
	a.do(func(w http.ResponseWriter, r *http.Request) {
		s := a.manager.From(r.Context())
		check(t, "typed", key.Get(s), "x")
		check(t, "flashes", len(s.Flashes()), 1)
		check(t, "Values", a.get(r, "a").Values, map[any]any{"typed": "y"})
	})
}

// The names of entries do not depend on the process: records are read by the next version.
// An entry that requests append to is a Key, beside the entries of gorilla's sessions.
func TestCartOfAKey(t *testing.T) {
	const n = 30
	a := newApp(t, nil, session.Options{})
	a.set("shop", "visits", 0)
	var arrived, all sync.WaitGroup
	arrived.Add(n)
	for i := range n {
		all.Go(func() {
			a.do(func(w http.ResponseWriter, r *http.Request) {
				gs := a.get(r, "shop")
				arrived.Done()
				arrived.Wait()
				gs.Values[i] = true
				add(a.manager, r, fmt.Sprint("item ", i))
				a.save(gs, w, r)
			})
		})
	}
	all.Wait()
	check(t, "number of entries", len(a.values("shop")), 1+n)
	a.do(func(_ http.ResponseWriter, r *http.Request) {
		check(t, "number of items", len(cart.Get(a.manager.From(r.Context()))), n)
	})
}

func TestNamesOfEntries(t *testing.T) {
	a := newApp(t, nil, session.Options{})
	a.edit("a", func(gs *sessions.Session) { gs.Values["user"], gs.Values[7], gs.Values[point{1, 2}] = 1, 1, 1 })
	a.do(func(w http.ResponseWriter, r *http.Request) {
		check(t, "names", a.manager.From(r.Context()).Names(), []string{"gorilla/a//H3Ync_n7JXq6yaypL-bUww", "gorilla/a//OuUwEbyOsQ5SjK92vGSaXw", "gorilla/a/user"})
	})
}

const childEnv = "GORILLASTORE_TEST_CHILD"

type first struct{ A, B int }

type second struct{ A string }

// child is another version of the program: its gob has numbered other types first. It stores a
// session and prints its record and cookie.
func child() {
	for _, v := range []any{first{}, second{}, profile{}} {
		gob.Register(v)
		if err := gob.NewEncoder(httptest.NewRecorder().Body).Encode(v); err != nil {
			panic(err)
		}
	}
	store := session.NewMemoryStore(nil)
	m := session.Must(session.New(&session.Options{Store: store, Secrets: [][]byte{secret}}))
	gorilla := gorillastore.New(m, nil)
	w, id := httptest.NewRecorder(), ""
	m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gs, _ := gorilla.Get(r, "a")
		gs.Values["struct"] = profile{"Ann", map[string]int{"a": 1}}
		if err := gs.Save(r, w); err != nil {
			panic(err)
		}
		id = gs.ID
	})).ServeHTTP(w, httptest.NewRequest("GET", "https://example.test/", nil))
	rec, err := store.Load(httptest.NewRequest("GET", "/", nil).Context(), id)
	if err != nil {
		panic(err)
	}
	out, _ := json.Marshal(printed{rec, w.Header().Get("Set-Cookie")})
	fmt.Println(string(out))
}

type printed struct {
	Record *session.Record
	Cookie string
}

// After a deployment gob encodes the same struct as other bytes.
func TestSessionOfAnotherProcess(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var from printed
	if err := json.Unmarshal(out, &from); err != nil {
		t.Fatal(err)
	}
	c := newCounter()
	a := newApp(t, nil, session.Options{Store: c})
	if err := c.Store.Create(t.Context(), from.Record); err != nil {
		t.Fatal(err)
	}
	cookie, err := http.ParseSetCookie(from.Cookie)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "https://example.test/x", nil)
	r.AddCookie(cookie)
	sent := false
	a.calls.Store("/x", func(w http.ResponseWriter, r *http.Request) {
		gs := a.get(r, "a")
		check(t, "Values", gs.Values, map[any]any{"struct": profile{"Ann", map[string]int{"a": 1}}})
		before := c.writes.Load()
		a.save(gs, w, r)
		check(t, "writes", c.writes.Load()-before, int64(0))
		sent = true
	})
	a.handler.ServeHTTP(httptest.NewRecorder(), r)
	check(t, "sent", sent, true)
}
