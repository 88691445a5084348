package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

var (
	name   = session.NewKey[string]("name")
	visits = session.NewKey[int]("visits")
)

// TestLife follows a session as a browser sees it: no session, values, a login, a new token, a
// logout, and no access with an old cookie.
func TestLife(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{
		"/visit": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
			fmt.Fprint(w, visits.Get(s), s.User())
		},
		"/login":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/renew":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
		"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, visits.Get(s), s.User())
		},
	}))
	expect := func(b *browser, path, want string) {
		t.Helper()
		if got := body(b.get(path)); got != want {
			t.Fatalf("GET %s: %q, want %q", path, got, want)
		}
	}
	expect(b, "/look", "0")
	if b.cookie() != "" {
		t.Fatal("a session that was only read set a cookie")
	}
	expect(b, "/visit", "1")
	anonymous := b.cookie()
	expect(b, "/visit", "2")
	b.get("/login")
	loggedIn := b.cookie()
	expect(b, "/visit", "3alice")
	b.get("/renew")
	renewed := b.cookie()
	expect(b, "/visit", "4alice")
	expect(b.replay(anonymous), "/look", "0")
	expect(b.replay(loggedIn), "/look", "3alice") // in the grace, the session before the renewal
	expect(b, "/look", "4alice")
	b.get("/logout")
	if b.cookie() != "" {
		t.Fatal("the cookie was not deleted by the logout")
	}
	expect(b.replay(renewed), "/look", "0")
}

// TestConcurrentUse calls the methods of a Session at random in eight goroutines, while the
// response is written and the token is renewed. It checks that every request ends; the race
// detector does the rest.
func TestConcurrentUse(t *testing.T) {
	methods := []func(ctx context.Context, s *session.Session){
		func(ctx context.Context, s *session.Session) { s.ID(); s.User(); s.IsNew() },
		func(ctx context.Context, s *session.Session) { s.Created(); s.LastSeen(); s.Expires() },
		func(ctx context.Context, s *session.Session) { s.AuthTime(); s.Ended(); s.Remembered(); s.Err() },
		func(ctx context.Context, s *session.Session) { s.Names(); name.Get(s); visits.Get(s) },
		func(ctx context.Context, s *session.Session) { name.Set(s, "value") },
		func(ctx context.Context, s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) },
		func(ctx context.Context, s *session.Session) { name.Pop(s); visits.Delete(s) },
		func(ctx context.Context, s *session.Session) { s.AddFlash("", "hello"); s.Flashes() },
		func(ctx context.Context, s *session.Session) { s.Clear() },
		func(ctx context.Context, s *session.Session) { s.Login("alice") },
		func(ctx context.Context, s *session.Session) { s.Renew() },
		func(ctx context.Context, s *session.Session) { s.Remember(time.Hour) },
		func(ctx context.Context, s *session.Session) { s.MarkPassive() },
		func(ctx context.Context, s *session.Session) { s.Done() },
		func(ctx context.Context, s *session.Session) { s.Save(ctx) },
		func(ctx context.Context, s *session.Session) { s.Reload(ctx) },
		func(ctx context.Context, s *session.Session) { visits.Take(ctx, s) },
		func(ctx context.Context, s *session.Session) {
			visits.Refresh(ctx, s, func(n int) bool { return n > 3 }, func(_ context.Context, n int) (int, error) { return n + 1, nil })
		},
		func(ctx context.Context, s *session.Session) { s.Logout() },
	}
	for range 40 {
		b := newBrowser(t, newManager(t, session.Options{}).Handler(routes{
			"/login": clockRoutes["/login"],
			"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				var all sync.WaitGroup
				for range 8 {
					all.Go(func() {
						for range 6 {
							i := rand.N(len(methods))
							if i == len(methods)-1 && rand.N(4) > 0 { // seldom, because most methods have no effect after a Logout
								continue
							}
							methods[i](r.Context(), s)
						}
					})
				}
				fmt.Fprint(w, "hello")
				all.Wait()
			},
		}))
		b.get("/login")
		for range 3 {
			b.get("/")
		}
	}
}

