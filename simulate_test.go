package session_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/simulate"
	"github.com/coatcheck/session/storetest"
)

var (
	simulateFrom   = flag.Uint64("simulate.from", 0, "the first seed of TestSimulate")
	simulateSeeds  = flag.Uint64("simulate.seeds", 200, "how many seeds TestSimulate runs")
	simulatePlan   = flag.String("simulate.plan", "", "a plan in JSON, which TestSimulate runs in place of seeds")
	simulateFirst  = flag.Bool("simulate.first", false, "TestSimulate stops at the first seed that breaks a promise, and does not shrink its plan")
	simulateTotals = flag.String("simulate.totals", "", "a file to which TestSimulate writes the sum of what happened, in JSON")
)

// library contains the functions of the package, beside its API, that the simulator needs.
var library = simulate.Library{Simulate: session.Simulate, Peek: session.Peek, SetBack: session.SetBack}

// maxFailed is the number of failing seeds after which TestSimulate stops.
const maxFailed = 20

// TestSimulate runs browsers, attackers and operators in virtual time, and checks the responses
// against the promises of the package: see internal/testing/simulate.
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

// simulated runs a plan in a bubble.
func simulated(t *testing.T, p simulate.Plan) (r *simulate.Result) {
	defer func() {
		if r == nil { // the run has panicked, perhaps because of a deadlock
			fmt.Fprintf(os.Stderr, "seed %d did not end: %s\n", p.Seed, replay(p))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		seedRandom(t, p.Seed)
		r = simulate.Run(p, library)
	})
	return r
}

// explained shrinks the plan of a failing run, and returns its history.
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

// TestSimulatedStore checks that the store of the simulator keeps the contract, without which
// its results would mean nothing.
func TestSimulatedStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) session.Store { return simulate.NewStore(library) })
}
