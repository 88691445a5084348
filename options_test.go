package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// complaints returns the mistakes that New reports for o, one per line.
func complaints(t *testing.T, o session.Options) []string {
	t.Helper()
	m, err := session.New(&o)
	if (err == nil) != (m != nil) {
		t.Fatalf("New returned %v and %v", m, err)
	}
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// TestMisconfigurationIsAnErrorOfNew: promise 12. New checks every rule, and reports each
// mistake as "session: Options.X: the rule".
func TestMisconfigurationIsAnErrorOfNew(t *testing.T) {
	cookie := func(c session.CookieOptions) session.Options { return session.Options{Cookie: c} }
	good := []byte("0123456789abcdef0123456789abcdef")
	short := good[:31]
	for _, c := range []struct {
		what string
		o    session.Options
		want []string // beginning of each mistake; none: valid
	}{
		{"nothing", session.Options{}, nil},
		{"a store and a secret", session.Options{Store: newSpy(), Secrets: [][]byte{good}}, nil},
		{"a buffer that was not filled", session.Options{Secrets: [][]byte{make([]byte, 32)}}, []string{"Secrets[0]"}},
		{"a secret of one character", session.Options{Secrets: [][]byte{good, bytes.Repeat([]byte("s"), 40)}}, []string{"Secrets[1]"}},
		{"a secret without a store", session.Options{Secrets: [][]byte{good}}, nil},
		{"four secrets", session.Options{Secrets: [][]byte{good, good, good, good}}, nil},
		{"idle as long as life", session.Options{Lifetime: time.Minute, IdleTimeout: time.Minute}, nil},
		{"life shorter than the idle default", session.Options{Lifetime: time.Minute}, nil},
		{"None and Secure", cookie(session.CookieOptions{SameSite: http.SameSiteNoneMode}), nil},
		{"the default mode", cookie(session.CookieOptions{SameSite: http.SameSiteDefaultMode}), nil},

		{"secrets missing", session.Options{Store: newSpy()}, []string{"Secrets: "}},
		{"secrets empty", session.Options{Store: newSpy(), Secrets: [][]byte{}}, []string{"Secrets: "}},
		{"secrets short", session.Options{Secrets: [][]byte{short, good, nil}}, []string{"Secrets[0]: ", "Secrets[2]: "}},
		{"five secrets", session.Options{Secrets: [][]byte{good, good, good, good, good}}, []string{"Secrets: "}},
		{"negative life", session.Options{Lifetime: -time.Hour}, []string{"Lifetime: "}},
		{"life of the clock's step", session.Options{Lifetime: time.Millisecond}, nil},
		{"life below the clock's step", session.Options{Lifetime: time.Microsecond}, []string{"Lifetime: "}},
		{"negative idle", session.Options{IdleTimeout: -1}, []string{"IdleTimeout: "}},
		{"idle longer than life", session.Options{Lifetime: time.Hour, IdleTimeout: 2 * time.Hour}, []string{"IdleTimeout: "}},
		{"idle longer than the default life", session.Options{IdleTimeout: 25 * time.Hour}, []string{"IdleTimeout: "}},
		{"negative timeout", session.Options{StoreTimeout: -1}, []string{"StoreTimeout: "}},
		{"negative size", session.Options{MaxDataSize: -1}, []string{"MaxDataSize: "}},
		{"negative sessions", session.Options{MaxPerUser: -1}, []string{"MaxPerUser: "}},
		{"negative age", session.Options{RenewAfter: -time.Hour}, []string{"RenewAfter: "}},
		{"an age under a minute", session.Options{RenewAfter: time.Minute - 1}, []string{"RenewAfter: "}},
		{"an age of a minute", session.Options{RenewAfter: time.Minute}, nil},

		{"grace over a minute", session.Options{RenewGrace: time.Minute + time.Millisecond}, []string{"RenewGrace: "}},
		{"grace below the clock's step", session.Options{RenewGrace: time.Microsecond}, []string{"RenewGrace: "}},
		{"no grace", session.Options{RenewGrace: -time.Hour}, nil},
		{"grace of a minute", session.Options{RenewGrace: time.Minute}, nil},
		{"other tokens and grace", session.Options{Tokens: &plainTokens{}, RenewGrace: -1}, []string{"RenewGrace: "}},
		{"no interval", session.Options{WatchEvery: -time.Second}, []string{"WatchEvery: "}},
		{"tokens in headers", session.Options{Bearer: true}, nil},

		{"bound for 5 minutes", session.Options{DeviceBound: 5 * time.Minute}, nil},
		{"bound, and a path of its own", session.Options{DeviceBound: time.Hour, DevicePath: "/app/Proof-1.x_~"}, nil},
		{"bound under a path", session.Options{DeviceBound: time.Hour, Cookie: session.CookieOptions{Path: "/app", SameSite: http.SameSiteStrictMode}}, nil},
		{"bound, with a name to escape", session.Options{DeviceBound: time.Hour, Cookie: session.CookieOptions{Name: "a%b"}}, nil},
		{"bound for less", session.Options{DeviceBound: 5*time.Minute - 1}, []string{"DeviceBound: "}},
		{"bound for a negative time", session.Options{DeviceBound: -time.Hour}, []string{"DeviceBound: "}},
		{"bound, in headers", session.Options{DeviceBound: time.Hour, Bearer: true}, []string{"DeviceBound: "}},
		{"bound, and other tokens", session.Options{DeviceBound: time.Hour, Tokens: &plainTokens{}}, []string{"DeviceBound: "}},
		{"bound, and not Secure", session.Options{DeviceBound: time.Hour, Cookie: session.CookieOptions{Insecure: true}}, []string{"DeviceBound: "}},
		{"bound, and a domain", session.Options{DeviceBound: time.Hour, Cookie: session.CookieOptions{Domain: "example.com"}}, []string{"DeviceBound: "}},
		{"bound, and partitioned", session.Options{DeviceBound: time.Hour, Cookie: session.CookieOptions{Partitioned: true}}, []string{"DeviceBound: "}},
		{"a path for nothing", session.Options{DevicePath: "/x"}, []string{"DevicePath: "}},
		{"a path without a slash", session.Options{DeviceBound: time.Hour, DevicePath: "x"}, []string{"DevicePath: "}},
		{"every path", session.Options{DeviceBound: time.Hour, DevicePath: "/"}, []string{"DevicePath: "}},
		{"a path that ends with a slash", session.Options{DeviceBound: time.Hour, DevicePath: "/x/"}, []string{"DevicePath: "}},
		{"a path with dots", session.Options{DeviceBound: time.Hour, DevicePath: "/x/../y"}, []string{"DevicePath: "}},
		{"a path with an escape", session.Options{DeviceBound: time.Hour, DevicePath: "/x%20y"}, []string{"DevicePath: "}},
		{"a path with a query", session.Options{DeviceBound: time.Hour, DevicePath: "/x?y"}, []string{"DevicePath: "}},
		{"a path with a quote", session.Options{DeviceBound: time.Hour, DevicePath: `/x"y`}, []string{"DevicePath: "}},
		{"a whole URL", session.Options{DeviceBound: time.Hour, DevicePath: "https://example.com/x"}, []string{"DevicePath: "}},
		{"a long path", session.Options{DeviceBound: time.Hour, DevicePath: "/" + strings.Repeat("x", 1024)}, []string{"DevicePath: "}},
		{"a name that is no segment of a path", session.Options{DeviceBound: time.Hour, Cookie: session.CookieOptions{Name: ".."}}, []string{"DevicePath: "}},
		{"other tokens", session.Options{Store: session.NewMemoryStore(nil), Tokens: &plainTokens{}}, nil},
		{"watched seldom", session.Options{WatchEvery: time.Hour}, nil},
		{"other tokens, automatic renewal", session.Options{Tokens: &plainTokens{}, RenewAfter: time.Hour}, []string{"RenewAfter: "}},
		{"tokens in headers and a cookie's name", session.Options{Bearer: true, Cookie: session.CookieOptions{Name: "id"}}, []string{"Cookie: "}},
		{"tokens in headers and Adapt", session.Options{Bearer: true, Cookie: session.CookieOptions{Adapt: func(*http.Request, *http.Cookie) {}}}, []string{"Cookie: "}},
		{"tokens in headers and short secrets", session.Options{Bearer: true, Secrets: [][]byte{short}}, []string{"Secrets[0]: "}},

		{"None without Secure", cookie(session.CookieOptions{SameSite: http.SameSiteNoneMode, Insecure: true}), []string{"Cookie.SameSite: "}},
		{"SameSite unknown", cookie(session.CookieOptions{SameSite: 5}), []string{"Cookie.SameSite: "}},
		{"SameSite negative", cookie(session.CookieOptions{SameSite: -1}), []string{"Cookie.SameSite: "}},
		{"Partitioned without Secure", cookie(session.CookieOptions{Partitioned: true, Insecure: true}), []string{"Cookie.Partitioned: "}},
		{"__Host- and Domain", cookie(session.CookieOptions{Name: "__Host-id", Domain: "example.com"}), []string{"Cookie.Domain: "}},
		{"__Host- and Path", cookie(session.CookieOptions{Name: "__Host-id", Path: "/app"}), []string{"Cookie.Path: "}},
		{"__host- in another case", cookie(session.CookieOptions{Name: "__hOST-id", Domain: "example.com"}), []string{"Cookie.Domain: "}},
		{"__Host- and Insecure", cookie(session.CookieOptions{Name: "__Host-id", Insecure: true}), []string{"Cookie.Name: "}},
		{"__Secure- and Insecure", cookie(session.CookieOptions{Name: "__Secure-id", Insecure: true}), []string{"Cookie.Name: "}},
		{"a name no cookie may have", cookie(session.CookieOptions{Name: "my session"}), []string{"Cookie.Name: "}},
	} {
		t.Run(c.what, func(t *testing.T) {
			got := complaints(t, c.o)
			if len(got) != len(c.want) {
				t.Fatalf("%d mistakes, want %d: %q", len(got), len(c.want), got)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(got[i], "session: Options."+want) {
					t.Errorf("%q does not begin %q", got[i], "session: Options."+want)
				}
			}
		})
	}
}

// TestAllMistakesAtOnce checks that New reports all mistakes together, each as a line and an
// error of its own.
func TestAllMistakesAtOnce(t *testing.T) {
	o := session.Options{
		Store: newSpy(), Lifetime: -1, IdleTimeout: -1, StoreTimeout: -1, MaxDataSize: -1, MaxPerUser: -1, RenewAfter: 1, WatchEvery: -1,
		Secrets: slices.Repeat([][]byte{nil}, 5),
		Cookie: session.CookieOptions{
			Name: "__Host-a b", Domain: "https://example.com", Path: "app", SameSite: http.SameSiteNoneMode,
			Partitioned: true, Insecure: true,
		},
	}
	lines := complaints(t, o)
	for _, option := range []string{
		"Secrets: ", "Secrets[0]: ", "Secrets[4]: ", "Lifetime: ", "IdleTimeout: ", "StoreTimeout: ", "MaxDataSize: ", "MaxPerUser: ", "RenewAfter: ", "WatchEvery: ",
		"Cookie.Name: ", "Cookie.Domain: ", "Cookie.Path: ", "Cookie.SameSite: ", "Cookie.Partitioned: ",
	} {
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "session: Options."+option) }) {
			t.Errorf("no mistake about %s", option)
		}
	}
	for _, l := range lines {
		if !strings.HasPrefix(l, "session: Options.") || strings.HasSuffix(l, ": ") {
			t.Errorf("%q is not \"session: Options.X: the rule\"", l)
		}
	}
	_, err := session.New(&o)
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != len(lines) {
		t.Errorf("%T does not join %d errors", err, len(lines))
	}
	defer func() {
		if got := recover(); got == nil || fmt.Sprint(got) != err.Error() {
			t.Errorf("Must panicked with %v", got)
		}
	}()
	session.Must(session.New(&o))
}

