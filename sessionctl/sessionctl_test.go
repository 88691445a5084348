package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/redisstore"
	"github.com/coatcheck/session/sessiontest"
	"github.com/coatcheck/session/sqlstore"
	"github.com/redis/go-redis/v9"
)

// The servers run until all tests have ended, because their start takes seconds.
var sharedRedis, sharedPostgres, sharedMariaDB servers.Shared

func TestMain(m *testing.M) {
	code := m.Run()
	for _, s := range []*servers.Shared{&sharedRedis, &sharedPostgres, &sharedMariaDB} {
		s.End()
	}
	os.Exit(code)
}

const (
	secretText = "0123456789abcdef0123456789abcdef"
	password   = "p4ss:w@rd"
)

var numbers atomic.Int64

// A place is a store with tables or keys of its own, and the flags and the environment by which
// sessionctl finds it.
type place struct {
	t     testing.TB
	store session.Store
	db    *sql.DB       // nil: Redis
	redis *redis.Client // nil: a database
	name  string        // of the table, or the prefix of the keys
	args  []string
	env   map[string]string

	secrets []string // no output may contain these
}

// A result is what a run of sessionctl has printed, and its exit status.
type result struct {
	out, err string
	status   int
}

// run runs sessionctl on the store, and checks that nothing secret was printed.
func (p *place) run(args ...string) result { return p.runWith("", args...) }

func (p *place) runWith(in string, args ...string) result {
	p.t.Helper()
	var out, errs strings.Builder
	c := program{getenv: func(name string) string { return p.env[name] }, in: strings.NewReader(in), out: &out, err: &errs}
	r := result{status: c.run(p.t.Context(), append(p.args[:len(p.args):len(p.args)], args...))}
	r.out, r.err = out.String(), errs.String()
	checkSecrets(p.t, r.out+r.err, p.secrets)
	return r
}

// checkSecrets fails the test if a text contains a secret, or a large part of one.
func checkSecrets(t testing.TB, text string, secrets []string) {
	t.Helper()
	for _, s := range append(secrets, secretText, password) {
		if strings.Contains(text, s) || len(s) > 60 && strings.Contains(text, s[len(s)-40:]) {
			t.Errorf("%q was printed:\n%s", s, text)
		}
	}
}

// want checks an exit status, and texts of the output and the errors.
func (r result) want(t testing.TB, status int, texts ...string) {
	t.Helper()
	if r.status != status {
		t.Errorf("the exit status is %d, want %d:\n%s%s", r.status, status, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("there is no %q in\n%s%s", text, r.out, r.err)
		}
	}
}

