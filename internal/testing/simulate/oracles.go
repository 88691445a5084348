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

// loaded judges the session that a request has loaded.
func (t *truth) loaded(x *exchange) {
	now, k := x.loaded, t.tokens[x.token]
	if k == nil {
		if x.user != "" {
			t.violation(x, "no access as another user", "the user is %q without a token", x.user)
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
		t.violation(x, "no access as another user", "the user is %q with a token of %q", x.user, s.user)
	}
	if isIn {
		t.judgeAccess(x, k)
		t.judgeProof(x, s)
		if !x.passive {
			s.maybeUsed(x.p)
		}
		if k.presented.IsZero() && k.maybeReplaced.IsZero() {
			t.presents(x, k)
		}
		return
	}
	if x.isUnproven() {
		t.judgeUnproven(x, s)
	}
	if s.user != "" && !errors.Is(x.err, session.ErrStore) && t.excuse(x, k, now, true) == "" {
		t.violation(x, "a renewal logs no user out", "no user with %s of %q, which must be valid (%v)", t.nameOf(k.value), s.user, x.err)
	}
}

// loadedBoth judges the session of a request that carries a stolen token and one of its own.
func (t *truth) loadedBoth(x *exchange, stolen *token) {
	s, own := stolen.s, t.tokens[x.own].s
	if x.user != "" && (x.user != s.user || x.id != s.id) || x.id != "" && x.id != s.id && x.id != own.id {
		t.violation(x, "no access as another user", "the user is %q", x.user)
	}
	isLive := s.ended.IsZero() && x.loaded.Add(t.skew).Before(s.expires)
	if x.id == own.id && isLive && !stolen.replaced.IsZero() && x.sent.After(stolen.graceEnd(stolen.replaced).Add(t.skew)) {
		t.count("a replaced token beside another one")
		x.mustReplay = true
	}
}

// reloaded records that a request whose first load failed has its session now.
func (t *truth) reloaded(x *exchange) {
	if k := t.tokens[x.token]; k != nil && x.id == "" && x.s.ID() == k.s.id && k.presented.IsZero() && k.maybeReplaced.IsZero() {
		x.loaded = time.Now()
		t.presents(x, k)
	}
}

// judgeAccess judges whether a request that got its session may have it.
func (t *truth) judgeAccess(x *exchange, k *token) {
	s := k.s
	after := func(end time.Time) bool { return !end.IsZero() && x.sent.After(end.Add(t.skew)) }
	switch {
	case !s.ended.IsZero() && x.sent.After(s.ended):
		t.violation(x, "an ended session stays ended", "session %d ended (%s) at %v, and a later request has it", s.number, s.why, s.ended.Sub(t.w.began))
	case !k.replaced.IsZero() && after(k.graceEnd(k.replaced)):
		t.violation(x, "a previous token has limited access", "%s was replaced at %v", t.nameOf(k.value), k.replaced.Sub(t.w.began))
	case after(k.max) && !t.isInGrace(k, after):
		t.violation(x, "a previous token has limited access", "%s ended by %v", t.nameOf(k.value), k.max.Sub(t.w.began))
	case s.remember.IsZero() && after(s.lastIdleEnd):
		t.violation(x, "idle timeout and lifetime", "the idle time of session %d ended at %v", s.number, s.lastIdleEnd.Sub(t.w.began))
	case after(later(s.end, s.remember)):
		t.violation(x, "idle timeout and lifetime", "the lifetime of session %d ended at %v", s.number, later(s.end, s.remember).Sub(t.w.began))
	case after(s.endBy):
		t.violation(x, "EndBy", "session %d ends at %v", s.number, s.endBy.Sub(t.w.began))
	}
	if k.isBeforeKnown && x.loaded.After(k.replaced) {
		t.count("requests in the grace of a renewal")
		if newer := missing(x.marks, k.before); newer != 0 {
			t.violation(x, "a previous token has limited access", "a request with a previous token sees mark %d, which is from after the renewal", newer)
		}
		if lost := missing(k.before, x.marks); lost != 0 && x.sent.After(k.replaced) {
			t.violation(x, "the grace shows the previous values", "a request with a previous token does not see mark %d, which is from before the renewal", lost)
		}
	}
}

// isInGrace reports whether an explicit renewal has replaced the token before its end by some
// clock, and the grace of that renewal has not ended: it may end later than the token would have.
func (t *truth) isInGrace(k *token, after func(time.Time) bool) bool {
	last := later(k.replaced, k.maybeReplaced)
	return !last.IsZero() && last.Before(k.max.Add(t.skew)) && !after(k.graceEnd(last))
}

// presents records the first presentation of a token, after which older tokens end soon.
func (t *truth) presents(x *exchange, k *token) {
	// The presentation is not recorded by a full store, nor by a request that waits in vain for its turn
	// behind a commit whose store call hangs, nor for a key that another request has removed.
	hasWaited := x.loaded.Sub(x.sent) >= storeTimeout
	isNoted := !x.isDisturbed && !x.isRefused && !hasWaited && (!k.noted.IsZero() || !t.mayBeRemoved(k, x.loaded))
	if isNoted {
		t.notes(x, k) // the store must have recorded the presentation
	}
	if !k.min.IsZero() {
		t.count("late tokens that arrived in time")
	}
	// The token had an end as one that was not presented. Otherwise it may have arrived before the newer
	// one, or the store knew that it was presented when the newer one was, or does not know it now.
	if k.minSet.Before(x.sent) && !k.noted.Before(k.minSet) {
		k.min = time.Time{}
		for _, newer := range t.tokens { // a newer token may have arrived while the store did not answer this request
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
		// A token that was presented while this request was in flight may be newer in the store.
		if o.max.IsZero() && isNoted && !o.noted.After(x.sent) {
			o.max = o.end(x.loaded, o.noted).Add(o.unmoved)
		}
	}
}

// notes is called when the store has recorded that a token was presented.
func (t *truth) notes(x *exchange, k *token) {
	if !k.noted.IsZero() {
		return
	}
	k.noted = time.Now()
	// An earlier request may have presented the token while the store failed. A newer token has
	// then ended this one as an unpresented one, and this request is still in time.
	if x != nil && x.token == k.value && !x.sent.After(k.max.Add(t.skew)) {
		k.max = time.Time{}
	}
	for _, o := range t.tokens {
		if o.s == k.s && o.number < k.number {
			o.endsAfter(k)
		}
	}
}

// endsAfter limits the full access of a token, if the store has recorded that a newer one was
// presented.
func (k *token) endsAfter(newer *token) {
	if newer.noted.IsZero() {
		return
	}
	if end := k.end(newer.noted, later(k.presented, k.noted)); k.min.IsZero() || end.Before(k.min) {
		k.min, k.minSet = end, time.Now()
	}
}

// end returns until when a token has full access if a newer one was presented at a time, and the
// token itself at another; zero: never.
func (k *token) end(at, presented time.Time) time.Time {
	end := at.Add(overlap)
	if presented.IsZero() {
		end = later(end, k.issued.Add(arrival))
	}
	return end
}

// excuse returns why a request with a token may have no user; "": the request must have the user.
// One reason is intended, because a cookie cannot be revoked: a token that was made before an
// explicit renewal, and whose response arrived after it, is replaced as any other. If
// isAutomaticValid is set, an automatic renewal is a reason.
func (t *truth) excuse(x *exchange, k *token, now time.Time, isAutomaticValid bool) (why string) {
	s := k.s
	after := func(end time.Time) bool { return !end.IsZero() && now.Add(t.skew).After(end) }
	isRemembered := !s.remember.IsZero()
	switch {
	case !s.ended.IsZero():
		why = "ended"
	case t.lacksProof(x, s):
		why = "unproven"
	case !k.maybeReplaced.IsZero() && after(k.graceEnd(k.maybeReplaced)), !k.replaced.IsZero() && after(k.graceEnd(k.replaced)):
		why = "replaced by an explicit renewal"
	case k.behind > 0 && now.After(k.replaced) && !k.replaced.IsZero():
		why = "replaced before the clocks were set back, and perhaps removed"
	case !k.maybeReplaced.IsZero() && len(s.explicit) >= k.renewal+maxPast:
		why = "replaced by an explicit renewal, and by further ones"
	case isAutomaticValid && after(k.min):
		why = "replaced by an automatic renewal"
	case !(isRemembered && !x.was.remember.IsZero()) && after(x.was.idleEnd):
		why = "idle"
	case !isRemembered && after(s.end), after(s.remember):
		why = "lifetime"
	case after(s.endBy):
		why = "EndBy"
	case isAutomaticValid && t.mayBeRemoved(k, now):
		why = "too many keys"
	}
	if why != "" {
		t.count("anonymous, because: " + why)
	}
	return why
}

// mayBeRemoved reports whether the key of a token may have been removed at a time, as one of too many
// that were not presented.
func (t *truth) mayBeRemoved(k *token, now time.Time) bool {
	newer := k.s.keys - k.number
	return newer >= maxRecent || newer >= maxIssued && now.Add(t.skew).After(k.issued.Add(arrival))
}

// headerLeft judges the header of a response when it is sent.
func (t *truth) headerLeft(x *exchange) {
	isNew := x.cookie != nil && x.cookie.MaxAge >= 0
	if isNew {
		t.issuedTo(x)
	}
	if x.status != http.StatusOK || x.s == nil {
		return
	}
	t.loggedIn(x, isNew)
	if x.headers.Get("Secure-Session-Registration") != "" && x.login == "" {
		t.violation(x, "only the key opens a bound session", "a response to another request than a Login offers a registration")
	}
	cache := x.headers.Get("Cache-Control")
	switch {
	case !strings.Contains(strings.Join(x.headers["Vary"], ","), "Cookie"):
		t.violation(x, "cache headers", "the response has no Vary: Cookie")
	case (isNew || x.user != "") && !strings.Contains(cache, "no-store"):
		t.violation(x, "cache headers", "Cache-Control is %q", cache)
	}
}

// loggedIn judges the header of a response to a Login. The response must set a token of the user,
// of a session that has replaced any session that another Login has made of the session of the
// request.
func (t *truth) loggedIn(x *exchange, isNew bool) {
	switch {
	case x.logsIn == "" || x.isDisturbed || x.s.Err() != nil:
		return
	case !isNew && x.storedIn != nil && x.storedIn.endedBy == x && x.storedIn.why == "revoked" && !t.hasRival(x):
		t.violation(x, "MaxPerUser", "a Login ended its own session, without a later or concurrent Login")
		return
	case !isNew && (t.w.plan.MaxPerUser > 0 || x.storedIn != nil && !x.storedIn.ended.IsZero()):
		return // the session has ended since
	case !isNew && x.storedIn != nil && time.Now().Add(t.skew).After(x.storedIn.expires):
		t.count("Logins whose session expired before the header was sent")
		return
	case !isNew && x.storedIn != nil && x.storedIn.isRenewedSince(x):
		t.count("Logins whose token was replaced before the header was sent")
		return
	case !isNew:
		t.violation(x, "a Login logs in", "the response sets no token")
		return
	case x.storedIn == nil:
		return // issuedTo has reported this
	case x.storedIn.user != x.logsIn:
		t.violation(x, "no access as another user", "after a Login as %q the response sets a token of %q", x.logsIn, x.storedIn.user)
	}
	k := t.tokens[x.token]
	if k == nil || k.s == x.storedIn || k.s.why != "login" || time.Since(t.failedAt) < time.Minute || time.Since(k.s.ended) > time.Minute-t.skew {
		return
	}
	if x.id == "" && x.loaded.Add(t.skew).After(x.was.expires) {
		t.count("excused: a session has expired by one clock only")
		return
	}
	if t.isForgotten(k.s) {
		return
	}
	for s := t.sessions[k.s.next]; s != nil && s != x.storedIn; s = t.sessions[s.next] {
		isLater := s.loggedIn.After(x.stored) || t.leadsTo(x.storedIn, s.id) // another Login began it after this one
		if s.ended.IsZero() && s.user == x.logsIn && !isLater && s.expires.After(time.Now()) {
			t.violation(x, "a Login logs in", "session %d is live, which another Login has made of session %d", s.number, k.s.number)
			return
		}
	}
}

// hasRival reports whether another Login of the user may count as newer than the one of x, or may
// decide together with it which sessions end: its request was concurrent, or the Login was called
// at most some seconds later, by the clocks.
func (t *truth) hasRival(x *exchange) bool {
	var at time.Time // of the last Login of x
	for _, l := range t.logins[x.logsIn] {
		if l.x == x {
			at = l.at
		}
	}
	return slices.ContainsFunc(t.logins[x.logsIn], func(l loginCall) bool {
		isConcurrent := l.x.ended.IsZero() || l.x.ended.After(x.sent)
		return l.x != x && (isConcurrent || l.at.Sub(at).Abs() <= newerWithin+t.skew)
	})
}

// isForgotten reports whether the end of a session, or the session that replaced it or a later one,
// is unknown because a tombstone was evicted.
func (t *truth) isForgotten(s *sessionTruth) bool {
	for ; s != nil; s = t.sessions[s.next] {
		if s.isForgotten {
			t.count("excused: a tombstone was evicted")
			return true
		}
	}
	return false
}

// isRenewedSince reports whether an explicit renewal by another request, other than a Login, has
// replaced the token that x has made. The cookie of x would log out a client that has the newer
// one.
func (s *sessionTruth) isRenewedSince(x *exchange) bool {
	return slices.ContainsFunc(s.explicit, func(r renewal) bool { return r.by != x && r.by.login == "" && r.at.After(x.stored) })
}

// judgeEnd judges a request that has ended and may have ended a session.
func (t *truth) judgeEnd(x *exchange, k *token, isFine bool) {
	s := k.s
	if isFine && x.logout && x.errAfter == nil {
		if heir, _ := t.record(x.logsOut); heir != nil && heir.expires.After(time.Now()) && !t.isForgotten(t.sessions[x.logsOut]) {
			t.violation(x, "an ended session stays ended", "session %d is live after a Logout in session %d", heir.number, t.number(x.logsOut))
		}
	}
	end := s.ended.Add(s.behind) // end by the tombstone; shortly before it, the tombstone may be from another clock
	isPast := (s.why == "logout" || s.why == "revoked") && x.sent.After(s.ended.Add(2*time.Second+t.skew)) &&
		(x.sent.After(end.Add(2*time.Second+t.skew)) || x.sent.Before(end.Add(-newerWithin-t.skew)))
	if isFine && isPast && x.id == "" && !x.ends && !x.reloads && x.storedIn == nil && errors.Is(x.errAfter, session.ErrEnded) {
		t.violation(x, "a new session begins after an end", "a request after the end of session %d (%s) at %v cannot begin another session", s.number, s.why, s.ended.Sub(t.w.began))
	}
	isLate := !s.ended.IsZero() && x.sent.Before(s.ended.Add(2*time.Second-t.skew)) && (s.why == "logout" || s.why == "revoked" || s.why == "deleted")
	isLate = isLate && s.behind+t.skew < newerWithin // a tombstone further in the future is older than its time says
	if isLate && x.id == "" && x.login == "" && !x.logout && x.cookie != nil && x.cookie.MaxAge >= 0 && !t.isForgotten(s) {
		t.violation(x, "an ended session stays ended", "a request that was in flight when session %d ended has begun another session", s.number)
	}
}

// judgeLimit checks MaxPerUser after a Login without failures and without concurrent Logins.
func (t *truth) judgeLimit(x *exchange) {
	n, most := 0, t.w.plan.MaxPerUser
	if most == 0 || x.logsIn == "" || time.Since(t.failedAt) < time.Minute {
		return
	}
	if slices.ContainsFunc(t.logins[x.logsIn], func(l loginCall) bool { return l.x != x && l.x.ended.IsZero() }) {
		return // the other Login may be ending sessions now, even if its own session has ended
	}
	for _, s := range t.sessions {
		if s.user == x.logsIn && s.ended.IsZero() && s.expires.After(time.Now().Add(t.skew)) {
			n++
		}
	}
	if n > most {
		t.violation(x, "MaxPerUser", "%q has %d sessions after a Login, the limit is %d", x.logsIn, n, most)
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
	// Values that do not fit are a mistake of the program, and so is the response. What the handler
	// does after that response, such as a Login, may fail in another way, which errAfter contains.
	if x.status >= 500 && !t.isTooLarge(x, x.errSent) && !x.isDisturbed && !x.isRefused && time.Since(t.failedAt) > time.Minute {
		t.violation(x, "no failure while the store works", "%d: %v", x.status, x.errSent)
	}
	if x.isRefused && x.status >= 500 && !t.isTooLarge(x, x.errSent) && (x.status != http.StatusServiceUnavailable || x.headers.Get("Retry-After") == "") {
		t.violation(x, "a full store is answered 503", "%d: %v", x.status, x.errAfter)
	}
	if (isFine || x.isRefused && x.status == http.StatusOK) && x.errAfter == nil && time.Since(t.failedAt) > time.Minute {
		t.expectMarks(x, x.made)
		t.expectEnd(x)
	}
	// A request that waits for a lease reads the store four times a second.
	limit := 40 + 5*x.events[session.EventConflict] + 5*int(x.ended.Sub(x.sent)/time.Second)
	if x.calls > limit && !x.isDisturbed {
		t.violation(x, "bounded work", "%d store calls", x.calls)
	}
	if len(x.unsure) > 0 && !x.p.isDead {
		t.violation(x, "no session of unknown outcome is left", "a session that may have been created is not deleted")
	}
	if isFine {
		t.judgeLimit(x)
	}
	if k == nil {
		return
	}
	t.judgeEnd(x, k, isFine)
	hasWaited := x.events[session.EventStoreFailed] > 0 // in vain for its turn, behind a commit whose store call hangs
	if isFine && k.s.leasedTo == x && k.s.lease != "" && k.s.isLiveIn(x.p) && x.failures == 0 && !hasWaited && !x.hasAnswer {
		t.violation(x, "a lease is released", "session %d has the lease of a request that has ended", k.s.number)
	}
	if x.id == k.s.id && !x.passive {
		k.s.maybeUsed(x.p)
		// A request that lasts past the idle end is a use if it takes at most half of the idle
		// time: the session is then touched at the load, or in time afterwards.
		isUse := x.ended.Before(k.s.expires) || x.ended.Sub(x.loaded) < x.p.limits.idle/2
		end := x.loaded.Add(x.p.limits.idle*19/20 - 2*t.skew)
		if isFine && isUse && !x.overlaps && k.s.ended.IsZero() && k.s.deadline.After(end) && k.s.expires.Before(end) && time.Since(t.failedAt) > time.Minute {
			t.violation(x, "idle timeout and lifetime", "a request has not counted as a use of session %d, which ends at %v", k.s.number, k.s.expires.Sub(t.w.began))
		}
		isStored := !k.s.lastSeen.Add(x.p.limits.idle/20 + t.skew).Before(x.loaded)
		if isFine && isUse && isStored {
			end := k.s.end
			if k.s.loggedBy != x { // another request may have logged in since
				end = earlier(end, x.was.end)
			}
			k.s.used(x.p, x.loaded, end)
		}
	}
	if x.id == "" && errors.Is(x.err, session.ErrReplaced) && k.s.ended.IsZero() && x.events[session.EventReplayed] != 1 {
		t.violation(x, "EventReplayed", "%d events for a replaced token", x.events[session.EventReplayed])
	}
	if isFine && t.mustRenew(x, k) && x.cookie == nil {
		t.violation(x, "the newest key is renewed", "the request got no new token")
	}
}

// maxAdded is the maximum number of bytes that a request adds to the values of a session.
const maxAdded = 300

// isTooLarge reports whether err is a justified ErrTooLarge.
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

// judgeOvertaken judges a request that got a new token because of the age of k. It must not get one
// if another request with an older token has got one, or has presented its own token since this
// request loaded the session, unless k was presented after that: then the client has k again. A
// request whose first load failed has loaded it later.
func (t *truth) judgeOvertaken(x *exchange, k *token) {
	isOvertaken := k.isFinal
	for _, o := range t.tokens {
		isOvertaken = isOvertaken || o.s == k.s && o.number < k.number && x.id == k.s.id && o.noted.After(x.loaded) && !k.noted.After(o.noted)
	}
	if isOvertaken {
		t.violation(x, "a previous token has limited access", "%s was overtaken by an older one, and got a new token", t.nameOf(k.value))
	}
}

// mustRenew reports whether the response must set a new token because of the age of the current
// one.
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
			if o.presented.IsZero() && o.min.IsZero() { // a newer presented token would end the wait for this one
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

// expectMarks checks that acknowledged writes are stored.
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

// expectEnd checks that an acknowledged EndBy is stored.
func (t *truth) expectEnd(x *exchange) {
	s, _ := t.record(x.s.ID())
	if s == nil || x.endBy.IsZero() || s.loggedBy != x && s.loggedIn.After(x.sent) {
		return
	}
	t.count("acknowledged EndBys")
	if s.endBy.IsZero() || s.endBy.After(x.endBy.Add(t.skew)) {
		t.violation(x, "EndBy", "session %d must end at %v", s.number, x.endBy.Sub(t.w.began))
	}
}

// newestOf returns the token that a request has made, or the token that it carried, or nil.
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
		return // a renewal of x with an unknown outcome may have replaced the token
	}
	// An explicit renewal closes Done of an older token that a newer one has ended: before the
	// renewal, or after a Login that had left the token because it was not presented.
	isAutomaticValid := slices.ContainsFunc(k.s.explicit, func(r renewal) bool { return r.number > k.number })
	if x.login == "" && !x.logout && t.excuse(x, k, now, isAutomaticValid) == "" {
		t.violation(x, "Done", "closed although session %d is live and %s is valid", k.s.number, t.nameOf(k.value))
	}
}

// notDone judges a Done that is still open.
func (t *truth) notDone(x *exchange) {
	k, now := t.newestOf(x), time.Now()
	if k == nil || x.storedIn == k.s || // x has made a newer token
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

// tellWithin is the time after which an event reports that a change is dropped, if the handler had
// returned and no Save has followed: a second, and a millisecond for the scheduler.
const tellWithin = time.Second + time.Millisecond

// A lateChange is a change after the handler has returned.
type lateChange struct {
	t         *truth
	x         *exchange
	dropped   int  // number of events before the change
	isUnknown bool // the store has failed, so nothing is changed
	isStored  bool // the session is stored
	others    int  // maximum number of events about other changes of the handler
}

// changesLate is called before a change that is made after the handler has returned.
func (t *truth) changesLate(x *exchange) *lateChange {
	t.count("changes after the handler has returned")
	c := &lateChange{t: t, x: x, dropped: x.events[session.EventDropped], isUnknown: errors.Is(x.s.Err(), session.ErrStore), isStored: x.s.ID() != ""}
	if (x.renewal || x.logout) && x.status >= 500 {
		c.others = 1 // a renewal, or a Logout after the header, of the handler whose commit failed is dropped now
	}
	return c
}

// judge judges the number of events that reported the change as dropped.
func (c *lateChange) judge(want int, what string) {
	if n := c.x.events[session.EventDropped] - c.dropped; n < want || n > want+c.others {
		c.t.violation(c.x, "late changes", "%d events reported a change as dropped that was %s", n, what)
	}
	if n := c.x.p.lateLogged; c.isStored && !c.isUnknown && n != 1 {
		c.t.violation(c.x, "late changes", "%d log lines about changes after a handler had returned", n)
	}
}

// saved judges a change with a Save after d, which has returned err.
func (c *lateChange) saved(d time.Duration, err error) {
	switch {
	case err != nil:
	case d > tellWithin:
		c.judge(1, "saved after "+d.String())
	case d < time.Second-time.Millisecond: // between both times the order is random
		c.judge(0, "saved after "+d.String())
	}
}

// forgotten judges a change without a Save.
func (c *lateChange) forgotten() {
	if !c.isUnknown {
		c.judge(1, "not saved")
	}
}

// taken records which request has taken a voucher.
func (t *truth) taken(x *exchange, n int) {
	t.count("vouchers taken")
	if first := t.vouchers[n]; first != nil {
		t.violation(x, "one request takes a value", "voucher %d was taken by request %d already", n, first.n)
	}
	t.vouchers[n] = x
}

// uses records that a credential is being used, until end at the latest.
func (t *truth) uses(x *exchange, n int, end time.Time) {
	x.hasRefreshed = true
	if left := time.Until(end); left < minLease {
		t.violation(x, "Refresh has time", "credential %d has only %v left", n, left)
	}
	t.count("refreshes")
	x.leaseEnd = end.Add(storeTimeout + time.Second) // a second for clocks that differ
	// Refresh requires clocks that agree to a second: by a clock that is further ahead, a lease may
	// have ended while the store does not answer the Save.
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

// refused judges the error of a call that requires the session of the request.
func (t *truth) refused(x *exchange, err error) {
	k := t.tokens[x.token]
	if errors.Is(err, session.ErrReplaced) && k != nil && x.id == k.s.id && x.login == "" && k.maybeReplaced.IsZero() && t.excuse(x, k, time.Now(), false) == "" {
		t.violation(x, "a renewal logs no user out", "a request has lost session %d, although no explicit renewal has replaced %s", k.s.number, t.nameOf(k.value))
	}
}

// unused reverts uses: the issuer did not answer.
func (t *truth) unused(x *exchange, n int) { delete(t.used, n) }

// leaseOf returns the holder of the lease in the session of a request, or "".
func (t *truth) leaseOf(x *exchange) string {
	if s := t.sessions[x.s.ID()]; s != nil {
		return s.lease
	}
	return ""
}

// refreshed records the end of a Refresh. failures is the number of failed store calls of the
// request before it, and lease is the lease in the session at its start, which may be one that an
// earlier Refresh of the same request could not release. took is the duration of the Refresh.
func (t *truth) refreshed(x *exchange, failures int, lease string, took time.Duration, err error) {
	if took > maxWait && time.Since(t.failedAt) > took && time.Since(t.unsavedAt) > took {
		t.violation(x, "Refresh waits no longer than a lease", "a Refresh has lasted %v", took)
	}
	s := t.sessions[x.s.ID()]
	if s != nil && s.leasedTo == x && s.lease != "" && s.lease != lease && !x.hasRefreshed && errors.Is(err, session.ErrIndeterminate) && x.failures-failures == 1 && time.Since(x.failedAt) < 4*time.Second && s.isLiveIn(x.p) && !x.p.isDead {
		t.violation(x, "a lease is released", "session %d has the lease of a request whose Refresh did not call the issuer", s.number)
	}
	if err != nil {
		x.isRefreshLost = true
	}
	if errors.Is(err, session.ErrTooLarge) {
		t.count("answers of the issuer that are too large to be saved")
		t.unsavedAt = time.Now()
	}
}

// finish judges the whole run.
func (t *truth) finish() {
	ids := slices.SortedFunc(maps.Keys(t.active), func(a, b string) int { return t.number(a) - t.number(b) })
	for _, id := range ids {
		if active := t.active[id]; len(active) > 0 {
			t.violation(nil, "every request ends", "%d requests of session %d never ended", len(active), t.number(id))
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
