package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// connections is the number of connections, which are kept alive and used concurrently.
const connections = 16

// wholeServer measures the processor time of a request in a server process, which other load of
// the machine does not affect: reading and parsing the request, the router, the session, the
// response.
func wholeServer(b *testing.B, lib, path string) {
	addr, pid := start(b, lib)
	cookie := fill(b, addr)
	if _, err := cpu(pid); err != nil {
		b.Skip("no process times: ", err)
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\nCookie: " + cookie + "\r\n\r\n"
	clients := make([]*client, connections)
	for i := range clients {
		clients[i] = dial(b, addr, request)
	}
	load(b, clients, 20_000) // lets the server warm up and its heap grow to the usual size
	before, _ := cpu(pid)
	b.ResetTimer()
	load(b, clients, b.N)
	b.StopTimer()
	after, _ := cpu(pid)
	b.ReportMetric(float64(after-before)/float64(b.N), "cpu-ns/op")
}

func load(b *testing.B, clients []*client, n int) {
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			for range (n + i) / len(clients) {
				if err := c.get(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// client repeats a request on one connection. It uses little processor time: it expects the
// same response each time, except for the date.
type client struct {
	conn             net.Conn
	request, answers []byte
	first            []byte // first line of the response
}

func dial(tb testing.TB, addr, request string) *client {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	c := &client{conn: conn, request: []byte(request)}
	if _, err := conn.Write(c.request); err != nil {
		tb.Fatal(err)
	}
	var raw bytes.Buffer
	resp, err := http.ReadResponse(bufio.NewReader(io.TeeReader(conn, &raw)), nil)
	if err != nil {
		tb.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "ok" {
		tb.Fatalf("%v, %s, %q, %v", err, resp.Status, body, resp.Header)
	}
	c.answers = raw.Bytes()
	line, _, _ := bytes.Cut(c.answers, []byte("\n"))
	c.first = bytes.Clone(line)
	return c
}

func (c *client) get() error {
	if _, err := c.conn.Write(c.request); err != nil {
		return err
	}
	if _, err := io.ReadFull(c.conn, c.answers); err != nil {
		return err
	}
	if !bytes.HasPrefix(c.answers, c.first) || !bytes.HasSuffix(c.answers, []byte("\r\n\r\nok")) {
		return fmt.Errorf("the response has changed: %q", c.answers)
	}
	return nil
}

// fill creates a session of three values, and returns its cookie.
func fill(tb testing.TB, addr string) string {
	resp, err := http.Get("http://" + addr + "/fill")
	if err != nil {
		tb.Fatal(err)
	}
	resp.Body.Close()
	cookie, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	if resp.StatusCode != http.StatusOK || cookie == "" {
		tb.Fatalf("%s, %v", resp.Status, resp.Header)
	}
	return cookie
}

const serveEnv = "BENCH_SERVE"

// start starts the server of a library in a process that ends with the benchmark.
func start(tb testing.TB, lib string) (addr string, pid int) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+lib)
	if lib == "express" {
		if _, err := os.Stat("express/node_modules"); err != nil {
			tb.Skip("express-session is not installed")
		}
		cmd = exec.Command("node", "server.js")
		cmd.Dir = "express"
		cmd.Env = append(os.Environ(), "NODE_ENV=production")
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Skip(err)
	}
	tb.Cleanup(func() { stdin.Close(); cmd.Wait() })
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		tb.Fatal(err)
	}
	return "127.0.0.1:" + strings.TrimSpace(port), cmd.Process.Pid
}

// serveUntilStdinCloses is the main function of the process.
func serveUntilStdinCloses(lib string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	go func() { panic(apps[lib](dir).serve(l)) }()
	io.Copy(io.Discard, os.Stdin)
	os.RemoveAll(dir)
	os.Exit(0)
}

// cpu returns the processor time of a process in nanoseconds. Linux reports it with a
// resolution of 10 ms.
func cpu(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest) // index 0 is field 3 of the file
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	return (user + system) * int64(10*time.Millisecond), err
}
