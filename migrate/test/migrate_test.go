package migrate_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/browsers"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/migrate"
	ginsessions "github.com/gin-contrib/sessions"
	gincookie "github.com/gin-contrib/sessions/cookie"
	"github.com/gin-gonic/gin"
	"github.com/gomodule/redigo/redis"
	"github.com/gorilla/sessions"
	"github.com/jackc/pgx/v5/pgxpool"
)

type item struct {
	Name string
	N    int
}

func TestMain(m *testing.M) {
	gob.Register([]item{})
	gob.Register(time.Time{})
	gin.SetMode(gin.ReleaseMode)
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

var (
	visits = session.NewKey[int]("visits")
	cart   = session.NewKey[[]item]("cart")
	since  = session.NewKey[time.Time]("since")
	when   = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
)

// values are the values that the old applications set.
var values = map[string]any{"visits": 7, "cart": []item{{"tea", 2}}, "since": when, "odd": "left behind"}

// A library is an old application: the wrapper of its handlers, and how they log a user in and read
// the user.
type library struct {
	old   migrate.Old
	wrap  func(http.Handler) http.Handler
	login func(w http.ResponseWriter, r *http.Request, user any)
	user  func(r *http.Request) any
	// stateless reports whether the whole session is in the cookie.
	stateless bool
}

func ofSCS(m *scs.SessionManager) library {
	m.Cookie.Name = "old"
	return library{
		old:  migrate.SCS(m),
		wrap: m.LoadAndSave,
		login: func(w http.ResponseWriter, r *http.Request, user any) {
			_ = m.RenewToken(r.Context())
			for name, v := range values {
				m.Put(r.Context(), name, v)
			}
			if user != nil {
				m.Put(r.Context(), "user", user)
			}
		},
		user: func(r *http.Request) any { return m.Get(r.Context(), "user") },
	}
}

func ofGorilla(store sessions.Store) library {
	return library{
		old:  migrate.Gorilla(store, "old"),
		wrap: func(h http.Handler) http.Handler { return h },
		login: func(w http.ResponseWriter, r *http.Request, user any) {
			s, _ := store.Get(r, "old")
			for name, v := range values {
				s.Values[name] = v
			}
			if user != nil {
				s.Values["user"] = user
			}
			if err := s.Save(r, w); err != nil {
				panic(err)
			}
		},
		user: func(r *http.Request) any {
			s, _ := store.Get(r, "old")
			return s.Values["user"]
		},
	}
}

// jsonCodec is scs's own example of a codec.
type jsonCodec struct{}

func (jsonCodec) Encode(deadline time.Time, values map[string]interface{}) ([]byte, error) {
	return json.Marshal(map[string]any{"deadline": deadline, "values": values})
}

func (jsonCodec) Decode(b []byte) (time.Time, map[string]interface{}, error) {
	var v struct {
		Deadline time.Time
		Values   map[string]any
	}
	err := json.Unmarshal(b, &v)
	return v.Deadline, v.Values, err
}

var cookieKey = []byte("0123456789abcdef0123456789abcdef")

// libraries are the supported old libraries, each with its stores.
var libraries = map[string]func(t *testing.T) library{
	"scs, memory": func(t *testing.T) library { return ofSCS(scs.New()) },
	"scs, memory, JSON, hashed tokens": func(t *testing.T) library {
		m := scs.New()
		m.Codec, m.HashTokenInStore, m.IdleTimeout = jsonCodec{}, true, time.Hour
		return ofSCS(m)
	},
	"scs, Redis": func(t *testing.T) library {
		addr := servers.Redis(t).Addr
		pool := &redis.Pool{Dial: func() (redis.Conn, error) { return redis.Dial("tcp", addr) }}
		t.Cleanup(func() { _ = pool.Close() })
		m := scs.New()
		m.Store = redisstore.New(pool)
		return ofSCS(m)
	},
	"scs, PostgreSQL": func(t *testing.T) library {
		pool, err := pgxpool.New(t.Context(), servers.PostgresURL(servers.Postgres(t, "-c", "fsync=off").Addr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		if _, err := pool.Exec(t.Context(), `CREATE TABLE sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL)`); err != nil {
			t.Fatal(err)
		}
		m := scs.New()
		m.Store = pgxstore.NewWithCleanupInterval(pool, 0)
		return ofSCS(m)
	},
	"gorilla, cookie": func(t *testing.T) library {
		l := ofGorilla(sessions.NewCookieStore(cookieKey))
		l.stateless = true
		return l
	},
	"gorilla, cookie, encrypted, rotated": func(t *testing.T) library {
		older := sessions.NewCookieStore(cookieKey, cookieKey)
		l := ofGorilla(older)
		l.old = migrate.Gorilla(sessions.NewCookieStore([]byte("another 0123456789abcdef01234567"), []byte("another 0123456789abcdef01234567"), cookieKey, cookieKey), "old")
		l.stateless = true
		return l
	},
	"gorilla, files": func(t *testing.T) library {
		return ofGorilla(sessions.NewFilesystemStore(t.TempDir(), cookieKey))
	},
	"gin, cookie": func(t *testing.T) library {
		l := library{old: migrate.Gorilla(sessions.NewCookieStore(cookieKey), "old"), stateless: true}
		l.wrap = func(h http.Handler) http.Handler {
			engine := gin.New()
			engine.Use(ginsessions.Sessions("old", gincookie.NewStore(cookieKey)))
			engine.Any("/*path", func(c *gin.Context) {
				h.ServeHTTP(c.Writer, c.Request.WithContext(context.WithValue(c.Request.Context(), ginKey{}, ginsessions.Default(c))))
			})
			return engine
		}
		of := func(r *http.Request) ginsessions.Session { return r.Context().Value(ginKey{}).(ginsessions.Session) }
		l.login = func(w http.ResponseWriter, r *http.Request, user any) {
			for name, v := range values {
				of(r).Set(name, v)
			}
			if user != nil {
				of(r).Set("user", user)
			}
			if err := of(r).Save(); err != nil {
				panic(err)
			}
		}
		l.user = func(r *http.Request) any { return of(r).Get("user") }
		return l
	},
}

type ginKey struct{}

// A move is an application before and after the move, and a browser.
type move struct {
	t             *testing.T
	before, after string
	browser       *browsers.Browser
	store         *counted
	m             *session.Manager
	take          *migrate.Takeover
	library       library
	mu            sync.Mutex
	serve         func(w http.ResponseWriter, r *http.Request) // handler after the move
}

// counted is a store that counts its calls and can fail.
type counted struct {
	session.Store
	mu    sync.Mutex
	calls int
	made  []string // ids of the created records
	fail  error
	last  int // number of the only call that fails; 0: none
}

func (c *counted) ids() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.made...)
}

func (c *counted) call() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls++; c.calls == c.last {
		return errors.New("down once")
	}
	return c.fail
}