// TestDoneBesideTheFirstByte calls Done concurrently with the first byte of the response, after
// Save was the first use.
func TestDoneBesideTheFirstByte(t *testing.T) {
	spy := newSpy()
	spy.hook(func(context.Context, string, string) error {
		for range 100 {
			runtime.Gosched()
		}
		return nil
	})
	b := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(routes{
		"/login": clockRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			name.Set(s, "value")
			var all sync.WaitGroup
			all.Go(func() {
				for range 100 {
					s.Done()
				}
			})
			fmt.Fprint(w, "hello")
			all.Wait()
		},
	}))
	b.get("/login")
	for range 20 {
		b.get("/")
	}
}

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

// TestTooLargeASaveEvictsNoOther checks that a record that does not fit into an empty store
// evicts no other, and not itself.
func TestTooLargeASaveEvictsNoOther(t *testing.T) {
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
		t.Errorf("Err: %v, logged in as %q", err, held.User())
	}
}

var endedRoutes = routes{
	"/ended":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.Ended()) },
	"/login":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
	"/bob":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("bob") },
	"/renew":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
	"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
	"/set":    func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, "value") },
}

// TestEnded checks that Ended returns true exactly for users whose session has ended.
func TestEnded(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(b *browser, m *session.Manager) (cookie string) // the Cookie header of the last request
		want bool
	}{
		{"first visit", func(b *browser, m *session.Manager) string { return "" }, false},
		{"an unrelated cookie", func(b *browser, m *session.Manager) string { return "theme=dark" }, false},
		{"forged", func(b *browser, m *session.Manager) string {
			b.get("/login")
			return forge(b.cookie())
		}, false},
		{"too short", func(b *browser, m *session.Manager) string {
			b.get("/login")
			return b.cookie()[:100]
		}, false},
		{"logged in", func(b *browser, m *session.Manager) string {
			b.get("/login")
			return b.cookie()
		}, false},
		{"anonymous", func(b *browser, m *session.Manager) string {
			b.get("/set")
			return b.cookie()
		}, false},
		{"idle for too long", func(b *browser, m *session.Manager) string {
			b.get("/login")
			time.Sleep(21 * minute)
			return b.cookie()
		}, true},
		{"too old", func(b *browser, m *session.Manager) string {
			b.get("/login")
			for range 12 {
				time.Sleep(10 * minute)
				b.get("/ended")
			}
			return b.cookie()
		}, true},
		{"a copy of the cookie after the logout", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/logout")
			return was
		}, true},
		{"the same, after the tombstone has expired", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/logout")
			time.Sleep(2 * minute)
			return was
		}, true},
		{"the browser itself after its logout", func(b *browser, m *session.Manager) string {
			b.get("/login")
			b.get("/logout")
			return b.cookie()
		}, false},
		{"revoked", func(b *browser, m *session.Manager) string {
			b.get("/login")
			if err := m.RevokeAll(b.t.Context(), "alice"); err != nil {
				b.t.Fatal(err)
			}
			return b.cookie()
		}, true},
		{"given to another user", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/bob")
			return was
		}, true},
		{"the session lives, by a newer token", func(b *browser, m *session.Manager) string {
			b.get("/login")
			was := b.cookie()
			b.get("/renew")
			time.Sleep(minute)
			return was
		}, false},
		{"two cookies, one of an ended session", func(b *browser, m *session.Manager) string {
			b.get("/login")
			over := b.cookie()
			b.get("/bob")
			return over + "; " + b.cookie()
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				b := newBrowser(t, m.Handler(endedRoutes))
				r := newBrowser(t, b.h).request("/ended")
				r.Header.Set("Cookie", c.do(b, m))
				if got := body(b.do(r)); got != fmt.Sprint(c.want) {
					t.Errorf("Ended is %s", got)
				}
			})
		})
	}
}

