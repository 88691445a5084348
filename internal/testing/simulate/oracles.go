package simulate

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// loaded judges what a request has found.
func (t *truth) loaded(x *exchange) {
	now, k := x.loaded, t.tokens[x.token]
	if k == nil {
		if x.user != "" {
			t.violation(x, "nobody as somebody else", "answered as %q without a token", x.user)
		}
		return
	}
	s := k.s
	if x.own != "" {
		t.loadedBoth(x, k)
		return
	}
	isIn := x.id == s.id
	if isIn && x.user != s.user || !isIn && x.user != "" {
		t.violation(x, "nobody as somebody else", "answered as %q with a token of %q", x.user, s.user)
	}
	if isIn {
		t.judgeAccess(x, k)
		if !x.passive {
			s.maybeUsed(x.p)
		}
		if k.presented.IsZero() && k.maybeReplaced.IsZero() {
			t.presents(x, k)
		}
		return
	}
	if s.user != "" && !errors.Is(x.err, session.ErrStore) && t.excuse(x, k, now, true) == "" {
		t.violation(x, "a renewal signs nobody out", "nobody with %s of %q, which should be good (%v)", t.nameOf(k.value), s.user, x.err)
	}
}

// loadedBoth judges what a request has found that brought a token of its own beside a
// stolen one.
func (t *truth) loadedBoth(x *exchange, stolen *token) {
	s, own := stolen.s, t.tokens[x.own].s
	if x.user != "" && (x.user != s.user || x.id != s.id) || x.id != "" && x.id != s.id && x.id != own.id {
		t.violation(x, "nobody as somebody else", "answered as %q", x.user)
	}
	isLive := s.ended.IsZero() && x.loaded.Add(t.skew).Before(s.expires)
	if x.id == own.id && isLive && !stolen.replaced.IsZero() && x.sent.After(stolen.graceEnd(stolen.replaced).Add(t.skew)) {
		t.count("a replaced token beside another one")
		x.mustReplay = true
	}
}

// reloaded notes that a request has its session after all, whose first load failed.
func (t *truth) reloaded(x *exchange) {
	if k := t.tokens[x.token]; k != nil && x.id == "" && x.s.ID() == k.s.id && k.presented.IsZero() && k.maybeReplaced.IsZero() {
		x.loaded = time.Now()
		t.presents(x, k)
	}
}

// judgeAccess is for a request that was let in: it must be.
func (t *truth) judgeAccess(x *exchange, k *token) {
	s := k.s
	after := func(end time.Time) bool { return !end.IsZero() && x.sent.After(end.Add(t.skew)) }
	switch {
	case !s.ended.IsZero() && x.sent.After(s.ended):
		t.violation(x, "logout wins", "session %d has ended (%s) at %v and lets a request in", s.number, s.why, s.ended.Sub(t.w.began))
	case !k.replaced.IsZero() && after(k.graceEnd(k.replaced)):
		t.violation(x, "a renewal lets nobody in", "%s was replaced at %v", t.nameOf(k.value), k.replaced.Sub(t.w.began))
	case after(k.max) && !k.isInGrace(after):
		t.violation(x, "a renewal lets nobody in", "%s has ended at %v at the latest", t.nameOf(k.value), k.max.Sub(t.w.began))
	case s.remember.IsZero() && after(s.lastIdleEnd):
		t.violation(x, "two clocks", "the idle time of session %d was over at %v", s.number, s.lastIdleEnd.Sub(t.w.began))
	case after(later(s.end, s.remember)):
		t.violation(x, "two clocks", "the lifetime of session %d was over at %v", s.number, later(s.end, s.remember).Sub(t.w.began))
	case after(s.endBy):
		t.violation(x, "EndBy", "session %d ends at %v", s.number, s.endBy.Sub(t.w.began))
	}
	if k.isBeforeKnown && x.loaded.After(k.replaced) {
		t.count("requests in the grace of a renewal")
		if newer := missing(x.marks, k.before); newer != 0 {
			t.violation(x, "a renewal lets nobody in", "mark %d, of after the renewal, is seen with a previous token", newer)
		}
		if lost := missing(k.before, x.marks); lost != 0 && x.sent.After(k.replaced) {
			t.violation(x, "as it was just before", "mark %d, of before the renewal, is not seen", lost)
		}
	}
}

