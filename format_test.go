package session_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// plainTokens are tokens that are an id and a mark, for want of another program.
type plainTokens struct{ verified atomic.Int64 }

func (f *plainTokens) New() (token, id string) {
	id = rand.Text()
	return "good." + id, id
}

func (f *plainTokens) Verify(token string) (id string, ok bool) {
	f.verified.Add(1)
	return strings.CutPrefix(token, "good.")
}

// keyless is a Manager of such tokens.
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

// everyRenewal is what gives the session of alice another token.
var everyRenewal = []string{"/renew", "/remember", "/again"}

// Where a token has no key a renewal gives the session another id: all else stays,
// and the old token is nobody's.
func TestForeignRenewal(t *testing.T) {
	for _, path := range everyRenewal {
		synctest.Test(t, func(t *testing.T) {
			spy := newSpy()
			var log events
			m := keyless(t, session.Options{Store: spy, OnEvent: log.on})
			shop := maps.Clone(endRoutes)
			ids := map[string]string{}
			shop["/name"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				ids[r.URL.RawQuery] = s.ID()
				fmt.Fprintf(w, "%s %s, since %s; %v", s.User(), name.Get(s), s.Authenticated().Format("15:04"), s.Err())
			}
			b := newBrowser(t, m.Handler(shop))
			b.get("/set")
			b.get("/login")
			before := b.cookie()
			at := time.Now()
			time.Sleep(10 * minute)
			if b.get(path); b.cookie() == before {
				t.Fatalf("%s: no new token", path)
			}
			if path == "/again" {
				at = time.Now()
			}
			want := "alice value, since " + at.Format("15:04") + "; <nil>"
			if got := body(b.get("/name?new")); got != want {
				t.Errorf("%s: %q, want %q", path, got, want)
			}
			shop["/expired"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.Expired()) }
			if got := body(b.replay(before).get("/expired")); got != "false" {
				t.Errorf("%s: that its session lives on is %s", path, got)
			}
			old := b.replay(before)
			if got := body(old.get("/name?old")); !strings.HasPrefix(got, " ") || !strings.HasSuffix(got, session.ErrReplaced.Error()) || old.cookie() != before {
				t.Errorf("%s: the old token is %q", path, got)
			}
			records, err := spy.List(t.Context(), "alice")
			if err != nil || len(records) != 1 || records[0].ID != ids["new"] || strings.Contains(string(records[0].Data), "session.key") {
				t.Errorf("%s: stored are %v, %v", path, records, err)
			}
			if n := log.count(session.EventReplayed) + log.count(session.EventDropped) + log.count(session.EventLoggedOut); n != 0 {
				t.Errorf("%s: %v", path, log.all)
			}
			if left := time.Until(records[0].Deadline); path == "/remember" && left < 29*day {
				t.Errorf("remembered for %v", left)
			}
		})
	}
}

// What the session is remembered for stays with it, whatever else renews it.
func TestForeignRenewalKeepsRemember(t *testing.T) {
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

// Twenty requests that are under way when a renewal gives the session another id
// keep what they change, and see the session as it was. None sets a cookie.
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
				t.Errorf("%s: a slow request is %q's: %v", path, s.User(), err)
			}
		}
		shop["/keys"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			fmt.Fprint(w, s.User(), len(s.Keys()))
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

// Of many renewals at once one gives the session another id, and the browser is in.
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
			fmt.Fprint(w, s.User(), len(s.Keys()))
		}
		b := newBrowser(t, overTheWire(t, m.Handler(shop)))
		b.get("/login")
		cookies := 0
		for _, resp := range together(b, n, func(i int) string { return fmt.Sprint("/all?", i) }) {
			if resp.StatusCode != 200 {
				t.Error(path, resp.Status)
			}
			if setsCookie(resp) {
				cookies++
			}
		}
		if live, err := spy.List(t.Context(), "alice"); cookies != 1 || len(live) != 1 || err != nil {
			t.Errorf("%s: %d cookies, %d live records, %v", path, cookies, len(live), err)
		}
		if got := body(b.get("/keys")); got != fmt.Sprint("alice", n) {
			t.Errorf("%s: %s writes were kept, of %d", path, got, n)
		}
	}
}

// No renewal that overlaps a Logout survives it, whichever comes first; neither
// does one that overlaps a Revoke.
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
			t.Errorf("%s during %s: in as %q", c.meanwhile, c.slow, got)
		}
	}
}