func (c *counted) Load(ctx context.Context, id string) (*session.Record, error) {
	if err := c.call(); err != nil {
		return nil, err
	}
	return c.Store.Load(ctx, id)
}

func (c *counted) Create(ctx context.Context, r *session.Record) error {
	if err := c.call(); err != nil {
		return err
	}
	c.mu.Lock()
	c.made = append(c.made, r.ID)
	c.mu.Unlock()
	return c.Store.Create(ctx, r)
}

func (c *counted) Save(ctx context.Context, r *session.Record, old uint64) error {
	if err := c.call(); err != nil {
		return err
	}
	return c.Store.Save(ctx, r, old)
}

func newMove(t *testing.T, l library, adapt func(*session.Options, *migrate.Options)) *move {
	t.Helper()
	v := &move{t: t, library: l, store: &counted{Store: session.NewMemoryStore(nil)}}
	so := session.Options{Store: v.store, Secrets: [][]byte{cookieKey}, Cookie: session.CookieOptions{Insecure: true}}
	mo := migrate.Options{
		Old: l.old, Store: v.store, User: "user",
		Values: []migrate.Value{migrate.As("visits", visits), migrate.As("cart", cart), migrate.As("since", since)},
	}
	if adapt != nil {
		adapt(&so, &mo)
	}
	v.m = session.Must(session.New(&so))
	var err error
	if v.take, err = migrate.New(v.m, &mo); err != nil {
		t.Fatal(err)
	}
	before := httptest.NewServer(l.wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/login" {
			var user any = r.URL.Query().Get("user")
			if user == "" {
				user = nil
			}
			l.login(w, r, user)
			return
		}
		fmt.Fprint(w, l.user(r))
	})))
	t.Cleanup(before.Close)
	after := httptest.NewServer(v.m.Handler(v.take.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.mu.Lock()
		serve := v.serve
		v.mu.Unlock()
		serve(w, r)
	}))))
	t.Cleanup(after.Close)
	v.before, v.after = before.URL, after.URL
	v.serve = whoami
	v.browser = browsers.New(t, nil)
	return v
}

