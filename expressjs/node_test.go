package expressjs_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testing/browsers"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/redis/go-redis/v9"
)

// modules is a folder in which the programs of testdata/node are installed, once for all tests, or
// the error of the installation.
var modules struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	redis.SetLogger(silence{})
	slog.SetDefault(slog.New(slog.DiscardHandler))
	code := m.Run()
	postgres.End()
	if modules.dir != "" {
		_ = os.RemoveAll(modules.dir)
	}
	os.Exit(code)
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// install installs the programs by npm ci.
func install(t testing.TB) string {
	t.Helper()
	servers.Program(t, "node")
	npm := servers.Program(t, "npm")
	modules.once.Do(func() {
		if modules.dir, modules.err = os.MkdirTemp("", "express"); modules.err != nil {
			return
		}
		if modules.err = os.CopyFS(modules.dir, os.DirFS("testdata/node")); modules.err != nil {
			return
		}
		cmd := exec.Command(npm, "ci")
		cmd.Dir = modules.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			modules.err = fmt.Errorf("npm ci: %w\n%s", err, out)
		}
	})
	if modules.err != nil {
		t.Fatal(modules.err)
	}
	return modules.dir
}

// A pair is an Express app and a Go service that share sessions, and a browser that uses both.
type pair struct {
	t            *testing.T
	node, golang string
	log          func() string // returns the output of Node
	m            *session.Manager
	browser      *browsers.Browser
}

// An express is the configuration of an Express app and its Go service.
type express struct {
	program string // "": app.js
	env     []string
	store   func(t *testing.T, o expressjs.Options) (store session.Store, env string)
	secrets []string // secrets of Express
	ours    []string // secrets of Go; nil: the same
	options expressjs.Options
	cookie  session.CookieOptions // Name and Insecure are set by the test

	lifetime time.Duration // session.Options.Lifetime; 0: the default
}

func onRedis(t *testing.T, o expressjs.Options) (session.Store, string) {
	store, client := redisStore(t, o)
	return store, "REDIS=redis://" + client.Options().Addr
}

func onPostgres(t *testing.T, o expressjs.Options) (session.Store, string) {
	store, pool := postgresStore(t, o)
	return store, "POSTGRES=" + pool.Config().ConnString()
}

// versions are the combinations of programs that the tests cover.
var versions = map[string]express{
	"express-session 1.17.3, connect-redis 7":      {env: []string{"EXPRESS_SESSION=express-session-117", "CONNECT_REDIS=connect-redis-7"}, store: onRedis},
	"express-session 1.19.0, connect-redis 10":     {store: onRedis},
	"express-session 1.19.0, connect-pg-simple 10": {store: onPostgres},
}

// withExpress runs a test with each of the versions, in parallel.
func withExpress(t *testing.T, o expressjs.Options, f func(p *pair)) {
	for name, x := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x.options = o
			f(x.start(t))
		})
	}
}

func (x express) start(t *testing.T) *pair {
	t.Helper()
	dir := install(t)
	if x.secrets == nil {
		x.secrets = []string{secret}
	}
	if x.ours == nil {
		x.ours = x.secrets
	}
	store, env := x.store(t, x.options)
	p := &pair{t: t}
	p.startNode(dir, x, env)
	p.startGo(x, store)
	p.browser = browsers.New(t, nil).WithoutRedirects()
	return p
}

func (p *pair) startNode(dir string, x express, env string) {
	port := strconv.Itoa(servers.Port(p.t))
	p.node = "http://127.0.0.1:" + port
	secrets, err := json.Marshal(x.secrets)
	if err != nil {
		p.t.Fatal(err)
	}
	work := p.t.TempDir()
	all := append([]string{"PORT=" + port, "SECRETS=" + string(secrets), env}, x.env...)
	if age := x.options.Cookie.MaxAge; age > 0 {
		all = append(all, fmt.Sprint("MAX_AGE=", age.Milliseconds()))
	}
	answers := func() bool {
		resp, err := http.Get(p.node + "/open")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return true
	}
	program := filepath.Join(dir, cmp.Or(x.program, "app.js"))
	servers.Start(p.t, servers.Command{
		Args: []string{servers.Program(p.t, "node"), program},
		Dir:  work, Env: all, Ready: answers,
	})
	p.log = func() string {
		log, err := os.ReadFile(filepath.Join(work, "log"))
		if err != nil {
			p.t.Error(err)
		}
		return string(log)
	}
}