// parse decodes the JSON that was printed.
func (r result) parse(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		t.Fatalf("no JSON: %v\n%s%s", err, r.out, r.err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newPlace returns a place whose URL is in the environment.
func newPlace(t testing.TB, url string) *place {
	return &place{t: t, env: map[string]string{"SESSION_STORE": url, "SESSION_SECRET": secretText}}
}

func redisPlace(t testing.TB) *place {
	s := sharedRedis.Get(t, func(t testing.TB) *servers.Server {
		s := servers.Redis(t)
		c := redis.NewClient(&redis.Options{Addr: s.Addr})
		defer c.Close()
		must(t, c.ConfigSet(context.Background(), "requirepass", password).Err())
		return s
	})
	return placeInRedis(t, s, password)
}

func placeInRedis(t testing.TB, s *servers.Server, password string) *place {
	url := "redis://" + s.Addr
	if password != "" {
		url = "redis://:p4ss%3Aw%40rd@" + s.Addr
	}
	p := newPlace(t, url)
	p.redis = redis.NewClient(&redis.Options{Addr: s.Addr, Password: password, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = p.redis.Close() })
	p.name = fmt.Sprintf("web%d:", numbers.Add(1))
	p.args = []string{"-prefix", p.name}
	var err error
	p.store, err = redisstore.New(p.redis, &redisstore.Options{Prefix: p.name})
	must(t, err)
	return p
}

// inDatabase creates the table of a place.
func (p *place) inDatabase(driver, dsn string, d sqlstore.Dialect) *place {
	var err error
	p.db, err = sql.Open(driver, dsn)
	must(p.t, err)
	p.t.Cleanup(func() { p.db.Close() })
	p.name = fmt.Sprintf("web%d", numbers.Add(1))
	p.args = []string{"-table", p.name}
	store, err := sqlstore.New(p.db, d, &sqlstore.Options{Table: p.name})
	must(p.t, err)
	must(p.t, store.Migrate(p.t.Context()))
	p.store = store
	return p
}

func (p *place) exec(query string, args ...any) {
	p.t.Helper()
	_, err := p.db.Exec(strings.ReplaceAll(query, "TABLE_NAME", p.name), args...)
	must(p.t, err)
}

func postgresPlace(t testing.TB) *place {
	s := sharedPostgres.Get(t, func(t testing.TB) *servers.Server { return servers.Postgres(t) })
	return placeInPostgres(t, s)
}

// The server trusts every account, whatever its password.
func placeInPostgres(t testing.TB, s *servers.Server) *place {
	url := servers.PostgresURL(s.Addr)
	return newPlace(t, strings.Replace(url, "postgres@", "postgres:p4ss%3Aw%40rd@", 1)).inDatabase("pgx", url, sqlstore.PostgreSQL)
}

func mariadbPlace(t testing.TB) *place {
	s := sharedMariaDB.Get(t, func(t testing.TB) *servers.Server {
		s := servers.MariaDB(t)
		db, err := sql.Open("mysql", servers.MariaDBDSN(s.Addr))
		must(t, err)
		defer db.Close()
		_, err = db.Exec("CREATE USER app IDENTIFIED BY '" + password + "'")
		must(t, err)
		_, err = db.Exec("GRANT ALL ON *.* TO app")
		must(t, err)
		return s
	})
	return newPlace(t, "mysql://app:p4ss%3Aw%40rd@"+s.Addr+"/mysql").inDatabase("mysql", servers.MariaDBDSN(s.Addr), sqlstore.MySQL)
}

func sqlitePlace(t testing.TB) *place {
	path := filepath.Join(t.TempDir(), "the sessions?.db")
	must(t, os.WriteFile(path, nil, 0o600))
	return newPlace(t, "sqlite:"+path).inDatabase("sqlite", "file:"+strings.NewReplacer(" ", "%20", "?", "%3f").Replace(path)+"?_pragma=journal_mode(WAL)", sqlstore.SQLite)
}

// onEach runs a test on every kind of store.
func onEach(t *testing.T, f func(t *testing.T, p *place)) {
	for _, kind := range []struct {
		name string
		open func(testing.TB) *place
	}{{"Redis", redisPlace}, {"PostgreSQL", postgresPlace}, {"MariaDB", mariadbPlace}, {"SQLite", sqlitePlace}} {
		t.Run(kind.name, func(t *testing.T) { f(t, kind.open(t)) })
	}
}

// manager returns the Manager of the program whose sessions are in the store.
func (p *place) manager(opts session.Options) *session.Manager {
	opts.Store, opts.Secrets = p.store, [][]byte{[]byte(secretText)}
	return session.Must(session.New(&opts))
}

var (
	theme = session.NewKey[string]("theme")
	cart  = session.NewKey[[]int]("cart\x1b[2J") // a name that would clear a terminal
)

// begin returns the id and the cookie of a new session. An empty user is anonymous.
func (p *place) begin(m *session.Manager, user string) (id, cookie string) {
	p.t.Helper()
	b := sessiontest.NewBrowser(p.t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		theme.Set(s, "very dark")
		cart.Set(s, []int{1, 2, 3})
		s.AddFlash("info", "Welcome")
		if user != "" {
			s.Login(user)
		}
		must(p.t, s.Save(r.Context()))
		id = s.ID()
	})))
	cookies := b.Get("/").Cookies()
	p.secrets = append(p.secrets, cookies[0].Value)
	return id, cookies[0].Value
}

