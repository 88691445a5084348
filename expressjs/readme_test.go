package expressjs_test

import (
	"os"
	"strings"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
)

// flash is the key of the flashes of connect-flash, as in README.md.

var flash = session.NewKey[map[string][]any]("flash")

// addFlash is req.flash(kind, text).
func addFlash(s *session.Session, kind, text string) {
	flash.Update(s, func(all map[string][]any) map[string][]any {
		if all == nil {
			all = map[string][]any{}
		}
		all[kind] = append(all[kind], text)
		return all
	})
}

// flashes is req.flash(): it returns and deletes the messages, by kind.
func flashes(s *session.Session) map[string][]any {
	all, _ := flash.Pop(s)
	return all
}

// TestReadme checks that the Go code of README.md is compiled, and that its rights are those that
// Rights returns.
func TestReadme(t *testing.T) {
	unindented := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		for i := range lines {
			lines[i] = strings.TrimLeft(lines[i], "\t")
		}
		return strings.Join(lines, "\n")
	}
	readme, compiled := unindented("README.md"), unindented("example_test.go")+unindented("readme_test.go")
	blocks := strings.Split(readme, "```")
	n := 0
	for i := 1; i < len(blocks); i += 2 {
		source, ok := strings.CutPrefix(blocks[i], "go\n")
		if !ok {
			continue
		}
		n++
		for paragraph := range strings.SplitSeq(source, "\n\n") {
			if !strings.Contains(compiled, strings.TrimSpace(paragraph)+"\n") {
				t.Errorf("README.md has a paragraph that no test compiles:\n%s", paragraph)
			}
		}
	}
	if n == 0 {
		t.Error("README.md has no Go code")
	}
	rd, _ := redisStore(t, expressjs.Options{})
	pg, _ := postgresStore(t, expressjs.Options{})
	for _, rights := range []string{rd.Rights(), pg.Rights("app")} {
		if !strings.Contains(readme, strings.TrimSpace(rights)) {
			t.Errorf("README.md lacks the rights %s", rights)
		}
	}
}
