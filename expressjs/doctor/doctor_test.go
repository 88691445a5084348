package main

import (
	"context"
	"strings"
	"testing"
	"time"

	sessions "github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
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

// newToken returns the value of a cookie, and its id.
func newToken(t *testing.T, secret string) (value, id string) {
	t.Helper()
	tokens, err := expressjs.Tokens(secret)
	if err != nil {
		t.Fatal(err)
	}
	return tokens.New()
}

// endByGo ends a session as a Go service ends it.
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
	url := "redis://" + servers.Redis(t).Addr
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
		want   []string // in the output

		wantNot []string // in the output
		n       int
	}{
		"no fault": {record: fine, life: 59 * time.Minute, want: []string{
			"ok  the signature is valid", "ok  this Redis user has the rights that Go needs: ~sess:* ~go-session:* +eval", "if Express used it, resave is false",
			`expressjs.Options{Passport: true, NumericUser: true, Cookie: expressjs.Cookie{MaxAge: time.Hour, SameSite: "lax"}}`,
			`Lifetime: 30 * 24 * time.Hour, Cookie: session.CookieOptions{Name: "connect.sid"}}`, `does not know: give "name=value"`,
			"    No fault in what was checked: the signature, the rights of this Redis user, the record, when it ends, resave, if Express was the last to use it, that session.New accepts the options.\n",
		}, wantNot: []string{"!!", "??"}},
		"a browser session": {record: session, life: time.Hour, want: []string{
			"Insecure: true", "??  whether the app has resave: true", "DEBUG=express-session", "In production both sides should set Secure", "without SameSite",
			"No fault in what was checked: the signature, the rights of this Redis user, the record, when it ends, that session.New accepts the options. Not checked, see ??: resave, who the user is.\n",
		}, wantNot: []string{"resave is false", "MaxAge"}},
		"name and value":          {record: fine, life: time.Hour, cookie: "shop.sid=" + value, want: []string{"No fault", `Name: "shop.sid"`}, wantNot: []string{`give "name=value"`}},
		"a header":                {record: fine, life: time.Hour, cookie: "sid=" + value + "; other=1", want: []string{"No fault", `Name: "sid"`}},
		"an older secret":         {record: fine, life: time.Hour, args: []string{"-secret-env", "NEW,SESSION_SECRET"}, want: []string{"SESSION_SECRET is an older secret", "No fault"}},
		"another secret":          {record: fine, life: time.Hour, secret: "wrong", want: []string{"the signature is none of SESSION_SECRET"}, n: 1},
		"a list of secrets":       {record: fine, life: time.Hour, secret: "new, " + secret, want: []string{"with commas between them"}, n: 1},
		"a line break":            {record: fine, life: time.Hour, secret: secret + "\n", want: []string{"without the spaces, line breaks or quotes"}, n: 1},
		"half a cookie":           {record: fine, life: time.Hour, cookie: value[:len(value)-5], want: []string{"was not copied whole"}, n: 1},
		"half an escape":          {record: fine, life: time.Hour, cookie: value + "%2", want: []string{"was not copied whole"}, n: 1},
		"not a cookie of Express": {record: fine, life: time.Hour, cookie: "abc", want: []string{`does not begin with "s%3A"`, "cookiePrefix: 's:'"}, n: 1},
		"no record":               {want: []string{"there is no record of this id", "No fault in: the signature, the rights of this Redis user.\n"}, n: 1},
		"another prefix":          {want: []string{`under the prefix "shop:", not "sess:"`, "by -prefix shop:.", `Options{Prefix: "shop:", Passport: true`}, n: 1, before: func() { client.Set(ctx, "shop:"+id, fine, time.Hour) }},
		"an odd prefix":           {want: []string{`by -prefix 'it'\''s '.`}, n: 1, before: func() { client.Set(ctx, "it's "+id, fine, time.Hour) }},
		"the right prefix":        {args: []string{"-prefix", "shop:"}, want: []string{`Options{Prefix: "shop:", Passport: true`, "~shop:* ~go-session:* +eval"}, before: func() { client.Set(ctx, "shop:"+id, fine, time.Hour) }},
		"an empty prefix":         {want: []string{`under the prefix "", not "sess:"`, `the prefix "" cannot be shared`}, wantNot: []string{"expressjs.Options{"}, n: 2, before: func() { client.Set(ctx, id, fine, time.Hour) }},
		"a prefix of Go's":        {want: []string{"Go cannot be configured like the app", "Options.Prefix"}, wantNot: []string{"expressjs.Options{"}, n: 2, before: func() { client.Set(ctx, "go-"+id, fine, time.Hour) }},
		"ended by Go":             {want: []string{"Go has ended this session", "No fault in what was checked: the signature, the rights of this Redis user.\n"}, before: func() { endByGo(t, client, id) }},
		"a hash":                  {want: []string{"is not a string"}, n: 1, before: func() { client.HSet(ctx, "sess:"+id, "a", "b") }},
		"no end":                  {record: session, want: []string{"no time to live", "whether the app has resave"}, n: 1},
		"too long a life":         {record: fine, life: 3 * time.Hour, want: []string{"the record lives for another ", ", and the cookie's maxAge is 1h0m0s: another program"}, n: 1},
		"longer than the ttl":     {record: session, life: 48 * time.Hour, want: []string{"the ttl of a session without maxAge (-ttl) is 24h0m0s", "set it by -ttl"}, n: 1},
		"the right ttl":           {record: session, life: 48 * time.Hour, args: []string{"-ttl", "48h"}, want: []string{"expressjs.Options{TTL: 2 * 24 * time.Hour, "}},
		"a long ttl":              {record: session, life: 48 * time.Hour, args: []string{"-ttl", "960h"}, want: []string{"TTL: 40 * 24 * time.Hour", "Lifetime: 40 * 24 * time.Hour"}},
		"just written": {want: []string{"disableTouch: true, with which users who only read", "resave: true, the default", "see ??: resave and disableTouch."}, wantNot: []string{"resave is false"}, before: func() {
			end := time.Now().Add(time.Hour)
			client.Set(ctx, "sess:"+id, at(end), 0)
			client.PExpireAt(ctx, "sess:"+id, end)
		}},
		"30 days":             {record: strings.Replace(fine, "3600000", "2592000000", 1), life: time.Hour, want: []string{"MaxAge: 30 * 24 * time.Hour", "Lifetime: 30 * 24 * time.Hour"}},
		"a year":              {record: strings.Replace(fine, "3600000", "31536000000", 1), life: time.Hour, want: []string{"MaxAge: 365 * 24 * time.Hour", "Lifetime: 365 * 24 * time.Hour"}},
		"300 years":           {record: strings.Replace(fine, "3600000", "9460800000000", 1), life: time.Hour, want: []string{"MaxAge: 73000 * 24 * time.Hour", "Lifetime: 73000 * 24 * time.Hour"}},
		"half a second":       {record: strings.Replace(fine, "3600000", "500", 1), life: time.Minute, want: []string{"Go cannot be configured like the app", "Cookie.MaxAge"}, wantNot: []string{"expressjs.Options{"}, n: 1},
		"some ms less":        {record: strings.Replace(fine, "3600000", "3599998", 1), life: time.Hour, want: []string{"MaxAge: time.Hour"}},
		"in other sites":      {record: `{"cookie":{"originalMaxAge":null,"expires":null,"secure":true,"httpOnly":true,"partitioned":true,"priority":"High","domain":".example.com","path":"/app","sameSite":"none"}}`, life: time.Hour, want: []string{`Cookie: expressjs.Cookie{Path: "/app", Domain: ".example.com", SameSite: "none", Partitioned: true, Priority: "high"}`}},
		"none without Secure": {record: `{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/","sameSite":"none"}}`, life: time.Hour, want: []string{"Go cannot be configured like the app", "None forbids Insecure"}, wantNot: []string{"expressjs.Options{"}, n: 1},
		"strict by true":      {record: strings.Replace(fine, `"lax"`, `true`, 1), life: time.Hour, want: []string{`SameSite: "strict"`}},
		"read by scripts":     {record: strings.Replace(fine, `"httpOnly":true`, `"httpOnly":false`, 1), life: time.Hour, want: []string{"the app has httpOnly: false"}},
		"a member":            {record: strings.Replace(fine, `"passport":{"user":7}`, `"userId":"7"`, 1), life: time.Hour, want: []string{`Options{UserMember: "userId", Cookie`}},
		"a number":            {record: strings.Replace(fine, `"passport":{"user":7}`, `"userId":7`, 1), life: time.Hour, want: []string{`Options{UserMember: "userId", NumericUser: true, Cookie`}},
		"too large a number":  {record: strings.Replace(fine, `"passport":{"user":7}`, `"userId":9007199254740993`, 1), life: time.Hour, want: []string{`Options{UserMember: "userId", Cookie`}},
		"an object":           {record: strings.Replace(fine, `"passport":{"user":7}`, `"user":{"name":"Ann","id":7}`, 1), life: time.Hour, want: []string{`Options{UserMember: "user.id", NumericUser: true, Cookie`}},
		"an object's name":    {record: strings.Replace(fine, `"passport":{"user":7}`, `"user":{"a.b":"x","nick":"ann"}`, 1), life: time.Hour, want: []string{`Options{UserMember: "user.nick", Cookie`}},
		"a Passport object":   {record: strings.Replace(fine, `"user":7`, `"user":{"id":"7","username":"ann"}`, 1), life: time.Hour, want: []string{`Options{UserMember: "passport.user.id", Cookie`}, wantNot: []string{"Passport: true", "NumericUser"}},
		"a Passport text":     {record: strings.Replace(fine, `"user":7`, `"user":"7"`, 1), life: time.Hour, want: []string{`Options{Passport: true, Cookie`}},
		"several":             {record: strings.Replace(fine, `"passport":{"user":7}`, `"user":{"id":7},"userId":7`, 1), life: time.Hour, want: []string{`UserMember: "userId"`, "other members that look like a user: user.id."}},
		"logged out":          {record: strings.Replace(fine, `"user":7`, ``, 1), life: time.Hour, want: []string{"??  no member of the record looks like a user.", "see ??: who the user is."}},
		"large":               {record: strings.Replace(fine, `"user":7`, `"user":7,"x":"`+strings.Repeat("x", 100_000)+`"`, 1), life: time.Hour, want: []string{"the values have 100040 bytes, more than session.Options.MaxDataSize, which is 65536 by default"}},
		"no JSON":             {record: "{", life: time.Hour, want: []string{"not a JSON object", "No fault in: the signature, the rights of this Redis user.\n"}, n: 1},
		"a serializer":        {record: "eyJjb29raWUiOnt9fQ==", life: time.Hour, want: []string{"uses its own serializer, which cannot be shared"}, wantNot: []string{"a write by Go mends"}, n: 1},
		"a serializer's JSON": {record: `{"v":1,"sealed":"x"}`, life: time.Hour, want: []string{"unless the app's store uses its own serializer"}, wantNot: []string{"a write by Go mends"}, n: 1},
		"no cookie object":    {record: `{"x":1}`, life: time.Hour, want: []string{"has no cookie object"}, n: 1},
		"a text as maxAge":    {record: `{"cookie":{"originalMaxAge":"1","save":1},"save":1}`, life: time.Hour, want: []string{"cookie.originalMaxAge", "never answers", `a value "save"`}, n: 2},
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
		for _, wantNot := range c.wantNot {
			if strings.Contains(got, wantNot) {
				t.Errorf("%s: %q in\n%s", name, wantNot, got)
			}
		}
		if err != nil || n != c.n {
			t.Errorf("%s: %d problems, want %d, %v\n%s", name, n, c.n, err, got)
		}
		if strings.Contains(got, id) || strings.Contains(got, secret) {
			t.Errorf("%s: prints the id or the secret:\n%s", name, got)
		}
	}
}

