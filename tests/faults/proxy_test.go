package faults_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/testing/proxy"
)

// trouble is a fault that a proxy causes.
type trouble int

const (
	none   trouble = iota
	drop           // a request passes, then the connection is cut instead of its reply
	delay          // every third frame is up to 300 ms late, so that a retry can overtake it
	cut            // a part of a frame passes, then the connection is cut
	hole           // no frame passes in either direction; at the end the held frames arrive or are lost
	forget         // like hole, but held frames never arrive
)

func (k trouble) String() string {
	return [...]string{"none", "drop", "delay", "cut", "hole", "forget"}[k]
}

// troubled is a proxy between the clients and a server, with one trouble at a time.
type troubled struct {
	*proxy.Proxy

	mu   sync.Mutex
	now  trouble
	over chan struct{} // closed when the trouble ends
	rng  *rand.Rand
	odds float64 // probability of drop and cut for each frame
	hits int     // number of frames that a trouble has affected
}

func startProxy(t testing.TB, target string, seed uint64) *troubled {
	p := &troubled{over: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 2))}
	p.Proxy = proxy.New(t, target, p.fate)
	return p
}

// set begins a trouble and ends the previous one.
func (p *troubled) set(k trouble, odds float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.over)
	p.now, p.odds, p.over = k, odds, make(chan struct{})
}

// struck returns the number of frames that a trouble has affected.
func (p *troubled) struck() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

// fate decides whether the trouble affects a frame.
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
