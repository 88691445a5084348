package session_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// TestZeroKeyChangesNothing checks that a call with the zero Key panics and changes no value.
// The zero Key has no name, which the package uses to represent a Clear.
func TestZeroKeyChangesNothing(t *testing.T) {
	var zero session.Key[int]
	for call, f := range map[string]func(s *session.Session){
		"Set":    func(s *session.Session) { zero.Set(s, 1) },
		"Update": func(s *session.Session) { zero.Update(s, func(n int) int { return n + 1 }) },
	} {
		visit, _, _ := newVisitor(t, session.Options{})
		visit(func(s *session.Session) { name.Set(s, "kept") })
		if p := returns(t, func() {
			visit(func(s *session.Session) {
				defer func() {
					if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "NewKey") {
						t.Errorf("%s: panic(%v)", call, p)
					}
					visits.Set(s, 1)
				}()
				f(s)
			})
		}); p != nil {
			t.Errorf("%s: the request panics again: %v", call, p)
		}
		visit(func(s *session.Session) {
			if name.Get(s) != "kept" || visits.Get(s) != 1 {
				t.Errorf("after %s: %q, %d, names %q", call, name.Get(s), visits.Get(s), s.Names())
			}
		})
	}
}

// watch is a store that checks the times that it is given.
type watch struct {
	session.Store
	t *testing.T
	n int // number of times that were checked
}

func (w *watch) look(times ...time.Time) {
	w.n++
	for i, at := range times {
		if !at.Equal(at.Truncate(time.Millisecond)) {
			w.t.Errorf("time %d is %v", i, at)
		}
	}
}

func (w *watch) Create(ctx context.Context, r *session.Record) error {
	w.look(r.Created, r.LastSeen, r.Deadline, r.Expires)
	return w.Store.Create(ctx, r)
}

func (w *watch) Save(ctx context.Context, r *session.Record, old uint64) error {
	w.look(r.Created, r.LastSeen, r.Deadline, r.Expires)
	return w.Store.Save(ctx, r, old)
}

func (w *watch) Touch(ctx context.Context, id string, seen, expires time.Time) error {
	w.look(seen, expires)
	return w.Store.Touch(ctx, id, seen, expires)
}

// TestTimesAreWholeMilliseconds checks that stores are given times in whole milliseconds, which
// all can store, even if the options are not whole milliseconds.
func TestTimesAreWholeMilliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const odd = 123_456_789 * time.Nanosecond
		store := &watch{Store: session.NewMemoryStore(nil), t: t}
		m := newManager(t, session.Options{Store: store, Lifetime: day / 7, IdleTimeout: time.Hour / 7})
		b := newBrowser(t, m.Handler(routes{
			"/set":      clockRoutes["/set"],
			"/login":    clockRoutes["/login"],
			"/look":     clockRoutes["/look"],
			"/renew":    clockRoutes["/renew"],
			"/logout":   clockRoutes["/logout"],
			"/remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Remember(day / 7) },
		}))
		for _, path := range []string{"/set", "/login", "/look", "/renew", "/remember", "/look", "/set", "/logout"} {
			n := store.n
			time.Sleep(5*minute + odd) // long enough for a touch
			if b.get(path); store.n == n {
				t.Errorf("%s wrote nothing", path)
			}
			if t.Failed() {
				t.Fatal("at", path)
			}
		}
	})
}

// TestTombstoneOutlivesACrawler checks that a crawler that fills the store does not evict the
// tombstone of a user's session, which tells in-flight requests that there is a newer token:
// sessions of the crawler are evicted first.
func TestTombstoneOutlivesACrawler(t *testing.T) {
	m := newManager(t, session.Options{Store: session.NewMemoryStore(&session.MemoryOptions{MaxBytes: 20_000})})
	h := m.Handler(clockRoutes)
	b := newBrowser(t, h)
	b.get("/login")
	stale := b.replay(b.cookie())
	b.get("/bob")
	visitor := newBrowser(t, h)
	visitor.get("/set")
	for range 200 { // three times as many as fit
		newBrowser(t, h).get("/set")
	}
	if body(visitor.get("/look")) != "" {
		t.Fatal("the store was not full")
	}
	if got := body(stale.get("/err")); got != session.ErrReplaced.Error() {
		t.Errorf("a slow request's Err is %s", got)
	}
	if resp := stale.get("/set"); setsCookie(resp) {
		t.Error("a slow request overwrites the newer cookie")
	}
}

