package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"

	"github.com/coatcheck/session"
)

// big is the size of the values that the tests below fill a store with. A
// store of ten has room for ten such records, whatever their overhead, and for
// no more.
const big = 20_000

func storeOfTen() *session.MemoryStore {
	return session.NewMemoryStore(&session.MemoryOptions{MaxBytes: 10*big + big/2})
}

// memoryRecord returns a record that lives for an hour, with so many bytes of Data.
func memoryRecord(id, user string, size int) *session.Record {
	now := time.Now().Truncate(time.Millisecond)
	return &session.Record{
		ID: id, User: user, Data: make([]byte, size), Version: rand.Uint64()>>1 | 1,
		Created: now, LastSeen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour),
	}
}

// put stores a record, or fails the test.
func put(t testing.TB, s session.Store, r *session.Record) {
	t.Helper()
	if err := s.Create(t.Context(), r); err != nil {
		t.Fatalf("Create %s: %v", r.ID, err)
	}
}

// lives tells whether there is a record with this id, without loading it: a
// record that was loaded has come back.
func lives(t testing.TB, s session.Store, id string) bool {
	t.Helper()
	const never = 0
	err := s.Save(t.Context(), memoryRecord(id, "", 0), never)
	if !errors.Is(err, session.ErrConflict) && !errors.Is(err, session.ErrNotFound) {
		t.Fatal(err)
	}
	return errors.Is(err, session.ErrConflict)
}

// Promise 15, as a site sees it: a crawler that makes a new session with every
// request costs neither the visitor who came back nor the user who is logged in
// their sessions; and when only those are left, newcomers get a 503.
func TestMemoryIsBounded(t *testing.T) {
	blob := session.NewKey[string]("blob")
	m := newManager(t, session.Options{Store: storeOfTen()})
	h := m.Handler(routes{
		"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			blob.Set(s, string(slices.Repeat([]byte("x"), big)))
			visits.Update(s, func(n int) int { return n + 1 })
			fmt.Fprint(w, visits.Get(s), s.User())
		},
		"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, visits.Get(s), s.User())
		},
		"/login":  func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice") },
		"/logout": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Logout() },
	})
	expect := func(b *browser, path string, status int, want string) {
		t.Helper()
		resp := b.get(path)
		if got := body(resp); resp.StatusCode != status || status == http.StatusOK && got != want {
			t.Fatalf("GET %s: %d %q, want %d %q", path, resp.StatusCode, got, status, want)
		}
	}
	user, visitor := newBrowser(t, h), newBrowser(t, h)
	expect(user, "/", 200, "1")
	expect(user, "/login", 200, "")
	expect(visitor, "/", 200, "1")
	expect(visitor, "/", 200, "2")
	for range 100 {
		expect(newBrowser(t, h), "/", 200, "1")
	}
	expect(user, "/look", 200, "1alice")
	expect(visitor, "/look", 200, "2")

	var users []*browser
	for range 9 {
		b := newBrowser(t, h)
		expect(b, "/login", 200, "")
		expect(b, "/", 200, "1alice")
		users = append(users, b)
	}
	expect(visitor, "/look", 200, "0") // the last to go
	newcomer := newBrowser(t, h)
	expect(newcomer, "/", 503, "")
	if newcomer.cookie() != "" {
		t.Fatal("a session that was refused got a cookie")
	}
	for _, b := range append(users, user) {
		expect(b, "/look", 200, "1alice")
	}
	expect(user, "/", 200, "2alice") // no bigger than before
	expect(user, "/logout", 200, "")
	expect(newcomer, "/", 200, "1")
	expect(newcomer, "/", 200, "2")
}

