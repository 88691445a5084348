package session_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// plainTokens is a TokenFormat whose tokens are an id and a fixed mark. It stands for another
// program.
type plainTokens struct{ verified atomic.Int64 }

func (f *plainTokens) New() (token, id string) {
	id = rand.Text()
	return "good." + id, id
}

func (f *plainTokens) Verify(token string) (id string, ok bool) {
	f.verified.Add(1)
	return strings.CutPrefix(token, "good.")
}

// keyless returns a Manager with such tokens.
func keyless(t testing.TB, o session.Options) *session.Manager {
	if o.Tokens == nil {
		o.Tokens = &plainTokens{}
	}
	m, err := session.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// everyRenewal are the routes that, with the tokens of this package, give alice another token.
var everyRenewal = []string{"/renew", "/remember", "/again"}

// TestForeignTokenStays checks that a token without a key is kept: Renew changes nothing,
// Remember sets the end and sends the cookie again, and a Login of the same user restarts the
// clocks.
func TestForeignTokenStays(t *testing.T) {
	for path, want := range map[string]struct {
		saves    int
		age      time.Duration // age of AuthTime half an hour later
		deadline time.Duration // time to the absolute end at that time
		sends    bool
		events   map[session.EventKind]int
	}{
		"/renew":    {0, 40 * minute, day - 40*minute, false, nil},
		"/remember": {1, 40 * minute, 30*day - 30*minute, true, nil},
		"/again":    {1, 30 * minute, day - 30*minute, false, map[session.EventKind]int{session.EventLoggedIn: 1}},
	} {
		t.Run(path, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spy := newSpy()
				var log events
				m := keyless(t, session.Options{Store: spy, OnEvent: log.on})
				shop := maps.Clone(endRoutes)
				shop["/state"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
					fmt.Fprintf(w, "%s %s %s %v %v", s.ID(), s.User(), name.Get(s), time.Since(s.AuthTime()), s.Err())
				}
				b := newBrowser(t, m.Handler(shop))
				b.get("/set")
				b.get("/login")
				id, _, _ := strings.Cut(body(b.get("/state")), " ")
				before, saves := b.cookie(), spy.count("Save")
				log.all = nil
				time.Sleep(10 * minute)
				resp := b.get(path)
				if n := spy.count("Save") - saves; n != want.saves {
					t.Errorf("%d Saves", n)
				}
				if sent := resp.Header.Get("Set-Cookie"); (sent != "") != want.sends || sent != "" && !strings.Contains(sent, "; Max-Age=2592000;") {
					t.Errorf("Set-Cookie is %q", sent)
				}
				if b.cookie() != before {
					t.Error("the token was replaced")
				}
				for _, kind := range []session.EventKind{session.EventLoggedIn, session.EventRenewed, session.EventDropped, session.EventReplayed} {
					if n := log.count(kind); n != want.events[kind] {
						t.Errorf("%d of %s", n, kind)
					}
				}
				time.Sleep(30 * minute)
				if got := body(b.replay(before).get("/state")); got != fmt.Sprintf("%s alice value %v <nil>", id, want.age) {
					t.Error(got)
				}
				records, err := spy.List(t.Context(), "alice")
				if err != nil || len(records) != 1 || time.Until(records[0].Deadline) != want.deadline {
					t.Error(records, err)
				}
			})
		})
	}
}

// TestLateForeignRenewal checks that a Renew, which needs no cookie, is not too late after the
// first byte, and that the others are.
func TestLateForeignRenewal(t *testing.T) {
	m := keyless(t, session.Options{})
	shop := maps.Clone(endRoutes)
	for _, path := range everyRenewal {
		shop["/late"+path] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			fmt.Fprint(w, "begins; ")
			endRoutes[path](w, r, s)
			fmt.Fprint(w, s.Err() != nil)
		}
	}
	b := newBrowser(t, m.Handler(shop))
	b.get("/login")
	for path, isLate := range map[string]bool{"/renew": false, "/remember": true, "/again": true} {
		if got := body(b.get("/late" + path)); got != fmt.Sprint("begins; ", isLate) {
			t.Errorf("%s: %s", path, got)
		}
	}
}

// TestForeignLoginTakesAnotherToken checks that a Login from an anonymous session or as another
// user creates another id. The old token is replaced immediately, for in-flight requests too.
// Only the Logout of a request that had loaded the session before ends the new one.
func TestForeignLoginTakesAnotherToken(t *testing.T) {
	for _, first := range []string{"/set", "/bob"} {
		for _, logsOut := range []bool{false, true} {
			var log events
			m := keyless(t, session.Options{OnEvent: log.on})
			shop, g := maps.Clone(endRoutes), newGate()
			shop["/slow"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				user := s.User()
				g.pass()
				if s.Err() != nil || s.User() != user {
					t.Errorf("%s: sees %q, %v", first, s.User(), s.Err())
				}
				visits.Set(s, 7)
				if err := s.Save(r.Context()); err != session.ErrReplaced {
					t.Errorf("%s: Save: %v", first, err)
				}
				if logsOut {
					s.Logout()
				}
			}
			shop["/state"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				fmt.Fprintf(w, "%q %q %d %v", s.User(), name.Get(s), visits.Get(s), s.Err())
			}
			b := newBrowser(t, m.Handler(shop))
			b.get(first)
			before := b.cookie()
			old := b.replay(before)
			g.during(old, "/slow", func() { b.get("/login") })
			if b.cookie() == before {
				t.Errorf("%s: the token stays", first)
			}
			if got := body(b.replay(before).get("/state")); got != fmt.Sprintf(`"" "" 0 %v`, session.ErrReplaced) {
				t.Errorf("%s: the old token sees %s", first, got)
			}
			b.replay(before).get("/logout") // ends nothing, because the request had not loaded the session before
			want := map[string]string{"/set": `"alice" "value" 0 <nil>`, "/bob": `"alice" "" 0 <nil>`}[first]
			if logsOut {
				want = `"" "" 0 <nil>`
			}
			if got := body(b.get("/state")); got != want {
				t.Errorf("%s, Logout %v: the new token sees %s, want %s", first, logsOut, got, want)
			}
			if n := log.count(session.EventDropped); n != 1 {
				t.Errorf("%s: %d dropped", first, n)
			}
		}
	}
}

