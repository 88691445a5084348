package main

import (
	"context"
	"strings"
	"testing"
	"time"

	sessions "github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testserver"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

const (
	secret  = "keyboard cat"
	fine    = `{"cookie":{"originalMaxAge":3600000,"expires":"2020-01-02T03:04:05.678Z","secure":true,"httpOnly":true,"path":"/","sameSite":"lax"},"passport":{"user":7}}`
	session = `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"x":1}`
)

// diagnose runs the command and returns what it printed.
func diagnose(t *testing.T, env map[string]string, args ...string) (string, int, error) {
	t.Helper()
	var out strings.Builder
	n, err := run(t.Context(), args, func(name string) string { return env[name] }, strings.NewReader(args[len(args)-1]), &out)
	return out.String(), n, err
}

// newToken is a cookie's value, and its id.
func newToken(t *testing.T, secret string) (value, id string) {
	t.Helper()
	tokens, err := expressjs.Tokens(secret)
	if err != nil {
		t.Fatal(err)
	}
	return tokens.New()
}

// endByGo ends a session as a Go service does.
func endByGo(t *testing.T, client *redis.Client, id string) {
	store, err := expressjs.NewRedisStore(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Millisecond)
	r := &sessions.Record{ID: id, Data: []byte("{}"), Created: now, LastSeen: now, Deadline: now.Add(time.Minute), Expires: now.Add(time.Minute), Version: 1}
	if err := store.Create(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	tombstone := *r
	tombstone.Data, tombstone.Version = []byte(`{"session.ended":"logout"}`), 2
	if err := store.Save(t.Context(), &tombstone, 1); err != nil {
		t.Fatal(err)
	}
}

func TestRedis(t *testing.T) {
	url := "redis://" + testserver.Redis(t)
	o, _ := redis.ParseURL(url)
	client := redis.NewClient(o)
	defer client.Close()
	ctx := context.Background()
	value, id := newToken(t, secret)
	for name, c := range map[string]struct {
		record string
		life   time.Duration
		secret string
		cookie string
		args   []string
		before func()
		want   []string // of the output
		n      int
	}{
		"all is well":       {record: fine, life: 59 * time.Minute, want: []string{"ok  the signature is good", "Nothing is wrong", "Passport: true, NumericUser: true", "resave is false", "MaxAge: 3600 * time.Second", `SameSite: "lax"`}},
		"a browser session": {record: session, life: time.Hour, want: []string{"Nothing is wrong", "Insecure: true"}},
		"name and value":    {record: fine, life: time.Hour, cookie: "connect.sid=" + value, want: []string{"Nothing is wrong"}},
		"a header":          {record: fine, life: time.Hour, cookie: "sid=" + value + "; other=1", want: []string{"Nothing is wrong"}},
		"an older secret":   {record: fine, life: time.Hour, args: []string{"-secret-env", "NEW,SESSION_SECRET"}, want: []string{"that is an older secret", "Nothing is wrong"}},
		"another secret":    {record: fine, life: time.Hour, secret: "wrong", want: []string{"the signature is none of SESSION_SECRET"}, n: 1},
		"a line break":      {record: fine, life: time.Hour, secret: secret + "\n", want: []string{"without the spaces, line breaks or quotes"}, n: 1},
		"half a cookie":     {record: fine, life: time.Hour, cookie: value[:len(value)-5], want: []string{"was not copied whole"}, n: 1},
		"half an escape":    {record: fine, life: time.Hour, cookie: value + "%2", want: []string{"was not copied whole"}, n: 1},
		"no cookie of its":  {record: fine, life: time.Hour, cookie: "abc", want: []string{`does not begin with "s%3A"`}, n: 1},
		"no record":         {want: []string{"there is no record of this id"}, n: 1},
		"another prefix":    {want: []string{`under the prefix "app:", not "sess:"`}, n: 1, before: func() { client.Set(ctx, "app:"+id, fine, time.Hour) }},
		"ended by Go":       {want: []string{"Go has ended this session"}, before: func() { endByGo(t, client, id) }},
		"a hash":            {want: []string{"is a hash"}, n: 1, before: func() { client.HSet(ctx, "sess:"+id, "a", "b") }},
		"no end":            {record: session, want: []string{"no time to live"}, n: 1},
		"too long a life":   {record: fine, life: 3 * time.Hour, want: []string{"lives for another 3h0m0s, and the cookie's maxAge is 1h0m0s"}, n: 1},
		"just written":      {record: strings.Replace(fine, "2020-01-02T03:04:05.678Z", time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000Z"), 1), life: time.Hour, want: []string{"Set resave: false"}},
		"no JSON":           {record: "{", life: time.Hour, want: []string{"not a JSON object"}, n: 1},
		"no cookie object":  {record: `{"x":1}`, life: time.Hour, want: []string{"has no cookie object"}, n: 1},
		"a text as maxAge":  {record: `{"cookie":{"originalMaxAge":"1","save":1},"save":1}`, life: time.Hour, want: []string{"cookie.originalMaxAge", "never answers", `a value "save"`}, n: 2},
	} {
		if err := client.FlushAll(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		if c.record != "" {
			client.Set(ctx, "sess:"+id, c.record, c.life)
		}
		if c.before != nil {
			c.before()
		}
		env := map[string]string{"SESSION_SECRET": secret, "NEW": "new"}
		if c.secret != "" {
			env["SESSION_SECRET"] = c.secret
		}
		if c.cookie == "" {
			c.cookie = value
		}
		got, n, err := diagnose(t, env, append(append([]string{"-redis", url}, c.args...), c.cookie)...)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, got)
			}
		}
		if err != nil || n != c.n {
			t.Errorf("%s: %d problems, want %d, %v\n%s", name, n, c.n, err, got)
		}
		if strings.Contains(got, id) || strings.Contains(got, secret) {
			t.Errorf("%s: prints what it must not:\n%s", name, got)
		}
	}
}

func TestPostgres(t *testing.T) {
	url := testserver.Postgres(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	value, id := newToken(t, secret)
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE "session" ("sid" varchar NOT NULL PRIMARY KEY, "sess" json NOT NULL, "expire" timestamp(6) NOT NULL)`)
	env := map[string]string{"SESSION_SECRET": secret}
	record := strings.Replace(fine, "2020-01-02T03:04:05.678Z", time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000Z"), 1)
	for zone, want := range map[string]string{"UTC": "Nothing is wrong", "Asia/Tokyo": "another TimeZone", "Asia/Kathmandu": "another TimeZone"} {
		exec(`SET TIME ZONE '` + zone + `'`)
		exec(`INSERT INTO "session" (sid, sess, expire) VALUES ($1, $2, to_timestamp($3::float8)) ON CONFLICT (sid) DO UPDATE SET sess = EXCLUDED.sess, expire = EXCLUDED.expire`, id, record, float64(time.Now().Add(time.Hour).Unix()))
		got, _, err := diagnose(t, env, "-postgres", url+"&timezone=UTC", value)
		if err != nil || !strings.Contains(got, want) || !strings.Contains(got, "TimeZone is UTC") {
			t.Errorf("%s: no %q, %v in\n%s", zone, want, err, got)
		}
	}
	exec(`DELETE FROM "session"`)
	if got, n, err := diagnose(t, env, "-postgres", url, value); n != 1 || err != nil || !strings.Contains(got, "there is no row") {
		t.Errorf("%d, %v: %s", n, err, got)
	}
}

func TestArguments(t *testing.T) {
	value, id := newToken(t, secret)
	env := map[string]string{"SESSION_SECRET": secret}
	for want, args := range map[string][]string{
		"only argument":         {"-redis", "redis://127.0.0.1:1", value, value},
		"either -redis or":      {value},
		"X is empty":            {"-redis", "redis://127.0.0.1:1", "-secret-env", "X", value},
		"not a URL":             {"-redis", "localhost", value},
		"connection refused":    {"-redis", "redis://127.0.0.1:1", value},
		"failed to connect":     {"-postgres", "postgres://127.0.0.1:1/x", value},
		"not defined: -invalid": {"-invalid"},
	} {
		if _, _, err := diagnose(t, env, args...); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), id) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if got, _, _ := diagnose(t, env, "-redis", "redis://127.0.0.1:1", "-"); !strings.Contains(got, "does not begin") {
		t.Errorf("standard input is not read: %s", got)
	}
}