// A Login as somebody else ends what is under way, as it does with our own tokens.
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
			t.Errorf("in as %q with %q", s.User(), name.Get(s))
		}
	}})
	b.get("/")
	if log.count(session.EventDropped) != 1 {
		t.Error(log.all)
	}
}

// Done stays open over renewals that give the session another id, here or in
// another process, and closes when the session ends; who waits under several of its
// ids waits for the same.
func TestDoneOverForeignRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spy := newSpy()
		o := session.Options{Store: spy, IdleTimeout: 20 * minute}
		here, there := keyless(t, o), keyless(t, o)
		b := newBrowser(t, here.Handler(endRoutes))
		b.get("/login")
		streams := []*stream{b.listen(here), b.listen(there)}
		for _, at := range []*session.Manager{here, there, here} {
			for _, path := range everyRenewal {
				b.at(at).get(path)
				streams = append(streams, b.listen(here), b.listen(there))
				time.Sleep(2 * watchEvery)
			}
		}
		for _, st := range streams {
			if st.String() != "open" {
				t.Error(st)
			}
		}
		streams[3].hangUp() // others of the same go on
		<-streams[3].stopped
		began := time.Now()
		b.get("/logout")
		time.Sleep(2 * watchEvery)
		for i, st := range streams {
			if i == 3 {
				continue
			}
			if st.String() == "open" {
				t.Errorf("stream %d is open", i)
			}
			<-st.stopped
		}
		if d := time.Since(began); d > 2*watchEvery {
			t.Errorf("after %v", d)
		}
		loads := spy.count("Load")
		time.Sleep(minute)
		if n := spy.count("Load") - loads; n != 0 {
			t.Errorf("%d loads although nobody waits", n)
		}
	})
}

// A stream that waits under an id that the session no longer has learns in time that
// it has ended, though nobody here knew of the other id then.
func TestDoneOfAnIDThatHasMoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 10 {
			spy := newSpy()
			o := session.Options{Store: spy}
			here, there := keyless(t, o), keyless(t, o)
			b := newBrowser(t, here.Handler(endRoutes))
			b.get("/login")
			st := b.listen(here)
			b.at(there).get("/renew")
			b.get("/logout")
			time.Sleep(watchEvery)
			synctest.Wait()
			if st.String() == "open" {
				t.Error("still open after WatchEvery")
			}
			<-st.stopped
		}
	})
}

// A request that was overtaken by a renewal ends the session under its other id, and
// who waits for that learns of it at once.
func TestOvertakenRequestEndsAForeignSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := keyless(t, session.Options{})
		shop, g := maps.Clone(endRoutes), newGate()
		shop["/slow"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
			s.User()
			g.pass()
			name.Set(s, "value")
			if err := s.Save(r.Context()); err != nil {
				t.Error(err)
			}
			s.Logout()
		}
		b := newBrowser(t, m.Handler(shop))
		b.get("/login")
		var st *stream
		g.during(b.replay(b.cookie()), "/slow", func() {
			b.get("/renew")
			st = b.listen(m)
		})
		synctest.Wait()
		if st.String() != "ended after 0s" {
			t.Error(st)
		}
		<-st.stopped
	})
}

// A renewal whose Save was carried out, and its answer lost, is a renewal: the session is
// there, under the id whose token the browser gets.
func TestLostReplyToAForeignRenewal(t *testing.T) {
	for _, path := range everyRenewal {
		for _, applied := range []bool{true, false} {
			spy := newSpy()
			m := keyless(t, session.Options{Store: spy})
			b := newBrowser(t, m.Handler(endRoutes))
			b.get("/set")
			b.get("/login")
			if applied {
				spy.after = lost("Save")
			} else {
				spy.hook(failing("Save", session.ErrIndeterminate))
			}
			if resp := b.get(path); (resp.StatusCode == 200) != applied {
				t.Errorf("%s, applied=%v: answers %s", path, applied, resp.Status)
			}
			spy.after = nil
			spy.hook(nil)
			if all, err := m.List(t.Context(), "alice"); err != nil || len(all) != 1 {
				t.Errorf("%s, applied=%v: %d sessions, %v", path, applied, len(all), err)
			}
			if got := body(b.get("/look")); got != "alice" {
				t.Errorf("%s, applied=%v: afterwards %q", path, applied, got)
			}
		}
	}
}