// isInGrace reports whether an explicit renewal has replaced the token before it ended, and
// the grace of that is not over: it may be longer than the rest of the token's own time.
func (k *token) isInGrace(after func(time.Time) bool) bool {
	last := later(k.replaced, k.maybeReplaced)
	return !last.IsZero() && last.Before(k.max) && !after(k.graceEnd(last))
}

// presents notes that a token has come for the first time: those before it end soon.
func (t *truth) presents(x *exchange, k *token) {
	isNoted := !x.isDisturbed && !x.isRefused // a full store cannot note it either
	if isNoted {
		t.notes(x, k) // if the store does not know it yet, it must
	}
	if !k.min.IsZero() {
		t.count("late tokens that came in time")
	}
	if k.minSet.Before(x.sent) && !k.noted.IsZero() { // else it may have come before the newer one, or that was not stored
		k.min = time.Time{}
		for _, newer := range t.tokens { // one may have come while the store did not answer this request
			if newer.s == k.s && newer.number > k.number && newer.noted.After(x.sent) {
				k.endsAfter(newer)
			}
		}
	}
	k.presented, k.max = x.loaded, time.Time{}
	for _, o := range t.tokens {
		if o.s != k.s || o.number >= k.number {
			continue
		}
		// What came while this request was on its way may have come later.
		if o.max.IsZero() && isNoted && !o.noted.After(x.sent) {
			o.max = o.end(x.loaded, o.noted)
		}
	}
}

// notes is called when the store knows that a token was presented.
func (t *truth) notes(x *exchange, k *token) {
	if !k.noted.IsZero() {
		return
	}
	k.noted = time.Now()
	// An earlier request may have presented the token while the store failed. A newer one
	// has then ended it as one that was not presented, and it comes in time.
	if x != nil && x.token == k.value && !x.sent.After(k.max.Add(t.skew)) {
		k.max = time.Time{}
	}
	for _, o := range t.tokens {
		if o.s == k.s && o.number < k.number {
			o.endsAfter(k)
		}
	}
}

// endsAfter notes that the token has full access for some time only, if the store knows that
// a newer one was presented.
func (k *token) endsAfter(newer *token) {
	if newer.noted.IsZero() {
		return
	}
	if end := k.end(newer.noted, later(k.presented, k.noted)); k.min.IsZero() || end.Before(k.min) {
		k.min, k.minSet = end, time.Now()
	}
}

// end returns until when a token has full access if a newer one was presented at a time,
// and the token itself at another, zero for not.
func (k *token) end(at, presented time.Time) time.Time {
	end := at.Add(overlap)
	if presented.IsZero() {
		end = later(end, k.issued.Add(arrival))
	}
	return end
}

// excuse returns why a request with a token may be answered as nobody's; "": it may not.
// What is allowed on purpose, because a cookie cannot be called back, is among it: the
// token that a response brought which was made before an explicit renewal, and arrived
// after it, was replaced as any other. byAge is whether an automatic renewal is an excuse.
func (t *truth) excuse(x *exchange, k *token, now time.Time, byAge bool) (why string) {
	s := k.s
	after := func(end time.Time) bool { return !end.IsZero() && now.Add(t.skew).After(end) }
	isRemembered := !s.remember.IsZero()
	switch {
	case !s.ended.IsZero():
		why = "ended"
	case !k.maybeReplaced.IsZero() && after(k.graceEnd(k.maybeReplaced)), !k.replaced.IsZero() && after(k.graceEnd(k.replaced)):
		why = "replaced by an explicit renewal"
	case !k.maybeReplaced.IsZero() && len(s.explicit) >= k.renewal+maxPast:
		why = "replaced by an explicit renewal, and then by others"
	case byAge && after(k.min):
		why = "replaced by an automatic renewal"
	case !isRemembered && after(x.idleEnd):
		why = "idle"
	case !isRemembered && after(s.end), after(s.remember):
		why = "too old"
	case after(s.endBy):
		why = "EndBy"
	case byAge && s.keys-k.number >= maxIssued && (after(k.issued.Add(arrival)) || s.keys-k.number >= maxRecent):
		why = "too many keys"
	}
	if why != "" {
		t.count("nobody, because: " + why)
	}
	return why
}

