package simulate

import (
	"slices"
)

// What the requests ask for, and what may happen to one meanwhile.
var (
	asked     = []string{"login", "logout", "renew", "remember", "ends by", "refreshes", "takes", "marks now", "revokes"}
	mishaps   = []string{"automatic renewal", "death of the process", "lost response", "slow store"}
	pairKinds = slices.Concat(asked, mishaps)
)

// Pairs returns all pairs that a run may count: two things that happened at the same time,
// to requests of one session or of one browser.
func Pairs() (all []string) {
	for i, a := range pairKinds {
		for _, b := range pairKinds[i:] {
			all = append(all, pair(a, b))
		}
	}
	return all
}

// pair returns the name of a pair. a is not after b in pairKinds.
func pair(a, b string) string { return a + " while " + b }

// coverage counts what overlapped: a simulator that never lets a Login meet a renewal says
// nothing about how they get on.
type coverage struct {
	active []*exchange
	pairs  map[string]int
}

func (c *coverage) begins(x *exchange) {
	for _, o := range c.active {
		if isRelated(x, o) {
			x.beside, o.beside = append(x.beside, o), append(o.beside, x)
		}
	}
	c.active = append(c.active, x)
}

// ends counts the pairs of x with those that have ended before it: only now are all kinds
// of both known.
func (c *coverage) ends(x *exchange) {
	c.active = slices.DeleteFunc(c.active, func(o *exchange) bool { return o == x })
	kinds := kindsOf(x)
	for _, a := range kinds {
		for _, b := range kinds {
			if !slices.Contains(mishaps, a) && slices.Contains(mishaps, b) {
				c.add(a, b)
			}
		}
		for _, o := range x.beside {
			if !o.ended.IsZero() {
				for _, b := range kindsOf(o) {
					c.add(a, b)
				}
			}
		}
	}
	x.beside = nil
}

func (c *coverage) add(a, b string) {
	if slices.Index(pairKinds, a) > slices.Index(pairKinds, b) {
		a, b = b, a
	}
	if c.pairs == nil {
		c.pairs = map[string]int{}
	}
	c.pairs[pair(a, b)]++
}

// isRelated reports whether two requests may meet in a session.
func isRelated(x, o *exchange) bool {
	id := x.w.truth.idOf(x.token)
	return id != "" && id == x.w.truth.idOf(o.token) || x.browser != nil && x.browser == o.browser
}

// kindsOf returns what a request that has ended asked for, and what happened to it.
func kindsOf(x *exchange) (kinds []string) {
	add := func(kind string, is bool) {
		if is && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	isExplicit := false
	for _, o := range x.ops {
		add(o.kind, slices.Contains(asked, o.kind))
		isExplicit = isExplicit || o.kind == "login" || o.kind == "renew" || o.kind == "remember"
	}
	// EventRenewed is of both kinds of renewals: an automatic one is what no handler asked for.
	add("automatic renewal", !isExplicit && x.cookie != nil && x.cookie.MaxAge >= 0 && x.id != "" && x.id == x.idAfter && x.user != "")
	add("death of the process", x.p.isDead)
	add("lost response", x.isLost)
	add("slow store", x.isSlow)
	return kinds
}
