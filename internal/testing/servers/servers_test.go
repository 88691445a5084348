package servers_test

import (
	"fmt"
	"net"
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

// TestKillRestartSuspend checks that a killed server does not answer, restarts at its address
// with its data on disk, and that a suspended server continues after its resume.
func TestKillRestartSuspend(t *testing.T) {
	s := servers.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	do := func(command string) string {
		t.Helper()
		conn, err := net.Dial("tcp", s.Addr)
		if err != nil {
			return ""
		}
		defer conn.Close()
		fmt.Fprint(conn, command+"\r\n")
		b := make([]byte, 100)
		n, _ := conn.Read(b)
		return strings.TrimSpace(string(b[:n]))
	}
	if got := do("SET a 1"); got != "+OK" {
		t.Fatal(got)
	}
	pid := s.PID()
	s.Kill()
	if got := do("PING"); got != "" {
		t.Errorf("the killed server answers %q", got)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if s.PID() == pid {
		t.Error("the process was not replaced")
	}
	if got := do("GET a"); got != "$1\r\n1" {
		t.Errorf("after the restart: %q", got)
	}
	resume := s.Suspend(t)
	answered := make(chan string, 1)
	go func() { answered <- do("INCR a") }()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID()))
	if err == nil && !strings.Contains(string(stat), ") T ") {
		t.Errorf("suspended: %s", stat)
	}
	resume()
	if got := <-answered; got != ":2" {
		t.Errorf("resumed: %q", got)
	}
}