// Whom a full store evicts, one after the other, as users log in.
func TestEvictionOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storeOfTen()
		for _, id := range []string{"back1", "new1", "user1", "expired", "back2", "new2", "user2", "new3", "back3", "user3"} {
			r := memoryRecord(id, "", big)
			switch id {
			case "user1", "user2", "user3":
				r.User = id
			case "expired":
				r.User, r.Expires = "logged in", r.Created.Add(time.Minute)
			}
			put(t, s, r)
			time.Sleep(time.Second)
		}
		for _, id := range []string{"back1", "back3", "back2", "back1", "user1"} {
			if _, err := s.Load(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)

		left := []string{"expired", "new1", "new2", "new3", "back3", "back2", "back1"}
		for i := range left {
			put(t, s, memoryRecord(fmt.Sprint("login", i), "somebody", big))
			for j, id := range left {
				if lives(t, s, id) != (j > i) && id != "expired" {
					t.Fatalf("after %d logins %s lives: %v", i+1, id, j <= i)
				}
			}
		}
		for _, newcomer := range []*session.Record{memoryRecord("late", "late", big), memoryRecord("late", "", big)} {
			if err := s.Create(t.Context(), newcomer); err == nil || errors.Is(err, session.ErrExists) || lives(t, s, "late") {
				t.Fatalf("a store full of logged-in sessions answered %v", err)
			}
		}
		for _, id := range []string{"user1", "user2", "user3", "login0", "login1", "login2", "login3", "login4", "login5", "login6"} {
			if !lives(t, s, id) {
				t.Fatalf("%s was evicted although it was logged in", id)
			}
		}
	})
}

// Of many alike the least recently used goes first, wherever it is kept.
func TestLeastRecentlyUsedLeavesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		s := session.NewMemoryStore(&session.MemoryOptions{MaxBytes: n * big})
		for i := range n {
			put(t, s, memoryRecord(fmt.Sprint(i), "", big-500)) // all have room
		}
		order := rand.Perm(n)
		for _, i := range order {
			time.Sleep(time.Microsecond)
			if _, err := s.Load(t.Context(), fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		gone := 0
		for at := range n - 10 {
			put(t, s, memoryRecord(fmt.Sprint("login", at), "alice", big-600))
			for !lives(t, s, fmt.Sprint(order[gone])) {
				gone++
			}
			for _, i := range order[gone:] {
				if !lives(t, s, fmt.Sprint(i)) {
					t.Fatalf("after %d that went in order, one went before its turn", gone)
				}
			}
		}
		if gone < n/2 {
			t.Errorf("only %d were evicted for %d logins", gone, n-10)
		}
	})
}

// A record may grow as long as there is somebody to evict, and never needs
// memory to end.
func TestFullMemoryStoreGrowsAndEnds(t *testing.T) {
	s := storeOfTen()
	for i := range 9 {
		put(t, s, memoryRecord(fmt.Sprint("user", i), "alice", big))
	}
	put(t, s, memoryRecord("crawler", "", big))
	save := func(id, user string, size int) error {
		r, err := s.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		next := memoryRecord(id, user, size)
		return s.Save(t.Context(), next, r.Version)
	}
	if err := save("user0", "alice", 2*big); err != nil || lives(t, s, "crawler") {
		t.Fatalf("growing at the cost of an anonymous session: %v", err)
	}
	if err := save("user1", "alice", 2*big); err == nil {
		t.Fatal("a full store let a record grow")
	}
	if r, err := s.Load(t.Context(), "user1"); err != nil || len(r.Data) != big {
		t.Fatalf("a record that could not grow is %v, %v", r, err)
	}
	if err := save("user1", "alice", big); err != nil {
		t.Fatalf("saving a record that does not grow: %v", err)
	}
	if err := s.Touch(t.Context(), "user1", time.Now(), time.Now()); err != nil {
		t.Fatalf("Touch: %v", err)
	}
	if err := save("user1", "", 20); err != nil { // a tombstone
		t.Fatalf("ending a session: %v", err)
	}
	if err := s.Delete(t.Context(), "user2"); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	put(t, s, memoryRecord("next1", "bob", big))
	put(t, s, memoryRecord("next2", "bob", big))
}