// handle replaces the handler of the application after the move.
func (v *move) handle(f http.HandlerFunc) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.serve = f
}

func whoami(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	switch r.URL.Path {
	case "/logout":
		s.Logout()
	case "/add":
		visits.Update(s, func(n int) int { return n + 1 })
	}
	fmt.Fprintf(w, "%s %d %v %s", s.User(), visits.Get(s), cart.Get(s), since.Get(s).Format("15:04:05"))
}

const carried = "ann 7 [{tea 2}] 03:04:05"

func (v *move) get(browser *browsers.Browser, url string) (string, *http.Response) {
	v.t.Helper()
	resp, err := browser.Get(url)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return string(b), resp
}

func (v *move) expect(browser *browsers.Browser, want string) *http.Response {
	v.t.Helper()
	got, resp := v.get(browser, v.after+"/")
	if got != want {
		v.t.Errorf("%s %q, want %q", resp.Status, got, want)
	}
	return resp
}

// copy returns a browser with the current cookies of v.browser.
func (v *move) copy() *browsers.Browser { return v.browser.Copy(v.t, v.after) }

func (v *move) cookies() []string {
	var names []string
	for _, c := range v.browser.Cookies(v.after) {
		names = append(names, c.Name)
	}
	return names
}

// TestTakeover checks that a user who is logged in at the old application is logged in at the new
// one, that the old session and its cookie are deleted, and that the session is taken over once:
// after a Logout a copy of the cookie gives no access.
func TestTakeover(t *testing.T) {
	for name, l := range libraries {
		t.Run(name, func(t *testing.T) {
			v := newMove(t, l(t), nil)
			v.get(v.browser, v.before+"/login?user=ann")
			copied := v.copy()
			if resp := v.expect(v.browser, carried); resp.Header.Get("Cache-Control") != "no-store" {
				t.Error(resp.Header)
			}
			if got := v.cookies(); len(got) != 1 || got[0] != "session" {
				t.Errorf("the browser has %q", got)
			}
			v.expect(v.browser, carried)
			if got, _ := v.get(copied, v.before+"/"); got != "<nil>" && !v.library.stateless {
				t.Errorf("the old application still has the user %q", got)
			}
			// A browser that lost the response, and still has the old cookie, gets the same
			// session.
			v.get(v.browser, v.after+"/add")
			again := copied.Copy(t, v.after)
			v.expect(again, strings.Replace(carried, "7", "8", 1))
			if list, err := v.m.List(t.Context(), "ann"); err != nil || len(list) != 1 {
				t.Errorf("%d sessions, %v", len(list), err)
			} else if s := list[0]; strings.HasPrefix(name, "scs") && time.Since(s.Created) > time.Minute || time.Until(s.Expires) > time.Hour {
				t.Errorf("created %v, expires %v", s.Created, s.Expires)
			}
			v.get(v.browser, v.after+"/logout")
			v.expect(v.browser, " 0 [] 00:00:00")
			v.expect(copied, " 0 [] 00:00:00")
			if n := v.take.Count(); n != 1 {
				t.Errorf("%d takeovers", n)
			}
		})
	}
}

// TestParallelFirstRequests checks that 20 concurrent first requests of one browser get the same
// session, and that the browser has its cookie afterwards.
func TestParallelFirstRequests(t *testing.T) {
	for name, l := range libraries {
		t.Run(name, func(t *testing.T) {
			v := newMove(t, l(t), nil)
			v.get(v.browser, v.before+"/login?user=ann")
			first := v.copy()
			var wg sync.WaitGroup
			start := make(chan struct{})
			for range 20 {
				wg.Go(func() {
					<-start
					if got, resp := v.get(first.Copy(t, v.after), v.after+"/add"); !strings.HasPrefix(got, "ann ") {
						t.Errorf("%s %q", resp.Status, got)
					}
				})
			}
			wg.Go(func() {
				<-start
				v.get(v.browser, v.after+"/add")
			})
			close(start)
			wg.Wait()
			v.expect(v.browser, strings.Replace(carried, "7", "28", 1))
			if list, err := v.m.List(t.Context(), "ann"); err != nil || len(list) != 1 || v.take.Count() != 1 {
				t.Errorf("%d sessions, %d takeovers, %v", len(list), v.take.Count(), err)
			}
		})
	}
}