// TestForeignLoginMeetsALoginOfAnotherProgram covers a Login during which another program gives
// the session to another user under the same id. An anonymous session ends, to whichever user it was
// given, because its id may be planted. A session that was taken from its user is left to
// the new user.
func TestForeignLoginMeetsALoginOfAnotherProgram(t *testing.T) {
	for _, c := range []struct{ first, other, want string }{
		{"/set", "alice", "alice's has value, then \"\""},
		{"/set", "carol", "alice's has value, then \"\""},
		{"/bob", "carol", "alice's has , then \"carol\""},
		{"/bob", "alice", "alice's has , then \"alice\""},
		{"/bob", "", "alice's has , then \"\""},
	} {
		spy := newSpy()
		m := keyless(t, session.Options{Store: spy})
		shop := maps.Clone(endRoutes)
		shop["/name"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprintf(w, "%s's has %s", s.User(), name.Get(s))
		}
		b := newBrowser(t, m.Handler(shop))
		b.get(c.first)
		old := b.replay(b.cookie())
		spy.hook(once(spy, "Save", func(context.Context) { give(t, spy.Store, old.cookie(), c.other) }))
		if resp := b.get("/login"); resp.StatusCode != 200 || b.cookie() == old.cookie() {
			t.Errorf("%v: %s, %v", c, resp.Status, resp.Header)
		}
		if got := fmt.Sprintf("%s, then %q", body(b.get("/name")), body(old.get("/look"))); got != c.want {
			t.Errorf("%v: %s", c, got)
		}
	}
}

// TestForeignRememberStays checks that the end of a Remember is kept, whatever other calls
// follow.
func TestForeignRememberStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		b := newBrowser(t, keyless(t, session.Options{Store: spy}).Handler(endRoutes))
		for _, path := range []string{"/login", "/remember", "/renew", "/again"} {
			b.get(path)
		}
		if records, _ := spy.List(t.Context(), "alice"); len(records) != 1 || time.Until(records[0].Deadline) < 29*day {
			t.Errorf("%v", records)
		}
	})
}

// TestChangesOverlapAForeignRenewal checks that twenty in-flight requests keep their changes
// when the user logs in again, or the session is renewed or remembered. None sets a cookie.
func TestChangesOverlapAForeignRenewal(t *testing.T) {
	for _, path := range everyRenewal {
		const n = 20
		spy := newSpy()
		var log events
		m := keyless(t, session.Options{Store: spy, OnEvent: log.on})
		shop := maps.Clone(endRoutes)
		var loaded sync.WaitGroup
		loaded.Add(n)
		renewed := make(chan struct{})
		shop["/write"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			loaded.Done()
			<-renewed
			session.NewKey[bool]("key "+r.URL.RawQuery).Set(s, true)
			if err := s.Save(r.Context()); err != nil || s.User() != "alice" {
				t.Errorf("%s: a slow request is logged in as %q: %v", path, s.User(), err)
			}
		}
		shop["/keys"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, s.User(), len(s.Names()))
		}
		b := newBrowser(t, overTheWire(t, m.Handler(shop)))
		b.get("/login")
		slow := make(chan []*http.Response)
		go func() { slow <- together(b, n, func(i int) string { return fmt.Sprint("/write?", i) }) }()
		loaded.Wait()
		b.get(path)
		close(renewed)
		for _, resp := range <-slow {
			if resp.StatusCode != 200 || setsCookie(resp) {
				t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
			}
		}
		if got := body(b.get("/keys")); got != fmt.Sprint("alice", n) {
			t.Errorf("%s: %s writes were kept, of %d", path, got, n)
		}
		if n := log.count(session.EventDropped); n != 0 {
			t.Errorf("%s: %d dropped", path, n)
		}
	}
}

// TestParallelForeignRenewals checks that many concurrent renewals leave one session, with the
// token of the browser.
func TestParallelForeignRenewals(t *testing.T) {
	for _, path := range everyRenewal {
		const n = 20
		spy := newSpy()
		m := keyless(t, session.Options{Store: spy})
		shop := maps.Clone(endRoutes)
		var loaded sync.WaitGroup
		loaded.Add(n)
		shop["/all"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			loaded.Done()
			loaded.Wait()
			session.NewKey[bool]("key "+r.URL.RawQuery).Set(s, true)
			endRoutes[path](w, r, s)
		}
		shop["/keys"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, s.User(), len(s.Names()))
		}
		b := newBrowser(t, overTheWire(t, m.Handler(shop)))
		b.get("/login")
		before := b.cookie()
		for _, resp := range together(b, n, func(i int) string { return fmt.Sprint("/all?", i) }) {
			if resp.StatusCode != 200 || setsCookie(resp) != (path == "/remember") {
				t.Error(path, resp.Status, resp.Header)
			}
		}
		if live, err := spy.List(t.Context(), "alice"); b.cookie() != before || len(live) != 1 || err != nil {
			t.Errorf("%s: another token: %v, %d live records, %v", path, b.cookie() != before, len(live), err)
		}
		if got := body(b.get("/keys")); got != fmt.Sprint("alice", n) {
			t.Errorf("%s: %s writes were kept, of %d", path, got, n)
		}
	}
}

