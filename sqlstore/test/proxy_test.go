package sqlstore_test

import (
	"sync"
	"testing"

	"github.com/coatcheck/session/internal/testing/proxy"
)

// A cutter is a proxy in front of a server. It cuts a connection after so many bytes of
// what the server answers or of what it is asked: once, or with the network down from then
// on.
type cutter struct {
	*proxy.Proxy

	mu    sync.Mutex
	left  int  // bytes until the cut
	reply bool // of the server's
	armed bool
	stays bool   // the network stays down after the cut, until disarm
	onCut func() // called before the client notices the cut
}

func newProxy(t testing.TB, target string) *cutter {
	p := &cutter{}
	p.Proxy = proxy.New(t, target, p.fate)
	return p
}

// arm has the next connection cut after n bytes, if there are more than that. The
// network then stays down until disarm, if stays. Unless nil, onCut is called after the
// cut, before the client notices it.
func (p *cutter) arm(n int, reply, stays bool, onCut func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left, p.reply, p.armed, p.stays, p.onCut = n, reply, true, stays, onCut
}

// disarm reports whether a connection was cut.
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