// headerLeft judges the header of a response.
func (t *truth) headerLeft(x *exchange) {
	isNew := x.cookie != nil && x.cookie.MaxAge >= 0
	if isNew {
		t.issuedTo(x)
	}
	if x.status != http.StatusOK || x.s == nil {
		return
	}
	t.loggedIn(x, isNew)
	cache := x.headers.Get("Cache-Control")
	switch {
	case !strings.Contains(strings.Join(x.headers["Vary"], ","), "Cookie"):
		t.violation(x, "caches are told", "the response has no Vary: Cookie")
	case (isNew || x.user != "") && !strings.Contains(cache, "no-store"):
		t.violation(x, "caches are told", "Cache-Control is %q", cache)
	}
}

// loggedIn judges the header of a response to a Login: it brings a token of the user's, of
// a session that has taken the place of what another Login has made of the request's.
func (t *truth) loggedIn(x *exchange, isNew bool) {
	switch {
	case x.logsIn == "" || x.isDisturbed || x.s.Err() != nil:
		return
	case !isNew && x.storedIn != nil && x.storedIn.endedBy == x && x.storedIn.why == "revoked" && !t.hasRival(x):
		t.violation(x, "MaxPerUser", "a Login ends itself, and no other was later or at the same time")
		return
	case !isNew && (t.w.plan.MaxPerUser > 0 || x.storedIn != nil && !x.storedIn.ended.IsZero()):
		return // the session has ended meanwhile
	case !isNew && x.storedIn != nil && x.storedIn.isRenewedSince(x):
		t.count("Logins whose token was replaced before the header left")
		return
	case !isNew:
		t.violation(x, "a Login logs in", "the response brings no token")
		return
	case x.storedIn == nil:
		return // issuedTo has said so
	case x.storedIn.user != x.logsIn:
		t.violation(x, "nobody as somebody else", "after a Login as %q the response brings a token of %q", x.logsIn, x.storedIn.user)
	}
	k := t.tokens[x.token]
	if k == nil || k.s == x.storedIn || k.s.why != "login" || time.Since(t.failedAt) < time.Minute || time.Since(k.s.ended) > time.Minute-t.skew {
		return
	}
	if x.id == "" && x.loaded.Add(t.skew).After(k.s.expires) {
		t.count("excused: the time of a session was up by one clock only")
		return
	}
	if t.isForgotten(k.s) {
		return
	}
	for s := t.sessions[k.s.next]; s != nil && s != x.storedIn; s = t.sessions[s.next] {
		if s.ended.IsZero() && s.user == x.logsIn && s.expires.After(time.Now()) {
			t.violation(x, "a Login logs in", "session %d is left, which another Login has made of session %d", s.number, k.s.number)
			return
		}
	}
}

// hasRival reports whether another Login of the user may count as newer than the one of x, or
// may decide with it which sessions end: its request was under way at the same time, or it was
// called no more than some seconds later, by the clocks.
func (t *truth) hasRival(x *exchange) bool {
	var at time.Time // of the last one of x
	for _, l := range t.logins[x.logsIn] {
		if l.x == x {
			at = l.at
		}
	}
	return slices.ContainsFunc(t.logins[x.logsIn], func(l loginCall) bool {
		isUnderWay := l.x.ended.IsZero() || l.x.ended.After(x.sent)
		return l.x != x && (isUnderWay || l.at.Sub(at).Abs() <= newerWithin+t.skew)
	})
}

// isForgotten reports whether nobody can know that a session has ended, and what has taken
// its place, or the place of that: a tombstone was evicted.
func (t *truth) isForgotten(s *sessionTruth) bool {
	for ; s != nil; s = t.sessions[s.next] {
		if s.isForgotten {
			t.count("excused: a tombstone was evicted")
			return true
		}
	}
	return false
}

// isRenewedSince reports whether an explicit renewal by another request, which is no Login,
// has replaced the token that x has made: its cookie would sign out a client that has the
// newer one.
func (s *sessionTruth) isRenewedSince(x *exchange) bool {
	return slices.ContainsFunc(s.explicit, func(r renewal) bool { return r.by != x && r.by.login == "" && r.at.After(x.stored) })
}