// TestLogoutOverlapsAForeignRenewal checks that no renewal survives a concurrent Logout or
// Revoke, in any order.
func TestLogoutOverlapsAForeignRenewal(t *testing.T) {
	for _, c := range []struct{ slow, meanwhile string }{
		{"/renew", "/logout"}, {"/remember", "/logout"}, {"/logout", "/renew"}, {"/logout", "/again"}, {"/logout", "/remember"}, {"/renew", ""}, {"/revoke", "/renew"},
	} {
		spy := newSpy()
		m := keyless(t, session.Options{Store: spy})
		shop, g := maps.Clone(endRoutes), newGate()
		shop["/slow"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			id := s.ID()
			g.pass()
			if c.slow == "/revoke" {
				if err := m.Revoke(r.Context(), "alice", id); err != nil {
					t.Error(err)
				}
				return
			}
			endRoutes[c.slow](w, r, s)
		}
		b := newBrowser(t, m.Handler(shop))
		b.get("/login")
		first := b.cookie()
		g.during(b, "/slow", func() {
			if c.meanwhile == "" {
				if err := m.RevokeAll(t.Context(), "alice"); err != nil {
					t.Error(err)
				}
				return
			}
			b.replay(first).get(c.meanwhile)
		})
		if live, err := spy.List(t.Context(), "alice"); len(live) != 0 || err != nil {
			t.Errorf("%s during %s: %d live records, %v", c.meanwhile, c.slow, len(live), err)
		}
		if got := body(b.get("/look")) + body(b.replay(first).get("/look")); got != "" {
			t.Errorf("%s during %s: logged in as %q", c.meanwhile, c.slow, got)
		}
	}
}

// TestForeignLoginAsAnother checks that a Login as another user ends the session for in-flight
// requests, as with the tokens of this package.
func TestForeignLoginAsAnother(t *testing.T) {
	var log events
	m := keyless(t, session.Options{OnEvent: log.on})
	shop, g := maps.Clone(endRoutes), newGate()
	shop["/slow"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.User()
		g.pass()
		name.Set(s, "alice's")
		if err := s.Save(r.Context()); !errors.Is(err, session.ErrReplaced) {
			t.Error(err)
		}
	}
	b := newBrowser(t, m.Handler(shop))
	b.get("/login")
	before := b.cookie()
	g.during(b.replay(before), "/slow", func() { b.get("/bob") })
	b.h = m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		if s.User() != "bob" || name.Get(s) != "" {
			t.Errorf("logged in as %q with %q", s.User(), name.Get(s))
		}
	}})
	b.get("/")
	if log.count(session.EventDropped) != 1 {
		t.Error(log.all)
	}
}

// TestDoneOverForeignRenewals checks that Done stays open while the token is kept, in this
// process and another, and is closed when the session ends.
func TestDoneOverForeignRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		o := session.Options{Store: spy, IdleTimeout: 20 * minute, WatchEvery: minute}
		here, there := keyless(t, o), keyless(t, o)
		b := newBrowser(t, here.Handler(endRoutes))
		b.get("/login")
		streams := []*stream{b.listen(here), b.listen(there)}
		for _, at := range []*session.Manager{here, there} {
			for _, path := range everyRenewal {
				b.at(at).get(path)
				time.Sleep(2 * minute)
			}
		}
		for _, st := range streams {
			if st.String() != "open" {
				t.Error(st)
			}
		}
		b.get("/logout")
		time.Sleep(minute)
		for _, st := range streams {
			if st.String() == "open" {
				t.Error("Done is open after the Logout")
			}
			<-st.stopped
		}
	})
}

// TestForeignDoneAsksInItsTurn checks that Done costs no Load but the periodic ones.
func TestForeignDoneAsksInItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		m := keyless(t, session.Options{Store: spy})
		b := newBrowser(t, m.Handler(endRoutes))
		b.get("/login")
		time.Sleep(minute)
		loads := spy.count("Load")
		st := b.listen(m)
		time.Sleep(10*watchEvery + 1)
		if n := spy.count("Load") - loads; n != 11 { // includes that of the request
			t.Errorf("%d loads", n)
		}
		st.hangUp()
		<-st.stopped
	})
}

// TestDoneOfAForeignSessionThatIsTaken checks that Done is closed within WatchEvery when
// another program gives the session to another user, or to none, under the same id. Done of an
// anonymous session is not closed.
func TestDoneOfAForeignSessionThatIsTaken(t *testing.T) {
	for _, c := range []struct {
		path, user string
		closes     bool
	}{{"/login", "bob", true}, {"/login", "", true}, {"/login", "alice", false}, {"/set", "bob", false}} {
		synctest.Test(t, func(t *testing.T) {
			store := session.NewMemoryStore(nil)
			m := keyless(t, session.Options{Store: store})
			b := newBrowser(t, m.Handler(endRoutes))
			b.get(c.path)
			time.Sleep(minute)
			st := b.listen(m)
			give(t, store, b.cookie(), c.user)
			late := b.listen(m) // opened after the session was given away
			time.Sleep(watchEvery)
			if synctest.Wait(); (st.String() != "open") != c.closes || late.String() != "open" {
				t.Errorf("%+v: %s; a later one: %s", c, st, late)
			}
			st.hangUp()
			late.hangUp()
			<-st.stopped
			<-late.stopped
		})
	}
}