// TestEndedInAnOutage checks that a failing store does not make a session look ended.
func TestEndedInAnOutage(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	var during, after bool
	b := newBrowser(t, m.Handler(routes{
		"/login": endedRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			during = s.Ended()
			spy.down.Store(false)
			err := s.Reload(r.Context())
			if after = s.Ended(); (err == session.ErrEnded) != after || !after && err != nil {
				t.Error(err)
			}
		},
	}))
	b.get("/login")
	spy.down.Store(true)
	b.get("/")
	if during || after {
		t.Errorf("Ended is %v while the store fails and %v afterwards", during, after)
	}
	if err := m.RevokeAll(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	spy.down.Store(true)
	b.get("/")
	if during || !after {
		t.Errorf("ended: Ended is %v while the store fails and %v afterwards", during, after)
	}
}

// TestEndedInOneRequest checks that within one request Ended changes with a Login only, before
// and after the first byte, whatever the request changes.
func TestEndedInOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		steps := map[string]func(w http.ResponseWriter, s *session.Session){
			"nothing":         func(w http.ResponseWriter, s *session.Session) {},
			"Set":             func(w http.ResponseWriter, s *session.Session) { name.Set(s, "value") },
			"Set and Save":    func(w http.ResponseWriter, s *session.Session) { name.Set(s, "value"); s.Save(t.Context()) },
			"Set and Write":   func(w http.ResponseWriter, s *session.Session) { name.Set(s, "value"); w.Write([]byte("x")) },
			"Logout":          func(w http.ResponseWriter, s *session.Session) { s.Logout() },
			"Reload":          func(w http.ResponseWriter, s *session.Session) { s.Reload(t.Context()) },
			"Login":           func(w http.ResponseWriter, s *session.Session) { s.Login("alice") },
			"Login and Save":  func(w http.ResponseWriter, s *session.Session) { s.Login("alice"); s.Save(t.Context()) },
			"Login and Write": func(w http.ResponseWriter, s *session.Session) { s.Login("alice"); w.Write([]byte("x")) },
		}
		b := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := session.From(r.Context())
			switch step := r.FormValue("step"); step {
			case "":
				s.Login("alice")
			default:
				if !s.Ended() {
					t.Errorf("%s: not ended", step)
				}
				steps[step](w, s)
				if got := s.Ended(); got == strings.HasPrefix(step, "Login") {
					t.Errorf("%s: Ended is %v", step, got)
				}
			}
		})))
		for step := range steps {
			b.get("/")
			was := b.cookie()
			time.Sleep(2 * time.Hour)
			r := newBrowser(t, b.h).request("/?step=" + strings.ReplaceAll(step, " ", "+"))
			r.Header.Set("Cookie", was)
			b.do(r)
		}
	})
}

// TestEndedMeanwhile checks that a session that ends during a request has ended for the request
// after a Reload, unless the request itself ended it.
func TestEndedMeanwhile(t *testing.T) {
	m := newManager(t, session.Options{})
	b := newBrowser(t, m.Handler(routes{
		"/login": endedRoutes["/login"],
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if s.Ended() {
				t.Error("ended")
			}
			if err := m.Revoke(r.Context(), s.User(), s.ID()); err != nil {
				t.Error(err)
			}
			if err := s.Reload(r.Context()); err != session.ErrEnded || !s.Ended() {
				t.Error("revoked, and not ended", err)
			}
		},
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Logout()
			if err := s.Save(r.Context()); err != nil || s.Ended() {
				t.Error("Ended after a logout by the request itself", err)
			}
		},
	}))
	b.get("/login")
	b.get("/")
	b.get("/login")
	b.get("/logout")
}

// passiveRoutes do what a poll of a page may do. The clocks are those of inBubble: 20 minutes
// idle, 2 hours absolute.
var passiveRoutes = routes{
	"read":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.User() },
	"write": func(w http.ResponseWriter, r *http.Request, s *session.Session) { name.Set(s, time.Now().String()) },
	"update": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		visits.Update(s, func(n int) int { return n + 1 })
	},
	"flash": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.AddFlash("info", "x") },
	"late": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprint(w, "x")
		name.Set(s, time.Now().String())
	},
	"save": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		name.Set(s, time.Now().String())
		s.Save(r.Context())
	},
	"save nothing": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Save(r.Context()) },
	"reload":       func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Reload(r.Context()) },
	"renew":        func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Renew() },
}