// TestNothingToTake checks that a request without cookies costs no store call, and that a request
// with an invalid old cookie takes nothing over and loses nothing.
func TestNothingToTake(t *testing.T) {
	for name, l := range libraries {
		t.Run(name, func(t *testing.T) {
			v := newMove(t, l(t), nil)
			v.serve = func(w http.ResponseWriter, r *http.Request) {}
			v.get(v.browser, v.after+"/")
			if v.store.calls != 0 {
				t.Errorf("%d store calls without a cookie, want none", v.store.calls)
			}
			v.serve = whoami
			v.get(v.browser, v.before+"/login?user=ann")
			u, _ := url.Parse(v.after)
			valid := v.browser.Jar.Cookies(u)[0]
			for _, value := range []string{"x", strings.ToUpper(valid.Value), valid.Value[:len(valid.Value)-4], valid.Value + "x", strings.Repeat("A", len(valid.Value))} {
				b := browsers.New(t, nil)
				b.Jar.SetCookies(u, []*http.Cookie{{Name: valid.Name, Value: value}})
				if resp := v.expect(b, " 0 [] 00:00:00"); resp.StatusCode != 200 || resp.Header.Get("Set-Cookie") != "" {
					t.Errorf("%s %v", resp.Status, resp.Header)
				}
			}
			v.expect(v.browser, carried)
		})
	}
}

// TestAnonymous checks that the values of an anonymous session are taken over, and that a session
// without user and values is dropped.
func TestAnonymous(t *testing.T) {
	v := newMove(t, libraries["scs, memory"](t), nil)
	v.get(v.browser, v.before+"/login")
	v.expect(v.browser, " 7 [{tea 2}] 03:04:05")
	v.expect(v.browser, " 7 [{tea 2}] 03:04:05")
	if n := v.take.Count(); n != 1 {
		t.Errorf("%d takeovers", n)
	}
	v = newMove(t, libraries["scs, memory"](t), func(_ *session.Options, o *migrate.Options) { o.Values, o.User = nil, "absent" })
	v.get(v.browser, v.before+"/login")
	v.expect(v.browser, " 0 [] 00:00:00")
	if got := v.cookies(); len(got) != 0 || v.take.Count() != 0 {
		t.Errorf("cookies %q, %d takeovers", got, v.take.Count())
	}
}

// TestFromAnotherSite checks that a request that follows a link from another site has the session.
func TestFromAnotherSite(t *testing.T) {
	for user, want := range map[string]string{"": " 7 [{tea 2}] 03:04:05", "ann": carried} {
		v := newMove(t, libraries["scs, memory"](t), nil)
		v.get(v.browser, v.before+"/login?user="+user)
		r, _ := http.NewRequest("GET", v.after+"/", nil)
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		r.Header.Set("Sec-Fetch-Dest", "document")
		resp, err := v.browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(b) != want || resp.StatusCode != 200 {
			t.Errorf("%s %q, want %q", resp.Status, b, want)
		}
		v.expect(v.browser, want)
	}
}

// TestReports checks that each value that cannot be taken over is reported by name, and that the
// others are taken over.
func TestReports(t *testing.T) {
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	v := newMove(t, libraries["scs, memory, JSON, hashed tokens"](t), func(_ *session.Options, o *migrate.Options) {
		o.Values = []migrate.Value{
			migrate.As("visits", visits),
			migrate.As("cart", session.NewKey[[]struct{ Name string }]("cart")), // would lose N
			migrate.Convert("since", since, func(any) (time.Time, error) { return time.Time{}, errors.New("not today") }),
		}
	})
	v.get(v.browser, v.before+"/login?user=ann")
	v.expect(v.browser, "ann 7 [] 00:00:00")
	for _, want := range []string{"name=cart", "name=since", "not today", "name=odd", `unknown field`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %q in %s", want, &log)
		}
	}
	if strings.Contains(log.String(), "visits") || strings.Contains(log.String(), "left behind") {
		t.Errorf("%s", &log)
	}
}

