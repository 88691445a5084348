package servers

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// probeLimit is how long one attempt to reach a server may take, which may be starting.
const probeLimit = 5 * time.Second

// probe connects to a server, sends a request, and reports whether isReady accepts the
// answer.
func probe(addr, request string, isReady func(*bufio.Reader) bool) bool {
	conn, err := net.DialTimeout("tcp", addr, probeLimit)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(probeLimit))
	if _, err := conn.Write([]byte(request)); err != nil {
		return false
	}
	return isReady(bufio.NewReader(conn))
}

// redisAnswers reports whether a Redis or a Sentinel has loaded its data.
func redisAnswers(addr string) bool {
	return probe(addr, "PING\r\n", func(r *bufio.Reader) bool {
		line, _ := r.ReadString('\n')
		return strings.HasPrefix(line, "+PONG")
	})
}

// Redis starts a redis-server. It keeps nothing on disk but what args ask for, such as
// "--appendonly", "yes".
func Redis(t testing.TB, args ...string) *Server {
	t.Helper()
	path, dir := Program(t, "redis-server"), newFolder(t, "").path
	return startOnPort(t, Command{Dir: dir}, redisAnswers, func(port string) []string {
		return append([]string{path, "--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", ""}, args...)
	})
}

// Sentinel starts a Redis Sentinel that watches a master under the name "main".
func Sentinel(t testing.TB, master *Server) *Server {
	t.Helper()
	path, dir := Program(t, "redis-server"), newFolder(t, "").path
	return startOnPort(t, Command{Dir: dir}, redisAnswers, func(port string) []string {
		conf := fmt.Sprintf("bind 127.0.0.1\nport %s\nsentinel monitor main 127.0.0.1 %s 1\n", port, master.Port())
		if err := os.WriteFile(filepath.Join(dir, "sentinel.conf"), []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{path, "sentinel.conf", "--sentinel"}
	})
}
