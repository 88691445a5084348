package simulate

import (
	"regexp"
	"slices"
	"strings"
)

// maxShrinks bounds the runs of a Shrink: a run takes about a millisecond.
const maxShrinks = 1500

// reseeds is how many orders of events Shrink tries for one smaller plan. An omission changes the
// use of all later random choices, so the promise may hold again by chance.
const reseeds = 4

// Shrink returns a smaller plan whose run breaks the same promise first as a run of plan. If a run
// of plan breaks no promise, Shrink returns plan.
func Shrink(plan Plan, run func(Plan) *Result) Plan {
	r := run(plan)
	if r.Promise() == "" {
		return plan
	}
	s := &shrinker{plan: plan, result: r, left: maxShrinks, run: run}
	for s.left > 0 && s.pass() {
	}
	return s.plan
}

// A shrinker reduces plan.
type shrinker struct {
	plan   Plan
	result *Result // result of plan
	left   int     // remaining runs
	run    func(Plan) *Result
}

// try accepts a change of the plan if the promise is still broken.
func (s *shrinker) try(change func(p *Plan)) bool {
	p := s.plan
	p.Actors, p.Ahead = slices.Clone(p.Actors), slices.Clone(p.Ahead)
	change(&p)
	for i := range uint64(reseeds) {
		if s.left == 0 {
			return false
		}
		s.left--
		p.Seed = s.plan.Seed + i
		if r := s.run(p); r.Promise() == s.result.Promise() {
			s.plan, s.result = p, r
			return true
		}
	}
	return false
}

// pass tries each change once, the largest first. It reports whether one was accepted.
func (s *shrinker) pass() (isSmaller bool) {
	try := func(change func(p *Plan)) {
		if s.try(change) {
			isSmaller = true
		}
	}
	for i := len(s.plan.Actors) - 1; i >= 0; i-- {
		if s.canLose(i) {
			try(func(p *Plan) { p.Actors = slices.Delete(p.Actors, i, i+1) })
		}
	}
	for fault := Fault(1); fault < allFaults; fault <<= 1 {
		if s.plan.Faults&fault != 0 {
			try(func(p *Plan) {
				if p.Faults &^= fault; fault == Clocks {
					clear(p.Ahead)
				}
			})
		}
	}
	for s.plan.Processes > 1 && s.try(func(p *Plan) { p.Processes--; p.Ahead = p.Ahead[:p.Processes] }) {
		isSmaller = true
	}
	if s.plan.RenewAfter != 0 {
		try(func(p *Plan) { p.RenewAfter = 0 })
	}
	if s.plan.MaxPerUser != 0 {
		try(func(p *Plan) { p.MaxPerUser = 0 })
	}
	if s.plan.DeviceBound != 0 {
		try(func(p *Plan) { p.DeviceBound = 0 })
	}
	if s.plan.MaxBytes != 0 {
		try(func(p *Plan) { p.MaxBytes = 0 })
	}
	for i := range s.plan.Actors {
		if s.shorten(i) {
			isSmaller = true
		}
		for _, sent := range s.result.Sent[i] {
			try(func(p *Plan) { p.Actors[i].Without = append(slices.Clip(p.Actors[i].Without), sent) })
		}
	}
	return isSmaller
}

// canLose reports whether the plan works without an actor: thieves and operators need a browser.
func (s *shrinker) canLose(i int) bool {
	return slices.ContainsFunc(slices.Delete(slices.Clone(s.plan.Actors), i, i+1), func(a Actor) bool { return a.Kind == Browser })
}

// shorten omits steps of an actor: halves, then quarters, and so on.
func (s *shrinker) shorten(actor int) (isSmaller bool) {
	for n := (len(s.plan.Actors[actor].Steps) + 1) / 2; n > 0; n /= 2 {
		for at := len(s.plan.Actors[actor].Steps) - n; at >= 0; at -= n {
			if s.try(func(p *Plan) {
				p.Actors[actor].Steps = slices.Delete(slices.Clone(p.Actors[actor].Steps), at, at+n)
			}) {
				isSmaller = true
			}
		}
	}
	return isSmaller
}

// ofRequest is the prefix of a violation in a request.
var ofRequest = regexp.MustCompile(`^request [0-9]+: `)

// Promise returns the promise that the run broke first, or "".
func (r *Result) Promise() string {
	if len(r.Violations) == 0 {
		return ""
	}
	promise, _, _ := strings.Cut(ofRequest.ReplaceAllString(r.Violations[0], ""), ":")
	return promise
}