func TestPostgres(t *testing.T) {
	url := servers.PostgresURL(servers.Postgres(t, "-c", "fsync=off").Addr)
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
	utc := url + "&timezone=UTC"
	put := func(zone, record string, end time.Time) {
		t.Helper()
		exec(`SET TIME ZONE '` + zone + `'`)
		exec(`INSERT INTO "session" (sid, sess, expire) VALUES ($1, $2, to_timestamp($3::float8)) ON CONFLICT (sid) DO UPDATE SET sess = EXCLUDED.sess, expire = EXCLUDED.expire`, id, record, float64(end.UnixMilli())/1000)
	}
	for _, c := range []struct {
		zone   string
		maxAge bool
		used   time.Duration // time of the last use, after the write
		want   string
		n      int
	}{
		{"UTC", true, 0, "ok  Node's connections have the same TimeZone as this one, UTC", 0},
		{"UTC", true, 20 * time.Minute, "ok  Node's connections have the same TimeZone as this one, UTC", 0},
		{"UTC", true, 30 * time.Minute, "later than its cookie: the session was used that much later than it was written, or Node's connections", 0},
		{"Asia/Tokyo", true, 0, "the end of the row differs by 9h0m0s from that of its cookie: Node's connections have another TimeZone than this one, which has UTC", 2},
		{"Asia/Kathmandu", true, 0, "differs by 5h45m0s from that of its cookie", 2},
		{"America/Caracas", true, 0, "differs by -4h0m0s from that of its cookie", 2},
		{"UTC", false, 0, "see ??: the TimeZone of Node's connections, resave", 0},
		{"America/Caracas", false, 0, "the row must live for 24h0m0s. If the difference is some hours", 0},
		{"Asia/Tokyo", false, 0, "is 24h0m0s: Node's connections have another TimeZone than this one, or the store has another ttl", 1},
	} {
		end := time.Now().Add(time.Hour)
		record := at(end.Add(-c.used))
		if !c.maxAge {
			end, record = time.Now().Add(24*time.Hour), session
		}
		put(c.zone, record, end)
		got, n, err := diagnose(t, env, "-postgres", utc, value)
		if err != nil || n != c.n || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %d, %v in\n%s", c, n, err, got)
		}
	}
	put("UTC", at(time.Now().Add(time.Hour)), time.Now().Add(time.Hour))

	// The rights of a role that has none at first.
	exec(`REVOKE CREATE ON SCHEMA public FROM PUBLIC`)
	exec(`CREATE ROLE app LOGIN`)
	as := strings.Replace(utc, "://postgres@", "://app@", 1)
	expect := func(want string, n int, args ...string) {
		t.Helper()
		got, found, err := diagnose(t, env, append(append([]string{"-postgres", as}, args...), value)...)
		if err != nil || found != n || !strings.Contains(got, want) {
			t.Errorf("no %q, %d problems, %v in\n%s", want, found, err, got)
		}
	}
	expect(`may not SELECT on "session", INSERT on "session", UPDATE on "session", DELETE on "session"`, 1)
	exec(`GRANT SELECT ON "session" TO app`)
	expect(`may not INSERT on "session", UPDATE on "session", DELETE on "session"`, 1)
	exec(`GRANT INSERT, UPDATE, DELETE ON "session" TO app`)
	expect(`Go's own table "session_go" does not exist, and this role may not create it. Execute as the owner of the schema: CREATE TABLE IF NOT EXISTS "session_go" (`, 1)
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	store, err := expressjs.NewPostgresStore(pool, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), store.Schema(), pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	expect(`may not SELECT on "session_go"`, 1)
	exec(store.Rights("app"))
	expect(`ok  this role has the rights that Go needs: GRANT SELECT, INSERT, UPDATE, DELETE ON "session", "session_go" TO "app";`, 0)
	expect(`no table other for this role: if connect-pg-simple has a tableName or schemaName, run this again with -table app.session`, 1, "-table", "other")
	expect(`no table no.such for this role`, 1, "-table", "no.such")
	exec(`CREATE SCHEMA app AUTHORIZATION app`)
	exec(`CREATE TABLE app.sessions AS SELECT * FROM "session"`)
	exec(`ALTER TABLE app.sessions OWNER TO app`)
	expect(`expressjs.Options{Table: "app.sessions", Passport`, 0, "-table", "app.sessions")
	exec(`DELETE FROM "session"`)
	expect("there is no row", 1)
}