// TestLifetime checks that the new session lives as long as the old one had left, and no longer.
func TestLifetime(t *testing.T) {
	for _, c := range []struct {
		old, lifetime, want time.Duration
		remember            bool
	}{
		{2 * time.Hour, 24 * time.Hour, 2 * time.Hour, false},
		{48 * time.Hour, 24 * time.Hour, 24 * time.Hour, false},
		{48 * time.Hour, 24 * time.Hour, 48 * time.Hour, true},
		{2 * time.Hour, 24 * time.Hour, 2 * time.Hour, true},
	} {
		old := scs.New()
		old.Lifetime = c.old
		v := newMove(t, ofSCS(old), func(so *session.Options, mo *migrate.Options) {
			so.Lifetime, so.IdleTimeout, mo.Remember = c.lifetime, c.lifetime, c.remember
		})
		v.get(v.browser, v.before+"/login?user=ann")
		v.expect(v.browser, carried)
		list, err := v.m.List(t.Context(), "ann")
		if err != nil || len(list) != 1 {
			t.Fatal(len(list), err)
		}
		if left := time.Until(list[0].Expires); left > c.want || left < c.want-time.Minute {
			t.Errorf("%+v: %v left", c, left)
		}
		// The record of the takeover stays until the old session would have ended.
		for _, id := range v.store.ids() {
			r, err := v.store.Store.Load(t.Context(), id)
			if err != nil || strings.HasPrefix(id, "taken-") && time.Until(r.Deadline) < c.old-time.Minute {
				t.Errorf("%+v: %+v, %v", c, r, err)
			}
		}
		v.expect(v.browser, carried)
	}
}

// TestFailingStores checks that requests are answered with 503 while the store fails, and that the
// session is taken over afterwards.
func TestFailingStores(t *testing.T) {
	v := newMove(t, libraries["scs, memory"](t), nil)
	v.get(v.browser, v.before+"/login?user=ann")
	v.store.fail = errors.New("down")
	if got, resp := v.get(v.browser, v.after+"/"); resp.StatusCode != 503 || resp.Header.Get("Set-Cookie") != "" {
		t.Errorf("%s %q %v", resp.Status, got, resp.Header)
	}
	v.store.fail = nil
	v.expect(v.browser, carried)
}

// TestOneFailure checks, for each store call that can fail once, that the response has the session
// or is 503, and that no half-made session stays, nor a claim for which the next request would
// wait.
func TestOneFailure(t *testing.T) {
	for _, name := range []string{"scs, memory", "gorilla, cookie"} {
		failures := 0
		for n, failed := 1, true; failed; n++ {
			v := newMove(t, libraries[name](t), func(_ *session.Options, o *migrate.Options) { o.Remember = true })
			v.get(v.browser, v.before+"/login?user=ann")
			v.store.last = n
			got, resp := v.get(v.browser, v.after+"/")
			if failed = v.store.calls >= n; resp.StatusCode == 503 {
				failures++
				if len(resp.Cookies()) > 0 {
					t.Errorf("%s, call %d: %v", name, n, resp.Header)
				}
				time.Sleep(2 * time.Millisecond) // a released claim expires after 1 ms
				finished, left := false, 0
				for _, id := range v.store.ids() {
					if r, err := v.store.Store.Load(t.Context(), id); err == nil {
						finished = finished || strings.Contains(string(r.Data), "migrate.begun")
						left++
					}
				}
				if left > 0 && !finished {
					t.Errorf("%s, call %d: %d records are left", name, n, left)
				}
			} else if got != carried {
				t.Errorf("%s, call %d: %s %q", name, n, resp.Status, got)
			}
			v.store.last = 0
			v.expect(v.browser, carried)
			v.expect(v.browser, carried)
			if list, err := v.m.List(t.Context(), "ann"); err != nil || len(list) != 1 {
				t.Errorf("%s, call %d: %d sessions, %v", name, n, len(list), err)
			}
		}
		if failures < 4 {
			t.Errorf("%s: %d failures", name, failures)
		}
	}
}

// TestSilentHandler checks that the response of a handler that writes nothing sets the cookies.
func TestSilentHandler(t *testing.T) {
	v := newMove(t, libraries["scs, memory"](t), nil)
	v.get(v.browser, v.before+"/login?user=ann")
	v.serve = func(http.ResponseWriter, *http.Request) {}
	_, resp := v.get(v.browser, v.after+"/")
	if got := v.cookies(); len(got) != 1 || got[0] != "session" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("cookies %q, header %v", got, resp.Header)
	}
	v.serve = whoami
	v.expect(v.browser, carried)
}

// TestHasOneOfOurs checks that a request with a live session of the Manager keeps it, and only the
// old cookie is deleted.
func TestHasOneOfOurs(t *testing.T) {
	v := newMove(t, libraries["scs, memory"](t), nil)
	v.serve = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bob" {
			session.From(r.Context()).Login("bob")
		}
		whoami(w, r)
	}
	v.get(v.browser, v.after+"/bob")
	v.get(v.browser, v.before+"/login?user=ann")
	v.expect(v.browser, "bob 0 [] 00:00:00")
	if got := v.cookies(); len(got) != 1 || v.take.Count() != 0 {
		t.Errorf("cookies %q, %d takeovers", got, v.take.Count())
	}
}