func (p *pair) startGo(x express, store session.Store) {
	tokens, err := expressjs.Tokens(x.ours...)
	if err != nil {
		p.t.Fatal(err)
	}
	x.cookie.Name, x.cookie.Insecure = "connect.sid", true
	p.m = session.Must(session.New(&session.Options{
		Store: store, Tokens: tokens, IdleTimeout: 24 * time.Hour, StoreTimeout: time.Minute, // for a busy machine
		Lifetime: x.lifetime, Cookie: x.cookie,
	}))
	server := httptest.NewServer(p.m.Handler(http.HandlerFunc(goRoutes)))
	p.t.Cleanup(server.Close)
	p.golang = server.URL
}

var inside, release = make(chan struct{}), make(chan struct{})

// goRoutes is the Go side of the routes of app.js.
func goRoutes(w http.ResponseWriter, r *http.Request) {
	s, q := session.From(r.Context()), r.URL.Query()
	set := func() {
		var values map[string]any
		_ = json.Unmarshal([]byte(q.Get("values")), &values)
		for name, v := range values {
			session.NewKey[any](name).Set(s, v)
		}
	}
	switch r.URL.Path {
	case "/get":
		values := map[string]any{}
		for _, name := range s.Names() {
			values[name] = session.NewKey[any](name).Get(s)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"id": s.ID(), "user": s.User(), "values": values, "error": fmt.Sprint(s.Err())})
	case "/set":
		set()
	case "/slow":
		s.User()
		inside <- struct{}{}
		<-release
		set()
	case "/flash":
		addFlash(s, q.Get("kind"), q.Get("text"))
	case "/flashes":
		_ = json.NewEncoder(w).Encode(flashes(s))
	case "/destroy":
		s.Logout()
	case "/regenerate":
		s.Login("ann") // a reauthentication keeps the id
	case "/renew":
		s.Renew()
	case "/remember":
		s.Remember(30 * 24 * time.Hour)
	case "/login":
		s.Login(q.Get("user"))
	}
}

// An answer is the response of /get.
type answer struct {
	ID     string
	User   any
	Values map[string]any
	MaxAge any
	Error  string
}

// do sends a request to one side.
func (p *pair) do(at, path string) *http.Response {
	p.t.Helper()
	resp, err := p.browser.Get(at + path)
	if err != nil {
		p.t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(strings.NewReader(string(b)))
	if resp.StatusCode >= 400 {
		p.t.Errorf("%s%s: %s\n%s", at, path, resp.Status, b)
	}
	return resp
}

func (p *pair) get(at string) (a answer) {
	p.t.Helper()
	if err := json.NewDecoder(p.do(at, "/get").Body).Decode(&a); err != nil {
		p.t.Error(err)
	}
	return a
}

func (p *pair) set(at, values string) *http.Response {
	p.t.Helper()
	return p.do(at, "/set?values="+url.QueryEscape(values))
}

var gates atomic.Int64 // number of the last slow request, in all tests

// slow sends a request that loads its session before it calls meanwhile, and sets values, if any,
// after meanwhile has returned.
func (p *pair) slow(at, values string, meanwhile func()) {
	p.t.Helper()
	gate := fmt.Sprint("?gate=", gates.Add(1))
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.do(at, "/slow"+gate+"&values="+url.QueryEscape(values))
	}()
	if at == p.golang {
		<-inside
	} else {
		p.gate("/inside" + gate)
	}
	meanwhile()
	if at == p.golang {
		release <- struct{}{}
	} else {
		p.gate("/open" + gate)
	}
	<-done
}

// gate sends a request about a slow request to Express, without a cookie.
func (p *pair) gate(path string) {
	p.t.Helper()
	resp, err := http.Get(p.node + path)
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
}

// cookie returns the cookie of the browser.
func (p *pair) cookie() string {
	for _, c := range p.browser.Cookies(p.node) {
		if c.Name == "connect.sid" {
			return c.Value
		}
	}
	return ""
}

