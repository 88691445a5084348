package session

import (
	"context"
	"math/rand/v2"
)

// simulated is set by the simulator, a test that decides all that happens by one seed:
// what is random here, and in which order goroutines go on.
var simulated struct {
	random  func(n int64) int64       // in place of math/rand/v2
	resumed func(ctx context.Context) // called by a goroutine that has waited for another one or for a time
}

// random returns a number in [0, n).
func random[N ~int | ~int64](n N) N {
	if simulated.random != nil {
		return N(simulated.random(int64(n)))
	}
	return rand.N(n)
}

// resumed is called where a goroutine goes on after a wait. ctx is the request's.
func resumed(ctx context.Context) {
	if simulated.resumed != nil {
		simulated.resumed(ctx)
	}
}