// give gives the session of a plainTokens cookie to another user, as another program does.
func give(t testing.TB, store session.Store, cookie, user string) {
	t.Helper()
	_, id, _ := strings.Cut(cookie, "good.")
	rec, err := store.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	given := *rec
	given.User, given.Version = user, rec.Version^1
	if err := store.Save(t.Context(), &given, rec.Version); err != nil {
		t.Fatal(err)
	}
}

// TestLostReplyToAForeignLogin covers a Login whose Save of the old session's tombstone has an
// unknown outcome. If it was applied, the Login succeeds. If not, the old session continues.
func TestLostReplyToAForeignLogin(t *testing.T) {
	for _, applied := range []bool{true, false} {
		spy := newSpy()
		m := keyless(t, session.Options{Store: spy})
		b := newBrowser(t, m.Handler(endRoutes))
		b.get("/bob")
		if applied {
			spy.hookAfter(lost("Save"))
		} else {
			spy.hook(failing("Save", session.ErrIndeterminate))
		}
		if resp := b.get("/login"); (resp.StatusCode == 200) != applied {
			t.Errorf("applied=%v: status %s", applied, resp.Status)
		}
		spy.hookAfter(nil)
		spy.hook(nil)
		want := map[bool]string{true: "alice", false: "bob"}[applied]
		if got := body(b.get("/look")); got != want {
			t.Errorf("applied=%v: afterwards %q", applied, got)
		}
		for _, user := range []string{"alice", "bob"} {
			if all, err := m.List(t.Context(), user); err != nil || len(all) != map[bool]int{true: 1}[user == want] {
				t.Errorf("applied=%v: %d sessions of %s, %v", applied, len(all), user, err)
			}
		}
	}
}

// TestForeignReload checks that a Reload keeps the session after calls that keep the token, and
// finds it replaced after a Login as another user.
func TestForeignReload(t *testing.T) {
	for _, path := range append([]string{"/bob"}, everyRenewal...) {
		m := keyless(t, session.Options{})
		shop, g := maps.Clone(endRoutes), newGate()
		shop["/slow"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			g.pass()
			user, want := "alice", error(nil)
			if path == "/bob" {
				user, want = "", session.ErrReplaced
			}
			if err := s.Reload(r.Context()); err != want || s.User() != user {
				t.Errorf("%s: %q, %v", path, s.User(), err)
			}
		}
		b := newBrowser(t, m.Handler(shop))
		b.get("/login")
		g.during(b.replay(b.cookie()), "/slow", func() { b.get(path) })
	}
}

// TestForeignRefresh checks that Refresh calls f once, even if the user logs in again
// meanwhile.
func TestForeignRefresh(t *testing.T) {
	m := keyless(t, session.Options{})
	var calls atomic.Int64
	key := session.NewKey[string]("tokens")
	shop := maps.Clone(endRoutes)
	inside, again := make(chan struct{}), make(chan struct{})
	shop["/refresh"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		v, err := key.Refresh(r.Context(), s, func(v string) bool { return v != "" }, func(context.Context, string) (string, error) {
			calls.Add(1)
			close(inside)
			<-again
			return "new", nil
		})
		if v != "new" || err != nil {
			t.Error(v, err)
		}
	}
	shop["/value"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, key.Get(s)) }
	b := newBrowser(t, m.Handler(shop))
	b.get("/login")
	old, done := b.replay(b.cookie()), make(chan bool)
	go func() { old.get("/refresh"); done <- true }()
	<-inside
	b.get("/again")
	go func() { b.get("/refresh"); done <- true }()
	close(again)
	<-done
	<-done
	if got := body(b.get("/value")); got != "new" || calls.Load() != 1 {
		t.Errorf("%q, after %d calls", got, calls.Load())
	}
}

// TestForeignRefreshThatFails checks that a request that waits for the Refresh of another
// continues when the user logs in again, and calls f if the other request has failed.
func TestForeignRefreshThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keyless(t, session.Options{})
		key := session.NewKey[string]("tokens")
		shop := maps.Clone(endRoutes)
		inside, fail := make(chan struct{}), make(chan struct{})
		refresh := func(r *http.Request, s *session.Session, f func(context.Context, string) (string, error)) (string, error) {
			return key.Refresh(r.Context(), s, func(v string) bool { return v != "" }, f)
		}
		shop["/fails"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			_, err := refresh(r, s, func(context.Context, string) (string, error) {
				close(inside)
				<-fail
				return "", errDown
			})
			if err != errDown {
				t.Error(err)
			}
		}
		loaded := make(chan struct{})
		shop["/waits"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			close(loaded)
			v, err := refresh(r, s, func(context.Context, string) (string, error) { return "new", nil })
			if v != "new" || err != nil {
				t.Errorf("%q, %v", v, err)
			}
		}
		b := newBrowser(t, m.Handler(shop))
		b.get("/login")
		done := make(chan bool)
		go func(b *browser) { b.get("/fails"); done <- true }(b.replay(b.cookie()))
		<-inside
		go func(b *browser) { b.get("/waits"); done <- true }(b.replay(b.cookie()))
		<-loaded
		time.Sleep(20 * time.Millisecond) // the request has seen the lease
		b.get("/again")
		time.Sleep(50 * time.Millisecond) // the request has seen the session after the Login
		close(fail)
		<-done
		<-done
	})
}