// TestNamesDomainsAndPaths checks that New accepts no cookie that a browser would drop
// silently, and no attribute that net/http would omit.
func TestNamesDomainsAndPaths(t *testing.T) {
	for _, c := range []struct {
		option     string
		set        func(*session.CookieOptions, string)
		get        func(*http.Cookie) string
		good, evil []string
	}{
		{"Name", func(o *session.CookieOptions, s string) { o.Name = s }, func(c *http.Cookie) string { return c.Name },
			[]string{"id", "__Host-id", "__Secure-id", "__Http-id", "__Host-Http-id", "a.b-c_d", "!#$%&'*+-.^_`|~", "0", strings.Repeat("a", 4096-120)},
			[]string{" ", "a b", "a;b", "a=b", "a,b", "a\"b", "a/b", "a:b", "a@b", "a[b]", "{a}", "(a)", "a?b", "a\\b", "a<b", "a\tb", "a\nb", "a\r\nSet-Cookie: b", "a\x00", "a\x7f", "é", "\xff",
				strings.Repeat("a", 4096)}}, // a browser ignores a cookie whose name and value are longer (RFC 6265bis, 5.6)
		{"Domain", func(o *session.CookieOptions, s string) { o.Domain = s }, func(c *http.Cookie) string { return c.Domain },
			[]string{"example.com", "app.example.com", "EXAMPLE.com", "xn--bcher-kva.example", "localhost", "1.example", "127.0.0.1", "0a-z9.Az-Z0.example", strings.Repeat("a", 63) + ".com"},
			[]string{" ", "https://example.com", "example.com:8080", "*.example.com", "example.com/app", "example..com", "..example.com", "example.com.", ".", "-a.com", "a-.com", "a_b.com", "a b.com", "a;b.com", "bücher.example",
				"a.com\r\nSet-Cookie: b", "[::1]", "::1", "::ffff:127.0.0.1", "1.2", "123", "a.0x7f", strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 127) + "com"}},
		{"Path", func(o *session.CookieOptions, s string) { o.Path = s }, func(c *http.Cookie) string { return c.Path },
			[]string{"/", "/app", "/app/", "/a b~", "/a,b", "/%C3%A9", "/" + strings.Repeat("a", 1023)},
			[]string{"app", " /app", "*", "/a;b", "/a\x00", "/a\nb", "/a\r\nSet-Cookie: b", "/é", "/\xff",
				"/" + strings.Repeat("a", 1024)}}, // an attribute's value is dropped from there on (RFC 6265bis, 5.6)
	} {
		for _, s := range c.good {
			o := session.Options{}
			c.set(&o.Cookie, s)
			if got := complaints(t, o); got != nil {
				t.Errorf("%s %q: %q", c.option, s, got)
				continue
			}
			if got := c.get(issued(t, present(newManager(t, o).Handler(reception), "/set"))); got != s {
				t.Errorf("%s %q leaves as %q", c.option, s, got)
			}
		}
		for _, s := range c.evil {
			o := session.Options{}
			c.set(&o.Cookie, s)
			if got := complaints(t, o); len(got) != 1 || !strings.HasPrefix(got[0], "session: Options.Cookie."+c.option+": ") {
				t.Errorf("%s %.60q: %q, want one mistake", c.option, s, got)
			}
		}
	}
}

