// Package moving contains small applications with other libraries, and the same applications
// with this package. docs/moving.md shows the differences.
package moving

import (
	"context"
	"database/sql"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ginafter "github.com/coatcheck/session/examples/integrations/moving/gin/after"
	ginbefore "github.com/coatcheck/session/examples/integrations/moving/gin/before"
	gorillaafter "github.com/coatcheck/session/examples/integrations/moving/gorilla/after"
	gorillabefore "github.com/coatcheck/session/examples/integrations/moving/gorilla/before"
	gorillastored "github.com/coatcheck/session/examples/integrations/moving/gorilla/store"
	scsafter "github.com/coatcheck/session/examples/integrations/moving/scs/after"
	scsbefore "github.com/coatcheck/session/examples/integrations/moving/scs/before"
	"github.com/coatcheck/session/sessiontest"
	_ "modernc.org/sqlite"
)

// afters are the applications with this package.
var afters = map[string]func(context.Context, *sql.DB, []byte) (http.Handler, error){
	"scs": scsafter.App, "gorilla": gorillaafter.App, "gorilla with a store": gorillastored.App, "gin": ginafter.App,
}

// start returns an application with its sessions in a file.
func start(t *testing.T, name, file string) http.Handler {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_txlock=immediate&_pragma=journal_mode(WAL)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	db.SetMaxOpenConns(1)
	app, err := afters[name](t.Context(), db, []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// TestSameAnswers checks that an application behaves the same before and after.
func TestSameAnswers(t *testing.T) {
	apps := map[string]http.Handler{"scs before": scsbefore.App(), "gorilla before": gorillabefore.App(), "gin before": ginbefore.App()}
	for name := range afters {
		apps[name+" after"] = start(t, name, filepath.Join(t.TempDir(), "sessions"))
	}
	for name, app := range apps {
		b := sessiontest.NewBrowser(t, app)
		expect := func(resp *http.Response, status int, want string) {
			t.Helper()
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != status || strings.TrimSpace(string(body)) != want {
				t.Errorf("%s: %d %q %v, want %d %q", name, resp.StatusCode, body, err, status, want)
			}
		}
		expect(b.Get("/me"), 401, "Please log in.")
		expect(b.PostForm("/login", url.Values{"user": {"alice"}}), 200, "")
		expect(b.Get("/me"), 200, "alice, visit 1. Hello!")
		expect(b.Get("/me"), 200, "alice, visit 2.")
		expect(b.PostForm("/logout", nil), 200, "")
		expect(b.Get("/me"), 401, "Please log in.")
	}
}

// TestRestart checks that sessions survive a restart.
func TestRestart(t *testing.T) {
	for name := range afters {
		file := filepath.Join(t.TempDir(), "sessions")
		app := start(t, name, file)
		b := sessiontest.NewBrowser(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { app.ServeHTTP(w, r) }))
		b.PostForm("/login", url.Values{"user": {"alice"}})
		app = start(t, name, file)
		body, err := io.ReadAll(b.Get("/me").Body)
		if err != nil || !strings.HasPrefix(string(body), "alice, visit 1.") {
			t.Errorf("%s: %q %v", name, body, err)
		}
	}
}

// TestDifferences checks that the differences in docs/moving.md convert one program into the
// other. A difference may end where the rest of both programs is the same.
func TestDifferences(t *testing.T) {
	page, err := os.ReadFile("../../../docs/moving.md")
	if err != nil {
		t.Fatal(err)
	}
	for after, before := range map[string]string{
		"scs/after": "scs/before", "gorilla/store": "gorilla/before", "gorilla/after": "gorilla/before", "gin/after": "gin/before",
	} {
		_, diff, ok := strings.Cut(string(page), "```diff\n--- "+before+"/app.go\n+++ "+after+"/app.go\n")
		if !ok {
			t.Errorf("%s: no diff", after)
			continue
		}
		diff, _, _ = strings.Cut(diff, "```")
		var old, now string
		for _, line := range strings.SplitAfter(diff, "\n") {
			switch {
			case line == "" || strings.HasPrefix(line, "@@"):
			case line[0] == '-':
				old += line[1:]
			case line[0] == '+':
				now += line[1:]
			case line == "\n":
				old, now = old+line, now+line
			default:
				old, now = old+line[1:], now+line[1:]
			}
		}
		rest := map[string]string{}
		for file, want := range map[string]string{before: old, after: now} {
			text, err := os.ReadFile(file + "/app.go")
			if err != nil {
				t.Fatal(err)
			}
			var isSame bool
			if rest[file], isSame = strings.CutPrefix(string(text), want); !isSame {
				t.Errorf("%s differs from docs/moving.md", file)
			}
		}
		if strings.TrimSpace(rest[before]) != strings.TrimSpace(rest[after]) {
			t.Errorf("%s and %s differ after the end of the difference in docs/moving.md", before, after)
		}
	}
}
