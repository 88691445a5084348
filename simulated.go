package session

import (
	"context"
	"math/rand/v2"
)

// simulated is set by the simulator, a test that decides all that happens by one seed:
// what is random here, and in which order goroutines go on.
var simulated struct {
	random func(n int64) int64 // in place of math/rand/v2

	// resumed is called by a goroutine that has waited for another one or for a time, and
	// waits for its turn. ctx is its request's. A goroutine of a watch has none: m, what and
	// id, the session's or "", tell it from others.
	resumed func(ctx context.Context, m *Manager, what, id string)
}

// random returns a number in [0, n).
func random[N ~int | ~int64](n N) N {
	if simulated.random != nil {
		return N(simulated.random(int64(n)))
	}
	return rand.N(n)
}

// maxParallel returns how many sessions of a user are ended concurrently. 16 is smaller than usual
// connection pools, so that other requests find free connections. In the simulator, in which one
// goroutine runs at a time, the order of several would not follow from the seed.
func maxParallel() int {
	if simulated.resumed != nil {
		return 1
	}
	return 16
}

// resumed is called where a goroutine goes on after a wait. ctx is the request's.
func resumed(ctx context.Context) {
	if simulated.resumed != nil {
		simulated.resumed(ctx, nil, "", "")
	}
}

// resumed is called where a goroutine of the watch begins, or goes on after a wait. what
// says which it is, and id for which session, if for one.
func (m *Manager) resumed(what, id string) {
	if simulated.resumed != nil {
		simulated.resumed(context.Background(), m, what, id)
	}
}