// TestDomainWithLeadingDot checks a Domain with a leading dot, which browsers ignore (RFC
// 6265bis, 5.6.3).
func TestDomainWithLeadingDot(t *testing.T) {
	m := newManager(t, session.Options{Cookie: session.CookieOptions{Domain: ".example.com"}})
	if c := issued(t, present(m.Handler(reception), "/set")); c.Domain != "example.com" {
		t.Errorf("Domain=%s", c.Domain)
	}
}

// TestDefaults checks the documented defaults of the zero Options and of nil.
func TestDefaults(t *testing.T) {
	c := issued(t, present(session.Must(session.New(nil)).Handler(reception), "/set"))
	if c.Name != "__Host-Http-session" {
		t.Errorf("the cookie of New(nil) is %s", c.Name)
	}
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		var timeout time.Duration
		store.hook(func(ctx context.Context, _, _ string) error {
			if end, ok := ctx.Deadline(); ok {
				timeout = time.Until(end)
			}
			return nil
		})
		var failed error
		m := newManager(t, session.Options{Store: store, ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err }})
		fill := func(w http.ResponseWriter, r *http.Request) {
			name.Set(session.From(r.Context()), r.Header.Get("Fill"))
		}
		for range 20 {
			logIn(t, m.Handler(reception), "alice")
		}
		records, _ := store.List(t.Context(), "alice")
		if len(records) != 20 {
			t.Fatalf("MaxPerUser: %d of 20 sessions live", len(records))
		}
		r := records[0]
		if life, idle := r.Deadline.Sub(r.Created), r.Expires.Sub(r.LastSeen); life != 24*time.Hour || idle != time.Hour {
			t.Errorf("Lifetime %v, IdleTimeout %v", life, idle)
		}
		if timeout != 5*time.Second {
			t.Errorf("StoreTimeout %v", timeout)
		}
		overhead := len(`"name":"",`)
		for size, want := range map[int]bool{64<<10 - overhead: true, 64<<10 + 1: false} {
			failed = nil
			b := newBrowser(t, m.Handler(http.HandlerFunc(fill)))
			req := b.request("/")
			req.Header.Set("Fill", strings.Repeat("x", size))
			b.do(req)
			if (failed == nil) != want {
				t.Errorf("MaxDataSize: %d bytes: %v", size, failed)
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		logIn(t, newManager(t, session.Options{Store: store, Lifetime: time.Minute}).Handler(reception), "alice")
		records, _ := store.List(t.Context(), "alice")
		if idle := records[0].Expires.Sub(records[0].LastSeen); idle != time.Minute {
			t.Errorf("IdleTimeout of a Lifetime of a minute is %v", idle)
		}
	})
}

