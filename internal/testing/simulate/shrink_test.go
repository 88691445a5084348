package simulate_test

import (
	"slices"
	"testing"

	"github.com/coatcheck/session/internal/testing/simulate"
)

// TestShrink checks that a plan that breaks its promise only with the sixth step of a thief and a
// silent store is reduced to those and one browser.
func TestShrink(t *testing.T) {
	shrunk := 0
	for seed := range uint64(200) {
		runs := 0
		run := func(p simulate.Plan) *simulate.Result {
			runs++
			r := &simulate.Result{Plan: p}
			isThief := func(a simulate.Actor) bool { return a.Kind == simulate.Thief && slices.Contains(a.Steps, 5) }
			if len(p.Actors) == 0 || !slices.ContainsFunc(p.Actors, func(a simulate.Actor) bool { return a.Kind == simulate.Browser }) || len(p.Ahead) != p.Processes {
				t.Errorf("seed %d: Shrink tried the invalid plan %v", seed, p)
			}
			if p.Faults&simulate.SilentStore != 0 && slices.ContainsFunc(p.Actors, isThief) {
				r.Violations = []string{"request 7: promise: words"}
			} else {
				r.Violations = []string{"another promise: words"}
			}
			return r
		}
		p := simulate.NewPlan(seed)
		if run(p).Promise() != "promise" {
			continue
		}
		shrunk++
		small := simulate.Shrink(p, run)
		if len(small.Actors) != 2 || small.Faults != simulate.SilentStore || small.Processes != 1 || small.RenewAfter != 0 || small.MaxPerUser != 0 {
			t.Errorf("seed %d: the smallest plan is %v", seed, small)
		}
		for _, a := range small.Actors {
			if a.Kind == simulate.Browser && len(a.Steps) != 0 || a.Kind == simulate.Thief && !slices.Equal(a.Steps, []int{5}) {
				t.Errorf("seed %d: the %v has the steps %v", seed, a.Kind, a.Steps)
			}
		}
		if runs > 2000 {
			t.Errorf("seed %d: %d runs", seed, runs)
		}
	}
	if shrunk == 0 {
		t.Error("no plan broke the promise")
	}
}
