package simulate

import (
	"math/rand/v2"
	"time"
)

// A Plan is all that a run is made of. Each actor has a seed of its own, so that it does
// the same whatever others are left out.
type Plan struct {
	Seed       uint64
	Processes  int
	Actors     []Actor
	Faults     Fault
	RenewAfter time.Duration
	MaxPerUser int
	Idle       time.Duration
	Lifetime   time.Duration
	Ahead      []time.Duration // of the clock of each process
}

// An Actor does Steps things.
type Actor struct {
	Kind  ActorKind
	Seed  uint64
	Steps int
}

// An ActorKind is a kind of actor.
type ActorKind int

// The kinds of actors. Browser and Thief number the browsers from 0: a thief steals from
// any of them.
const (
	Browser ActorKind = iota
	Thief
	Operator
)

func (k ActorKind) String() string { return [...]string{"browser", "thief", "operator"}[k] }

// A Fault is a kind of mishap that may happen in a run.
type Fault uint

// The kinds of faults.
const (
	SlowStore     Fault = 1 << iota // calls take up to seconds
	FailingStore                    // calls fail, before or after they have been applied
	SilentStore                     // calls are answered at no time
	LostResponses                   // the client sees no answer, or sees it late
	Retries                         // a proxy sends a request again
	Deaths                          // processes die and are started again
	Clocks                          // those of the processes differ by some seconds
	allFaults     = Clocks<<1 - 1
)

var faultNames = []string{"slow store", "failing store", "silent store", "lost responses", "retries", "deaths", "clocks"}

func (f Fault) names() (names []string) {
	for i, name := range faultNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// NewPlan makes the plan of a seed.
func NewPlan(seed uint64) Plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := Plan{
		Seed:      seed,
		Processes: 1 + rng.IntN(3),
		Idle:      []time.Duration{20 * time.Minute, time.Hour}[rng.IntN(2)],
		Lifetime:  []time.Duration{2 * time.Hour, 24 * time.Hour}[rng.IntN(2)],
	}
	if rng.IntN(2) == 0 {
		p.RenewAfter = time.Minute
	}
	if rng.IntN(4) == 0 {
		p.MaxPerUser = 1 + rng.IntN(2)
	}
	if rng.IntN(3) > 0 { // else all goes well
		p.Faults = Fault(rng.IntN(int(allFaults) + 1))
	}
	p.Ahead = make([]time.Duration, p.Processes)
	if p.Faults&Clocks != 0 {
		for i := range p.Ahead {
			p.Ahead[i] = time.Duration(rng.IntN(4000)) * time.Millisecond
		}
	}
	add := func(kind ActorKind, n, steps int) {
		for range n {
			p.Actors = append(p.Actors, Actor{kind, rng.Uint64(), 1 + rng.IntN(steps)})
		}
	}
	add(Browser, 1+rng.IntN(3), 40)
	add(Thief, rng.IntN(3)*rng.IntN(2), 20)
	add(Operator, rng.IntN(2), 6)
	return p
}
