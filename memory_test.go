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

// big is the size of the values with which the tests below fill a store. A store of ten has
// room for ten such records, whatever their overhead, and not for eleven.
const big = 20_000

func storeOfTen() *session.MemoryStore {
	return session.NewMemoryStore(&session.MemoryOptions{MaxBytes: 10*big + big/2})
}

// memoryRecord returns a record that lives for an hour, with size bytes of Data.
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

// lives reports whether there is a record with this id, without loading it, because a load
// counts as use.
func lives(t testing.TB, s session.Store, id string) bool {
	t.Helper()
	const never = 0
	err := s.Save(t.Context(), memoryRecord(id, "", 0), never)
	if !errors.Is(err, session.ErrConflict) && !errors.Is(err, session.ErrNotFound) {
		t.Fatal(err)
	}
	return errors.Is(err, session.ErrConflict)
}

// TestMemoryIsBounded: promise 15. A crawler that creates a session with every request evicts
// neither the session of a visitor who has used it again, nor that of a logged-in user. If only
// those are left, new sessions are refused with 503.
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
	expect(visitor, "/look", 200, "0") // the last to be evicted
	newcomer := newBrowser(t, h)
	expect(newcomer, "/", 503, "")
	if newcomer.cookie() != "" {
		t.Fatal("a session that was refused has set a cookie")
	}
	for _, b := range append(users, user) {
		expect(b, "/look", 200, "1alice")
	}
	expect(user, "/", 200, "2alice") // a session that does not grow can be saved
	expect(user, "/logout", 200, "")
	expect(newcomer, "/", 200, "1")
	expect(newcomer, "/", 200, "2")
}

// TestEvictionOrder checks the order in which a full store evicts sessions as users log in.
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
				t.Fatalf("a store full of logged-in sessions returned %v", err)
			}
		}
		for _, id := range []string{"user1", "user2", "user3", "login0", "login1", "login2", "login3", "login4", "login5", "login6"} {
			if !lives(t, s, id) {
				t.Fatalf("%s was evicted although it was logged in", id)
			}
		}
	})
}

// TestLeastRecentlyUsedLeavesFirst checks that of many similar records the least recently used
// is evicted first, whichever shard contains it.
func TestLeastRecentlyUsedLeavesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 200
		s := session.NewMemoryStore(&session.MemoryOptions{MaxBytes: n * big})
		for i := range n {
			put(t, s, memoryRecord(fmt.Sprint(i), "", big-500)) // all fit
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
					t.Fatalf("after %d evictions in order, one was out of order", gone)
				}
			}
		}
		if gone < n/2 {
			t.Errorf("only %d were evicted for %d logins", gone, n-10)
		}
	})
}

// TestFullMemoryStoreGrowsAndEnds checks that a record may grow as long as another can be
// evicted, and needs no memory to end.
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

// TestEndingsNeedNoMemory checks that a full store can end sessions, although the tombstone of
// a small session is larger than the session. A renewal, which needs memory, is a 503.
func TestEndingsNeedNoMemory(t *testing.T) {
	for _, page := range []string{"/set", "/login"} {
		// fill returns a browser with a small session, in a store that other sessions
		// fill except for that session and n bytes less than a small record.
		fill := func(n int) (b *browser, fits bool) {
			s := storeOfTen()
			b = newBrowser(t, newManager(t, session.Options{Store: s}).Handler(clockRoutes))
			for i := range 100 { // more than can fit
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
			t.Fatalf("no filler of %d bytes is the largest that fits", n-1)
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
			t.Errorf("after a logout after %s the old cookie is valid", page)
		}
	}
}

// TestMemoryIsGivenBack checks that the memory of removed records is free again, however they
// were removed.
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

// TestExpiredLeaveAsNewOnesArrive checks that expired records are removed, with all their
// memory, when new records are created, without a sweep.
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

// TestMemoryDefaults checks the defaults of the zero options.
func TestMemoryDefaults(t *testing.T) {
	for _, o := range []*session.MemoryOptions{nil, {}} {
		if err := session.NewMemoryStore(o).Create(t.Context(), memoryRecord("id", "alice", 0)); err != nil {
			t.Error(err)
		}
	}
}

// TestMemoryListAtTheEnd checks that List does not return a record from the instant of its
// Expires on.
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

// TestMemoryCountsUsers checks that long user names count against MaxBytes, in the record and
// in the index.
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

// TestMemoryStoreKeepsNoRequestBody: promise 15. The memory that the store counts is the memory that
// it keeps: the id, the user and the data of a record do not keep a larger text alive from
// which they were cut, such as the body of a request.
func TestMemoryStoreKeepsNoRequestBody(t *testing.T) {
	body := strings.Repeat("user=alice&junk=", 1000)
	cutOut := func(text string) bool {
		begin, at := uintptr(unsafe.Pointer(unsafe.StringData(body))), uintptr(unsafe.Pointer(unsafe.StringData(text)))
		return len(text) > 0 && at >= begin && at < begin+uintptr(len(body))
	}
	user := body[5:10]
	if !cutOut(user) {
		t.Fatal("the test proves nothing")
	}
	check := func(when string, s session.Store, id string) {
		t.Helper()
		r, err := s.Load(t.Context(), id)
		if err != nil {
			t.Fatal(when, err)
		}
		if cutOut(r.ID) || cutOut(r.User) || cap(r.Data) > 100 {
			t.Errorf("%s: the store keeps the text from which the record was cut: ID %v, User %v, %d bytes of data in %d", when, cutOut(r.ID), cutOut(r.User), len(r.Data), cap(r.Data))
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
		t.Errorf("a store is given the user %q as a part of the body", kept.user)
	}
}

// keeper keeps the user of the last record that it was given.
type keeper struct {
	session.Store
	user string
}

func (k *keeper) Create(ctx context.Context, r *session.Record) error {
	k.user = r.User
	return k.Store.Create(ctx, r)
}
