package faults_test

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
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

// A proxy stands between the clients and a server.
type proxy struct {
	addr, target string

	mu    sync.Mutex
	now   trouble
	over  chan struct{} // closed when the trouble is over
	rng   *rand.Rand
	odds  float64 // how often drop and cut strike, by frame
	hits  int     // frames that met with trouble
	conns map[net.Conn]bool
}

func startProxy(t testing.TB, target string, seed uint64) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), target: target, over: make(chan struct{}), rng: rand.New(rand.NewPCG(seed, 2)), conns: map[net.Conn]bool{}}
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for c := range p.conns {
			c.Close()
		}
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

// set begins a trouble and ends the one before.
func (p *proxy) set(k trouble, odds float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.over)
	p.now, p.odds, p.over = k, odds, make(chan struct{})
}

// struck returns how many frames met with trouble.
func (p *proxy) struck() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits
}

func (p *proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	done := make(chan struct{}, 2)
	go func() { p.pump(server, client, false); done <- struct{}{} }()
	go func() { p.pump(client, server, true); done <- struct{}{} }()
	<-done
	<-done
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// pump passes frames on until one side ends. A client that gives up takes back
// nothing: what it has sent still arrives, late, as in any network.
func (p *proxy) pump(dst, src net.Conn, reply bool) {
	defer dst.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := src.Read(b)
		if n > 0 {
			pass, wait, ends := p.fate(n, reply)
			if wait != nil {
				wait()
			}
			if _, err := dst.Write(b[:pass]); err != nil || ends {
				src.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// fate says how much of a frame passes, after which wait, and whether the
// connection ends with it.
func (p *proxy) fate(n int, reply bool) (pass int, wait func(), ends bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	struck := p.rng.Float64() < p.odds
	over, late := p.over, time.Duration(p.rng.Int64N(int64(300*time.Millisecond)))
	switch {
	case p.now == drop && reply && struck:
		pass, ends = 0, true
	case p.now == cut && struck:
		pass, ends = p.rng.IntN(n), true
	case p.now == delay && p.rng.IntN(3) == 0:
		pass, wait = n, func() { time.Sleep(late) }
	case p.now == hole:
		pass, wait = n, func() { <-over }
	case p.now == forget:
		pass, wait, ends = 0, func() { <-over }, true
	default:
		return n, nil, false
	}
	p.hits++
	return pass, wait, ends
}
