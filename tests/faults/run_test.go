package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
)

// system is a running server and a function that opens a store on it.
type system struct {
	server *servers.Server
	open   func(t testing.TB, addr string) session.Store // opens a store with a new client
}

// run is one history that was made under faults, with its statistics.
type run struct {
	seed     uint64
	again    bool // whether deleted ids are created again
	haunted  bool // whether the server is killed and suspended
	troubles []trouble
	length   time.Duration

	history []call
	broken  []string
	verdict verdict

	kills      []time.Duration // times at which the server was started again
	stops      []time.Duration // times at which the server was resumed
	network    map[trouble]int // number of troubles of each kind
	hits       int             // number of frames that a trouble has affected
	startError error
}

// do makes the history and checks it. Six clients reach the server through the proxy, and two
// directly, so that these see the writes whose replies were lost.
func (r *run) do(t *testing.T, sys system) {
	p := startProxy(t, sys.server.Addr, r.seed)
	stores := []session.Store{sys.open(t, p.Addr), sys.open(t, p.Addr), sys.open(t, sys.server.Addr)}
	b := &board{again: r.again}
	start := time.Now()
	until := start.Add(r.length)
	var all, faults sync.WaitGroup
	var isOver atomic.Bool
	everybody := make([]*client, clients)
	for i := range everybody {
		everybody[i] = &client{number: i, store: stores[i*len(stores)/clients], board: b, start: start,
			rng: rand.New(rand.NewPCG(r.seed, uint64(100+i))), seen: map[string]uint64{}}
		all.Go(func() { everybody[i].run(isOver.Load) })
	}
	r.network = map[trouble]int{}
	if r.haunted {
		faults.Go(func() { r.haunt(t, sys.server, start, until) })
	}
	if len(r.troubles) > 0 {
		faults.Go(func() { r.disturb(p, until) })
	}
	time.Sleep(r.length)
	faults.Wait()
	isOver.Store(true)
	all.Wait()
	p.set(none, 0)
	r.hits = p.struck()
	for _, c := range everybody {
		r.history = append(r.history, c.history...)
		r.broken = append(r.broken, c.broken...)
	}
	r.look(t, sys, b, start)
	r.verdict = judge(r.history)
}

// haunt kills and restarts the server at least once, and suspends it for a while.
func (r *run) haunt(t testing.TB, s *servers.Server, start, until time.Time) {
	rng := rand.New(rand.NewPCG(r.seed, 3))
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(rng.Int64N(int64(to-from))) }
	for first := true; ; first = false {
		time.Sleep(between(200*time.Millisecond, 1200*time.Millisecond))
		if !first && time.Until(until) < 400*time.Millisecond {
			return
		}
		if first || rng.IntN(2) == 0 {
			s.Kill()
			time.Sleep(between(0, 200*time.Millisecond))
			begun := time.Since(start)
			if err := s.Restart(); err != nil {
				r.startError = err
				return
			}
			r.kills = append(r.kills, begun)
		} else {
			resume := s.Suspend(t)
			time.Sleep(between(100*time.Millisecond, 2*time.Second))
			resume()
			r.stops = append(r.stops, time.Since(start))
		}
	}
}

// disturb lets the proxy cause trouble for a while, until at least one frame was affected,
// because few frames pass on a slow machine; then it ends the trouble.
func (r *run) disturb(p *troubled, until time.Time) {
	rng := rand.New(rand.NewPCG(r.seed, 4))
	for time.Now().Before(until) || p.struck() == 0 && time.Since(until) < time.Minute {
		k := r.troubles[rng.IntN(len(r.troubles))]
		p.set(k, 0.02+0.2*rng.Float64())
		time.Sleep(time.Duration(100+rng.IntN(600)) * time.Millisecond)
		p.set(none, 0)
		r.network[k]++
		time.Sleep(time.Duration(50+rng.IntN(300)) * time.Millisecond)
	}
}

// look loads all records after the faults: acknowledged writes must still be stored. The loads
// are part of the history.
func (r *run) look(t *testing.T, sys system, b *board, start time.Time) {
	store := sys.open(t, sys.server.Addr)
	c := &client{number: clients, store: store, start: start, seen: map[string]uint64{}}
	deadline := time.Now().Add(2 * time.Minute) // limits all loads together if the server is down
	for slot := range b.slots {
		for g := range b.slots[slot].generation + 1 {
			for {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				c.load(ctx, name(slot, g))
				cancel()
				if c.history[len(c.history)-1].outcome != failed || time.Now().After(deadline) {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	r.history = append(r.history, c.history...)
	r.broken = append(r.broken, c.broken...)
	if last := c.history[len(c.history)-1]; last.outcome == failed {
		t.Errorf("seed %d: the server does not answer again: %v", r.seed, last.err)
	}
}

// back returns the longest time from one of these moments until the reply to a call that began
// after it.
func (r *run) back(since []time.Duration) (worst time.Duration) {
	for _, moment := range since {
		first := time.Duration(1<<63 - 1)
		for _, c := range r.history {
			if c.from >= moment && c.outcome != failed && c.outcome != unknown {
				first = min(first, c.to-moment)
			}
		}
		worst = max(worst, first)
	}
	return worst.Round(time.Millisecond)
}

// header and row form the report.
const header = `
| seed | operations | ids | kill -9 | SIGSTOP | drop | delay | cut | hole | frames hit | unknown | failed | back after kill | after SIGSTOP | violations |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

func (r *run) row() string {
	var count [unknown + 1]int
	for _, c := range r.history {
		count[c.outcome]++
	}
	n := r.network
	return fmt.Sprintf("| %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %v | %v | %d |\n", r.seed, len(r.history), r.verdict.ids,
		len(r.kills), len(r.stops), n[drop], n[delay], n[cut], n[hole]+n[forget], r.hits, count[unknown], count[failed],
		r.back(r.kills), r.back(r.stops), len(r.verdict.violations)+len(r.broken))
}
