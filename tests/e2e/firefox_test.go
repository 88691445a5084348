package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/testing/servers"
)

// startFirefox starts Debian's Firefox with a new profile. The test speaks Marionette with it,
// so that no other program is needed.
func startFirefox(t testing.TB) browser {
	t.Helper()
	path := servers.Program(t, "firefox-esr")
	profile := scratch(t)
	const preferences = `
user_pref("marionette.port", 0); // any that is free; Firefox writes it to MarionetteActivePort
user_pref("app.normandy.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
`
	if err := os.WriteFile(filepath.Join(profile, "user.js"), []byte(preferences), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &marionette{limit: startLimit}
	launchBrowser(t, profile, nil, func() bool {
		port, err := os.ReadFile(filepath.Join(profile, "MarionetteActivePort"))
		if err != nil || len(port) == 0 {
			return false
		}
		m.conn, err = net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
		return err == nil
	}, path, "--headless", "--marionette", "--no-remote", "--profile", profile)
	t.Cleanup(func() { m.conn.Close() })
	m.in = bufio.NewReader(m.conn)
	if err := m.conn.SetDeadline(time.Now().Add(startLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.read(); err != nil { // reads the greeting
		t.Fatal("Firefox sends no greeting: ", err)
	}
	b := &webDriver{t, m.do}
	b.must("WebDriver:NewSession", capabilities)
	m.limit = callLimit
	return b
}

// marionette is a connection in Firefox's protocol for WebDriver: [0,id,command,params] is
// answered by [1,id,error,result]. Each message is preceded by its length and a colon.
type marionette struct {
	conn  net.Conn
	in    *bufio.Reader
	limit time.Duration // limit of a command
	id    int           // id of the last command
}

func (m *marionette) do(command string, params any) (json.RawMessage, error) {
	m.id++
	msg, err := json.Marshal([]any{0, m.id, command, params})
	if err != nil {
		return nil, err
	}
	if err := m.conn.SetDeadline(time.Now().Add(m.limit)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(m.conn, "%d:%s", len(msg), msg); err != nil {
		return nil, err
	}
	body, err := m.read()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	var answer [4]json.RawMessage
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	if string(answer[1]) != strconv.Itoa(m.id) || string(answer[2]) != "null" {
		return nil, fmt.Errorf("%s: %s", command, body)
	}
	var wrapped struct{ Value json.RawMessage } // most results are wrapped like this
	if err := json.Unmarshal(answer[3], &wrapped); err == nil && wrapped.Value != nil {
		return wrapped.Value, nil
	}
	return answer[3], nil
}

// read returns one message.
func (m *marionette) read() ([]byte, error) {
	length, err := m.in.ReadString(':')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
	if err != nil {
		return nil, err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(m.in, body)
	return body, err
}
