//go:build go1.26

package session_test

import (
	"testing"
	"testing/cryptotest"

	"github.com/coatcheck/session/internal/testing/simulate"
)

// seedRandom makes what the test draws from crypto/rand depend on the seed. Sessions that began
// in the same millisecond are listed in the order of their random ids.
func seedRandom(t *testing.T, seed uint64) { cryptotest.SetGlobalRandom(t, seed) }

// TestSimulateTwice checks that a seed does the same every time, so that a failure can be
// replayed and shrunk. Decisions of the Go runtime (the order of a map, which of two goroutines
// continues first, which of two ready cases a select takes) must not affect a history.
func TestSimulateTwice(t *testing.T) {
	for seed := range uint64(25) {
		p := simulate.NewPlan(seed)
		first, second := simulated(t, p).History, simulated(t, p).History
		for i := range max(len(first), len(second)) {
			if a, b := lineOf(first, i), lineOf(second, i); a != b {
				t.Errorf("seed %d: the histories differ in line %d:\n%s\n%s", seed, i, a, b)
				break
			}
		}
	}
}

// lineOf returns a line of a history, or "" after its end.
func lineOf(history []string, i int) string {
	if i < len(history) {
		return history[i]
	}
	return ""
}