// isLive reports whether a session is live.
func (p *place) isLive(m *session.Manager, user, id string) bool {
	p.t.Helper()
	infos, err := m.List(p.t.Context(), user)
	must(p.t, err)
	for _, i := range infos {
		if i.ID == id {
			return true
		}
	}
	return false
}

func TestList(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		m := p.manager(session.Options{})
		first, _ := p.begin(m, "alice")
		second, _ := p.begin(m, "alice")
		p.begin(m, "bob")
		p.begin(m, "")
		p.run("list", "alice").want(t, exitDone, "alice has 2 live sessions", first, second, " UTC  ", " ago", "  in ")
		var answer struct {
			User     string
			Sessions []listed
		}
		p.run("-json", "list", "alice").parse(t, &answer)
		if len(answer.Sessions) != 2 || answer.User != "alice" || time.Until(answer.Sessions[0].Expires) < 50*time.Minute {
			t.Errorf("list printed %+v", answer)
		}
		p.run("list", "Alice").want(t, exitDone, "Alice has no live session", p.name)
		p.run("-json", "list", "Alice").want(t, exitDone, `"sessions": []`)
		p.run("list", "eve\x1b]0;title\a").want(t, exitDone, `"eve\x1b]0;title\a" has no live session`)
		r, _ := http.NewRequest("GET", "/", nil)
		sessiontest.Do(t, m, r, func(s *session.Session) { s.Login("dave"); s.Remember(30 * 24 * time.Hour) })
		p.run("list", "dave").want(t, exitDone, "remembered")
		p.run("list", "").want(t, exitUsage, "the user is empty")
	})
}

func TestShow(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		m := p.manager(session.Options{})
		id, _ := p.begin(m, "alice")
		anonymous, _ := p.begin(m, "")
		r := p.run("show", id)
		r.want(t, exitDone, "is live", "alice", "logged in", "last seen", "expires", "theme", `"cart\x1b[2J"`, "flashes", "-values prints them")
		if strings.Contains(r.out, "very dark") || strings.Contains(r.out, "\x1b") {
			t.Errorf("show printed a value, or a control character:\n%q", r.out)
		}
		p.run("-values", "show", id).want(t, exitDone, `"very dark"`, "[1,2,3]")
		p.run("show", anonymous).want(t, exitDone, "nobody is logged in", "created")
		var s shown
		p.run("-json", "show", id).parse(t, &s)
		if s.State != "live" || s.User != "alice" || len(s.Values) != 2 || s.Flashes != 1 || s.Bytes == 0 || s.Values[1].Value != nil ||
			s.Values[1].Name != "theme" || s.Values[1].Bytes != len(`"very dark"`) || !s.Deadline.After(s.Expires) {
			t.Errorf("show printed %+v", s)
		}
		p.entomb(id, body.ReasonRevoke)
		p.run("show", id).want(t, exitBad, "has ended, by a revocation")
		p.run("-json", "show", id).want(t, exitBad, `"state": "ended"`, `"ended_by": "revoked"`)
		p.run("show", "nothing").want(t, exitBad, "There is no session nothing", p.name)
		p.run("-json", "show", "nothing").want(t, exitBad, `"state": "none"`)
		p.run("show", "-dash").want(t, exitBad, "There is no session -dash") // one id in 64 begins with a dash
	})
}

func TestRevoke(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		m := p.manager(session.Options{})
		id, _ := p.begin(m, "alice")
		other, _ := p.begin(m, "bob")
		p.run("revoke", "alice", id).want(t, exitRefused, "no terminal to ask on", "-yes", "End session "+id)
		p.run("-yes", "revoke", "alice", other).want(t, exitBad, "Nothing was ended")
		if !p.isLive(m, "alice", id) || !p.isLive(m, "bob", other) {
			t.Error("a session was ended")
		}
		p.run("-yes", "revoke", "alice", id).want(t, exitDone, "Ended 1 session of alice", id)
		if p.isLive(m, "alice", id) || !p.isLive(m, "bob", other) {
			t.Error("the session was not ended, or another one was")
		}
		p.run("-yes", "revoke", "alice", id).want(t, exitBad, "Nothing was ended")
		var r revoked
		p.run("-yes", "-json", "revoke", "bob", other).parse(t, &r)
		if r.User != "bob" || len(r.Ended) != 1 || r.Ended[0] != other {
			t.Errorf("revoke printed %+v", r)
		}
	})
}