// judgeEnd is for a request that has ended, and may have ended a session.
func (t *truth) judgeEnd(x *exchange, k *token, isFine bool) {
	s := k.s
	if isFine && x.logout && x.errAfter == nil {
		if heir, _ := t.record(x.logsOut); heir != nil && heir.expires.After(time.Now()) && !t.isForgotten(t.sessions[x.logsOut]) {
			t.violation(x, "logout wins", "session %d lives after a Logout in session %d", heir.number, t.number(x.logsOut))
		}
	}
	end := s.ended.Add(s.behind) // as the tombstone says it; a moment before that it may be one of another clock
	isOver := (s.why == "logout" || s.why == "revoked") && x.sent.After(s.ended.Add(2*time.Second+t.skew)) &&
		(x.sent.After(end.Add(2*time.Second+t.skew)) || x.sent.Before(end.Add(-newerWithin-t.skew)))
	if isFine && isOver && x.id == "" && !x.ends && !x.reloads && x.storedIn == nil && errors.Is(x.errAfter, session.ErrEnded) {
		t.violation(x, "another begins after an end", "a request that came later than session %d had ended (%s) at %v begins none", s.number, s.why, s.ended.Sub(t.w.began))
	}
	isLate := !s.ended.IsZero() && x.sent.Before(s.ended.Add(2*time.Second-t.skew)) && (s.why == "logout" || s.why == "revoked" || s.why == "deleted")
	if isLate && x.id == "" && x.login == "" && !x.logout && x.cookie != nil && x.cookie.MaxAge >= 0 && !t.isForgotten(s) {
		t.violation(x, "logout wins", "a request that was under way as session %d ended begins another", s.number)
	}
}

// judgeLimit checks MaxPerUser after a Login that nothing has disturbed, and that met no
// other.
func (t *truth) judgeLimit(x *exchange) {
	n, most := 0, t.w.plan.MaxPerUser
	if most == 0 || x.logsIn == "" || time.Since(t.failedAt) < time.Minute {
		return
	}
	if slices.ContainsFunc(t.logins[x.logsIn], func(l loginCall) bool { return l.x != x && l.x.ended.IsZero() }) {
		return // the other Login may be ending sessions now, also if its own has ended already
	}
	for _, s := range t.sessions {
		if s.user == x.logsIn && s.ended.IsZero() && s.expires.After(time.Now().Add(t.skew)) {
			n++
		}
	}
	if n > most {
		t.violation(x, "MaxPerUser", "%q has %d sessions after a Login, and may have %d", x.logsIn, n, most)
	}
}

// finished judges a request that has ended.
func (t *truth) finished(x *exchange) {
	k := t.tokens[x.token]
	if k != nil {
		t.active[k.s.id] = slices.DeleteFunc(t.active[k.s.id], func(o *exchange) bool { return o == x })
	}
	if x.mustReplay && x.events[session.EventReplayed] != 1 {
		t.violation(x, "EventReplayed", "%d events for a replaced token beside another one", x.events[session.EventReplayed])
	}
	if x.own != "" {
		return
	}
	isFine := x.status == http.StatusOK && !x.isDisturbed && !x.isRefused && !x.p.isDead && !x.panics
	// Values that do not fit are the program's mistake, and answered as one. What the handler
	// does after that response, such as a Login, may fail in another way: errAfter tells that.
	if x.status >= 500 && !t.isTooLarge(x, x.errSent) && !x.isDisturbed && !x.isRefused && time.Since(t.failedAt) > time.Minute {
		t.violation(x, "answers while the store does", "%d: %v", x.status, x.errSent)
	}
	if x.isRefused && x.status >= 500 && !t.isTooLarge(x, x.errSent) && (x.status != http.StatusServiceUnavailable || x.headers.Get("Retry-After") == "") {
		t.violation(x, "full is 503", "%d: %v", x.status, x.errAfter)
	}
	if (isFine || x.isRefused && x.status == http.StatusOK) && x.errAfter == nil && time.Since(t.failedAt) > time.Minute {
		t.expectMarks(x, x.made)
		t.expectEnd(x)
	}
	// Who waits for a lease looks at the store four times a second.
	limit := 40 + 5*x.events[session.EventConflict] + 5*int(x.ended.Sub(x.sent)/time.Second)
	if x.calls > limit && !x.isDisturbed {
		t.violation(x, "bounded work", "%d calls of the store", x.calls)
	}
	if len(x.unsure) > 0 && !x.p.isDead {
		t.violation(x, "nothing is left behind", "a session that was perhaps created is not deleted")
	}
	if isFine {
		t.judgeLimit(x)
	}
	if k == nil {
		return
	}
	t.judgeEnd(x, k, isFine)
	if isFine && k.s.leasedTo == x && k.s.lease != "" && k.s.isLiveIn(x.p) && x.failures == 0 && !x.hasAnswer {
		t.violation(x, "a lease is given back", "session %d has the lease of a request that has ended", k.s.number)
	}
	if x.id == k.s.id && !x.passive {
		k.s.maybeUsed(x.p)
		// A request that lasts over the idle end is a use if it takes no longer than half
		// of the idle time: so it is touched as it loads or in time afterwards.
		isUse := x.ended.Before(k.s.expires) || x.ended.Sub(x.loaded) < x.p.limits.idle/2
		end := x.loaded.Add(x.p.limits.idle*19/20 - 2*t.skew)
		if isFine && isUse && !x.overlaps && k.s.ended.IsZero() && k.s.deadline.After(end) && k.s.expires.Before(end) && time.Since(t.failedAt) > time.Minute {
			t.violation(x, "two clocks", "a request is no use of session %d, which ends at %v", k.s.number, k.s.expires.Sub(t.w.began))
		}
		isStored := !k.s.lastSeen.Add(x.p.limits.idle/20 + t.skew).Before(x.loaded)
		if isFine && isUse && isStored {
			k.s.used(x.p, x.loaded)
		}
	}
	if x.id == "" && errors.Is(x.err, session.ErrReplaced) && k.s.ended.IsZero() && x.events[session.EventReplayed] != 1 {
		t.violation(x, "EventReplayed", "%d events for a replaced token", x.events[session.EventReplayed])
	}
	if isFine && t.mustRenew(x, k) && x.cookie == nil {
		t.violation(x, "the newest key is renewed", "the request got no other token")
	}
}