// A store without a byte to spare still ends sessions, though the tombstone of a
// small one is bigger than itself. A renewal, which needs room, is a 503.
func TestEndingsNeedNoMemory(t *testing.T) {
	for _, page := range []string{"/set", "/login"} {
		// fill returns a browser with a small session, in a store full of others
		// but for that session and n bytes less than a small record.
		fill := func(n int) (b *browser, fits bool) {
			s := storeOfTen()
			b = newBrowser(t, newManager(t, session.Options{Store: s}).Handler(clockRoutes))
			for i := range 100 { // more than fit
				s.Create(t.Context(), memoryRecord(fmt.Sprint("user", i), "bob", big/10))
			}
			s.Delete(t.Context(), "user0")
			b.get(page)
			id := body(b.get("/id"))
			err := s.Create(t.Context(), memoryRecord("filler", "bob", n))
			return b, err == nil && lives(t, s, id)
		}
		n := sort.Search(big, func(n int) bool { _, fits := fill(n); return !fits })
		b, fits := fill(n - 1)
		if !fits || n == 0 || n == big {
			t.Fatalf("no filler of %d bytes is the largest", n-1)
		}
		held := b.cookie()
		if page == "/login" {
			if resp := b.get("/renew"); resp.StatusCode != http.StatusServiceUnavailable || body(b.get("/id")) == "" {
				t.Errorf("a renewal without room for it: %d", resp.StatusCode)
			}
		}
		if resp := b.get("/logout"); resp.StatusCode != http.StatusOK {
			t.Errorf("a logout after %s: %d", page, resp.StatusCode)
		}
		if id := body(b.replay(held).get("/id")); id != "" {
			t.Errorf("after a logout after %s the old cookie lives", page)
		}
	}
}

// Whatever happens to records, the room of those that left is free again.
func TestMemoryIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storeOfTen()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 1000 {
					r := memoryRecord(fmt.Sprint(rand.N(20)), []string{"", "", "alice"}[rand.N(3)], rand.N(2*big))
					switch is, _ := s.Load(t.Context(), r.ID); rand.N(5) {
					case 0, 1:
						s.Create(t.Context(), r)
					case 2, 3:
						if is != nil {
							s.Save(t.Context(), r, is.Version)
						}
					case 4:
						s.Delete(t.Context(), r.ID)
					}
				}
			})
		}
		all.Wait()
		for id := range 10 {
			s.Delete(t.Context(), fmt.Sprint(id))
		}
		time.Sleep(time.Hour) // the other ten expire
		for i := range 10 {
			put(t, s, memoryRecord(fmt.Sprint("user", i), "alice", big))
		}
		if s.Create(t.Context(), memoryRecord("user10", "alice", big)) == nil {
			t.Error("an eleventh record found room in a store of ten")
		}
	})
}

// Expired records leave, and with them every byte, as new ones arrive: nobody
// has to sweep.
func TestExpiredLeaveAsNewOnesArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := session.NewMemoryStore(nil)
		var old []weak.Pointer[byte]
		for i := range 2000 {
			r := memoryRecord(fmt.Sprintf("old%0100d", i), []string{"", "alice"}[i%2], 100)
			old = append(old, weak.Make(&r.Data[0]), weak.Make(unsafe.StringData(r.ID)))
			put(t, s, r)
		}
		time.Sleep(time.Hour)
		for i := range 1000 {
			put(t, s, memoryRecord(fmt.Sprint("new", i), "", 100))
		}
		runtime.GC()
		kept := 0
		for _, p := range old {
			if p.Value() != nil {
				kept++
			}
		}
		if kept > 0 {
			t.Errorf("%d of %d ids and Data of expired records are still in memory", kept, len(old))
		}
		runtime.KeepAlive(s)
	})
}

func TestMemoryStoreStartsNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 10 {
		s := session.NewMemoryStore(nil)
		put(t, s, memoryRecord("a", "alice", 1))
		if _, err := s.List(t.Context(), "alice"); err != nil {
			t.Fatal(err)
		}
	}
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, there were %d", after, before)
	}
}

