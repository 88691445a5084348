package faults_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/coatcheck/session/internal/testing/servers"
)

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