// TestForeignCookies checks that of several cookies of the name the first counts, as in the
// other program, and that a valid cookie is verified once.
func TestForeignCookies(t *testing.T) {
	tokens, spy := &plainTokens{}, newSpy()
	m := keyless(t, session.Options{Tokens: tokens, Cookie: session.CookieOptions{Name: "other.sid"}})
	b := newBrowser(t, m.Handler(endRoutes))
	resp := b.get("/login")
	good, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	if !strings.HasPrefix(good, "other.sid=good.") {
		t.Fatal(good)
	}
	for _, c := range []struct{ header, want string }{
		{good, "alice"},
		{"a=1; " + good + "; b=2", "alice"},
		{good + "; other.sid=bad", "alice"},
		{"other.sid=bad; " + good, ""},
		{"other.sid=; " + good, ""},
		{"other.sid=good." + strings.Repeat("x", 2000), ""},
		{"other.sid=good." + strings.Repeat("x", 129), ""},
		{"other.sid=good.", ""},
		{strings.ToUpper(good), ""},
	} {
		r := b.request("/look")
		r.Header.Set("Cookie", c.header)
		if resp := newBrowser(t, b.h).do(r); body(resp) != c.want || setsCookie(resp) {
			t.Errorf("%.60q: %v, want %q", c.header, resp.Header, c.want)
		}
	}
	// A value that is too long is neither verified nor looked up.
	m = keyless(t, session.Options{Tokens: tokens, Store: spy, Cookie: session.CookieOptions{Name: "other.sid"}})
	for value, verified := range map[string]int64{"good." + strings.Repeat("x", 2000): 0, "good." + strings.Repeat("x", 129): 1} {
		tokens.verified.Store(0)
		r := b.request("/look")
		r.Header.Set("Cookie", "other.sid="+value)
		newBrowser(t, m.Handler(endRoutes)).do(r)
		if n := tokens.verified.Load(); n != verified || spy.count("") != 0 {
			t.Errorf("%d bytes: verified %d times, %d calls of the store", len(value), n, spy.count(""))
		}
	}
	tokens.verified.Store(0)
	for range 10 {
		b.get("/look")
	}
	if n := tokens.verified.Load(); n != 0 {
		t.Errorf("a cookie that was verified before was verified %d times", n)
	}
	if uses := m.SecretUses(); uses != nil {
		t.Error(uses)
	}
}

// TestForeignTokenOpensNoRecordWithAKey checks that a token without a key cannot open a record
// with a key.
func TestForeignTokenOpensNoRecordWithAKey(t *testing.T) {
	spy := newSpy()
	ours := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(endRoutes))
	ours.get("/login")
	records, _ := spy.List(t.Context(), "alice")
	theirs := newBrowser(t, keyless(t, session.Options{Store: spy}).Handler(endRoutes)).replay("__Host-Http-session=good." + records[0].ID)
	if got := body(theirs.get("/look")); got != "" {
		t.Errorf("logged in as %q", got)
	}
}

func TestForeignBearer(t *testing.T) {
	m := keyless(t, session.Options{Bearer: true})
	b := newBrowser(t, m.Handler(endRoutes))
	value := b.get("/login").Header.Get("Session-Token")
	r := b.request("/look")
	r.Header.Set("Authorization", "Bearer "+value)
	if got := body(b.do(r)); got != "alice" || !strings.HasPrefix(value, "good.") {
		t.Errorf("logged in as %q with %q", got, value)
	}
}

// TestForeignCrowd checks that the writes of many concurrent requests are kept, with renewals
// and Logins of the same user among them, over a real server.
func TestForeignCrowd(t *testing.T) {
	const n = 60
	m := keyless(t, session.Options{})
	shop := maps.Clone(endRoutes)
	shop["/keys"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprint(w, strings.Join(s.Names(), " "))
	}
	shop["/write"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		session.NewKey[bool](r.URL.RawQuery).Set(s, true)
		if s.User() == "alice" {
			fmt.Fprint(w, "kept")
		}
	}
	b := newBrowser(t, overTheWire(t, m.Handler(shop)))
	b.get("/login")
	var want []string
	for i, resp := range together(b, n, func(i int) string {
		if i%10 == 9 {
			return everyRenewal[i/10%3]
		}
		return fmt.Sprint("/write?k", i)
	}) {
		if body(resp) == "kept" {
			want = append(want, fmt.Sprint("k", i))
		}
	}
	slices.Sort(want)
	if got := body(b.get("/keys")); got != strings.Join(want, " ") {
		t.Errorf("kept\n%s\nwant\n%s", got, want)
	}
}