// expect fails the test unless both sides have these values, as JSON, in the same session.
func (p *pair) expect(values string) {
	p.t.Helper()
	ours, theirs := p.get(p.golang), p.get(p.node)
	for side, a := range map[string]answer{"Go": ours, "Express": theirs} {
		b, _ := json.Marshal(a.Values)
		if string(b) != values {
			p.t.Errorf("%s has the values %s, want %s", side, b, values)
		}
	}
	if values != "{}" && ours.ID != theirs.ID {
		p.t.Errorf("Go has the id %q, Express %q", ours.ID, theirs.ID)
	}
}

// TestBothWays checks that a session that one side begins can be read, changed and ended by the
// other.
func TestBothWays(t *testing.T) {
	for _, o := range []expressjs.Options{{}, {Cookie: expressjs.Cookie{MaxAge: time.Hour, SameSite: "lax"}}} {
		withExpress(t, o, func(p *pair) {
			for begins, other := range map[string]string{p.node: p.golang, p.golang: p.node} {
				p.set(begins, `{"a":1}`)
				cookie := p.cookie()
				p.expect(`{"a":1}`)
				p.set(other, `{"b":"é€😀"}`)
				p.expect(`{"a":1,"b":"é€😀"}`)
				p.set(begins, `{"a":2,"c":[1,{"d":null}]}`)
				p.expect(`{"a":2,"b":"é€😀","c":[1,{"d":null}]}`)
				if now := p.cookie(); now != cookie {
					p.t.Errorf("the cookie changed from %q to %q", cookie, now)
				}
				// A new id drops the values at Express and keeps them at Go.
				p.do(other, "/regenerate")
				if now := p.cookie(); other == p.golang && now == cookie {
					p.t.Error("the id did not change")
				}
				p.set(begins, `{"e":1}`)
				want := `{"e":1}`
				if other == p.golang {
					want = `{"a":2,"b":"é€😀","c":[1,{"d":null}],"e":1}`
				}
				p.expect(want)
				p.do(other, "/destroy")
				p.expect(`{}`)
			}
		})
	}
}

// TestRolling checks that a user who reauthenticates at Go stays logged in, and may continue at
// either side, although Express sends its cookie in each response, also in that of an in-flight
// request that only reads.
func TestRolling(t *testing.T) {
	for name, x := range versions {
		t.Run(name, func(t *testing.T) {
			x.env = append(slices.Clone(x.env), "ROLLING=true")
			x.options = expressjs.Options{UserMember: "userId", Cookie: expressjs.Cookie{MaxAge: time.Hour, SameSite: "lax"}}
			x.cookie = session.CookieOptions{Persistent: true}
			p := x.start(t)
			for _, path := range []string{"/login?user=ann", "/renew", "/remember", "/set?values=%7B%22go%22%3A1%7D"} {
				p.set(p.node, `{"userId":"ann"}`)
				id := p.get(p.node).ID
				p.slow(p.node, `{}`, func() {
					p.do(p.golang, path)
					if a := p.get(p.golang); a.User != "ann" || a.ID != id {
						t.Errorf("%s: at Go before Express has answered: %+v", path, a)
					}
				})
				if a := p.get(p.golang); a.User != "ann" || a.ID != id {
					t.Errorf("%s: at Go: %+v", path, a)
				}
				if a := p.get(p.node); a.Values["userId"] != "ann" || a.ID != id {
					t.Errorf("%s: at Express: %+v", path, a)
				}
				p.do(p.golang, "/destroy")
			}
		})
	}
}

// TestSlowWriters checks a slow write of Go beside a write of Express, and beside an Express that
// ends the session, and a slow request of Express that writes a session again that Go has ended.
func TestSlowWriters(t *testing.T) {
	for name, x := range versions {
		t.Run(name, func(t *testing.T) {
			p := x.start(t)
			p.set(p.node, `{"a":1}`)
			p.slow(p.golang, `{"go":1}`, func() { p.set(p.node, `{"node":1}`) })
			p.expect(`{"a":1,"go":1,"node":1}`)
			p.slow(p.golang, `{"go":2}`, func() { p.do(p.node, "/destroy") })
			p.expect(`{}`)

			p.set(p.node, `{"a":1}`)
			p.slow(p.node, `{"node":2}`, func() { p.do(p.golang, "/destroy") })
			if a := p.get(p.golang); a.ID != "" || len(a.Values) > 0 {
				t.Errorf("Go ended the session, and Go has %v", a)
			}
			if a := p.get(p.node); len(a.Values) > 0 {
				t.Errorf("Go ended the session, and Express has %v", a)
			}
		})
	}
}