// TestTooLargeASaveEvictsNobody checks that a record that does not fit into an empty store
// evicts no other, and not itself.
func TestTooLargeASaveEvictsNobody(t *testing.T) {
	for _, user := range []string{"alice", ""} {
		s := storeOfTen()
		put(t, s, memoryRecord("grows", user, 2*big))
		for i := range 5 {
			put(t, s, memoryRecord(fmt.Sprint("crawler", i), "", big))
		}
		r, err := s.Load(t.Context(), "grows")
		if err != nil {
			t.Fatal(err)
		}
		err = s.Save(t.Context(), memoryRecord("grows", user, 11*big), r.Version)
		if err == nil || errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) {
			t.Errorf("Save of user %q: %v", user, err)
		}
		for _, id := range []string{"grows", "crawler0", "crawler1", "crawler2", "crawler3", "crawler4"} {
			if !lives(t, s, id) {
				t.Errorf("Save of user %q evicted %s", user, id)
			}
		}
	}
}

// TestNamesOfManyChanges checks Names after many changes of stored values: the last change of a
// name counts, and Clear cancels all before it.
func TestNamesOfManyChanges(t *testing.T) {
	visit, _, _ := newVisitor(t, session.Options{})
	want := map[string]bool{}
	check := func(s *session.Session) {
		t.Helper()
		var names []string
		for n := range want {
			names = append(names, n)
		}
		slices.Sort(names)
		if got := s.Names(); !slices.Equal(got, names) {
			t.Errorf("%d keys, want %d", len(got), len(names))
		}
	}
	set := func(s *session.Session, i int) {
		session.NewKey[int](fmt.Sprint(i)).Set(s, i)
		want[fmt.Sprint(i)] = true
	}
	remove := func(s *session.Session, i int) {
		session.NewKey[int](fmt.Sprint(i)).Delete(s)
		delete(want, fmt.Sprint(i))
	}
	visit(func(s *session.Session) {
		for i := range 2000 {
			set(s, i)
		}
		s.AddFlash("", "is no key")
		check(s)
	})
	visit(func(s *session.Session) {
		check(s)
		for i := 1000; i < 3000; i++ {
			set(s, i)
		}
		for i := 0; i < 3000; i += 3 {
			remove(s, i)
		}
		for i := 0; i < 3000; i += 6 {
			set(s, i)
		}
		check(s)
	})
	visit(func(s *session.Session) {
		check(s)
		set(s, 9000)
		s.Clear()
		clear(want)
		check(s)
		for i := 2500; i < 3500; i++ {
			set(s, i)
		}
		remove(s, 2500)
		check(s)
	})
	visit(check)
}

// TestSaveLoadsWithinItsDeadline checks that the deadline of Save's context also applies to the
// load that Save may need.
func TestSaveLoadsWithinItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		m := newManager(t, session.Options{Store: spy})
		b := newBrowser(t, m.Handler(routes{
			"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
			"/save": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
				defer cancel()
				began := time.Now()
				if err := s.Save(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 100*time.Millisecond {
					t.Errorf("Save: %v after %v", err, time.Since(began))
				}
			},
		}))
		b.get("/login")
		spy.hook(func(ctx context.Context, call, id string) error {
			<-ctx.Done()
			return ctx.Err()
		})
		b.get("/save")
	})
}

// TestSaveOfAReplacedSession checks that the error of Save for a replaced token matches both
// ErrEnded and ErrReplaced.
func TestSaveOfAReplacedSession(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{
		"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/bob":   func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("bob") },
		"/save": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "late")
			if err := s.Save(r.Context()); err != session.ErrReplaced {
				t.Errorf("Save: %v", err)
			}
			if err := s.Err(); err != session.ErrReplaced {
				t.Errorf("Err: %v", err)
			}
			if err := s.Reload(r.Context()); err != session.ErrReplaced {
				t.Errorf("Reload: %v", err)
			}
		},
	}))
	b.get("/login")
	old := b.replay(b.cookie())
	b.get("/bob")
	old.get("/save")
}

// TestReloadAfterALogoutThatWasSaved calls Logout, Save, Reload and Set in one request: changes
// after the Logout belong to a new session, whatever the store was asked in between.
func TestReloadAfterALogoutThatWasSaved(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	sent := open(t, m, "alice")
	b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Logout()
		if err := s.Save(r.Context()); err != nil {
			t.Error("Save:", err)
		}
		if err := s.Reload(r.Context()); err != nil || s.User() != "" {
			t.Error("Reload:", err, s.User())
		}
		name.Set(s, "anew")
	}})).replay(sent)
	if resp := b.get("/"); !setsCookie(resp) || opens(t, m, b.cookie()) != "anew of " {
		t.Errorf("the browser's cookie opens %q", opens(t, m, b.cookie()))
	}
	if got := opens(t, m, sent); got != closed {
		t.Errorf("the old cookie opens %q", got)
	}
}