// TestForeignValueIsNotOverwritten: promise 13. A value of another program that cannot be
// decoded is absent, and is not overwritten by a call that computes a new value from it.
func TestForeignValueIsNotOverwritten(t *testing.T) {
	m := keyless(t, session.Options{})
	theirs, ours := session.NewKey[[]string]("cart"), session.NewKey[int]("cart")
	for call, c := range map[string]struct {
		f      func(r *http.Request, s *session.Session) error
		status int
	}{
		"Update": {func(r *http.Request, s *session.Session) error {
			ours.Update(s, func(n int) int { return n + 1 })
			return s.Err()
		}, http.StatusInternalServerError},
		"UpdateNow": {func(r *http.Request, s *session.Session) error {
			_, err := ours.UpdateNow(r.Context(), s, func(n int) int { return n + 1 })
			return err
		}, http.StatusOK},
		"Refresh": {func(r *http.Request, s *session.Session) error {
			_, err := ours.Refresh(r.Context(), s, func(n int) bool { return n > 0 }, func(context.Context, int) (int, error) { return 1, nil })
			return err
		}, http.StatusOK},
	} {
		b := newBrowser(t, m.Handler(routes{
			"/begin": func(w http.ResponseWriter, r *http.Request, s *session.Session) { theirs.Set(s, []string{"tea"}) },
			"/call": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				if v, ok := ours.Lookup(s); ok {
					t.Errorf("Lookup: %d", v)
				}
				err := c.f(r, s)
				expectCall(t, err, call+` "cart"`)
				if errors.Is(err, session.ErrStore) {
					t.Error(err)
				}
			},
			"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, theirs.Get(s)) },
		}))
		b.get("/begin")
		if resp := b.get("/call"); resp.StatusCode != c.status {
			t.Errorf("%s: %s", call, resp.Status)
		}
		if got := body(b.get("/look")); got != "[tea]" {
			t.Errorf("%s leaves %s", call, got)
		}
	}
}

// TestForeignLoginWhileTheSessionEnds checks that if the session ends while a Login of its user
// commits, the Login creates another session, without the values.
func TestForeignLoginWhileTheSessionEnds(t *testing.T) {
	spy := newSpy()
	m := keyless(t, session.Options{Store: spy})
	var id string
	b := newBrowser(t, m.Handler(routes{
		"/begin": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.Login("alice")
			name.Set(s, "before")
		},
		"/again": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			id = s.ID()
			spy.hook(once(spy, "Save", func(ctx context.Context) {
				if err := m.Revoke(ctx, "alice", id); err != nil {
					t.Error(err)
				}
			}))
			s.Login("alice")
			visits.Set(s, 7)
		},
		"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			if s.User() != "alice" || s.ID() == id || name.Get(s) != "" || visits.Get(s) != 7 {
				t.Errorf("logged in as %q, reads %q and %d", s.User(), name.Get(s), visits.Get(s))
			}
		},
	}))
	b.get("/begin")
	if resp := b.get("/again"); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	b.get("/look")
}

// cookieLife returns the Max-Age of the cookie that a response sets: "none" if it sets no
// cookie, "browser" without a Max-Age. The cookie must be that of the browser.
func cookieLife(t *testing.T, b *browser, resp *http.Response) string {
	t.Helper()
	switch all := resp.Cookies(); {
	case len(all) == 0:
		return "none"
	case len(all) > 1 || all[0].Name+"="+all[0].Value != b.cookie():
		t.Errorf("the response sets %v, want the cookie %s", all, b.cookie())
	case resp.Header.Get("Cache-Control") != "no-store":
		t.Errorf("Cache-Control of a response with a cookie is %q", resp.Header.Get("Cache-Control"))
	case all[0].MaxAge != 0:
		return fmt.Sprint(time.Duration(all[0].MaxAge) * time.Second)
	}
	return "browser"
}

// foreignCookies returns Options with a persistent cookie and the tokens of another program.
func foreignCookies(store session.Store) session.Options {
	return session.Options{
		Store: store, Lifetime: 10 * time.Hour, IdleTimeout: time.Hour, Tokens: &plainTokens{},
		Cookie: session.CookieOptions{Persistent: true},
	}
}

// TestForeignCookieIsSentAgain checks that with a persistent cookie and the tokens of another
// program, the token is sent again, with the time that the session then lives, whenever it is
// saved or due for a touch, and that other cookies are not sent again.
func TestForeignCookieIsSentAgain(t *testing.T) {
	type call = func(w http.ResponseWriter, r *http.Request, s *session.Session)
	look := endRoutes["/look"]
	for what, c := range map[string]struct {
		after time.Duration // since the session was last used
		do    call
		want  string
		ours  string // with the tokens of this package; "": none
	}{
		"read soon":               {3 * minute, look, "none", ""},
		"read later":              {3*minute + time.Millisecond, look, "1h0m0s", ""},
		"read at the last moment": {time.Hour - 1, look, "1h0m0s", ""},
		"not used":                {30 * minute, func(http.ResponseWriter, *http.Request, *session.Session) {}, "none", ""},
		"saved soon":              {minute, endRoutes["/set"], "1h0m0s", ""},
		"saved later":             {30 * minute, endRoutes["/set"], "1h0m0s", ""},
		"Login of the same user":  {minute, endRoutes["/again"], "1h0m0s", "10h0m0s"},
		"Renew":                   {minute, endRoutes["/renew"], "none", "9h59m0s"},
		"Save":                    {30 * minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) { _ = s.Save(r.Context()) }, "1h0m0s", ""},
		"Save of a change": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "value")
			_ = s.Save(r.Context())
		}, "1h0m0s", ""},
		"Take": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			_, _, _ = visits.Take(r.Context(), s)
		}, "1h0m0s", ""},
		"read passively": {30 * minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.MarkPassive()
			s.User()
		}, "none", ""},
		"saved passively": {30 * minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.MarkPassive()
			name.Set(s, "value")
		}, "30m0s", ""},
		"saved after the first byte": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			fmt.Fprint(w, "begins")
			name.Set(s, "value")
		}, "none", ""},
		"Save after the first byte": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			fmt.Fprint(w, "begins")
			name.Set(s, "value")
			_ = s.Save(r.Context())
		}, "none", ""},
		"a value that cannot be stored": {minute, func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "\xff")
		}, "none", ""},
	} {
		t.Run(what, func(t *testing.T) {
			for who, adapt := range map[string]func(o *session.Options){
				"persistent":     func(o *session.Options) {},
				"not persistent": func(o *session.Options) { o.Cookie.Persistent = false },
				"ours":           func(o *session.Options) { o.Tokens = nil },
			} {
				synctest.Test(t, func(t *testing.T) {
					o := foreignCookies(newSpy())
					adapt(&o)
					m := newManager(t, o)
					b := newBrowser(t, m.Handler(routes{
						"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) { s.Login("alice"); visits.Set(s, 7) },
						"/do":    c.do,
					}))
					b.get("/login")
					time.Sleep(c.after)
					want := map[string]string{"persistent": c.want, "not persistent": "none", "ours": cmp.Or(c.ours, "none")}[who]
					if got := cookieLife(t, b, b.get("/do")); got != want {
						t.Errorf("%s: %s, want %s", who, got, want)
					}
				})
			}
		})
	}
}

