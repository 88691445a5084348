package faults_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/testing/proxy"
)

// A trouble is what a proxy does to what passes through it.
type trouble int

const (
	none   trouble = iota
	drop           // a request passes, then the connection is cut in place of its reply
	delay          // every third frame is late, by up to 300 ms: what is sent again overtakes it
	cut            // a frame passes in part, then the connection is cut
	hole           // nothing passes in any direction; when it ends, what was swallowed arrives or is gone
	forget         // like hole, but what was swallowed never arrives
)

func (k trouble) String() string {
	return [...]string{"none", "drop", "delay", "cut", "hole", "forget"}[k]
}

// A troubled is a proxy between the clients and a server, with one trouble at a time.
type troubled struct {
	*proxy.Proxy

	mu   sync.Mutex
	now  trouble
	over chan struct{} // closed when the trouble is over
	rng  *rand.Rand
	odds float64 // how often drop and cut strike, by frame
	hits int     // frames that met with trouble
}

func startProxy(t testing.TB, target string, seed uint64) *troubled {
	p := &troubled{over: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 2))}
	p.Proxy = proxy.New(t, target, p.fate)
	return p
}

// set begins a trouble and ends the one before.
func (p *troubled) set(k trouble, odds float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.over)
	p.now, p.odds, p.over = k, odds, make(chan struct{})
}

// struck returns how many frames met with trouble.
func (p *troubled) struck() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// fate decides whether a frame meets with the trouble.
func (p *troubled) fate(c proxy.Chunk) proxy.Fate {
	p.mu.Lock()
	defer p.mu.Unlock()
	struck := p.rng.Float64() < p.odds
	over, late := p.over, time.Duration(p.rng.Int64N(int64(300*time.Millisecond)))
	var fate proxy.Fate
	switch {
	case p.now == drop && c.IsReply && struck:
		fate = proxy.Fate{Cut: true}
	case p.now == cut && struck:
		fate = proxy.Fate{Pass: p.rng.IntN(len(c.Data)), Cut: true}
	case p.now == delay && p.rng.IntN(3) == 0:
		fate = proxy.Fate{Wait: func() { time.Sleep(late) }, Pass: len(c.Data)}
	case p.now == hole:
		fate = proxy.Fate{Wait: func() { <-over }, Pass: len(c.Data)}
	case p.now == forget:
		fate = proxy.Fate{Wait: func() { <-over }, Cut: true}
	default:
		return proxy.Forward(c)
	}
	p.hits++
	return fate
}
