package redisstore_test

import (
	"bytes"
	"sync"
	"testing"

	"github.com/coatcheck/session/internal/testing/proxy"
)

// A cutter is a proxy in front of a server. It cuts the connection at a given byte of an
// exchange, which begins with the request of a script. The client sends a command in one
// piece and waits for its reply, and both are small: each is one chunk.
type cutter struct {
	*proxy.Proxy

	mu        sync.Mutex
	cut       bool
	always    bool   // cut every exchange, not just the next
	request   int    // bytes of the request that pass; -1: all
	reply     int    // bytes of the reply that pass, once the request has
	meanwhile func() // called when the cut is due, before the client can notice the cut
	skip      int    // exchanges that pass before
	skipping  bool   // this one passes

	exchanges              map[int64]bool // connections on which an exchange was the last
	requestSize, replySize int            // of the last exchange
}

func startProxy(t testing.TB, target string) *cutter {
	c := &cutter{exchanges: map[int64]bool{}}
	c.Proxy = proxy.New(t, target, c.fate)
	return c
}

// cutAt arranges a cut after so many bytes: first the request's, then the reply's.
func (p *cutter) cutAt(n, requestSize int, always bool, meanwhile func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.always, p.meanwhile = true, always, meanwhile
	p.request, p.reply = n, 0
	if n >= requestSize {
		p.request, p.reply = -1, n-requestSize
	}
}

// loseReply cuts before the reply of the exchange after so many.
func (p *cutter) loseReply(after int) {
	p.cutAt(0, 0, false, nil)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.skip = after
}

// heal takes the cut back.
func (p *cutter) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = false
}

// fate cuts the connection if the cut is due.
func (p *cutter) fate(c proxy.Chunk) proxy.Fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !c.IsReply {
		p.exchanges[c.Conn] = bytes.Contains(c.Data, []byte("evalsha"))
	}
	if !p.exchanges[c.Conn] {
		return proxy.Forward(c)
	}
	pass := p.due(len(c.Data), c.IsReply)
	if pass < 0 {
		return proxy.Forward(c)
	}
	return proxy.Fate{Pass: min(pass, len(c.Data)), Cut: true}
}

// due returns how much of a request or reply passes before the cut; all of it
// with -1. p.mu is held.
func (p *cutter) due(size int, isReply bool) (pass int) {
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