// TestRecordWithoutAKey checks that a record whose Data was not written by a Manager is
// damaged, which does not log its user out.
func TestRecordWithoutAKey(t *testing.T) {
	for _, data := range []string{"", "{}", `{"name":"old"}`, `{"session.key":7}`, `{"session.key":""}`, "null"} {
		spy := newSpy()
		var log events
		m := newManager(t, session.Options{Store: spy, OnEvent: log.on})
		sent := open(t, m, "alice")
		all, err := spy.List(t.Context(), "alice")
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		rec := *all[0]
		rec.Data, rec.Version = []byte(data), rec.Version/2+1
		if err := spy.Store.Save(t.Context(), &rec, all[0].Version); err != nil {
			t.Fatal(err)
		}
		b := newBrowser(t, m.Handler(reception)).replay(sent)
		if resp := b.get("/"); resp.StatusCode != 503 || log.count(session.EventReplayed) != 0 || log.count(session.EventStoreFailed) != 1 {
			t.Errorf("%q: %s, events %v", data, resp.Status, log.all)
		}
		if err := m.RevokeAll(t.Context(), "alice"); err != nil {
			t.Errorf("%q: RevokeAll: %v", data, err)
		}
		if resp := b.get("/"); resp.StatusCode != 200 {
			t.Errorf("%q: after RevokeAll: %s", data, resp.Status)
		}
	}
}

// TestLoginsInOneRequest calls Login several times in one request: the last call counts, and
// values that were set for another user are dropped.
func TestLoginsInOneRequest(t *testing.T) {
	for _, c := range []struct {
		name, from string
		do         func(s *session.Session)
		opens      string
	}{
		{"a value of another user", "", func(s *session.Session) { s.Login("alice"); write(s); s.Login("bob") }, " of bob"},
		{"a value of the same user", "", func(s *session.Session) { s.Login("alice"); write(s); s.Login("alice") }, "new of alice"},
		{"a visitor's value", "", func(s *session.Session) { write(s); s.Login("bob") }, "new of bob"},
		{"a value set before", "alice", func(s *session.Session) { write(s); s.Login("bob") }, " of bob"},
		{"a value set after", "alice", func(s *session.Session) { s.Login("bob"); write(s) }, "new of bob"},
		{"there and back", "alice", func(s *session.Session) { s.Login("bob"); write(s); s.Login("alice") }, "old of alice"},
	} {
		m := newManager(t, session.Options{})
		b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) { c.do(s) }})).replay(open(t, m, c.from))
		b.get("/")
		if got := opens(t, m, b.cookie()); got != c.opens {
			t.Errorf("%s: the cookie opens %q, want %q", c.name, got, c.opens)
		}
	}
}

// TestRememberForNoTime checks that a duration that is not positive fails the request.
func TestRememberForNoTime(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second} {
		m := newManager(t, session.Options{})
		sent := open(t, m, "alice")
		resp := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			write(s)
			if s.Remember(d); s.Err() == nil || !strings.Contains(s.Err().Error(), "Remember") {
				t.Error("Err:", s.Err())
			}
		}})).replay(sent).get("/")
		if got := opens(t, m, sent); resp.StatusCode != 500 || got != "old of alice" {
			t.Errorf("%v: %s, the cookie opens %q", d, resp.Status, got)
		}
	}
}

// TestReloadOfANewSessionThatIsGone checks that a new session that a Reload no longer finds
// sets no cookie.
func TestReloadOfANewSessionThatIsGone(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login("alice")
		if err := s.Save(r.Context()); err != nil {
			t.Error(err)
		}
		if err := m.RevokeAll(r.Context(), "alice"); err != nil {
			t.Error(err)
		}
		if err := s.Reload(r.Context()); err != session.ErrEnded || s.User() != "" {
			t.Error("Reload:", err, s.User())
		}
	}}))
	if resp := b.get("/"); setsCookie(resp) || resp.StatusCode != 200 {
		t.Error(resp.Status, resp.Header)
	}
}

// TestErrAfterAPanic checks that a middleware around the Manager that recovers and uses the
// session gets the error of a failing store, not an anonymous session.
func TestErrAfterAPanic(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	sent := open(t, m, "alice")
	var held *session.Session
	h := m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		held = s
		s.User()
		panic("a bug of the program")
	}})
	spy.down.Store(true)
	func() {
		defer func() { recover() }()
		newBrowser(t, h).replay(sent).get("/")
	}()
	if err := held.Err(); !errors.Is(err, session.ErrStore) || held.User() != "" {
		t.Errorf("Err: %v, in as %q", err, held.User())
	}
}