// TestOptionsAreCopied checks that New copies the options, and does not change them.
func TestOptionsAreCopied(t *testing.T) {
	secret := slices.Clone(oldSecret)
	store := newSpy()
	o := session.Options{Store: store, Secrets: [][]byte{secret}}
	m, err := session.New(&o)
	if err != nil {
		t.Fatal(err)
	}
	if o.Lifetime != 0 || o.Cookie.Name != "" || o.Cookie.Path != "" {
		t.Errorf("New wrote its defaults into the caller's options: %+v", o.Cookie)
	}
	name, value := logIn(t, m.Handler(reception), "alice")

	clear(secret)
	o.Secrets[0] = newSecret
	o.Store = session.NewMemoryStore(nil)
	o.Cookie = session.CookieOptions{Name: "other", Insecure: true}
	o.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { t.Error("the new ErrorHandler was called") }
	o.OnEvent = func(context.Context, session.Event) { t.Error("the new OnEvent was called") }

	expectUser(t, m.Handler(reception), "alice", name+"="+value)
	name, value = logIn(t, m.Handler(reception), "bob")
	other := newManager(t, session.Options{Store: store, Secrets: [][]byte{oldSecret}})
	expectUser(t, other.Handler(reception), "bob", name+"="+value)

	empty := session.Options{}
	newManager(t, empty)
	if _, err := session.New(&empty); err != nil || empty.Store != nil || empty.Secrets != nil {
		t.Errorf("New filled in a store and secrets: %v", err)
	}
}

