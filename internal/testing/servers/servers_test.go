package servers_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/coatcheck/session/internal/testing/servers"
)

// failure runs f with a testing.TB of its own, and returns the message with which f failed it.
func failure(f func(t testing.TB)) string {
	q := &quiet{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f(q)
	}()
	<-ended
	for i := len(q.cleanups) - 1; i >= 0; i-- {
		q.cleanups[i]()
	}
	return q.failed
}

type quiet struct {
	testing.TB
	failed   string
	cleanups []func()
}

func (q *quiet) Helper()          {}
func (q *quiet) Log(...any)       {}
func (q *quiet) Failed() bool     { return q.failed != "" }
func (q *quiet) Cleanup(f func()) { q.cleanups = append(q.cleanups, f) }
func (q *quiet) Skipf(f string, a ...any) {
	q.failed = "skipped: " + fmt.Sprintf(f, a...)
	runtime.Goexit()
}
func (q *quiet) Fatal(a ...any)            { q.failed = fmt.Sprintln(a...); runtime.Goexit() }
func (q *quiet) Fatalf(f string, a ...any) { q.Fatal(fmt.Sprintf(f, a...)) }

func shell(t *testing.T) string {
	if runtime.GOOS == "windows" {
		t.Skip("no process groups")
	}
	return servers.Program(t, "sh")
}

// TestProgramEnds checks that a program that ends before it is ready fails the test, with its
// output.
func TestProgramEnds(t *testing.T) {
	sh := shell(t)
	got := failure(func(t testing.TB) {
		servers.Start(t, servers.Command{Args: []string{sh, "-c", "echo one; echo two >&2; exit 1"}, Ready: func() bool { return false }})
	})
	if !strings.Contains(got, "it has ended") || !strings.Contains(got, "one") || !strings.Contains(got, "two") {
		t.Errorf("failed with %q", got)
	}
}

// TestAllEnds checks that a program and its child processes end with the test.
func TestAllEnds(t *testing.T) {
	sh, pids := shell(t), "" // file
	if got := failure(func(tb testing.TB) {
		dir := t.TempDir()
		pids = filepath.Join(dir, "pids")
		servers.Start(tb, servers.Command{Dir: dir, Args: []string{sh, "-c", "sleep 600 & echo $! $$ >pids; wait"}, Ready: func() bool {
			b, _ := os.ReadFile(pids)
			return strings.HasSuffix(string(b), "\n")
		}})
	}); got != "" {
		t.Fatal(got)
	}
	b, _ := os.ReadFile(pids)
	for _, pid := range strings.Fields(string(b)) {
		servers.Eventually(t, "process "+pid+" has ended", func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		})
	}
}