// TestRedisRights checks that the doctor examines the rights of the Redis user, and changes
// nothing.
func TestRedisRights(t *testing.T) {
	address := servers.Redis(t).Addr
	client := redis.NewClient(&redis.Options{Addr: address})
	defer client.Close()
	value, id := newToken(t, secret)
	env := map[string]string{"SESSION_SECRET": secret}
	store, err := expressjs.NewRedisStore(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Fields(store.Rights())
	for _, right := range all {
		if _, ok := probes[right]; !ok && strings.HasPrefix(right, "+") {
			t.Errorf("no probe for %s", right)
		}
	}
	client.Set(t.Context(), "sess:"+id, fine, time.Hour)
	for _, c := range []struct {
		rights  string
		want    []string
		wantNot []string
		n       int
	}{
		{rights: store.Rights(), want: []string{"this Redis user has the rights that Go needs", "No fault"}},
		{rights: "~sess:* +get +set +expire +del +scan", want: []string{"this Redis user may not eval, evalsha, getrange, mget, setrange, pexpire, pttl, zadd, zrange, zscore, zremrangebyscore on sess:*, nor eval, evalsha, get, ", "each request with 503", "Set the rights: ACL SETUSER app ~sess:* ~go-session:* +eval"}, wantNot: []string{"the rights of"}, n: 1},
		{rights: "~sess:* +@all", want: []string{"may not eval, evalsha, get, ", "on go-session:*: Go", "the record exists"}, wantNot: []string{"on sess:*"}, n: 1},
		{rights: "~go-session:* +@all", want: []string{"may not eval, evalsha, get, ", "on sess:*: Go", "No fault in: the signature.\n"}, wantNot: []string{"on go-session:*"}, n: 1},
		{rights: strings.Replace(store.Rights(), "+zadd", "", 1), want: []string{"may not zadd on sess:*, nor zadd on go-session:*: Go"}, n: 1},
	} {
		args := []any{"ACL", "SETUSER", "app", "reset", "on", ">pw"}
		for _, rule := range strings.Fields(c.rights) {
			args = append(args, rule)
		}
		if err := client.Do(t.Context(), args...).Err(); err != nil {
			t.Fatal(err)
		}
		got, n, err := diagnose(t, env, "-redis", "redis://app:pw@"+address, value)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", c.rights, want, got)
			}
		}
		for _, wantNot := range c.wantNot {
			if strings.Contains(got, wantNot) {
				t.Errorf("%s: %q in\n%s", c.rights, wantNot, got)
			}
		}
		if err != nil || n != c.n {
			t.Errorf("%s: %d problems, %v\n%s", c.rights, n, err, got)
		}
	}
	client.Rename(t.Context(), "sess:"+id, "shop:"+id)
	client.Do(t.Context(), "ACL", "SETUSER", "app", "~shop:*")
	got, n, err := diagnose(t, env, "-redis", "redis://app:pw@"+address, value)
	if n == 0 || err != nil || !strings.Contains(got, "may not SCAN for others") {
		t.Errorf("without +scan: %d, %v\n%s", n, err, got)
	}
	if keys := client.Keys(t.Context(), "*").Val(); len(keys) != 1 {
		t.Errorf("the doctor has changed the keys: %v", keys)
	}
}

// at returns a record whose cookie expires at end.
func at(end time.Time) string {
	return strings.Replace(fine, "2020-01-02T03:04:05.678Z", end.UTC().Format("2006-01-02T15:04:05.000Z"), 1)
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