// TestPassive checks that a passive request moves neither LastSeen nor the idle end, whatever
// it changes, and that every other request moves both.
func TestPassive(t *testing.T) {
	for step, do := range passiveRoutes {
		t.Run(step, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				isPassive, first := false, false
				b := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					s := session.From(r.Context())
					if isPassive && first {
						s.MarkPassive()
					}
					if r.URL.Path == "/login" {
						s.Login("alice")
						return
					}
					seen, end := s.LastSeen(), s.Expires()
					if isPassive && !first {
						s.MarkPassive()
					}
					do(w, r, s)
					if moved := !s.LastSeen().Equal(seen) || !s.Expires().Equal(end); isPassive && moved {
						t.Errorf("in the request itself: seen %v later, the end %v later", s.LastSeen().Sub(seen), s.Expires().Sub(end))
					}
				})))
				record := func() *session.Record {
					rs, err := spy.Store.List(t.Context(), "alice")
					if err != nil || len(rs) != 1 {
						t.Fatal(rs, err)
					}
					return rs[0]
				}
				b.get("/login")
				before := record()
				isPassive = true
				for _, first = range []bool{true, false} { // the order of the calls
					time.Sleep(5 * minute)
					b.get("/")
					if now := record(); !now.LastSeen.Equal(before.LastSeen) || !now.Expires.Equal(before.Expires) {
						t.Errorf("seen %v later, the end %v later", now.LastSeen.Sub(before.LastSeen), now.Expires.Sub(before.Expires))
					}
				}
				if step != "read" && step != "reload" && step != "save nothing" && record().Version == before.Version {
					t.Error("nothing was stored")
				}
				isPassive = false
				b.get("/")
				if now := record(); now.LastSeen.Sub(before.LastSeen) != 10*minute || now.Expires.Sub(before.Expires) != 10*minute {
					t.Errorf("by use: seen %v later, the end %v later", now.LastSeen.Sub(before.LastSeen), now.Expires.Sub(before.Expires))
				}
			})
		})
	}
}

// TestPassivePolls checks that a page that polls every minute does not keep its session alive,
// and can ask for the time left without moving the end.
func TestPassivePolls(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{
			"/login": clockRoutes["/login"],
			"/left": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.MarkPassive()
				if s.User() != "" {
					fmt.Fprint(w, time.Until(s.Expires()))
				}
			},
		}))
		b.get("/login")
		for left := 19 * minute; left > 0; left -= minute {
			time.Sleep(minute)
			if got := body(b.get("/left")); got != left.String() {
				t.Fatalf("%s are left, want %v", got, left)
			}
		}
		time.Sleep(minute)
		if got := body(b.get("/left")); got != "" {
			t.Errorf("%s are left after the end", got)
		}
		if n := spy.count("Touch"); n > 0 {
			t.Errorf("%d touches", n)
		}
	})
}

// TestPassiveLogin checks that a Login counts as use in a passive request too, and that
// Remember works.
func TestPassiveLogin(t *testing.T) {
	inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
		b := newBrowser(t, m.Handler(routes{
			"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.MarkPassive()
				s.Login("alice")
			},
			"/remember": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.MarkPassive()
				s.Remember(30 * day)
			},
			"/left": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				s.MarkPassive()
				fmt.Fprint(w, time.Until(s.Expires()), time.Since(s.LastSeen()))
			},
		}))
		for range 2 { // another user's Login, and the same user's
			b.get("/login")
			if got, want := body(b.get("/left")), "20m0s 0s"; got != want {
				t.Errorf("after the login: %s, want %s", got, want)
			}
			time.Sleep(10 * minute)
		}
		b.get("/remember")
		if got, want := body(b.get("/left")), "720h0m0s 10m0s"; got != want {
			t.Errorf("remembered: %s, want %s", got, want)
		}
	})
}

