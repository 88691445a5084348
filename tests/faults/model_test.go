package faults_test

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/coatcheck/session"
)

// call is one call of a method of a Store, with its result. Only versions matter: the data of a
// record is a function of its version, which the client checks, and no record expires during a
// run.
type call struct {
	method   string // "load", "create", "save", "touch", "delete", or "end"
	id       string
	old, new uint64 // versions of a save; a create has only new
	client   int
	from, to time.Duration // relative to the run's start
	outcome  outcome
	version  uint64 // version that a load returned
	err      string // text of the error, for the report
}

// outcome is what the caller knows after a call.
type outcome int

const (
	ok outcome = iota
	notFound
	conflict
	exists
	failed  // an ordinary error: the stores say that it was not applied
	unknown // ErrIndeterminate: applied now, later or never
)

func (o outcome) String() string {
	return [...]string{"ok", "not found", "conflict", "exists", "failed", "unknown"}[o]
}

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return ok
	case errors.Is(err, session.ErrIndeterminate):
		return unknown
	case errors.Is(err, session.ErrNotFound):
		return notFound
	case errors.Is(err, session.ErrConflict):
		return conflict
	case errors.Is(err, session.ErrExists):
		return exists
	}
	return failed
}

// state is the state of one id: the version of the live record, or 0. It ends with the call
// "end", after which there are no calls.
type state struct {
	version uint64
	ended   bool
}

// step reports whether a Store in this state may return this result, and returns the state
// after the call.
func (s state) step(c call) (bool, state) {
	if c.method == "end" {
		return true, state{s.version, true}
	}
	if c.outcome == unknown || c.outcome == failed {
		// The write takes effect if it can. A write that never takes effect is placed after the
		// end: if it could be placed anywhere, the checker would try all positions.
		next, effective := s.apply(c)
		return effective || s.ended, next
	}
	next, _ := s.apply(c)
	switch c.method {
	case "load":
		return c.outcome == ok && s.version == c.version && s.version != 0 || c.outcome == notFound && s.version == 0, s
	case "touch":
		return c.outcome == ok && s.version != 0 || c.outcome == notFound && s.version == 0, s
	case "create":
		if s.version == 0 || s.version == c.new {
			return c.outcome == ok, next
		}
		return c.outcome == exists, s
	case "save":
		switch s.version {
		case 0:
			return c.outcome == notFound, s
		case c.old, c.new:
			return c.outcome == ok, next
		}
		return c.outcome == conflict, s
	case "delete":
		return c.outcome == ok, next
	}
	return false, s
}

// apply returns the state after a write, and whether the write changed it.
func (s state) apply(c call) (next state, effective bool) {
	switch {
	case c.method == "create" && s.version == 0, c.method == "save" && s.version != 0 && s.version == c.old:
		next = state{c.new, s.ended}
	case c.method == "delete":
		next = state{0, s.ended}
	default:
		next = s
	}
	return next, next != s
}

var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, input, _ any) (bool, any) {
		legal, next := s.(state).step(input.(call))
		return legal, next
	},
}

// operations converts the calls of one id for the checker. A call with an unknown outcome
// returns at infinity. If strict, a failed call has no effect.
func operations(calls []call, strict bool) []porcupine.Operation {
	var ops []porcupine.Operation
	last := time.Duration(0)
	for _, c := range calls {
		last = max(last, c.to, c.from)
		writes := c.method != "load" && c.method != "touch"
		open := c.outcome == unknown || c.outcome == failed
		if open && (!writes || strict && c.outcome == failed) {
			continue
		}
		op := porcupine.Operation{ClientId: c.client, Input: c, Call: int64(c.from), Return: int64(c.to)}
		if open {
			op.Return = math.MaxInt64
		}
		ops = append(ops, op)
	}
	return append(ops, porcupine.Operation{Input: call{method: "end"}, Call: int64(last) + 1, Return: int64(last) + 2})
}

// verdict is the checker's result for a run.
type verdict struct {
	ids        int
	violations []string
}

// judge checks each id separately. It first assumes what the stores promise: a call that failed
// with an error other than ErrIndeterminate was not applied.
func judge(history []call) (v verdict) {
	byID := map[string][]call{}
	for _, c := range history {
		byID[c.id] = append(byID[c.id], c)
	}
	v.ids = len(byID)
	for id, calls := range byID {
		ops := operations(calls, true)
		result, info := porcupine.CheckOperationsVerbose(model, ops, time.Minute)
		if result == porcupine.Ok {
			continue
		}
		what := "no order of the calls explains the answers"
		if result == porcupine.Unknown {
			what = "the checker did not come to an end"
		} else if porcupine.CheckOperationsTimeout(model, operations(calls, false), time.Minute) == porcupine.Ok {
			what = "a write that failed with an ordinary error was applied"
		}
		v.violations = append(v.violations, fmt.Sprintf("%s: %s:\n%s", id, what, excerpt(ops, info)))
	}
	return v
}

// excerpt formats the calls around the point at which the checker failed.
func excerpt(ops []porcupine.Operation, info porcupine.LinearizationInfo) (text string) {
	var longest []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, l := range partition {
			if len(l) > len(longest) {
				longest = l
			}
		}
	}
	explained := map[porcupine.Operation]bool{}
	for _, op := range longest {
		explained[op] = true
	}
	stuck := int64(math.MaxInt64) // return of the first call that has no explanation
	for _, op := range ops {
		if !explained[op] {
			stuck = min(stuck, op.Return)
		}
	}
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	const before, after = int64(300 * time.Millisecond), int64(100 * time.Millisecond)
	for _, op := range ops {
		c := op.Input.(call)
		open := op.Return == math.MaxInt64
		if op.Call > stuck+after || op.Return < stuck-before && !open && explained[op] {
			continue
		}
		mark := "explained"
		if !explained[op] {
			mark = "NOT explained"
		}
		text += fmt.Sprintf("  %12v–%-12v client %d %-6s %x → %x: %v %x (%v) %s\n",
			c.from, c.to, c.client, c.method, c.old, c.new, c.outcome, c.version, c.err, mark)
	}
	return text
}
