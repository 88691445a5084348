package servers

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
	return redisReply(addr, "PING") == "+PONG"
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

// RedisCluster starts a Redis Cluster of three masters, without replicas.
func RedisCluster(t testing.TB) []*Server {
	t.Helper()
	const slots = 16384
	nodes, buses := make([]*Server, 3), make([]int, 3)
	for i := range nodes {
		buses[i] = Port(t)
		nodes[i] = Redis(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(buses[i]), "--cluster-node-timeout", "2000")
		commands := []string{
			fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1),
			fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", i*slots/len(nodes), (i+1)*slots/len(nodes)-1),
		}
		if i > 0 {
			commands = append(commands, fmt.Sprintf("CLUSTER MEET 127.0.0.1 %s %d", nodes[0].Port(), buses[0]))
		}
		for _, c := range commands {
			if reply := redisReply(nodes[i].Addr, c); reply != "+OK" {
				t.Fatalf("%s: %s", c, reply)
			}
		}
	}
	Eventually(t, "the cluster is whole", func() bool {
		for _, n := range nodes {
			info := redisReply(n.Addr, "CLUSTER INFO")
			for _, want := range []string{"cluster_state:ok", "cluster_known_nodes:3", "cluster_slots_ok:16384"} {
				if !strings.Contains(info, want) {
					return false
				}
			}
		}
		return true
	})
	return nodes
}

// redisReply sends a command and returns the reply, which is a line or a text of a known length.
// It returns "" if there is no answer.
func redisReply(addr, command string) (reply string) {
	probe(addr, command+"\r\n", func(r *bufio.Reader) bool {
		reply, _ = r.ReadString('\n')
		reply = strings.TrimSpace(reply)
		if length, ok := strings.CutPrefix(reply, "$"); ok {
			n, _ := strconv.Atoi(length)
			text := make([]byte, max(n, 0))
			_, _ = io.ReadFull(r, text)
			reply = string(text)
		}
		return true
	})
	return reply
}