// TestPassiveCostsNothing checks that MarkPassive alone does not load the session.
func TestPassiveCostsNothing(t *testing.T) {
	spy := newSpy()
	m := newManager(t, session.Options{Store: spy})
	b := newBrowser(t, m.Handler(routes{
		"/login": clockRoutes["/login"],
		"/":      func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.MarkPassive() },
	}))
	b.get("/login")
	before := spy.count("")
	if resp := b.get("/"); spy.count("") != before || len(resp.Header) > 0 {
		t.Errorf("%d calls of the store, header %v", spy.count("")-before, resp.Header)
	}
}

// TestPassiveKeepsAUse checks that a use by another request is not lost if a poll that had
// loaded the session before stores its changes afterwards, or if an operator edits the session.
func TestPassiveKeepsAUse(t *testing.T) {
	fetch := func(context.Context, grant) (grant, error) { return grant{1, time.Now().Add(time.Hour)}, nil }
	add := func(n int) int { return n + 1 }
	for step, change := range map[string]func(s *session.Session, w http.ResponseWriter, r *http.Request){
		"update": func(s *session.Session, w http.ResponseWriter, r *http.Request) { visits.Update(s, add) },
		"flash":  func(s *session.Session, w http.ResponseWriter, r *http.Request) { s.AddFlash("info", "x") },
		"refresh": func(s *session.Session, w http.ResponseWriter, r *http.Request) {
			grants.Refresh(r.Context(), s, grant.fresh, fetch)
		},
		"renew": func(s *session.Session, w http.ResponseWriter, r *http.Request) { s.Renew() },
		"now": func(s *session.Session, w http.ResponseWriter, r *http.Request) {
			visits.UpdateNow(r.Context(), s, add)
		},
		"nothing": func(s *session.Session, w http.ResponseWriter, r *http.Request) {},
		"save": func(s *session.Session, w http.ResponseWriter, r *http.Request) {
			visits.Set(s, 1)
			s.Save(r.Context())
		},
		"late": func(s *session.Session, w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "x"); visits.Set(s, 1) },
		"and more": func(s *session.Session, w http.ResponseWriter, r *http.Request) {
			visits.Set(s, 1)
			s.Save(r.Context())
			visits.Set(s, 2)
		},
		"edit": nil,
	} {
		t.Run(step, func(t *testing.T) {
			inBubble(t, session.Options{}, func(t *testing.T, spy *spyStore, m *session.Manager) {
				loaded, goOn := make(chan struct{}), make(chan struct{})
				b := newBrowser(t, m.Handler(routes{
					"/login": clockRoutes["/login"],
					"/click": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.User()) },
					"/poll": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						if change != nil {
							s.MarkPassive()
							s.User()
							close(loaded)
							<-goOn
							change(s, w, r)
							return
						}
						list, err := m.List(r.Context(), "alice")
						if err != nil || len(list) != 1 {
							t.Error(list, err)
						}
						close(loaded)
						<-goOn
						for _, info := range list {
							if err := m.Edit(r.Context(), "alice", info.ID, func(s *session.Session) { visits.Set(s, 1) }); err != nil {
								t.Error(err)
							}
						}
					},
				}))
				b.get("/login")
				time.Sleep(19 * minute) // of 20
				poll := make(chan struct{})
				go func() { defer close(poll); b.get("/poll") }()
				<-loaded
				time.Sleep(minute / 2)
				click := time.Now()
				if got := body(b.get("/click")); got != "alice" {
					t.Fatalf("logged in as %q, want alice", got)
				}
				close(goOn)
				<-poll
				records, err := spy.Store.List(t.Context(), "alice")
				if err != nil || len(records) != 1 {
					t.Fatal(records, err)
				}
				if r := records[0]; !r.LastSeen.Equal(click) || !r.Expires.Equal(click.Add(20*minute)) {
					t.Errorf("the click was %v ago, the session is stored as seen %v ago, with %v left", time.Since(click), time.Since(r.LastSeen), time.Until(r.Expires))
				}
				time.Sleep(19 * minute)
				if got := body(b.get("/click")); got != "alice" {
					t.Errorf("19 minutes after a click, of 20: logged in as %q, want alice", got)
				}
			})
		})
	}
}
