// Package servers starts private servers for tests. Each listens on a free loopback port,
// keeps its files in a temporary folder, and ends with its test, however the test ends.
package servers

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// startLimit is how long a server may take to start, on a busy machine.
const startLimit = 2 * time.Minute

// Program returns the path of a program, which may be outside PATH in the places that
// Debian and Homebrew use. If the program is not installed, the test is skipped, or fails
// where CI=true promises that everything is installed.
func Program(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	places, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"} {
		places = append(places, filepath.Join(dir, name))
	}
	for _, path := range places {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	Missing(t, name)
	return ""
}

// Missing skips a test that needs a program which is not installed. Where CI=true promises
// that everything is installed, the test fails instead.
func Missing(t testing.TB, name string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: make servers", name)
	}
	t.Skipf("%s is not installed: make servers", name)
}

// Port returns a loopback port that is free at the moment.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Eventually waits until a condition holds that another process brings about in its own
// time. After two minutes it fails the test.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(startLimit); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", startLimit, what)
		}
	}
}

// A Command is what Start runs.
type Command struct {
	Args  []string    // path of the program, and its arguments
	Dir   string      // working folder, which gets the files "out" and "log" with the output. "": a temporary folder
	Env   []string    // additions to the environment
	Addr  string      // address where the program listens, if Ready is nil
	Ready func() bool // reports whether the program can be used. nil: it accepts connections at Addr

	user *user // account that runs the program
}

// A Server is a running program.
type Server struct {
	Addr string // host and port

	command Command
	pid     int           // process of the program
	ended   chan struct{} // closed when the program has ended. nil: it never ran
}

// Start starts a program and waits until it is ready. The program and all that it starts
// in its process group are killed when the test ends, even if the test process is killed.
func Start(t testing.TB, c Command) *Server {
	t.Helper()
	if c.Dir == "" {
		c.Dir = newFolder(t, "").path
	}
	s, err := start(t, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// startOnPort starts a program on a free port. Another program may take the port in the
// meantime, so it tries three times.
func startOnPort(t testing.TB, c Command, ready func(addr string) bool, args func(port string) []string) *Server {
	t.Helper()
	var err error
	for range 3 {
		var s *Server
		port := strconv.Itoa(Port(t))
		c.Addr, c.Args = net.JoinHostPort("127.0.0.1", port), args(port)
		c.Ready = func() bool { return ready(c.Addr) }
		if s, err = start(t, c); err == nil {
			return s
		}
	}
	t.Fatal(err)
	return nil
}

func start(t testing.TB, c Command) (*Server, error) {
	s := &Server{Addr: c.Addr, command: c}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.output())
		}
		s.Kill()
	})
	if err := s.launch(); err != nil {
		return nil, err
	}
	return s, s.await(time.Now().Add(startLimit))
}

// errEnded reports that a program has ended before it was ready.
var errEnded = errors.New("it has ended")

// Restart starts a server again after Kill, at the same address and with the same files.
// The address may be in use for a moment, so a program that ends is started once more.
func (s *Server) Restart() error {
	for deadline := time.Now().Add(startLimit); ; {
		if err := s.launch(); err != nil {
			return err
		}
		if err := s.await(deadline); !errors.Is(err, errEnded) || time.Now().After(deadline) {
			return err
		}
	}
}

// launch starts a shell, which starts the program and prints its process id. The shell and
// its process group are killed when the program ends or when the shell's standard input is
// closed, as it is when the test process has ended.
func (s *Server) launch() error {
	const script = `
exec 3<&0
"$@" </dev/null >>out 2>>log 3<&- &
program=$!
echo $program
{ read -r _ <&3; kill -9 0; } >/dev/null 2>&1 &
exec 3<&-
wait $program
kill -9 0`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, s.command.Args...)...)
	cmd.Dir, cmd.Env = s.command.Dir, append(os.Environ(), s.command.Env...)
	s.command.user.own(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	pid, notNumber := strconv.Atoi(strings.TrimSpace(line))
	if err = errors.Join(err, notNumber); err != nil {
		_ = stdin.Close()
		return errors.Join(err, cmd.Wait())
	}
	ended := make(chan struct{})
	s.pid, s.ended = pid, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // "killed": the shell is of the group too
		_ = stdin.Close()
	}()
	return nil
}

// await waits until the program is ready. The program that answers could be another one,
// which had the address before: this one must still run then.
func (s *Server) await(deadline time.Time) error {
	ready := s.command.Ready
	if ready == nil {
		ready = s.accepts
	}
	for {
		isReady := ready()
		select {
		case <-s.ended:
			return fmt.Errorf("%s: %w:\n%s", s.command.Args[0], errEnded, s.output())
		case <-time.After(5 * time.Millisecond): // long enough to notice that the address is in use
		}
		if isReady {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %v:\n%s", s.command.Args[0], startLimit, s.output())
		}
	}
}

func (s *Server) accepts() bool {
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// output returns the end of what the program has printed.
func (s *Server) output() string {
	const most = 4000 // bytes of each file, enough for the last errors
	text := filepath.Base(s.command.Args[0])
	for _, name := range []string{"out", "log"} {
		b, _ := os.ReadFile(filepath.Join(s.command.Dir, name))
		text += "\n" + string(b[max(0, len(b)-most):])
	}
	return text
}

// Port returns the port of the server's address.
func (s *Server) Port() string {
	_, port, _ := net.SplitHostPort(s.Addr)
	return port
}

// PID returns the process id of the program.
func (s *Server) PID() int { return s.pid }

// Suspend keeps the server and the processes that it has started from doing anything, until
// resume is called or the test ends.
func (s *Server) Suspend(t testing.TB) (resume func()) {
	t.Helper()
	pids, err := s.suspend()
	if err != nil {
		t.Fatal(err)
	}
	resume = sync.OnceFunc(func() {
		for _, pid := range pids {
			_ = resumeProcess(pid)
		}
	})
	t.Cleanup(resume)
	return resume
}

// suspend suspends all processes of the server and returns them. The first process is
// suspended first, so that it starts no others in the meantime.
func (s *Server) suspend() (pids []int, err error) {
	if s.ended == nil {
		return nil, nil // it never ran
	}
	select {
	case <-s.ended:
		return nil, nil // and the process id may be another's by now
	default:
	}
	if err := suspendProcess(s.pid); err != nil {
		return []int{s.pid}, err
	}
	pids = []int{s.pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.pid))
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(children)) {
			pid, _ := strconv.Atoi(child)
			pids = append(pids, pid)
			_ = suspendProcess(pid) // an error is of a child that has ended
		}
	}
	return pids, nil
}

// Kill kills all processes of the server with SIGKILL, and waits until they have ended: a
// child that has not would still listen on the server's address.
func (s *Server) Kill() {
	pids, _ := s.suspend()
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill()
		}
	}
	if s.ended != nil {
		<-s.ended
	}
	for _, pid := range pids {
		awaitEnd(pid)
	}
}

// awaitEnd waits until /proc knows a process as dead, or not at all; a minute at most.
func awaitEnd(pid int) {
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		_, rest, ok := strings.Cut(string(stat), ") ") // the state comes after the name
		if err != nil || !ok || strings.Contains("ZX", rest[:1]) {
			return
		}
	}
}
