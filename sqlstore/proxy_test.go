package sqlstore_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// A proxy stands before a server and cuts a connection, once, after so many
// bytes of what the server answers or of what it is asked.
type proxy struct {
	port   int
	target string

	mu    sync.Mutex
	left  int  // bytes until the cut
	reply bool // of the server's
	armed bool
}

func newProxy(t testing.TB, port int) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	p := &proxy{port: l.Addr().(*net.TCPAddr).Port, target: fmt.Sprint("127.0.0.1:", port)}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

// arm has the next connection cut after n bytes, if there are more than that.
func (p *proxy) arm(n int, reply bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.reply, p.armed = n, reply, true
}

// disarm tells whether a connection was cut.
func (p *proxy) disarm() (cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut, p.armed = !p.armed, false
	return cut
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	done := make(chan bool, 2)
	go func() { p.pipe(server, client, false); done <- true }()
	go func() { p.pipe(client, server, true); done <- true }()
	<-done
}

// pipe copies until one side ends or the cut comes.
func (p *proxy) pipe(dst io.Writer, src io.Reader, reply bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		keep, cut := p.pass(n, reply)
		if _, werr := dst.Write(buf[:keep]); cut || err != nil || werr != nil {
			return
		}
	}
}

// pass tells how many of n bytes go through.
func (p *proxy) pass(n int, reply bool) (keep int, cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed || p.reply != reply {
		return n, false
	}
	if n <= p.left {
		p.left -= n
		return n, false
	}
	p.armed = false
	return p.left, true
}