// TestForeignCookieLife checks Max-Age: until the idle end when the cookie is created, never
// beyond the absolute end, and as long as Remember says.
func TestForeignCookieLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, foreignCookies(nil))
		b := newBrowser(t, m.Handler(endRoutes))
		for _, c := range []struct {
			after time.Duration
			path  string
			want  string
		}{
			{0, "/set", "1h0m0s"},
			{minute, "/login", "1h0m0s"},
			{0, "/look", "none"},
			{55 * minute, "/look", "1h0m0s"},
			{minute, "/remember", "720h0m0s"},
			{time.Hour, "/look", "719h0m0s"},
			{2 * time.Hour, "/set", "717h0m0s"},
			{0, "/bob", "1h0m0s"},
		} {
			time.Sleep(c.after)
			if got := cookieLife(t, b, b.get(c.path)); got != c.want {
				t.Errorf("%s: %s, want %s", c.path, got, c.want)
			}
		}
		for range 18 {
			time.Sleep(30 * minute)
			b.get("/look")
		}
		time.Sleep(30 * minute)
		if got := cookieLife(t, b, b.get("/look")); got != "30m0s" {
			t.Errorf("half an hour before the absolute end: %s", got)
		}
	})
}

// TestForeignLoginBringsTheEndNearer checks that a Login restarts the clocks even if they would
// have run for longer, because another program has no absolute end and Options may have
// changed.
func TestForeignLoginBringsTheEndNearer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session.NewMemoryStore(nil)
		o := foreignCookies(store)
		o.IdleTimeout = o.Lifetime
		b := newBrowser(t, newManager(t, o).Handler(endRoutes))
		b.get("/login")
		o.Lifetime, o.IdleTimeout = 2*time.Hour, time.Hour
		if got := cookieLife(t, b, b.at(newManager(t, o)).get("/again")); got != "2h0m0s" {
			t.Error(got)
		}
		records, err := store.List(t.Context(), "alice")
		if err != nil || len(records) != 1 || time.Until(records[0].Deadline) != 2*time.Hour {
			t.Error(records, err)
		}
	})
}

// TestForeignCookieOfANewToken checks that a token that the request has created is not replaced
// by the one that the request had.
func TestForeignCookieOfANewToken(t *testing.T) {
	m := newManager(t, foreignCookies(nil))
	shop := maps.Clone(endRoutes)
	shop["/twice"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.Login(r.URL.RawQuery)
		for i := range 2 {
			visits.Set(s, i)
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	b := newBrowser(t, m.Handler(shop))
	for _, user := range []string{"alice", "bob"} {
		before := b.cookie()
		resp := b.get("/twice?" + user)
		if got := body(b.get("/look")); !setsCookie(resp) || b.cookie() == before || got != user {
			t.Errorf("%v: logged in as %q, want %q", resp.Header, got, user)
		}
	}
}

// TestForeignCookieDoesNotEndInUse checks that a user who uses the site is logged in until the
// absolute end, in a browser that obeys Max-Age.
func TestForeignCookieDoesNotEndInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, foreignCookies(nil))
		b := newBrowser(t, m.Handler(endRoutes))
		b.get("/login")
		for i := range 59 {
			time.Sleep(10 * minute)
			if got := body(b.get("/look")); got != "alice" {
				t.Fatalf("after %v logged in as %q", time.Duration(i+1)*10*minute, got)
			}
		}
	})
}

