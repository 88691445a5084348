package session_test

import (
	"cmp"
	"os"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/simulate"
)

func simulated(t *testing.T, p simulate.Plan) (r *simulate.Result) {
	synctest.Test(t, func(t *testing.T) { seedRandom(t, p.Seed); r = simulate.Run(p, session.Simulate) })
	return r
}

func TestSimulate(t *testing.T) {
	began, requests := time.Now(), 0
	counts := map[string]int{}
	n, _ := strconv.ParseUint(cmp.Or(os.Getenv("SEEDS"), "300"), 10, 64)
	from, _ := strconv.ParseUint(os.Getenv("FROM"), 10, 64)
	for seed := from; seed < from+n; seed++ {
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