// A Reload of a request whose session has another id by now is nobody's, as is
// every request that comes with the old token.
func TestForeignReload(t *testing.T) {
	m := keyless(t, session.Options{})
	shop, g := maps.Clone(endRoutes), newGate()
	shop["/slow"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		s.User()
		g.pass()
		if err := s.Reload(r.Context()); err != session.ErrReplaced || s.User() != "" {
			t.Errorf("%q, %v", s.User(), err)
		}
	}
	b := newBrowser(t, m.Handler(shop))
	b.get("/login")
	g.during(b.replay(b.cookie()), "/slow", func() { b.get("/renew") })
}

// Refresh calls f once, also if a renewal gives the session another id meanwhile.
func TestForeignRefresh(t *testing.T) {
	m := keyless(t, session.Options{})
	var calls atomic.Int64
	key := session.NewKey[string]("tokens")
	shop := maps.Clone(endRoutes)
	inside, renewed := make(chan struct{}), make(chan struct{})
	shop["/refresh"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		v, err := key.Refresh(r.Context(), s, func(v string) bool { return v != "" }, func(context.Context, string) (string, error) {
			calls.Add(1)
			close(inside)
			<-renewed
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
	b.get("/renew")
	go func() { b.get("/refresh"); done <- true }()
	close(renewed)
	<-done
	<-done
	if got := body(b.get("/value")); got != "new" || calls.Load() != 1 {
		t.Errorf("%q, after %d calls", got, calls.Load())
	}
}

// Who waits for another one's Refresh goes on when a renewal gives the session another
// id, and calls f if that one has failed.
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
		time.Sleep(20 * time.Millisecond) // it has seen the lease
		b.get("/renew")
		time.Sleep(50 * time.Millisecond) // and what the session has become
		close(fail)
		<-done
		<-done
	})
}

// Of several cookies of the name the first counts, as the other program has it,
// and what is good is verified once.
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
	// What is too long is not worth a look, or a call of the store.
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
		t.Errorf("verified %d times what was good before", n)
	}
	if uses := m.SecretUses(); uses != nil {
		t.Error(uses)
	}
}

// A record that was made for tokens with a key is not opened by one without.
func TestForeignTokenOpensNoRecordWithAKey(t *testing.T) {
	spy := newSpy()
	ours := newBrowser(t, newManager(t, session.Options{Store: spy}).Handler(endRoutes))
	ours.get("/login")
	records, _ := spy.List(t.Context(), "alice")
	theirs := newBrowser(t, keyless(t, session.Options{Store: spy}).Handler(endRoutes)).replay("__Host-session=good." + records[0].ID)
	if got := body(theirs.get("/look")); got != "" {
		t.Errorf("in as %q", got)
	}
}

func TestForeignBearer(t *testing.T) {
	m := keyless(t, session.Options{Bearer: true})
	b := newBrowser(t, m.Handler(endRoutes))
	value := b.get("/login").Header.Get("Session-Token")
	r := b.request("/look")
	r.Header.Set("Authorization", "Bearer "+value)
	if got := body(b.do(r)); got != "alice" || !strings.HasPrefix(value, "good.") {
		t.Errorf("in as %q with %q", got, value)
	}
}

// All writes of many requests survive many renewals among them, over a real server.
func TestForeignCrowd(t *testing.T) {
	const n = 60
	m := keyless(t, session.Options{})
	shop := maps.Clone(endRoutes)
	shop["/keys"] = func(w http.ResponseWriter, r *http.Request, s *session.Session) {
		fmt.Fprint(w, strings.Join(s.Keys(), " "))
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
			return everyRenewal[i/10%2] // a Login with the old token would begin another session
		}
		return fmt.Sprint("/write?k", i)
	}) {
		if body(resp) == "kept" {
			want = append(want, fmt.Sprint("k", i))
		}
	}
	slices.Sort(want)
	if got := body(b.get("/keys")); got != strings.Join(want, " ") {
		t.Errorf("kept\n%s\nand not\n%s", got, want)
	}
}

// Promise 13. A value that another program wrote, and that does not decode, is absent; it
// is not overwritten by what a new one is made from.
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

// A Login of the user who is logged in, whose session ends while it commits, begins
// another one, without the values.
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
				t.Errorf("in as %q, reads %q and %d", s.User(), name.Get(s), visits.Get(s))
			}
		},
	}))
	b.get("/begin")
	if resp := b.get("/again"); resp.StatusCode != http.StatusOK {
		t.Error(resp.Status)
	}
	b.get("/look")
}