// maxAdded is what a request adds to the values of a session at most.
const maxAdded = 300

// isTooLarge reports whether err says with reason that the values do not fit.
func (t *truth) isTooLarge(x *exchange, err error) bool {
	if !errors.Is(err, session.ErrTooLarge) {
		return false
	}
	t.count("values that are too large")
	size := 0
	if s := t.sessions[x.id]; s != nil {
		size = s.size
	}
	return x.grows && size+maxAdded > x.p.limits.maxData
}

// isLiveIn reports whether a process can still write to the session: the session has not
// ended, and by the clock of the process it has not expired. The lease of an expired session
// cannot be given back, and no request waits for it.
func (s *sessionTruth) isLiveIn(p *process) bool {
	return s.ended.IsZero() && time.Now().Add(p.ahead).Before(s.expires)
}

// judgeOvertaken is for a request that has got another token because of the age of k. It
// must not, if another request with an older token has got one, or has presented its own
// since this one loaded the session. A request whose first load failed has loaded it later.
func (t *truth) judgeOvertaken(x *exchange, k *token) {
	isOvertaken := k.isFinal
	for _, o := range t.tokens {
		isOvertaken = isOvertaken || o.s == k.s && o.number < k.number && x.id == k.s.id && o.noted.After(x.loaded)
	}
	if isOvertaken {
		t.violation(x, "a renewal lets nobody in", "%s was overtaken by an older one, and gets another", t.nameOf(k.value))
	}
}

// mustRenew reports whether the response must bring another token, because of its age.
func (t *truth) mustRenew(x *exchange, k *token) bool {
	s, after := k.s, t.w.plan.RenewAfter
	if after == 0 || s.user == "" || x.id != s.id || x.overlaps || x.logout || !s.ended.IsZero() || !x.ended.Before(s.expires) ||
		!k.replaced.IsZero() || !k.maybeReplaced.IsZero() || !k.min.IsZero() || k.isFinal || time.Since(t.failedAt) < 2*time.Minute {
		return false
	}
	newest, unpresented := true, 0
	for _, o := range t.tokens {
		if o.s == s && o.number > k.number {
			newest = false
			if o.presented.IsZero() && o.min.IsZero() { // nor a newer one, which ends the wait for it
				unpresented++
			}
		}
	}
	age := x.loaded.Sub(s.last)
	switch {
	case newest:
		return age > after+2*t.skew
	case unpresented >= 2:
		return age > time.Second+2*t.skew
	}
	return age > overlap+2*t.skew
}