// TestRandomSecrets checks that two Managers without Secrets have different secrets.
func TestRandomSecrets(t *testing.T) {
	a, b := newManager(t, session.Options{}), newManager(t, session.Options{})
	var log events
	c := newManager(t, session.Options{OnEvent: log.on})
	name, value := logIn(t, a.Handler(reception), "alice")
	expectUser(t, b.Handler(reception), "", name+"="+value)
	expectUser(t, c.Handler(reception), "", name+"="+value)
	if log.count(session.EventRejected) != 1 {
		t.Error("the cookie of another Manager has a valid signature")
	}
}

// TestErrorsNeverPrintSecrets checks that an error about a secret contains its index and
// length, and not the secret.
func TestErrorsNeverPrintSecrets(t *testing.T) {
	secrets := [][]byte{[]byte("short-but-secret"), []byte("another-secret!"), newSecret, oldSecret, []byte("one too many")}
	_, err := session.New(&session.Options{Secrets: secrets, Cookie: session.CookieOptions{Name: "a b"}})
	if err == nil {
		t.Fatal("no error")
	}
	said := fmt.Sprintf("%v\n%+v\n%#v", err, err, err)
	for e := range errorsIn(err) {
		said += fmt.Sprintf("%+v\n%#v", e, e)
	}
	for _, s := range secrets {
		if found := spellingIn(said, s); found != "" {
			t.Errorf("the error contains %q", found)
		}
	}
}

