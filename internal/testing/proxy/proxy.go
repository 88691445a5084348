// Package proxy is a TCP proxy for tests. A rule decides what the proxy does to each chunk
// that passes through it: the chunk passes, is delayed or swallowed, or the connection is
// cut after any byte.
package proxy

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A Chunk is what one read from a connection returned. A client that waits for each answer
// before it goes on, with messages of less than 64 KiB, sends each of them as one chunk.
type Chunk struct {
	Conn    int64  // number of the connection: 1, 2, …
	IsReply bool   // from the server to the client
	Data    []byte // valid until the rule returns
}

// A Fate is what happens to a chunk.
type Fate struct {
	Wait func() // called before anything passes, unless nil
	Pass int    // bytes that pass; the rest of the chunk is lost
	Cut  bool   // the connection is closed after that, in both directions
}

// Forward is the fate of a chunk that passes unchanged. As a rule it makes a proxy without
// faults.
func Forward(c Chunk) Fate { return Fate{Pass: len(c.Data)} }

// A Proxy listens in front of a server.
type Proxy struct {
	Addr string // host and port

	target    string
	rule      func(Chunk) Fate
	isRefused atomic.Bool
	count     atomic.Int64 // connections so far

	mu    sync.Mutex
	conns map[net.Conn]bool // open ones. nil: the test has ended
}

// New starts a proxy in front of the server at target, which need not run yet. rule is
// called for each chunk, by several goroutines at once: one for each direction of each
// connection. The proxy ends with the test.
func New(t testing.TB, target string, rule func(Chunk) Fate) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, rule: rule, conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.conns {
			c.Close()
		}
		p.conns = nil
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

// Refuse sets whether each new connection is closed at once, as if the server were down.
func (p *Proxy) Refuse(isRefused bool) { p.isRefused.Store(isRefused) }

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if p.isRefused.Load() {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.open(client, server) {
		return
	}
	defer p.forget(client, server)
	number := p.count.Add(1)
	var both sync.WaitGroup
	both.Go(func() { p.pump(server, client, Chunk{Conn: number}) })
	both.Go(func() { p.pump(client, server, Chunk{Conn: number, IsReply: true}) })
	both.Wait()
}

// open notes the two connections, and reports whether the test is still running.
func (p *Proxy) open(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

func (p *Proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// pump forwards chunks until one side ends. If a client gives up, what it has sent still
// arrives, late, as in any network.
func (p *Proxy) pump(dst, src net.Conn, c Chunk) {
	defer dst.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if n > 0 {
			c.Data = b[:n]
			fate := p.rule(c)
			if fate.Wait != nil {
				fate.Wait()
			}
			if _, err := dst.Write(b[:fate.Pass]); err != nil || fate.Cut {
				src.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}