// expectMarks checks that what was acknowledged is stored.
func (t *truth) expectMarks(x *exchange, made []int) {
	s, hasValues := t.record(x.s.ID())
	if !hasValues || len(made) == 0 {
		return
	}
	t.count("acknowledged writes")
	if lost := missing(made, s.marks); lost != 0 {
		t.violation(x, "no lost update", "mark %d was acknowledged and is not in session %d", lost, s.number)
	}
}

// expectEnd checks that an EndBy that was acknowledged is stored.
func (t *truth) expectEnd(x *exchange) {
	s, _ := t.record(x.s.ID())
	if s == nil || x.endBy.IsZero() || s.loggedBy != x && s.loggedIn.After(x.sent) {
		return
	}
	t.count("acknowledged EndBys")
	if s.endBy.IsZero() || s.endBy.After(x.endBy.Add(t.skew)) {
		t.violation(x, "EndBy", "session %d is to end at %v", s.number, x.endBy.Sub(t.w.began))
	}
}

// newestOf returns the token that a request has made itself, or else the one that it came
// with, or nil.
func (t *truth) newestOf(x *exchange) *token {
	if x.cookie != nil && t.tokens[x.cookie.Value] != nil {
		return t.tokens[x.cookie.Value]
	}
	return t.tokens[x.token]
}

// done judges a closed Done.
func (t *truth) done(x *exchange) {
	t.count("Done closed")
	k, now := t.newestOf(x), time.Now()
	if k == nil || x.id != k.s.id || x.isDisturbed && k.value != x.token {
		return // perhaps the token was replaced by a renewal of its own whose outcome it does not know
	}
	// An explicit renewal closes Done of a token at once that an automatic one has ended before.
	byAge := slices.ContainsFunc(k.s.explicit, func(r renewal) bool { return !k.min.IsZero() && r.at.After(k.min) })
	if x.login == "" && !x.logout && t.excuse(x, k, now, byAge) == "" {
		t.violation(x, "Done", "closed although session %d is live and %s is good", k.s.number, t.nameOf(k.value))
	}
}

// notDone judges a Done that is open still.
func (t *truth) notDone(x *exchange) {
	k, now := t.newestOf(x), time.Now()
	if k == nil || x.storedIn == k.s || // it has a newer token of its own
		x.id != k.s.id || x.p.isDead || now.Sub(t.failedAt) < time.Minute {
		return
	}
	after := func(end time.Time) bool { return now.After(end.Add(watchEvery + 5*time.Second + 2*t.skew)) }
	switch s := k.s; {
	case !s.ended.IsZero() && after(s.ended):
		t.violation(x, "Done", "open although session %d has ended (%s) at %v", s.number, s.why, s.ended.Sub(t.w.began))
	case !k.replaced.IsZero() && after(k.graceEnd(k.replaced)) && x.loaded.Before(k.replaced):
		t.violation(x, "Done", "open although %s was replaced at %v", t.nameOf(k.value), k.replaced.Sub(t.w.began))
	}
}

// tellWithin is how long after a change an event tells that it is dropped, if the handler had
// returned and no Save has followed: a second, and what the scheduler adds.
const tellWithin = time.Second + time.Millisecond

// A lateChange is a change after the handler has returned.
type lateChange struct {
	t         *truth
	x         *exchange
	dropped   int  // events of before
	isUnknown bool // the store has failed, so that nothing is changed
	isStored  bool // the session is
	others    int  // events at most that tell of what the handler has asked for
}

// changesLate is called before a change that is made after the handler has returned.
func (t *truth) changesLate(x *exchange) *lateChange {
	t.count("changes after the handler has returned")
	c := &lateChange{t: t, x: x, dropped: x.events[session.EventDropped], isUnknown: errors.Is(x.s.Err(), session.ErrStore), isStored: x.s.ID() != ""}
	if x.renewal && x.status >= 500 {
		c.others = 1 // the new token that the handler has asked for, and whose commit failed, is given up now
	}
	return c
}

// judge judges how many events have told that the change is dropped.
func (c *lateChange) judge(want int, what string) {
	if n := c.x.events[session.EventDropped] - c.dropped; n < want || n > want+c.others {
		c.t.violation(c.x, "late changes", "%d events told that a change is dropped which was %s", n, what)
	}
	if n := c.x.p.lateLogged; c.isStored && !c.isUnknown && n != 1 {
		c.t.violation(c.x, "late changes", "%d lines were logged of the changes after a handler had returned", n)
	}
}