// TestHasAnAnonymousOneOfOurs checks that an anonymous session of the Manager is replaced by the
// old session of a user, but not by an old anonymous session, nor by one that was taken over and
// has ended.
func TestHasAnAnonymousOneOfOurs(t *testing.T) {
	const ours = " 1 [] 00:00:00"
	for _, c := range []struct{ login, want string }{{"/login?user=ann", carried}, {"/login", ours}} {
		v := newMove(t, libraries["gorilla, cookie"](t), nil)
		v.get(v.browser, v.after+"/add")
		v.get(v.browser, v.before+c.login)
		u, _ := url.Parse(v.after)
		all := v.browser.Jar.Cookies(u)
		v.expect(v.browser, c.want)
		v.expect(v.browser, c.want)
		if got := v.cookies(); len(got) != 1 || got[0] != "session" {
			t.Errorf("%s: cookies %q", c.login, got)
		}
		if n := v.take.Count(); n != 1 && c.want == carried || n != 0 && c.want == ours {
			t.Errorf("%s: %d takeovers", c.login, n)
		}
		v.get(v.browser, v.after+"/logout")
		v.get(v.browser, v.after+"/add")
		for _, k := range all {
			if k.Name == "old" {
				v.browser.Jar.SetCookies(u, []*http.Cookie{k})
			}
		}
		v.expect(v.browser, ours)
		v.expect(v.browser, ours)
		if got := v.cookies(); len(got) != 1 || got[0] != "session" {
			t.Errorf("%s, after a logout: cookies %q", c.login, got)
		}
	}
}

// TestCookiesOfOneName checks that the first takeover fails with an explanation if both cookies
// have the same name, because they cannot be distinguished.
func TestCookiesOfOneName(t *testing.T) {
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	v := newMove(t, libraries["scs, memory"](t), func(o *session.Options, _ *migrate.Options) { o.Cookie.Name = "old" })
	v.get(v.browser, v.before+"/login?user=ann")
	if got, resp := v.get(v.browser, v.after+"/"); resp.StatusCode != 503 || !strings.Contains(log.String(), "both named") {
		t.Errorf("%s %q, log %s", resp.Status, got, &log)
	}
	if list, err := v.m.List(t.Context(), "ann"); err != nil || len(list) != 0 {
		t.Errorf("%d sessions are left, %v", len(list), err)
	}
	if got, _ := v.get(v.browser, v.before+"/"); got != "ann" {
		t.Errorf("the user of the old session is %q, want ann", got)
	}
}

// TestStoreHoldsNoToken checks that the store contains neither the old nor the new token.
func TestStoreHoldsNoToken(t *testing.T) {
	v := newMove(t, libraries["gorilla, cookie"](t), nil)
	v.get(v.browser, v.before+"/login?user=ann")
	u, _ := url.Parse(v.after)
	old := v.browser.Jar.Cookies(u)[0].Value
	var records []*session.Record
	v.expect(v.browser, carried)
	ours := v.browser.Jar.Cookies(u)[0].Value
	for _, id := range v.store.ids() {
		r, err := v.store.Store.Load(t.Context(), id)
		if err == nil {
			records = append(records, r)
		}
	}
	for _, r := range records {
		if text := fmt.Sprintf("%+v %s", r, r.Data); strings.Contains(text, old) || strings.Contains(text, ours) {
			t.Errorf("%s", text)
		}
	}
}

func TestOptions(t *testing.T) {
	m := session.Must(session.New(nil))
	for want, o := range map[string]*migrate.Options{
		"Options.Old":   nil,
		"Options.Store": {Old: migrate.SCS(scs.New()), User: "user"},
		"Options.User":  {Old: migrate.SCS(scs.New()), Store: session.NewMemoryStore(nil)},
		"twice":         {Old: migrate.SCS(scs.New()), Store: session.NewMemoryStore(nil), User: "a", Values: []migrate.Value{migrate.As("a", visits)}},
		"UserFunc":      {Old: migrate.SCS(scs.New()), Store: session.NewMemoryStore(nil), User: "a", UserFunc: func(map[string]any) (string, bool) { return "", false }},
		"made by As":    {Old: migrate.SCS(scs.New()), Store: session.NewMemoryStore(nil), User: "a", Values: []migrate.Value{{}}},
	} {
		if _, err := migrate.New(m, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
