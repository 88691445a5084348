// Package testserver starts private servers for tests: on a free loopback port, in a
// temporary folder, gone with the test, whatever becomes of it.
package testserver

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Program returns the path of a program, in Debian's places too. Without one the test
// fails where CI=true says that all must be there, and is skipped elsewhere.
func Program(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	places, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	for _, path := range append(places, "/usr/sbin/"+name, "/usr/local/bin/"+name, "/opt/homebrew/bin/"+name) {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
	}
	Missing(t, name)
	return ""
}

// Missing skips a test for want of a program, or fails it where CI=true says that all
// must be there.
func Missing(t testing.TB, name string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: make servers", name)
	}
	t.Skipf("%s is not installed: make servers", name)
}

// Port returns a loopback port that is free now.
func Port(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Start starts a program in a folder, with what env adds to the environment, and
// waits until answers says that it does. Its output is in the folder's file "log".
func Start(t testing.TB, dir string, env []string, answers func() bool, args ...string) {
	t.Helper()
	start(t, dir, nil, env, answers, args)
}

// start is Start as a user. A shell starts the program, and kills it when the test
// closes the shell's standard input or is gone itself.
func start(t testing.TB, dir string, as *User, env []string, answers func() bool, args []string) {
	t.Helper()
	const script = `"$@" </dev/null >>log 2>&1 & read -r _; kill -9 $!`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	as.Own(cmd)
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	for deadline := time.Now().Add(2 * time.Minute); !answers(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("%s does not answer:\n%s", args[0], log)
		}
	}
}

// Redis starts a redis-server that keeps nothing on disk, and returns its address.
func Redis(t testing.TB, args ...string) string {
	t.Helper()
	path, port := Program(t, "redis-server"), strconv.Itoa(Port(t))
	addr := net.JoinHostPort("127.0.0.1", port)
	answers := func() bool {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		defer conn.Close()
		fmt.Fprint(conn, "PING\r\n")
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return strings.HasPrefix(line, "+PONG")
	}
	Start(t, t.TempDir(), nil, answers, append([]string{path, "--bind", "127.0.0.1", "--port", port, "--save", ""}, args...)...)
	return addr
}

// Postgres starts a PostgreSQL, and returns the URL of its database.
func Postgres(t testing.TB) string {
	t.Helper()
	postgres, initdb := Program(t, "postgres"), Program(t, "initdb")
	dir, err := os.MkdirTemp("", "sessions") // not t.TempDir, whose parents are another user's
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	as := Unprivileged(t, "postgres", dir)
	data, port := filepath.Join(dir, "data"), strconv.Itoa(Port(t))
	cmd := exec.Command(initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	cmd.Dir = dir
	as.Own(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	answers := func() bool {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return strings.Contains(string(log), "database system is ready to accept connections")
	}
	start(t, dir, as, nil, answers, []string{postgres, "-D", data, "-h", "127.0.0.1", "-p", port, "-k", dir, "-c", "fsync=off"})
	return "postgres://postgres@127.0.0.1:" + port + "/postgres?sslmode=disable"
}