// The zero options are the defaults.
func TestMemoryDefaults(t *testing.T) {
	for _, o := range []*session.MemoryOptions{nil, {}} {
		if err := session.NewMemoryStore(o).Create(t.Context(), memoryRecord("id", "alice", 0)); err != nil {
			t.Error(err)
		}
	}
}

// From the instant on at which it expires, a record is in no list.
func TestMemoryListAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := session.NewMemoryStore(nil)
		r := memoryRecord("id", "alice", 0)
		r.Expires = time.Now().Add(time.Second)
		if err := m.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second - time.Millisecond)
		if rs, err := m.List(t.Context(), "alice"); err != nil || len(rs) != 1 {
			t.Errorf("a millisecond before: %d records, %v", len(rs), err)
		}
		time.Sleep(time.Millisecond)
		if rs, err := m.List(t.Context(), "alice"); err != nil || len(rs) != 0 {
			t.Errorf("at the end: %d records, %v", len(rs), err)
		}
	})
}

// Long user names count against MaxBytes, in the record and in the index.
func TestMemoryCountsUsers(t *testing.T) {
	const most, name = 4 << 20, 500
	m := session.NewMemoryStore(&session.MemoryOptions{MaxBytes: most})
	n := 0
	for ; ; n++ {
		user := fmt.Sprint(n, strings.Repeat("x", name))
		if m.Create(t.Context(), memoryRecord(fmt.Sprint("id", n), user, 0)) != nil {
			break
		}
	}
	if n == 0 || n*2*name > most {
		t.Errorf("%d sessions of names of %d bytes in %d bytes", n, name, most)
	}
}

// Promise 15. What the store counts is what it holds: the id, the user and the data of
// a record keep no larger text alive that they were cut out of, such as a request's body.
func TestMemoryStoreKeepsNoBody(t *testing.T) {
	body := strings.Repeat("user=alice&junk=", 1000)
	cutOut := func(text string) bool {
		begin, at := uintptr(unsafe.Pointer(unsafe.StringData(body))), uintptr(unsafe.Pointer(unsafe.StringData(text)))
		return len(text) > 0 && at >= begin && at < begin+uintptr(len(body))
	}
	user := body[5:10]
	if !cutOut(user) {
		t.Fatal("the test finds nothing")
	}
	check := func(when string, s session.Store, id string) {
		t.Helper()
		r, err := s.Load(t.Context(), id)
		if err != nil {
			t.Fatal(when, err)
		}
		if cutOut(r.ID) || cutOut(r.User) || cap(r.Data) > 100 {
			t.Errorf("%s: the store holds what the record was cut out of: ID %v, User %v, %d bytes of data in %d", when, cutOut(r.ID), cutOut(r.User), len(r.Data), cap(r.Data))
		}
	}
	s := session.NewMemoryStore(nil)
	data := append(make([]byte, 0, 10_000), "{}"...)
	rec := memoryRecord(body[16:26], "", 0)
	rec.Data = data
	put(t, s, rec)
	check("Create of an anonymous one", s, rec.ID)
	rec = memoryRecord(body[5:15], user, 0)
	rec.Data = data
	put(t, s, rec)
	check("Create", s, rec.ID)
	for _, user := range []string{user, "", user} {
		next := *rec
		next.User, next.Version = user, rec.Version+1
		if err := s.Save(t.Context(), &next, rec.Version); err != nil {
			t.Fatal(err)
		}
		rec = &next
		check("Save", s, rec.ID)
	}

	kept := &keeper{Store: session.NewMemoryStore(nil)}
	m := newManager(t, session.Options{Store: kept})
	newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login(user) }})).get("/")
	if kept.user != user || cutOut(kept.user) {
		t.Errorf("a store gets the user %q as a part of the body", kept.user)
	}
}

// A keeper keeps the user of a record that it is given.
type keeper struct {
	session.Store
	user string
}

func (k *keeper) Create(ctx context.Context, r *session.Record) error {
	k.user = r.User
	return k.Store.Create(ctx, r)
}
