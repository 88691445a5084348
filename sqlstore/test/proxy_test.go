package sqlstore_test

import (
	"sync"
	"testing"

	"github.com/coatcheck/session/internal/testing/proxy"
)

// cutter is a proxy in front of a server. It cuts a connection after a number of bytes of the
// requests or of the replies: once, or with the network down afterwards.
type cutter struct {
	*proxy.Proxy

	mu    sync.Mutex
	left  int  // bytes until the cut
	reply bool // whether left counts the bytes of replies, not of requests
	armed bool
	stays bool   // whether the network stays down after the cut, until disarm
	onCut func() // called before the client notices the cut
}

func newProxy(t testing.TB, target string) *cutter {
	p := &cutter{}
	p.Proxy = proxy.New(t, target, p.fate)
	return p
}

// arm cuts the next connection after n bytes of replies or of requests. If stays, the network
// then stays down until disarm. onCut, if not nil, is called after the cut, before the client
// notices it.
func (p *cutter) arm(n int, reply, stays bool, onCut func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.reply, p.armed, p.stays, p.onCut = n, reply, true, stays, onCut
}

// disarm cancels the cut and reports whether a connection was cut.
func (p *cutter) disarm() (cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cut, p.armed = !p.armed, false
	p.Refuse(false)
	return cut
}

func (p *cutter) fate(c proxy.Chunk) proxy.Fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(c.Data)
	switch {
	case !p.armed || p.reply != c.IsReply:
		return proxy.Forward(c)
	case n <= p.left:
		p.left -= n
		return proxy.Forward(c)
	}
	p.armed = false
	p.Refuse(p.stays)
	return proxy.Fate{Wait: p.onCut, Pass: p.left, Cut: true}
}