// TestParallelWriters checks that 200 writers of Go, with one value each, keep all values beside
// readers of Express.
func TestParallelWriters(t *testing.T) {
	withExpress(t, expressjs.Options{}, func(p *pair) {
		const n = 200
		p.set(p.node, `{"a":1}`)
		var wg sync.WaitGroup
		room := make(chan struct{}, 16)
		for i := range n {
			wg.Go(func() {
				room <- struct{}{}
				defer func() { <-room }()
				p.set(p.golang, fmt.Sprintf(`{"k%d":%d}`, i, i))
				if i%4 == 0 {
					p.get(p.node)
				}
			})
		}
		wg.Wait()
		for _, at := range []string{p.golang, p.node} {
			if a := p.get(at); len(a.Values) != n+1 {
				p.t.Errorf("%d of %d values are kept", len(a.Values)-1, n)
			}
		}
	})
}

// TestFastify checks that a session that one side begins can be read, changed and ended by the
// other, as with Express.
func TestFastify(t *testing.T) {
	for _, o := range []expressjs.Options{{UserMember: "userId"}, {UserMember: "userId", Cookie: expressjs.Cookie{MaxAge: time.Hour}}} {
		x := express{program: "fastify.js", store: onRedis, secrets: []string{strings.Repeat("keyboard cat ", 3)}, options: o}
		p := x.start(t)
		for begins, other := range map[string]string{p.node: p.golang, p.golang: p.node} {
			p.set(begins, `{"a":1}`)
			p.expect(`{"a":1}`)
			p.set(other, `{"b":"é"}`)
			p.set(begins, `{"a":2}`)
			p.expect(`{"a":2,"b":"é"}`)
			p.do(p.golang, "/login?user=ann")
			p.expect(`{"a":2,"b":"é","userId":"ann"}`)
			p.set(p.node, `{"userId":"bob"}`)
			if a := p.get(p.golang); a.User != "bob" {
				t.Errorf("Fastify has logged in bob, and the user at Go is %v", a.User)
			}
			p.do(p.node, "/regenerate")
			p.set(p.node, `{"c":1}`)
			p.expect(`{"c":1}`)
			p.do(other, "/destroy")
			p.expect(`{}`)
		}
	}
}

// TestConnectFlash checks that each side shows the flashes of the other, once.
func TestConnectFlash(t *testing.T) {
	withExpress(t, expressjs.Options{}, func(p *pair) {
		for _, c := range []struct{ says, shows string }{{p.node, p.golang}, {p.golang, p.node}, {p.golang, p.golang}} {
			for _, other := range []string{p.golang, p.node} { // both sides add flashes before one shows them
				p.do(c.says, "/flash?kind=error&text=Wrong")
				p.do(other, "/flash?kind=error&text=Again")
				p.do(other, "/flash?kind=info&text=Hello")
				for _, want := range []string{`{"error":["Wrong","Again"],"info":["Hello"]}`, ""} {
					b, _ := io.ReadAll(p.do(c.shows, "/flashes").Body)
					if got := strings.TrimSpace(string(b)); got != want && (want != "" || got != "null" && got != "{}") {
						p.t.Errorf("the flashes are %s, want %q", got, want)
					}
				}
			}
		}
		p.set(p.node, `{"flash":{"error":[{"id":1}]}}`)
		p.do(p.golang, "/flash?kind=error&text=Again")
		if b, _ := io.ReadAll(p.do(p.node, "/flashes").Body); string(b) != `{"error":[{"id":1},"Again"]}` {
			p.t.Errorf("the flashes are %s", b)
		}
	})
}