func TestRevokeAll(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		m := p.manager(session.Options{})
		first, _ := p.begin(m, "alice")
		second, _ := p.begin(m, "alice")
		other, _ := p.begin(m, "bob")
		p.run("revoke-all", "alice").want(t, exitRefused, "End 2 sessions of alice")
		if !p.isLive(m, "alice", first) {
			t.Error("a session was ended without a confirmation")
		}
		p.run("-yes", "revoke-all", "alice").want(t, exitDone, "Ended 2 sessions of alice", first, second)
		if p.isLive(m, "alice", first) || p.isLive(m, "alice", second) || !p.isLive(m, "bob", other) {
			t.Error("a session of alice is live, or that of bob is not")
		}
		p.run("-yes", "revoke-all", "alice").want(t, exitDone, "Nothing was ended: alice has no live session")
		p.run("-yes", "-json", "revoke-all", "alice").want(t, exitDone, `"ended": []`)
	})
}

// entomb ends a session as the library does, but so that its tombstone stays for an hour.
func (p *place) entomb(id string, why body.Reason) {
	p.t.Helper()
	rec, err := p.store.Load(p.t.Context(), id)
	must(p.t, err)
	old, now := rec.Version, time.Now().Truncate(time.Millisecond)
	rec.User, rec.Data, rec.Version = "", body.Ending{Reason: why, At: now}.Tombstone(), old+1
	rec.Deadline = now.Add(time.Hour)
	rec.Expires = rec.Deadline
	must(p.t, p.store.Save(p.t.Context(), rec, old))
}

// expire stores a session that has expired.
func (p *place) expire() {
	now := time.Now().Truncate(time.Millisecond)
	must(p.t, p.store.Create(p.t.Context(), &session.Record{
		ID: fmt.Sprint("expired", numbers.Add(1)), User: "alice", Data: []byte("{}"), Version: 1,
		Created: now.Add(-time.Hour), LastSeen: now.Add(-time.Hour), Deadline: now.Add(time.Hour), Expires: now.Add(-time.Minute),
	}))
}

// takeOver stores a record by which package migrate knows an old session that it has taken over.
func (p *place) takeOver() {
	now := time.Now().Truncate(time.Millisecond)
	id := fmt.Sprint("taken-", numbers.Add(1))
	must(p.t, p.store.Create(p.t.Context(), &session.Record{
		ID: id, User: id, Data: []byte("{}"), Version: 1, Created: now, LastSeen: time.Unix(0, 0), Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour),
	}))
}

func TestCountAndSweep(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		m := p.manager(session.Options{})
		p.run("count").want(t, exitDone, "No live session was found", p.name)
		p.begin(m, "alice")
		p.begin(m, "alice")
		p.begin(m, "bob")
		p.begin(m, "")
		ended, _ := p.begin(m, "carol")
		p.entomb(ended, body.ReasonLogout)
		p.expire()
		p.takeOver()
		want := counted{Live: 4, LoggedIn: 3, Users: 2, Anonymous: 1, Tombstones: 1, Takeovers: 1}
		deleted := 0
		if p.db != nil {
			want.Expired, deleted = 1, 1
		}
		var c counted
		if p.run("-json", "count").parse(t, &c); c != want {
			t.Errorf("count printed %+v, want %+v", c, want)
		}
		r := p.run("count")
		r.want(t, exitDone, "3, of 2 users", "1 record of package migrate")
		if strings.Contains(r.out, "sweep deletes them") != (p.db != nil) {
			t.Errorf("count printed\n%s", r.out)
		}
		var s swept
		if p.run("-json", "sweep").parse(t, &s); s.Deleted != deleted {
			t.Errorf("sweep deleted %d, want %d", s.Deleted, deleted)
		}
		if p.db == nil {
			p.run("sweep").want(t, exitDone, "Redis deletes expired sessions by itself")
		} else {
			p.expire()
			p.run("sweep").want(t, exitDone, "Deleted 1 expired session.")
		}
		want.Expired = 0
		if p.run("-json", "count").parse(t, &c); c != want {
			t.Errorf("after a sweep count printed %+v, want %+v", c, want)
		}
	})
}

