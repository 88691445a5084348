package sqlstore_test

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// A proxy stands before a server and cuts a connection, after so many bytes of what
// the server answers or of what it is asked: once, or with the network down from then
// on.
type proxy struct {
	port   int
	target string

	mu    sync.Mutex
	left  int  // bytes until the cut
	reply bool // of the server's
	armed bool
	stays bool   // the network stays down after the cut, until disarm
	down  bool   // no connection is accepted
	onCut func() // called before the client notices the cut
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

// arm has the next connection cut after n bytes, if there are more than that. The
// network then stays down until disarm, if stays. Unless nil, onCut is called after the
// cut, before the client notices it.
func (p *proxy) arm(n int, reply, stays bool, onCut func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.reply, p.armed, p.stays, p.onCut = n, reply, true, stays, onCut
}

// disarm tells whether a connection was cut.
func (p *proxy) disarm() (cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut, p.armed, p.down = !p.armed, false, false
	return cut
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	down := p.down
	p.mu.Unlock()
	if down {
		return
	}
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
		keep, cut, onCut := p.pass(n, reply)
		if onCut != nil {
			onCut()
		}
		if _, werr := dst.Write(buf[:keep]); cut || err != nil || werr != nil {
			return
		}
	}
}

// pass returns how many of n bytes go through.
func (p *proxy) pass(n int, reply bool) (keep int, cut bool, onCut func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed || p.reply != reply {
		return n, false, nil
	}
	if n <= p.left {
		p.left -= n
		return n, false, nil
	}
	p.armed, p.down = false, p.stays
	return p.left, true, p.onCut
}
