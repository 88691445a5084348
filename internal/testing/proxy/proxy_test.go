package proxy_test

import (
	"io"
	"net"
	"testing"

	"github.com/coatcheck/session/internal/testing/proxy"
)

// echo starts a server that returns what it receives.
func echo(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// ask sends a message and returns the reply, to the end of the message or of the connection.
func ask(t *testing.T, c net.Conn, message string) string {
	t.Helper()
	if _, err := io.WriteString(c, message); err != nil {
		return ""
	}
	b := make([]byte, len(message))
	n, _ := io.ReadFull(c, b)
	return string(b[:n])
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestFates checks that a rule is called for each chunk, and that its result is applied: a cut
// after a byte of the request or of the reply, a delay, a loss.
func TestFates(t *testing.T) {
	released := make(chan struct{})
	for name, test := range map[string]struct {
		rule func(proxy.Chunk) proxy.Fate
		want string
	}{
		"forward": {proxy.Forward, "hello"},
		"cut a request": {func(c proxy.Chunk) proxy.Fate {
			if c.IsReply { // the server may answer before the connection is cut
				return proxy.Fate{}
			}
			return proxy.Fate{Pass: 2, Cut: true}
		}, ""},
		"cut a reply": {func(c proxy.Chunk) proxy.Fate {
			if c.IsReply {
				return proxy.Fate{Pass: 2, Cut: true}
			}
			return proxy.Forward(c)
		}, "he"},
		"wait": {func(c proxy.Chunk) proxy.Fate {
			if c.IsReply {
				return proxy.Fate{Wait: func() { <-released }, Pass: len(c.Data)}
			}
			close(released)
			return proxy.Forward(c)
		}, "hello"},
	} {
		p := proxy.New(t, echo(t), test.rule)
		if got := ask(t, dial(t, p.Addr), "hello"); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// TestRefuse checks that no new connection reaches the server while the proxy refuses
// connections, and that open ones stay.
func TestRefuse(t *testing.T) {
	p := proxy.New(t, echo(t), proxy.Forward)
	open := dial(t, p.Addr)
	if got := ask(t, open, "a"); got != "a" {
		t.Fatalf("%q", got)
	}
	p.Refuse(true)
	if got := ask(t, dial(t, p.Addr), "b"); got != "" {
		t.Errorf("a refused connection was answered %q", got)
	}
	if got := ask(t, open, "c"); got != "c" {
		t.Errorf("the open connection was answered %q", got)
	}
	p.Refuse(false)
	if got := ask(t, dial(t, p.Addr), "d"); got != "d" {
		t.Errorf("after the refusal: %q", got)
	}
}
