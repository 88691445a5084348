package simulate

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A Plan determines a run. Each step of each actor has its own randomness, so that omitting other
// steps and actors does not change it.
type Plan struct {
	Seed       uint64 // determines the order of events, and the faults
	Processes  int
	Actors     []Actor
	Faults     Fault
	RenewAfter time.Duration
	MaxPerUser int
	Idle       time.Duration
	Lifetime   time.Duration
	Ahead      []time.Duration // for each process, how far its clock is ahead
	MaxBytes   int64           // limit of the store; 0: the store is never full

	// DeviceBound is the option of this name. Clocks agree in plans with it: the times in stamps are
	// signed, so the simulator cannot move them.
	DeviceBound time.Duration
}

// An Actor executes steps in sequence: those with the numbers Steps of all the steps that Seed
// determines.
type Actor struct {
	Kind    ActorKind
	Seed    uint64
	Steps   []int
	Without []Sent // requests that a browser omits
}

// Sent identifies a request of a browser by the step, and the number of the request in the step.
type Sent struct{ Step, N int }

// rng returns the randomness of a step.
func (a Actor) rng(step int) *rand.Rand { return rand.New(rand.NewPCG(a.Seed, uint64(step))) }

// An ActorKind is a kind of actor.
type ActorKind int

// The kinds of actors. Browsers are numbered from 0: a thief steals cookies from any of them.
const (
	Browser ActorKind = iota
	Thief
	Operator
	Crawler
	Deployer
	Clock
)

func (k ActorKind) String() string {
	return [...]string{"browser", "thief", "operator", "crawler", "deployer", "clock"}[k]
}

// String describes the plan in one line, in words.
func (p Plan) String() string {
	var actors []string
	for i, a := range p.Actors {
		actors = append(actors, fmt.Sprintf("%v %d (%d steps)", a.Kind, i, len(a.Steps)))
	}
	faults := "none"
	if names := p.Faults.names(); len(names) > 0 {
		faults = strings.Join(names, ", ")
	}
	s := fmt.Sprintf("%s; processes: %d; faults: %s; idle timeout %v, lifetime %v", strings.Join(actors, ", "), p.Processes, faults, p.Idle, p.Lifetime)
	if p.RenewAfter > 0 {
		s += fmt.Sprintf(", automatic renewal after %v", p.RenewAfter)
	}
	if p.MaxPerUser > 0 {
		s += fmt.Sprintf(", sessions per user: %d at most", p.MaxPerUser)
	}
	if p.Faults&Clocks != 0 {
		s += fmt.Sprintf(", clocks ahead by %v", p.Ahead)
	}
	if p.DeviceBound > 0 {
		s += fmt.Sprintf(", sessions bound to keys for %v", p.DeviceBound)
	}
	if p.MaxBytes > 0 {
		s += fmt.Sprintf(", room in the store: %d bytes", p.MaxBytes)
	}
	return s
}

// limits are the Options that a deployment may change.
type limits struct {
	idle, lifetime time.Duration
	maxData        int
}

const defaultMaxData = 64 << 10

// limits returns the limits of the first processes of a run.
func (p Plan) limits() limits { return limits{p.Idle, p.Lifetime, defaultMaxData} }

func (l limits) String() string {
	return fmt.Sprintf("idle timeout %v, lifetime %v, MaxDataSize %d", l.idle, l.lifetime, l.maxData)
}

// A Fault is a kind of fault that may happen in a run.
type Fault uint

// The kinds of faults.
const (
	SlowStore     Fault = 1 << iota // store calls take up to seconds
	FailingStore                    // store calls fail, before or after they are applied
	SilentStore                     // store calls get no reply
	LostResponses                   // the client gets no response, or a late one
	Retries                         // a proxy repeats a request
	Deaths                          // processes die and are restarted
	Clocks                          // clocks of the processes differ by some seconds
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

// NewPlan returns the plan of a seed.
func NewPlan(seed uint64) Plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := Plan{
		Seed:      seed,
		Processes: 1 + rng.IntN(3),
		Idle:      []time.Duration{20 * time.Minute, time.Hour}[rng.IntN(2)],
		Lifetime:  []time.Duration{time.Hour, 24 * time.Hour}[rng.IntN(2)],
	}
	if rng.IntN(2) == 0 {
		p.RenewAfter = time.Minute
	}
	if rng.IntN(4) == 0 {
		p.MaxPerUser = 1 + rng.IntN(2)
	}
	if rng.IntN(3) > 0 { // otherwise no faults
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
			a := Actor{Kind: kind, Seed: rng.Uint64(), Steps: make([]int, 1+rng.IntN(steps))}
			for i := range a.Steps {
				a.Steps[i] = i
			}
			p.Actors = append(p.Actors, a)
		}
	}
	add(Browser, 1+rng.IntN(3), 40)
	add(Thief, rng.IntN(3)*rng.IntN(2), 20)
	add(Operator, rng.IntN(2), 6)
	add(Deployer, rng.IntN(2), 6)
	if rng.IntN(6) == 0 {
		p.MaxBytes = 2000 << rng.IntN(3) // a record takes about 700 bytes
		add(Crawler, rng.IntN(3), 20)
	}
	add(Clock, rng.IntN(4)/3, 3)
	if rng.IntN(3) == 0 {
		p.DeviceBound = []time.Duration{5 * time.Minute, 10 * time.Minute}[rng.IntN(2)]
		p.Faults &^= Clocks
		clear(p.Ahead)
		p.Actors = slices.DeleteFunc(p.Actors, func(a Actor) bool { return a.Kind == Clock })
	}
	return p
}
