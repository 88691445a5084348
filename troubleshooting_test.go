package session_test

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// TestFirstHour checks that the errors that a newcomer meets say what to do, and that
// docs/troubleshooting.md has their words.
func TestFirstHour(t *testing.T) {
	page, err := os.ReadFile("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	login := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { session.From(r.Context()).Login("alice") })
	with := func(o session.Options) func(next http.HandlerFunc) http.Handler {
		return func(next http.HandlerFunc) http.Handler { return session.Must(session.New(&o)).Handler(next) }
	}
	wrap := with(session.Options{})
	in := func(f func(*session.Session)) http.Handler {
		return wrap(func(w http.ResponseWriter, r *http.Request) { f(session.From(r.Context())) })
	}
	const lan, https = "http://192.168.1.5/", "https://example.com/"
	for what, c := range map[string]struct {
		h      http.Handler
		target string
		quoted string // what the page quotes
		fix    string // what the message tells to do
	}{
		"no Handler":                  {login, https, "session: From: this context did not go through Manager.Handler", "serve sessions.Handler(mux) or sessions.Handler(engine) by http.ListenAndServe, not by the framework's Start or Run"},
		"a test without Handler":      {login, https, "session: From: this context did not go through Manager.Handler", "in a test, use sessiontest.Request"},
		"another context":             {in(func(*session.Session) { session.From(context.Background()) }), https, "session: From: this context did not go through Manager.Handler", "pass r.Context()"},
		"RequireUser without Handler": {session.Must(session.New(nil)).RequireUser(login, nil), https, "session: Manager.From: this context did not go through this Manager's Handler", "sessions.Handler(mux)"},
		"the error of New is ignored": {lazily(func() http.Handler { return (*session.Manager)(nil).Handler(login) }), https, "session: Handler: the Manager is nil", "check the error of New"},
		"a nil handler":               {lazily(func() http.Handler { return session.Must(session.New(nil)).Handler(nil) }), https, "session: Handler: next is nil", "http.DefaultServeMux"},
		"a short secret":              {lazily(func() http.Handler { return with(session.Options{Secrets: [][]byte{[]byte("secret")}})(login) }), https, "must be at least 32 random bytes", `openssl rand -base64 32`},
		"a variable that is not set":  {lazily(func() http.Handler { return with(session.Options{Secrets: [][]byte{[]byte("")}})(login) }), https, "must be at least 32 random bytes", "is the variable set?"},
		"a Store without Secrets":     {lazily(func() http.Handler { return with(session.Options{Store: session.NewMemoryStore(nil)})(login) }), https, "session: Options.Secrets: are required with a Store", `openssl rand -base64 32`},
		"a number for a duration":     {lazily(func() http.Handler { return with(session.Options{Lifetime: 3600})(login) }), https, "must be at least a millisecond, or 0 for the default", "3600*time.Second"},
		"a URL as a Domain": {lazily(func() http.Handler {
			return with(session.Options{Cookie: session.CookieOptions{Domain: "localhost:8080"}})(login)
		}), https, "session: Options.Cookie.Domain: must be a host name", "without scheme, port or wildcard"},
		"http":                    {wrap(login), lan, "session: Secure cookie sent on a request without TLS", "set Options.Cookie.Insecure"},
		"another Domain":          {with(session.Options{Cookie: session.CookieOptions{Domain: "example.org"}})(login), https, "session: cookie sent with a Domain that does not match the host", "set Options.Cookie.Domain to the host or a parent domain"},
		"the Domain com":          {with(session.Options{Cookie: session.CookieOptions{Domain: "com"}})(login), https, "session: cookie sent with a Domain that does not match the host", "set Options.Cookie.Domain to the host or a parent domain"},
		"a late Login":            {wrap(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "Hello"); login(w, r) }), https, "the response header was sent, so no cookie can be set", "call it before the first byte"},
		"a field of another name": {in(func(s *session.Session) { s.Login("") }), https, "session: Login: the user is empty", "pass the id of the user"},
		"a large value":           {in(func(s *session.Session) { session.NewKey[string]("page").Set(s, strings.Repeat("x", 70000)) }), https, "session: the values are too large", "keep them in a database"},
		"a value for JSON": {in(func(s *session.Session) {
			session.NewKey[chan int]("page").Set(s, nil)
			session.NewKey[any]("page").Set(s, make(chan int))
		}), https, "json: unsupported type", `session: Set \"page\"`},
		"a key without NewKey": {in(func(s *session.Session) { new(session.Key[int]).Set(s, 1) }), https, "session: a Key must be made by NewKey", "NewKey"},
		"two Managers":         {wrap(func(w http.ResponseWriter, r *http.Request) { login(w, r); wrap(login).ServeHTTP(w, r) }), https, "session: nested Managers use the same cookie or header", "give each a different Options.Cookie.Name"},
	} {
		t.Run(what, func(t *testing.T) {
			log := captureLog(t)
			said := func() (panicked string) {
				defer func() {
					if v := recover(); v != nil {
						panicked = fmt.Sprint(v)
					}
				}()
				c.h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("POST", c.target, nil))
				return ""
			}() + log.String()
			if !strings.Contains(said, c.quoted) || !strings.Contains(said, c.fix) {
				t.Errorf("it says %s\nwant %q and %q", said, c.quoted, c.fix)
			}
			if !strings.Contains(string(page), c.quoted) {
				t.Errorf("docs/troubleshooting.md lacks %q", c.quoted)
			}
		})
	}
}

// lazily returns a handler that is made by its first request.
func lazily(f func() http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f().ServeHTTP(w, r) })
}

// TestTroubleshooting checks that each message in the first column of docs/troubleshooting.md stands in
// the code. A message of another program says whose it is in parentheses.
func TestTroubleshooting(t *testing.T) {
	page, err := os.ReadFile("docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	numbers := regexp.MustCompile(`%d|\d+`)
	var sources []string
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		sources = append(sources, numbers.ReplaceAllString(strings.ReplaceAll(string(text), `\"`, `"`), "#"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) != 3 {
			continue
		}
		for _, quoted := range strings.Split(cells[0], "; ") {
			message, source, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(quoted, "| "), "`"), "`")
			if strings.HasPrefix(source, " (") {
				continue
			}
			for _, part := range strings.Split(message, "…") { // an ellipsis stands for what differs
				ours++
				part = strings.TrimPrefix(strings.TrimPrefix(strings.TrimSpace(part), "session: Options."), "Cookie.") // New adds these
				part = numbers.ReplaceAllString(part, "#")
				if !slices.ContainsFunc(sources, func(s string) bool { return strings.Contains(s, part) }) {
					t.Errorf("no code says %q", part)
				}
			}
		}
	}
	if ours < 25 {
		t.Errorf("%d messages were found", ours)
	}
}