// TestDebugTellsResave checks that the debug output of express-session shows whether an app has
// resave: true, for apps whose sessions do not show it.
func TestDebugTellsResave(t *testing.T) {
	for name, x := range versions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for resave, want := range map[string]string{"": "touching", "true": "saving"} {
				x := x
				x.env = append(slices.Clone(x.env), "DEBUG=express-session", "RESAVE="+resave)
				p := x.start(t)
				p.set(p.node, `{"a":1}`)
				before := len(p.log())
				p.get(p.node)
				output := p.log()[before:]
				for _, word := range []string{"touching", "saving"} {
					if n := strings.Count(output, "express-session "+word); n > 1 || n == 1 != (word == want) {
						t.Errorf("resave %q: the output has %q %d times:\n%s", resave, word, n, output)
					}
				}
			}
		})
	}
}

// TestPassport checks that a login on one side is a login on the other, and likewise a logout.
func TestPassport(t *testing.T) {
	withExpress(t, expressjs.Options{Passport: true}, func(p *pair) {
		for _, at := range []string{p.golang, p.node} {
			p.do(at, "/login?user=ann")
			for _, other := range []string{p.golang, p.node} {
				if a := p.get(other); a.User != "ann" {
					p.t.Errorf("after the login the user is %v", a)
				}
			}
			if list, err := p.m.List(p.t.Context(), "ann"); at == p.golang && (len(list) != 1 || err != nil) {
				p.t.Errorf("%d sessions, %v", len(list), err)
			}
		}
		p.do(p.node, "/logout")
		if a := p.get(p.golang); a.User != "" {
			p.t.Errorf("after the logout at Express the user at Go is %v", a)
		}
		p.do(p.node, "/login?user=ann")
		p.do(p.golang, "/destroy")
		if a := p.get(p.node); a.User != nil {
			p.t.Errorf("after the logout at Go the user at Express is %v", a)
		}
	})
}

// TestRotation checks the rotation of secrets, with each side as the first to have the new one.
func TestRotation(t *testing.T) {
	for name, x := range versions {
		if strings.HasSuffix(name, "connect-pg-simple 10") {
			continue // the store does not affect the cookie
		}
		for _, c := range []struct{ theirs, ours []string }{
			{[]string{"old"}, []string{"old", "new"}},
			{[]string{"old", "new"}, []string{"old"}},
			{[]string{"old", "new"}, []string{"new", "old"}},
			{[]string{"new", "old"}, []string{"old", "new"}},
			{[]string{"new"}, []string{"new", "old"}},
		} {
			t.Run(fmt.Sprint(name, c), func(t *testing.T) {
				t.Parallel()
				x := x
				x.secrets, x.ours = c.theirs, c.ours
				p := x.start(t)
				// The side with more secrets verifies the cookies of the other. If both have the
				// same secrets, each verifies those of the other.
				if len(c.ours) > 1 {
					p.set(p.node, `{"a":1}`)
					p.expect(`{"a":1}`)
					p.do(p.node, "/destroy")
					p.browser = browsers.New(t, nil).WithoutRedirects()
				}
				if len(c.theirs) > 1 || c.ours[0] == c.theirs[0] {
					p.set(p.golang, `{"b":1}`)
					p.expect(`{"b":1}`)
				}
			})
		}
	}
}

// TestRedirect checks that a request to Go keeps its cookie, and has the session as soon as the
// record is stored, if Express has answered before it stored the record.
func TestRedirect(t *testing.T) {
	withExpress(t, expressjs.Options{}, func(p *pair) {
		p.do(p.node, "/late?ms=300")
		resp := p.do(p.node, "/redirect?to="+url.QueryEscape(p.golang+"/get"))
		if resp.StatusCode != 302 {
			p.t.Fatal(resp.Status)
		}
		cookie := p.cookie()
		if resp = p.do(p.golang, "/get"); resp.Header.Get("Set-Cookie") != "" || p.cookie() != cookie {
			p.t.Errorf("Go sets %q", resp.Header.Get("Set-Cookie"))
		}
		for deadline := time.Now().Add(time.Minute); p.get(p.golang).Values["page"] != "first"; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				p.t.Fatal("the session is lost")
			}
		}
	})
}