// TestProgress checks that a count of many keys draws a bar on a terminal, which it removes, and
// none elsewhere.
func TestProgress(t *testing.T) {
	p := redisPlace(t)
	pipe := p.redis.Pipeline()
	for i := range 5000 {
		pipe.Set(t.Context(), fmt.Sprintf("%sother:%d", p.name, i), "x", 0)
	}
	_, err := pipe.Exec(t.Context())
	must(t, err)
	p.begin(p.manager(session.Options{}), "alice")
	must(t, p.redis.Set(t.Context(), p.name+"s:damaged", "x", 0).Err())
	var out, bar strings.Builder
	c := program{getenv: func(name string) string { return p.env[name] }, out: &out, err: &bar, showsProgress: true}
	if status := c.run(t.Context(), append(p.args, "count")); status != exitDone {
		t.Fatalf("the exit status is %d: %s", status, bar.String())
	}
	if !strings.Contains(bar.String(), "\r[#") || !strings.HasSuffix(bar.String(), "\r\x1b[K") {
		t.Errorf("the bar is %q", bar.String())
	}
	if !strings.Contains(out.String(), "1 record is damaged") || !strings.Contains(out.String(), "1, of 1 user") {
		t.Errorf("count printed\n%s", out.String())
	}
	if r := p.run("count"); r.err != "" {
		t.Errorf("without a terminal there is a bar: %q", r.err)
	}
}

// TestMistakes checks what the command says to mistakes of its user, and the exit status.
func TestMistakes(t *testing.T) {
	p := redisPlace(t)
	withURL := func(url string) *place {
		return &place{t: t, env: map[string]string{"SESSION_STORE": url, "SESSION_SECRET": secretText}}
	}
	closed := fmt.Sprintf("127.0.0.1:%d", servers.Port(t))
	for name, test := range map[string]struct {
		at     *place
		args   []string
		status int
		want   []string
	}{
		"help":                    {p, []string{"-help"}, exitDone, []string{"revoke-all USER", "Exit status", "-store-env"}},
		"nothing":                 {p, nil, exitUsage, []string{"Usage", "no command"}},
		"an unknown command":      {p, []string{"lsit", "alice"}, exitUsage, []string{`no command "lsit"`}},
		"an unknown flag":         {p, []string{"-stroe", "redis://:p4ss:w@rd@db"}, exitUsage, []string{"-stroe", "-help"}},
		"a URL as the command":    {p, []string{"redis://:p4ss:w@rd@db"}, exitUsage, []string{"no command"}},
		"no user":                 {p, []string{"list"}, exitUsage, []string{"list takes USER, and nothing else"}},
		"a flag after":            {p, []string{"list", "alice", "-json"}, exitUsage, []string{"flags come before the command"}},
		"two arguments":           {p, []string{"count", "all"}, exitUsage, []string{"count takes no argument"}},
		"a password":              {p, []string{"-store", "redis://:p4ss%3Aw%40rd@db", "count"}, exitUsage, []string{"-store contains a password", "-store-env"}},
		"a password as parameter": {p, []string{"-store", "postgres://db/app?password=p4ss:w@rd", "count"}, exitUsage, []string{"-store contains a password"}},
		"a password not escaped":  {p, []string{"-store", "postgres://app:p4ss:w@rd%@db/app", "count"}, exitUsage, []string{"-store contains a password"}},
		"no store":                {withURL(""), []string{"count"}, exitUsage, []string{"no store", "SESSION_STORE"}},
		"no URL":                  {withURL("localhost"), []string{"count"}, exitUsage, []string{"must begin with redis:"}},
		"another database":        {withURL("mongodb://app:p4ss:w@rd@db"), []string{"count"}, exitUsage, []string{"must begin with redis:"}},
		"a broken URL":            {withURL("redis://:p4ss:w@rd%zz@db"), []string{"count"}, exitUsage, []string{"must be escaped"}},
		"a broken PostgreSQL URL": {withURL("postgres://app:p4ss:w@rd%zz@db/app"), []string{"count"}, exitUsage, nil},
		"a broken MySQL URL":      {withURL("mysql://app:p4ss:w@rd%zz@db/app"), []string{"count"}, exitUsage, []string{"must be escaped"}},
		"an odd parameter":        {withURL("redis://:p4ss%3Aw%40rd@db?x=y"), []string{"count"}, exitUsage, []string{"unexpected option"}},
		"an odd prefix":           {p, []string{"-prefix", "{x}", "count"}, exitUsage, []string{"Options.Prefix"}},
		"an odd table":            {sqlitePlace(t), []string{"-table", "a b", "count"}, exitUsage, []string{"Options.Table"}},
		"no time":                 {p, []string{"-timeout", "0s", "count"}, exitUsage, []string{"-timeout must be"}},
		"no file":                 {withURL("sqlite:/nowhere/sessions.db"), []string{"count"}, exitUsage, []string{"no such file"}},
		"no such table":           {sqlitePlace(t), []string{"-table", "absent", "list", "alice"}, exitStore, []string{`there is no table "absent"`, "-table names another one"}},
		"no Redis":                {withURL("redis://:p4ss%3Aw%40rd@" + closed), []string{"count"}, exitStore, []string{"cannot be reached"}},
		"no PostgreSQL":           {withURL("postgres://app:p4ss%3Aw%40rd@" + closed + "/app"), []string{"count"}, exitStore, []string{"cannot be reached"}},
		"no MySQL":                {withURL("mysql://app:p4ss%3Aw%40rd@" + closed + "/app"), []string{"count"}, exitStore, []string{"cannot be reached"}},
		"another password":        {withURL(strings.Replace(p.env["SESSION_STORE"], "p4ss%3Aw%40rd", "wrong", 1)), []string{"list", "alice"}, exitStore, []string{"WRONGPASS"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.at.t = t
			test.at.run(test.args...).want(t, test.status, test.want...)
		})
	}
}

