package session_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/simulate"
)

var (
	simulateFrom   = flag.Uint64("simulate.from", 0, "the first seed of TestSimulate")
	simulateSeeds  = flag.Uint64("simulate.seeds", 300, "how many seeds TestSimulate runs")
	simulatePlan   = flag.String("simulate.plan", "", "a plan in JSON, which TestSimulate runs in place of seeds")
	simulateFirst  = flag.Bool("simulate.first", false, "TestSimulate stops at the first seed that breaks a promise, and does not shrink its plan")
	simulateTotals = flag.String("simulate.totals", "", "a file to which TestSimulate writes the sum of what happened, in JSON")
)

// library is what the simulator needs of the package beside its public names.
var library = simulate.Library{Simulate: session.Simulate, Peek: session.Peek}

// maxFailed is after how many seeds that break a promise TestSimulate stops.
const maxFailed = 20

// TestSimulate runs browsers, thieves and operators in virtual time, and judges what they
// are answered by what the package promises: see internal/simulate.
func TestSimulate(t *testing.T) {
	if *simulatePlan != "" {
		var p simulate.Plan
		if err := json.Unmarshal([]byte(*simulatePlan), &p); err != nil {
			t.Fatal(err)
		}
		if r := simulated(t, p); len(r.Violations) > 0 {
			t.Error(r.Explain())
		}
		return
	}
	var totals simulate.Totals
	failed := 0
	for seed := *simulateFrom; seed < *simulateFrom+*simulateSeeds && failed < maxFailed; seed++ {
		r := simulated(t, simulate.NewPlan(seed))
		totals.Add(r)
		if len(r.Violations) == 0 {
			continue
		}
		failed++
		if *simulateFirst {
			t.Errorf("seed %d: %s", seed, r.Violations[0])
			break
		}
		if failed == 1 {
			t.Error(explained(t, r))
		} else {
			t.Errorf("seed %d: %s", seed, r.Violations[0])
		}
	}
	if *simulateTotals == "" {
		t.Logf("\n%v", &totals)
	} else {
		b, err := json.Marshal(totals)
		if err == nil {
			err = os.WriteFile(*simulateTotals, b, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// simulated runs a plan.
func simulated(t *testing.T, p simulate.Plan) (r *simulate.Result) {
	defer func() {
		if r == nil { // it has panicked, perhaps because all goroutines wait for each other
			fmt.Fprintf(os.Stderr, "seed %d did not end: %s\n", p.Seed, replay(p))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		seedRandom(t, p.Seed)
		r = simulate.Run(p, library)
	})
	return r
}

// explained shrinks the plan of a run that broke a promise, and says what happened then.
func explained(t *testing.T, r *simulate.Result) string {
	small := simulate.Shrink(r.Plan, func(p simulate.Plan) *simulate.Result { return simulated(t, p) })
	return fmt.Sprintf("seed %d: %s\nReplay it: go test -run '^TestSimulate$' . -simulate.from=%d -simulate.seeds=1\n"+
		"The smallest plan found that breaks the same promise: %s\n\n%s\n",
		r.Plan.Seed, r.Violations[0], r.Plan.Seed, replay(small), simulated(t, small).Explain())
}

// replay returns the command that runs a plan.
func replay(p simulate.Plan) string {
	b, err := json.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("go test -run '^TestSimulate$' . -simulate.plan='%s'", b)
}
