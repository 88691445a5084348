package simulate_test

import (
	"strings"
	"testing"

	"github.com/coatcheck/session/internal/testing/simulate"
)

// TestExplain checks that the explanation contains what concerns the session of a violation: all of
// its requests, events that affect all requests, and nothing about other sessions or after the
// violation.
func TestExplain(t *testing.T) {
	r := &simulate.Result{
		Plan:       simulate.NewPlan(1),
		Violations: []string{"request 3: promise: mark 1 is not in session 2"},
		History: []string{
			"1s request 1: a token of session 1",
			"2s request 2: adds mark 1",
			"3s request 2: save of session 2 succeeds",
			"4s process 0 dies",
			"5s request 4: adds mark 2",
			"6s request 3: VIOLATION promise: mark 1 is not in session 2",
			"7s request 3: is answered",
		},
	}
	got := r.Explain()
	_, got, _ = strings.Cut(got, "\n\n")
	if want := strings.Join([]string{r.History[1], r.History[2], r.History[3], r.History[5]}, "\n"); got != want {
		t.Errorf("%s\n\nwant\n%s", got, want)
	}
	for range 100 {
		r.History = append([]string{r.History[2]}, r.History...)
	}
	if n := strings.Count(r.Explain(), "of session 2 succeeds"); n > 60 {
		t.Errorf("the explanation has %d lines, want at most 60", n)
	}
}