// errorsIn yields err and all errors that it wraps.
func errorsIn(err error) func(yield func(error) bool) {
	return func(yield func(error) bool) {
		for todo := []error{err}; len(todo) > 0; todo = todo[1:] {
			if e := todo[0]; e != nil {
				if !yield(e) {
					return
				}
				todo = append(todo, errors.Unwrap(e))
				if j, ok := e.(interface{ Unwrap() []error }); ok {
					todo = append(todo, j.Unwrap()...)
				}
			}
		}
	}
}

// TestOptionsPrintNoSecret: promise 10. Printed Options contain no secret, with any verb and
// logger: only the number of secrets, and the types of interface and function values. (fmt
// calls no method for %p, which go vet refuses for a struct.)
func TestOptionsPrintNoSecret(t *testing.T) {
	secret := []byte("TOPSECRETTOPSECRETTOPSECRETTOPSE")
	o := session.Options{
		Secrets: [][]byte{secret, []byte("another secret of at least 32 bytes")}, Store: vault{Password: "hush hush"},
		Tokens: &plainTokens{}, OnEvent: func(context.Context, session.Event) {}, Lifetime: time.Hour,
		Cookie: session.CookieOptions{Name: "sid", Adapt: func(*http.Request, *http.Cookie) {}},
	}
	var said strings.Builder
	for _, verb := range "vTtbcdoOqxXUeEfFgGs" {
		for _, flags := range []string{"", "+", "#", "-20", " ", "0", "10.3", "#+"} {
			fmt.Fprintf(&said, "%"+flags+string(verb)+" ", o)
			fmt.Fprintf(&said, "%"+flags+string(verb)+" ", &o)
			fmt.Fprintf(&said, "%"+flags+string(verb)+" ", []session.Options{o})
			fmt.Fprintf(&said, "%"+flags+string(verb)+" ", struct{ O *session.Options }{&o})
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&said, nil), slog.NewJSONHandler(&said, nil)} {
		slog.New(h).Info("starting", "options", o, "cookie", o.Cookie)
		slog.New(h).Info("starting", "options", &o)
	}
	for _, s := range [][]byte{secret, []byte("hush hush")} {
		if found := spellingIn(said.String(), s); found != "" {
			t.Errorf("printed Options contain %.60s…", found)
		}
	}
	text := fmt.Sprint(o)
	for _, want := range []string{"Secrets=2", "Store=session_test.vault", "Tokens=*session_test.plainTokens", "Lifetime=1h0m0s", "Name=sid", "Adapt=func("} {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not contain %s", text, want)
		}
	}
	if strings.Contains(text, "MaxPerUser") {
		t.Errorf("%s contains options that are not set", text)
	}
}

// vault is a Store with a password.
type vault struct {
	session.Store
	Password string
}

