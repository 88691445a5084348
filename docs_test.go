package session_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// TestDocuments checks that every line of Go in README.md and docs/ is part of a file that is
// compiled and, if it is a test or an example, run. A blank line in a document can stand for
// any code.
func TestDocuments(t *testing.T) {
	var sources []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		sources = append(sources, wholeLines(string(text)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for document, text := range documents(t) {
		for _, part := range strings.Split(text, "```go\n")[1:] {
			block, _, ended := strings.Cut(part, "```")
			if !ended {
				t.Fatalf("%s: a block has no end", document)
			}
			blocks++
			for _, paragraph := range strings.Split(block, "\n\n") {
				if lines := wholeLines(paragraph); !slices.ContainsFunc(sources, func(source string) bool { return strings.Contains(source, lines) }) {
					t.Errorf("%s: this code is in no Go file:\n%s", document, paragraph)
				}
			}
		}
	}
	if blocks < 30 {
		t.Errorf("%d blocks were found", blocks)
	}
}

// documents returns the text of README.md and of each page in docs, by path.
func documents(t *testing.T) map[string]string {
	texts := map[string]string{"README.md": "", "SECURITY.md": "", "CONTRIBUTING.md": ""}
	err := filepath.WalkDir("docs", func(path string, d fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			texts[path] = ""
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path := range texts {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts[path] = string(text)
	}
	return texts
}

// TestLinks checks that every link of a document to a file of the project, or to a heading, has
// a target.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)"\s]+)\)`)
	links := 0
	for document, text := range documents(t) {
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			target, heading, hasHeading := strings.Cut(found[1], "#")
			if strings.Contains(target, ":") {
				continue // a link to another site
			}
			links++
			path := filepath.Join(filepath.Dir(document), target)
			if target == "" {
				path = document
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: %s: %v", document, found[1], err)
				continue
			}
			if !hasHeading {
				continue
			}
			page, err := os.ReadFile(path)
			if err != nil || !slices.Contains(anchors(string(page)), heading) {
				t.Errorf("%s: no heading for %s (%v)", document, found[1], err)
			}
		}
	}
	if links < 100 {
		t.Errorf("%d links were found", links)
	}
}

// anchors returns the anchors of a page's headings.
func anchors(page string) (names []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// bare returns the lines of a text without differences that a document and a program may have:
// indentation, and the comma that ends a fragment.
func bare(text string) []string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		code, comment, has := strings.Cut(line, " // ")
		lines[i] = strings.Join(strings.Fields(strings.TrimSuffix(strings.TrimSpace(code), ",")), " ")
		if has {
			lines[i] += " // " + comment
		}
	}
	return lines
}

// wholeLines returns the lines of bare, each between line breaks, so that one text contains
// another only by whole lines.
func wholeLines(text string) string { return "\n" + strings.Join(bare(text), "\n") + "\n" }

// TestOperationsKnowsWhatIsLogged checks that docs/operations.md lists every log line of the
// package, and every event.
func TestOperationsKnowsWhatIsLogged(t *testing.T) {
	text, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	lines, events := 0, 0
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, part := range append(strings.Split(string(source), "Context(")[1:], strings.Split(string(source), "warnings.log(")[1:]...) { // slog.WarnContext, slog.ErrorContext
			_, line, ok := strings.Cut(strings.SplitN(part, "\n", 2)[0], `"session: `)
			if !ok {
				continue
			}
			line, _, _ = strings.Cut(line, `"`)
			if lines++; !strings.Contains(string(text), "`"+line[:min(len(line), 25)]) {
				t.Errorf("%s logs a line that docs/operations.md lacks: %s", file, line)
			}
		}
		for _, part := range strings.Split(string(source), "EventKind = \"")[1:] {
			kind, _, _ := strings.Cut(part, `"`)
			if events++; !strings.Contains(string(text), "`"+kind+"`") {
				t.Errorf("docs/operations.md lacks the event %s", kind)
			}
		}
	}
	if lines < 9 || events < 10 {
		t.Errorf("%d log lines and %d events were found", lines, events)
	}
}

// TestReviewersFindTheTests checks that every test named in a document exists, in the folder in
// parentheses after its name, or else in the root.
func TestReviewersFindTheTests(t *testing.T) {
	texts := documents(t)
	text := texts["docs/asvs.md"] + texts["docs/how-it-works.md"]
	named := regexp.MustCompile(`\b((?:Test|Fuzz)[A-Z]\w+)(?: \(([a-z\d/]+)\))?`).FindAllStringSubmatch(text, -1)
	for _, found := range named {
		name, folder := found[1], found[2]
		files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(file string) bool {
			source, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(source), "\nfunc "+name+"(")
		}) {
			t.Errorf("a document names %s, which is not in %q", name, folder)
		}
	}
	if len(named) < 50 {
		t.Errorf("%d tests are named", len(named))
	}
}

// The functions in this file are printed by the README. The rest of its code is in
// examples/quickstart and in the examples of sessiontest.

func readmeHowTo(w http.ResponseWriter, r *http.Request, s *session.Session, user struct{ ID string }) {
	var theme = session.NewKey[string]("theme") // once, as a package variable; a key knows its type

	theme.Set(s, "dark")
	v, ok := theme.Lookup(s) // or theme.Get(s), theme.Delete(s), theme.Pop(s)
	fmt.Fprintln(w, v, ok)

	visits.Update(s, func(n int) int { return n + 1 }) // f runs again if another request has saved first
	voucher.Take(r.Context(), s)                       // commits now: of concurrent requests, one gets the value

	s.AddFlash("info", "Saved.")
	for _, f := range s.Flashes() { // on the next page, once
		fmt.Fprintln(w, f.Kind, f.Text)
	}

	s.Login(user.ID) // after you have checked the password: a new token, and the visitor's values stay
	s.Remember(30 * 24 * time.Hour)
	s.Logout() // ends the session in the store, for every process
}

func readmeGuard(w http.ResponseWriter, s *session.Session) {
	if errors.Is(s.Err(), session.ErrStore) {
		return // before anything that leaves this response
	}
	fmt.Fprint(w, "Sent.")
}

func readmeUsers(mux *http.ServeMux, account http.Handler) {
	mux.Handle("GET /account", sessions.RequireUser(account, http.RedirectHandler("/login", http.StatusSeeOther)))
	mux.Handle("GET /api/account", sessions.RequireUser(account, nil)) // nil: 401
}

func readmeDevices(ctx context.Context, s *session.Session, id string) ([]session.Info, error) {
	devices, err := sessions.List(ctx, s.User()) // d.LastSeen, d.Expires, d.ID == s.ID()
	if err != nil {
		return nil, err
	}
	err = sessions.Revoke(ctx, s.User(), id) // or RevokeOthers, RevokeAll
	return devices, err
}

var _ = []any{readmeHowTo, readmeUsers, readmeGuard, readmeDevices} // compiled, not run

// TestOptionsAreDocumented checks that docs/options.md has a row for every option.
func TestOptionsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/options.md")
	if err != nil {
		t.Fatal(err)
	}
	for prefix, options := range map[string]any{"": session.Options{}, "Cookie.": session.CookieOptions{}} {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(options)) {
			if row := "\n| `" + prefix + f.Name + "` |"; f.Name != "Cookie" && !strings.Contains(string(page), row) {
				t.Errorf("docs/options.md has no row for %s%s", prefix, f.Name)
			}
		}
	}
}
