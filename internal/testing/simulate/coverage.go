package simulate

import (
	"slices"
)

// requested are the actions of handlers, and mishaps are what may happen to a request.
var (
	requested = []string{"login", "logout", "renew", "remember", "ends by", "refreshes", "takes", "marks now", "revokes"}
	mishaps   = []string{"automatic renewal", "death of the process", "lost response", "slow store"}
	pairKinds = slices.Concat(requested, mishaps)
)

// Pairs returns all pairs that a run may count: two kinds of actions or mishaps that overlapped, in
// requests of one session or of one browser.
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

// coverage counts overlaps. If no Login ever overlapped a renewal, for example, a simulator would
// not test their combination.
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

// ends counts the pairs of x with requests that have ended before. Only then are all kinds of both
// known.
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

// isRelated reports whether two requests may use the same session.
func isRelated(x, o *exchange) bool {
	id := x.w.truth.idOf(x.token)
	return id != "" && id == x.w.truth.idOf(o.token) || x.browser != nil && x.browser == o.browser
}

// kindsOf returns the actions of an ended request, and what happened to the request.
func kindsOf(x *exchange) (kinds []string) {
	add := func(kind string, is bool) {
		if is && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	isExplicit := false
	for _, o := range x.ops {
		add(o.kind, slices.Contains(requested, o.kind))
		isExplicit = isExplicit || o.kind == "login" || o.kind == "renew" || o.kind == "remember"
	}
	// EventRenewed reports both kinds of renewals. A renewal is automatic if no handler requested
	// one.
	add("automatic renewal", !isExplicit && x.cookie != nil && x.cookie.MaxAge >= 0 && x.id != "" && x.id == x.idAfter && x.user != "")
	add("death of the process", x.p.isDead)
	add("lost response", x.isLost)
	add("slow store", x.isSlow)
	return kinds
}
