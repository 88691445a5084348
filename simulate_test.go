package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/simulate"
)

func simulated(t *testing.T, p simulate.Plan) (r *simulate.Result) {
	synctest.Test(t, func(t *testing.T) { r = simulate.Run(p, session.Simulate) })
	return r
}

func TestSimulate(t *testing.T) {
	began, requests := time.Now(), 0
	counts := map[string]int{}
	for seed := range uint64(300) {
		r := simulated(t, simulate.NewPlan(seed))
		requests += r.Requests
		for k, n := range r.Counts {
			counts[k] += n
		}
		if len(r.Violations) > 0 {
			t.Errorf("seed %d: %v", seed, r.Violations)
			for _, l := range r.History {
				t.Log(l)
			}
			break
		}
	}
	t.Log(requests, time.Since(began), counts)
}
