package faults_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/testserver"
)

// lookPath returns the path of a server, in Debian's places too. Without one the
// test fails where CI=true says that all must be there, and is skipped elsewhere.
func lookPath(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	places, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	for _, path := range append(places, "/usr/sbin/"+name) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: make servers", name)
	}
	t.Skipf("%s is not installed: make servers", name)
	return ""
}

// A server is a private one on a free loopback port, with its data in a
// temporary folder, that can be killed and started again on both.
type server struct {
	dir, addr string
	args      []string
	user      *testserver.User

	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// newServer prepares a server that runs as this user, if the tests run as root.
func newServer(t testing.TB, as string) *server {
	dir, err := os.MkdirTemp("", "faults")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: dir, addr: freeAddr(t)}
	if as != "" {
		s.user = testserver.Unprivileged(t, as, dir)
	}
	t.Cleanup(func() {
		s.kill()
		_ = os.RemoveAll(dir)
	})
	return s
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *server) port() string {
	_, port, _ := net.SplitHostPort(s.addr)
	return port
}

// start starts the server and waits until somebody listens. One that was
// killed may need more than one go: what it held is not free at once.
func (s *server) start() error {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		if err := s.launch(); err != nil {
			return err
		}
		for waiting := true; waiting && time.Now().Before(deadline); {
			c, err := net.Dial("tcp", s.addr)
			if err == nil {
				c.Close()
			}
			select {
			case <-s.done:
				waiting = false // whoever listens there, it is not this one
			case <-time.After(5 * time.Millisecond):
				if err == nil {
					return nil
				}
			}
		}
	}
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return fmt.Errorf("%s does not start:\n%s", s.args[0], log[max(0, len(log)-4000):])
}

func (s *server) launch() error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, done := exec.Command(s.args[0], s.args[1:]...), make(chan struct{})
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	s.user.Own(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	s.cmd, s.done = cmd, done
	return nil
}

// stop stops all of the server's processes and returns them: the first one
// first, so that it has no other children meanwhile.
func (s *server) stop() (pids []int) {
	if s.cmd == nil {
		return nil
	}
	select {
	case <-s.done:
		return nil // and the number may be another's by now
	default:
	}
	pids = []int{s.cmd.Process.Pid}
	_ = testserver.Suspend(pids[0]) // and from then on it has no other child
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0]))
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(children)) {
			pid, _ := strconv.Atoi(child)
			pids = append(pids, pid)
			_ = testserver.Suspend(pid)
		}
	}
	return pids
}

// pause stops all of the server's processes for a while.
func (s *server) pause(d time.Duration) {
	pids := s.stop()
	time.Sleep(d)
	for _, pid := range pids {
		_ = testserver.Resume(pid)
	}
}

// kill kills all of the server's processes with SIGKILL, and waits until they
// hold nothing: a child that is still dying listens on the server's address, and
// would be taken for the next one.
func (s *server) kill() {
	pids := s.stop()
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	if s.cmd != nil {
		<-s.done
	}
	for _, pid := range pids {
		awaitEnd(pid)
	}
}

// awaitEnd waits until a process is dead, as /proc has it, or gone; a minute at most.
func awaitEnd(pid int) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, ok := strings.Cut(string(stat), ") ") // after the name comes the state
		if err != nil || !ok || strings.Contains("ZX", rest[:1]) {
			return
		}
	}
}

// run runs a program to its end, as the server's user.
func (s *server) run(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	s.user.Own(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", args[0], err, out)
	}
}

// startRedis starts a Redis that has on disk what it acknowledges.
func startRedis(t testing.TB, more ...string) *server {
	path := lookPath(t, "redis-server")
	s := newServer(t, "")
	s.args = append([]string{path, "--bind", "127.0.0.1", "--port", s.port(), "--dir", s.dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always"}, more...)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// startPostgres starts a PostgreSQL with its default durability.
func startPostgres(t testing.TB) *server {
	postgres, initdb := lookPath(t, "postgres"), lookPath(t, "initdb")
	s := newServer(t, "postgres")
	data := filepath.Join(s.dir, "data")
	s.run(t, initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
	s.args = []string{postgres, "-D", data, "-h", "127.0.0.1", "-p", s.port(), "-k", s.dir}
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	return s
}