// TestNoSuchTable checks that every database's reply is explained.
func TestNoSuchTable(t *testing.T) {
	onEach(t, func(t *testing.T, p *place) {
		if p.db != nil {
			p.run("-table", "absent", "count").want(t, exitStore, `there is no table "absent"`)
			p.run("-table", "absent", "check").want(t, exitBad, `there is no table "absent"`, "Migrate")
		}
	})
}

// TestHangingStore checks that a store that does not answer ends a command after -timeout.
func TestHangingStore(t *testing.T) {
	s := servers.Redis(t)
	p := placeInRedis(t, s, "")
	p.args = append(p.args, "-timeout", "300ms")
	defer s.Suspend(t)()
	p.run("list", "alice").want(t, exitStore, "cannot be reached")
}

// TestPasswords checks that an error contains no password that is in the URL of the store, as it is
// and escaped.
func TestPasswords(t *testing.T) {
	const escaped, broken = "p4ss%3Aw%40rd", "p4ss:w@rd%zz"
	for url, want := range map[string]string{
		"redis://:" + escaped + "@db":              "… …",
		"postgres://app:" + escaped + "@db/app":    "… …",
		"postgres://db/app?password=" + escaped:    "… …",
		"mysql://app:" + broken + "@db/app":        password + " " + escaped,
		"postgres://app@db/app?application_name=@": password + " " + escaped,
	} {
		p := program{hidden: passwords(url)}
		if got := p.hide(password + " " + escaped); got != want {
			t.Errorf("%s: %q, want %q", url, got, want)
		}
		if got := p.hide(broken); strings.Contains(url, broken) && got != "…" {
			t.Errorf("%s: %q", url, got)
		}
	}
}

// TestUnknownDate checks what is shown of a session whose time of login is not known: migrate has taken it over.
func TestUnknownDate(t *testing.T) {
	if got := date(time.UnixMilli(time.Time{}.UnixMilli())); got != "unknown" {
		t.Errorf("the date is shown as %q", got)
	}
}