// loggedLines are requests that make the Manager log a line, one for each type that logs.
var loggedLines = map[string]struct {
	o session.Options
	h http.HandlerFunc
}{
	"request failed": {session.Options{}, func(w http.ResponseWriter, r *http.Request) {
		session.NewKey[func()]("f").Set(session.From(r.Context()), func() {})
	}},
	"Secure cookie sent": {session.Options{}, func(w http.ResponseWriter, r *http.Request) {
		name.Set(session.From(r.Context()), "x")
	}},
	"token sent": {session.Options{Bearer: true}, func(w http.ResponseWriter, r *http.Request) {
		name.Set(session.From(r.Context()), "x")
	}},
	"first used after the first byte": {session.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		session.From(r.Context()).User()
	}},
	"commit after the first byte failed": {session.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		session.From(r.Context()).Login("alice")
	}},
}

func visitUnencrypted(m *session.Manager, h http.Handler) {
	m.Handler(h).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://example.com/", nil))
}

// TestLogger checks that log lines go to Options.Logger, and to no other logger.
func TestLogger(t *testing.T) {
	for line, c := range loggedLines {
		others, log := captureLog(t), new(bytes.Buffer)
		c.o.Logger = slog.New(slog.NewTextHandler(log, nil)).With("part", "sessions")
		visitUnencrypted(newManager(t, c.o), c.h)
		if !strings.Contains(log.String(), "session: "+line) || strings.Count(log.String(), "\n") != strings.Count(log.String(), "part=sessions") {
			t.Errorf("%s: Options.Logger got %q", line, log)
		}
		if others.Len() > 0 {
			t.Errorf("%s: slog.Default got %q", line, others)
		}
	}
}

// TestDefaultLogger checks that without a Logger a line goes to the slog.Default of that
// moment, with its own source position.
func TestDefaultLogger(t *testing.T) {
	for line, c := range loggedLines {
		m := newManager(t, c.o)
		for range 2 { // two default loggers, both set after New
			log := captureLog(t)
			slog.SetDefault(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{AddSource: true})))
			visitUnencrypted(m, c.h)
			if isOnce := line == "first used after the first byte" || strings.HasSuffix(line, "sent"); isOnce {
				m = newManager(t, c.o)
			}
			if !strings.Contains(log.String(), "session: "+line) || strings.Contains(log.String(), "logger.go") || !strings.Contains(log.String(), "source=") {
				t.Errorf("%s: slog.Default got %q", line, log)
			}
		}
		log := captureLog(t)
		slog.SetDefault(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError + 1})))
		if visitUnencrypted(m, c.h); log.Len() > 0 {
			t.Errorf("%s: a disabled level was logged: %q", line, log)
		}
	}
}

// TestNoLineBypassesLogger checks that no file logs without Options.Logger.
func TestNoLineBypassesLogger(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	direct, lines := regexp.MustCompile(`\bslog\.(Debug|Info|Warn|Error|Log|Default|With)\w*\(`), 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "logger.go" {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range direct.FindAll(source, -1) {
			t.Errorf("%s: %s", file, call)
		}
		lines += strings.Count(string(source), "log.WarnContext(") + strings.Count(string(source), "log.ErrorContext(")
	}
	if lines < 8 {
		t.Errorf("%d lines were found", lines)
	}
}

// TestLoggerIsPrintedAsItsType checks that a printed Options.Logger shows only its type,
// because its handler may contain secrets.
func TestLoggerIsPrintedAsItsType(t *testing.T) {
	o := session.Options{Logger: slog.New(slog.NewTextHandler(new(bytes.Buffer), nil)).With("password", "hush hush")}
	said := fmt.Sprint(o)
	for _, verb := range []string{"%+v", "%#v", "%s", "%d", "%x"} {
		said += fmt.Sprintf(verb, o) + fmt.Sprintf(verb, &o)
	}
	if found := spellingIn(said, []byte("hush hush")); found != "" || !strings.Contains(said, "Logger=*slog.Logger") {
		t.Errorf("%q in %s", found, said)
	}
}
