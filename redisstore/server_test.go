package redisstore_test

import (
	"context"
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
	"github.com/redis/go-redis/v9"
)

// lookPath returns the path of a server, which may be in a directory of Debian outside PATH. If
// the server is missing, the test fails with CI=true, and is skipped otherwise.
func lookPath(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"} {
		if path := filepath.Join(dir, name); isFile(path) {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: make servers", name)
	}
	t.Skipf("%s is not installed: make servers", name)
	return ""
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// server is a private redis-server on a free loopback port, with a temporary folder. It ends
// with the test.
type server struct {
	t    testing.TB
	addr string
	pid  int
}

// startServer starts a server without persistence, unless args configure it.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	path := lookPath(t, "redis-server")
	var log []byte
	for range 3 { // another process may take the free port first
		dir := t.TempDir()
		s := &server{t: t, addr: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
		_, port, _ := net.SplitHostPort(s.addr)
		all := []string{path, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", ""}
		if !s.start(dir, append(all, args...)) {
			log, _ = os.ReadFile(filepath.Join(dir, "log"))
			continue
		}
		return s
	}
	t.Fatalf("redis-server does not start:\n%s", log)
	return nil
}

// start starts a shell that starts the server. The shell kills the server when the test closes
// its standard input, or when the test process has ended in any way.
func (s *server) start(dir string, args []string) bool {
	const script = `"$@" </dev/null >log 2>&1 & read -r _; kill -9 $!`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Dir = dir
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	client := s.client(nil)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		info, err := client.Info(s.t.Context(), "server").Result()
		if _, after, ok := strings.Cut(info, "process_id:"); err == nil && ok {
			pid, _, _ := strings.Cut(after, "\r")
			s.pid, _ = strconv.Atoi(pid)
			return true
		}
	}
	return false
}

// startSentinel starts a Sentinel that watches a server under the name "main".
func startSentinel(t testing.TB, of *server) *server {
	t.Helper()
	path, dir, port := lookPath(t, "redis-server"), t.TempDir(), freePort(t)
	_, watched, _ := net.SplitHostPort(of.addr)
	conf := fmt.Sprintf("bind 127.0.0.1\nport %d\nsentinel monitor main 127.0.0.1 %s 1\n", port, watched)
	if err := os.WriteFile(filepath.Join(dir, "sentinel.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	if !s.start(dir, []string{path, "sentinel.conf", "--sentinel"}) {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Fatalf("the Sentinel does not start:\n%s", log)
	}
	return s
}

// client returns a client of the server. It has no retries of its own, unless adapt configures
// them.
func (s *server) client(adapt func(o *redis.Options)) *redis.Client {
	o := &redis.Options{Addr: s.addr, ContextTimeoutEnabled: true, MaxRetries: -1}
	if adapt != nil {
		adapt(o)
	}
	client := redis.NewClient(o)
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// set changes the server's configuration.
func (s *server) set(name, value string) {
	s.t.Helper()
	if err := s.client(nil).ConfigSet(s.t.Context(), name, value).Err(); err != nil {
		s.t.Fatalf("CONFIG SET %s %s: %v", name, value, err)
	}
}

// suspend stops the server from answering, until resume.
func (s *server) suspend() {
	s.t.Helper()
	must(s.t, testserver.Suspend(s.pid))
}

func (s *server) resume() {
	s.t.Helper()
	must(s.t, testserver.Resume(s.pid))
}

// startCluster starts a Redis Cluster of three masters.
func startCluster(t testing.TB) []*server {
	t.Helper()
	const slots = 16384
	nodes := make([]*server, 3)
	ctx := t.Context()
	do := func(c *redis.Client, args ...any) {
		if err := c.Do(ctx, args...).Err(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	var firstPort, firstBus string
	for i := range nodes {
		bus := strconv.Itoa(freePort(t))
		nodes[i] = startServer(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000")
		client := nodes[i].client(nil)
		do(client, "cluster", "set-config-epoch", i+1)
		do(client, "cluster", "addslotsrange", i*slots/3, (i+1)*slots/3-1)
		if i == 0 {
			_, firstPort, _ = net.SplitHostPort(nodes[i].addr)
			firstBus = bus
			continue
		}
		do(client, "cluster", "meet", "127.0.0.1", firstPort, firstBus)
	}
	eventually(t, "the cluster is complete", func() bool {
		for _, n := range nodes {
			c := n.client(nil)
			info, _ := c.ClusterInfo(ctx).Result()
			if !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:3") || !strings.Contains(info, "cluster_slots_ok:16384") {
				return false
			}
		}
		return true
	})
	return nodes
}

// clusterClient returns a client of a Cluster.
func clusterClient(t testing.TB, nodes []*server) *redis.ClusterClient {
	o := &redis.ClusterOptions{ContextTimeoutEnabled: true}
	for _, n := range nodes {
		o.Addrs = append(o.Addrs, n.addr)
	}
	client := redis.NewClusterClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// eventually waits until is returns true, for a condition that depends on another process.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timeout: %s", what)
		}
	}
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestMain disables the log of the client, because the tests cause faults that it logs.
func TestMain(m *testing.M) {
	redis.SetLogger(silence{})
	os.Exit(m.Run())
}

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}