// TestForeignCookieOfALostSession checks that the cookie of a request whose session has
// meanwhile ended, or was replaced or taken by another program, is not sent again, and neither
// is it while the store fails: the browser may have a newer cookie.
func TestForeignCookieOfALostSession(t *testing.T) {
	// The ways in which the slow request sends the cookie.
	ways := map[string]func(s *session.Session, r *http.Request, between func()){
		"a read": func(s *session.Session, r *http.Request, between func()) { s.User(); between() },
		"a Save before": func(s *session.Session, r *http.Request, between func()) {
			name.Set(s, "before")
			_ = s.Save(r.Context())
			between()
		},
		"a touch before": func(s *session.Session, r *http.Request, between func()) { _ = s.Save(r.Context()); between() },
		"a change after": func(s *session.Session, r *http.Request, between func()) { s.User(); between(); name.Set(s, "after") },
	}
	ends := map[string]func(m *session.Manager, spy *spyStore, b *browser){
		"nothing":   func(m *session.Manager, spy *spyStore, b *browser) {},
		"Logout":    func(m *session.Manager, spy *spyStore, b *browser) { b.at(m).get("/logout") },
		"Login":     func(m *session.Manager, spy *spyStore, b *browser) { b.at(m).get("/bob") },
		"RevokeAll": func(m *session.Manager, spy *spyStore, b *browser) { _ = m.RevokeAll(b.t.Context(), "alice") },
		"deletion":  func(m *session.Manager, spy *spyStore, b *browser) { lose(t, spy.Store, "alice") },
		"another program's Login": func(m *session.Manager, spy *spyStore, b *browser) {
			give(t, spy.Store, b.cookie(), "bob")
		},
		"another program's Logout": func(m *session.Manager, spy *spyStore, b *browser) {
			give(t, spy.Store, b.cookie(), "")
		},
		"an outage": func(m *session.Manager, spy *spyStore, b *browser) { spy.down.Store(true) },
	}
	for way, f := range ways {
		for end, g := range ends {
			t.Run(way+", "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					spy := newSpy()
					m := newManager(t, foreignCookies(spy))
					b := newBrowser(t, m.Handler(endRoutes))
					b.get("/login")
					time.Sleep(10 * minute)
					slow := b.replay(b.cookie())
					slow.h = m.Handler(routes{"/slow": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						f(s, r, func() { g(m, spy, b) })
					}})
					got := cookieLife(t, slow, slow.get("/slow"))
					if want := map[bool]string{true: "1h0m0s", false: "none"}[end == "nothing"]; got != want {
						t.Errorf("%s, want %s", got, want)
					}
				})
			})
		}
	}
}

// TestForeignCookieOfAHijackedResponse checks that a cookie that would only be sent again
// causes no error where no cookie can be sent: a Save before a Hijack succeeds. A Remember
// before a Hijack is reported. The store is not called for a cookie that cannot be sent.
func TestForeignCookieOfAHijackedResponse(t *testing.T) {
	save := func(r *http.Request, s *session.Session) {
		if err := s.Save(r.Context()); err != nil {
			t.Error(err)
		}
	}
	for what, c := range map[string]struct {
		do     func(r *http.Request, s *session.Session)
		isLate bool
	}{
		"a use":    {func(_ *http.Request, s *session.Session) { s.User() }, false},
		"a change": {func(r *http.Request, s *session.Session) { name.Set(s, "value"); save(r, s) }, false},
		"Remember": {func(r *http.Request, s *session.Session) { s.Remember(day); save(r, s) }, true},
		"Remember and a change": {func(r *http.Request, s *session.Session) {
			s.Remember(day)
			save(r, s)
			name.Set(s, "value")
			save(r, s)
		}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log events
			spy := newSpy()
			o := foreignCookies(spy)
			o.OnEvent = log.on
			m := newManager(t, o)
			shop := maps.Clone(endRoutes)
			shop["/hijack"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				c.do(r, s)
				loads := spy.count("Load")
				if _, _, err := http.NewResponseController(w).Hijack(); err != nil {
					t.Error(err)
				}
				if n := spy.count("Load") - loads; n != 0 || (s.Err() != nil) != c.isLate {
					t.Errorf("%s: %d loads, %v", what, n, s.Err())
				}
			}
			b := newBrowser(t, m.Handler(shop))
			b.get("/login")
			time.Sleep(10 * minute)
			m.Handler(shop).ServeHTTP(hijackable{httptest.NewRecorder()}, b.request("/hijack"))
			if n := log.count(session.EventDropped); n > 0 != c.isLate {
				t.Errorf("%s: %d dropped", what, n)
			}
		})
	}
}

// hijackable is a recorder that can be hijacked.
type hijackable struct{ *httptest.ResponseRecorder }

func (hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, nil }

// TestForeignCookieIsSentAsItCame checks that of several cookies of the name the first is sent
// again, unchanged.
func TestForeignCookieIsSentAsItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, foreignCookies(nil))
		b := newBrowser(t, m.Handler(endRoutes))
		b.get("/login")
		time.Sleep(10 * minute)
		r := b.request("/look")
		r.Header.Set("Cookie", "a=b;"+b.cookie()+" ; "+b.cookie()[:strings.Index(b.cookie(), "=")]+"=good.other")
		if got := cookieLife(t, b, b.do(r)); got != "1h0m0s" {
			t.Error(got)
		}
	})
}

// TestForeignBearerIsNotSentAgain checks that the token of a client that stores it itself is
// not sent again.
func TestForeignBearerIsNotSentAgain(t *testing.T) {
	m := keyless(t, session.Options{Bearer: true})
	b := newBrowser(t, m.Handler(endRoutes))
	value := b.get("/login").Header.Get("Session-Token")
	for _, path := range append([]string{"/set"}, everyRenewal...) {
		r := b.request(path)
		r.Header.Set("Authorization", "Bearer "+value)
		if resp := b.do(r); resp.StatusCode != 200 || resp.Header["Session-Token"] != nil {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
	}
}