// saved judges a change that a Save has followed after d, which has returned err.
func (c *lateChange) saved(d time.Duration, err error) {
	switch {
	case err != nil:
	case d > tellWithin:
		c.judge(1, "saved after "+d.String())
	case d < time.Second-time.Millisecond: // in between it is chance which of both comes first
		c.judge(0, "saved after "+d.String())
	}
}

// forgotten judges a change that no Save has followed.
func (c *lateChange) forgotten() {
	if !c.isUnknown {
		c.judge(1, "not saved")
	}
}

// taken notes who has got a voucher.
func (t *truth) taken(x *exchange, n int) {
	t.count("vouchers taken")
	if first := t.vouchers[n]; first != nil {
		t.violation(x, "one takes it", "voucher %d was taken by request %d already", n, first.n)
	}
	t.vouchers[n] = x
}

// uses notes that a credential is being used, until end at the latest.
func (t *truth) uses(x *exchange, n int, end time.Time) {
	x.hasRefreshed = true
	if left := time.Until(end); left < minLease {
		t.violation(x, "Refresh has time", "%v are left for credential %d", left, n)
	}
	t.count("refreshes")
	x.leaseEnd = end.Add(5 * time.Second) // StoreTimeout
	// Refresh asks that clocks agree to about a second: by a clock that is further ahead, a lease
	// may have ended while the store does not answer the Save.
	skew := func(first *exchange) time.Duration { return x.p.ahead - first.p.ahead }
	switch first := t.used[n]; {
	case first == nil, first.p.isDead, first.isRefreshLost:
	case skew(first) > time.Second && time.Now().Add(skew(first)).After(first.leaseEnd):
		t.count("excused: a lease has ended by a clock that is ahead")
	default:
		t.violation(x, "Refresh once", "credential %d was used by request %d already", n, first.n)
	}
	t.used[n] = x
}

// refused judges the error of a call that only a request which has its session may make.
func (t *truth) refused(x *exchange, err error) {
	k := t.tokens[x.token]
	if errors.Is(err, session.ErrReplaced) && k != nil && x.id == k.s.id && x.login == "" && k.maybeReplaced.IsZero() && t.excuse(x, k, time.Now(), false) == "" {
		t.violation(x, "a renewal signs nobody out", "a request has lost session %d, although no explicit renewal has replaced %s", k.s.number, t.nameOf(k.value))
	}
}

// unused takes uses back: the issuer did not answer.
func (t *truth) unused(x *exchange, n int) { delete(t.used, n) }

// leaseOf returns the lease in the session of a request, or "".
func (t *truth) leaseOf(x *exchange) string {
	if s := t.sessions[x.s.ID()]; s != nil {
		return s.lease
	}
	return ""
}

// refreshed notes how a Refresh has ended. failures is how many calls of the store had failed
// for the request before it, and lease the lease in the session then: perhaps one that an
// earlier Refresh of the same request could not give back. took is how long it has lasted.
func (t *truth) refreshed(x *exchange, failures int, lease string, took time.Duration, err error) {
	if took > maxWait && time.Since(t.failedAt) > took {
		t.violation(x, "Refresh waits no longer than a lease", "it has lasted %v", took)
	}
	s := t.sessions[x.s.ID()]
	if s != nil && s.leasedTo == x && s.lease != "" && s.lease != lease && !x.hasRefreshed && errors.Is(err, session.ErrIndeterminate) && x.failures-failures == 1 && time.Since(x.failedAt) < 4*time.Second && s.isLiveIn(x.p) && !x.p.isDead {
		t.violation(x, "a lease is given back", "session %d has the lease of a request that does not refresh", s.number)
	}
	if err != nil {
		x.isRefreshLost = true
	}
}

// finish judges the whole run.
func (t *truth) finish() {
	ids := slices.SortedFunc(maps.Keys(t.active), func(a, b string) int { return t.number(a) - t.number(b) })
	for _, id := range ids {
		if active := t.active[id]; len(active) > 0 {
			t.violation(nil, "ends", "%d requests of session %d never ended", len(active), t.number(id))
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
