package simulate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Totals are the sums over many runs.
type Totals struct {
	Seeds, Requests int
	Broken          map[string]int // for each promise, the number of runs that broke it first
	Counts, Pairs   map[string]int // sums of Result.Counts and Result.Pairs
}

// Add adds a run.
func (t *Totals) Add(r *Result) {
	one := &Totals{Seeds: 1, Requests: r.Requests, Counts: r.Counts, Pairs: r.Pairs}
	if promise := r.Promise(); promise != "" {
		one.Broken = map[string]int{promise: 1}
	}
	t.Merge(one)
}

// Merge adds other totals.
func (t *Totals) Merge(o *Totals) {
	t.Seeds += o.Seeds
	t.Requests += o.Requests
	for _, m := range []struct {
		to   *map[string]int
		from map[string]int
	}{{&t.Broken, o.Broken}, {&t.Counts, o.Counts}, {&t.Pairs, o.Pairs}} {
		if *m.to == nil {
			*m.to = map[string]int{}
		}
		for k, n := range m.from {
			(*m.to)[k] += n
		}
	}
}

// String returns the totals as a table, with the pairs that never happened.
func (t *Totals) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%10d seeds\n%10d requests\n", t.Seeds, t.Requests)
	for _, what := range slices.Sorted(maps.Keys(t.Counts)) {
		fmt.Fprintf(&b, "%10d %s\n", t.Counts[what], what)
	}
	var never []string
	for _, pair := range Pairs() {
		if t.Pairs[pair] == 0 {
			never = append(never, pair)
		}
	}
	fmt.Fprintf(&b, "%10d of the %d pairs that may overlap never overlapped\n", len(never), len(Pairs()))
	for _, pair := range never {
		fmt.Fprintf(&b, "           never: %s\n", pair)
	}
	for _, promise := range slices.Sorted(maps.Keys(t.Broken)) {
		fmt.Fprintf(&b, "BROKEN in %d runs: %s\n", t.Broken[promise], promise)
	}
	return b.String()
}
