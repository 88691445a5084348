package redisstore_test

import (
	"bytes"
	"net"
	"sync"
	"testing"
)

// proxy forwards between client and server, and cuts the connection at a given byte of an
// exchange. An exchange begins with the request of a script.
type proxy struct {
	t        testing.TB
	listener net.Listener
	target   string

	mu        sync.Mutex
	cut       bool
	always    bool   // cut every exchange, not just the next
	request   int    // bytes of the request that pass; -1: all
	reply     int    // bytes of the reply that pass after the whole request
	meanwhile func() // called just before the cut
	skip      int    // exchanges that pass before the cut
	skipping  bool   // whether the current exchange passes

	requestSize, replySize int // of the last exchange
}

func startProxy(t testing.TB, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, target: target}
	t.Cleanup(func() { _ = p.Close() })
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

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) Close() error { return p.listener.Close() }

// cutAt arranges a cut after n bytes, counted through the request and then the reply.
func (p *proxy) cutAt(n, requestSize int, always bool, meanwhile func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.always, p.meanwhile = true, always, meanwhile
	p.request, p.reply = n, 0
	if n >= requestSize {
		p.request, p.reply = -1, n-requestSize
	}
}

// loseReply cuts the connection before the reply, after so many further exchanges.
func (p *proxy) loseReply(after int) {
	p.cutAt(0, 0, false, nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skip = after
}

// heal cancels the cut.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// due returns how many bytes of a request or reply pass before the cut, or -1 for all.
func (p *proxy) due(size int, isReply bool) (pass int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pass = p.request
	if isReply {
		p.replySize, pass = size, p.reply
	} else {
		p.requestSize = size
	}
	if !isReply {
		p.skipping = p.skip > 0
		p.skip = max(p.skip-1, 0)
	}
	if !p.cut || p.skipping || pass < 0 {
		return -1
	}
	p.cut = p.always
	if p.meanwhile != nil {
		p.meanwhile()
	}
	return pass
}

// serve forwards one connection, message by message: the client sends a command in one piece
// and waits for its reply, and both are small.
func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	var scripting sync.Mutex
	exchange := false
	pump := func(from, to net.Conn, isReply bool) {
		defer from.Close()
		defer to.Close()
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			message := b[:n]
			scripting.Lock()
			if !isReply {
				exchange = bytes.Contains(message, []byte("evalsha"))
			}
			counts := exchange
			scripting.Unlock()
			pass := -1
			if counts {
				pass = p.due(n, isReply)
			}
			if pass >= 0 {
				_, _ = to.Write(message[:min(pass, n)])
				return
			}
			if _, err := to.Write(message); err != nil {
				return
			}
		}
	}
	go pump(client, server, false)
	pump(server, client, true)
}
