package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coatcheck/session"
)

// truth is what an observer of everything knows: what the store has, and which token is
// good for what by the promises. It says what a request must be answered.
type truth struct {
	w          *world
	sessions   map[string]*sessionTruth // by id
	tokens     map[string]*token        // by the cookie's value
	numbers    int                      // of marks, vouchers and credentials
	issued     map[int]time.Time        // credentials, and when each was given
	used       map[int]*exchange
	vouchers   map[int]*exchange
	logins     map[string][]loginCall // by user
	unsaved    map[int]bool           // marks of goroutines that were left behind and do not save them
	active     map[string][]*exchange // requests with a token of a session that have not ended, by its id
	violations []string
	failedAt   time.Time // when the store, the network or a process last failed
	room       room
	skew       time.Duration // by which clocks differ at most, and how long a write is under way
}

// sessionTruth is one session.
type sessionTruth struct {
	id           string
	number       int       // in the order of their creation
	creator      *exchange // until its token has left; then nil
	user         string
	marks        []int
	ended        time.Time // zero: it lives
	why, next    string
	endedBy      *exchange     // or nil
	behind       time.Duration // by which the clocks were set back since
	isForgotten  bool          // its tombstone was evicted
	leavesValues bool          // the session that has taken its place may be without its values
	idleEnd      time.Time     // not before that: of the requests that succeeded
	lastIdleEnd  time.Time     // not after that: likewise, or failed
	end          time.Time     // of its life, by the last Login or its creation
	size         int           // of the values
	largest      int           // that size has been
	remember     time.Time     // the end that Remember set, or zero
	endBy        time.Time     // what EndBy has noted in the record, or zero
	loggedIn     time.Time     // when a request with a Login last wrote the record, and
	loggedBy     *exchange     // which one
	key          string        // the hash of the current one
	keys         int           // that were stored, also of responses that brought none
	explicit     []renewal     // in their order
	last         time.Time     // when the newest key was stored
	lease        string        // who may refresh the credential; "": nobody
	leasedTo     *exchange     // likewise
	lastSeen     time.Time     // what the record says
	expires      time.Time
	deadline     time.Time
}

// A loginCall is a call of Login.
type loginCall struct {
	x  *exchange
	at time.Time
}

// A renewal is an explicit one.
type renewal struct {
	at     time.Time
	by     *exchange
	number int // of the key that it made
}

// A token is one key of a session.
type token struct {
	value     string
	s         *sessionTruth
	number    int // of the session's keys
	issued    time.Time
	byLogin   bool
	presented time.Time // first; zero: not yet
	key       string    // its hash
	noted     time.Time // when the store got to know that it was presented, or must have
	isFinal   bool      // an older one has overtaken it, and got another: a request with this one gets none by age

	// An explicit renewal has replaced it at this time: for certain, or perhaps.
	replaced, maybeReplaced time.Time
	renewal                 int   // number of that renewal
	before                  []int // the session's marks just before that
	isBeforeKnown           bool  // else an earlier renewal may have replaced it

	// A newer token was presented: this one has full access until the first of these
	// times at least, and until the second at most. Zero: for as long as the session.
	min, max time.Time
	minSet   time.Time // when min was

	behind time.Duration // by which the clocks were set back since an explicit renewal replaced the token
}

const (
	grace       = 10 * time.Second // Options.RenewGrace
	overlap     = 10 * time.Second // of two tokens after an automatic renewal
	arrival     = time.Minute      // for which a token has full access that was not presented
	watchEvery  = 5 * time.Second
	maxWait     = 3 * time.Minute // of a Refresh: some leases of requests that get no answer of the issuer
	newerWithin = 5 * time.Second // by which a Login may be later that counts as newer
	minLease    = 2 * time.Second // without which no Refresh begins
	maxIssued   = 16              // tokens that have full access and were not presented
	maxRecent   = 64              // likewise, with those of the last minute
	maxPast     = 3               // explicit renewals that the session of before is shown of
)

func newTruth(w *world) *truth {
	skew := 100 * time.Millisecond
	if w.plan.Faults&Clocks != 0 {
		skew += 4 * time.Second
	}
	if w.plan.Faults&(SlowStore|SilentStore|FailingStore) != 0 {
		skew += 2 * time.Second
	}
	t := &truth{
		w: w, skew: skew, sessions: map[string]*sessionTruth{}, tokens: map[string]*token{}, issued: map[int]time.Time{},
		used: map[int]*exchange{}, vouchers: map[int]*exchange{}, logins: map[string][]loginCall{}, unsaved: map[int]bool{}, active: map[string][]*exchange{},
	}
	t.room = room{t: t, max: w.plan.MaxBytes}
	return t
}

// violation reports that a promise was broken.
func (t *truth) violation(x *exchange, promise, format string, args ...any) {
	line := promise + ": " + fmt.Sprintf(format, args...)
	t.w.log(x, "VIOLATION %s", line)
	if x != nil {
		line = fmt.Sprintf("request %d: %s", x.n, line)
	}
	t.violations = append(t.violations, line)
}

func (t *truth) count(what string) { t.w.counts[what]++ }

func (t *truth) next() int { t.numbers++; return t.numbers }

// number returns the number of a session, 0 if there is none of that id yet.
func (t *truth) number(id string) int {
	if s := t.sessions[id]; s != nil {
		return s.number
	}
	return 0
}

// nameOf returns how the history calls a token.
func (t *truth) nameOf(value string) string {
	k := t.tokens[value]
	switch {
	case value == "":
		return "no token"
	case k == nil:
		return "an unknown token"
	}
	return fmt.Sprintf("token %d of session %d", k.number, k.s.number)
}

func (t *truth) newToken(x *exchange) string {
	switch c := x.cookie; {
	case c == nil:
		return ""
	case c.MaxAge < 0:
		return ", deletes the cookie"
	default:
		return ", sets " + t.nameOf(c.Value)
	}
}

// disturbed notes that something failed.
func (t *truth) disturbed() { t.failedAt = time.Now() }

// storeFailed notes that a call for x failed, or has an unknown outcome.
func (t *truth) storeFailed(x *exchange) {
	t.disturbed()
	t.count("failed calls of the store")
	if x != nil {
		x.isDisturbed = true
		x.failures++
		x.failedAt = time.Now()
	}
}

// begins is called as a request arrives.
func (t *truth) begins(x *exchange) {
	if k := t.tokens[x.token]; k != nil {
		x.idleEnd = k.s.idleEnd
		t.active[k.s.id] = append(t.active[k.s.id], x)
		if all := t.active[k.s.id]; len(all) > 1 {
			for _, o := range all {
				o.overlaps = true
			}
		}
	}
}

// written is called when a process has stored a record.
func (t *truth) written(p *process, x *exchange, r *session.Record) {
	s := t.sessions[r.ID]
	isNew := s == nil
	if isNew {
		s = &sessionTruth{id: r.ID, number: len(t.sessions) + 1, creator: x, user: r.User, last: time.Now()}
		s.end = time.Now().Add(p.limits.lifetime)
		s.used(p, time.Now())
		t.sessions[r.ID] = s
		t.count("sessions")
		if r.User != "" && (x == nil || x.login != r.User) {
			t.violation(x, "nobody as somebody else", "session %d is of %q, who has not logged in", s.number, r.User)
		}
		if x != nil && x.remember != 0 {
			s.remember = time.Now().Add(x.remember)
		}
	}
	if !s.ended.IsZero() {
		t.violation(x, "logout wins", "session %d was written after its end", s.number)
		return
	}
	var data struct {
		Ended  string `json:"session.ended"`
		Next   string `json:"session.next"`
		Key    string `json:"session.key"`
		Unseen int64  `json:"session.unseen"`
		EndBy  int64  `json:"session.endby"`
		Marks  []int  `json:"marks"`
		Older  map[string]struct {
			Issued int64 `json:"issued"`
		} `json:"session.older"`
		Leases map[string]struct {
			By string `json:"by"`
		} `json:"session.leases"`
	}
	if err := json.Unmarshal(r.Data, &data); err != nil {
		t.violation(x, "json", "the data of session %d is no JSON object: %v", s.number, err)
	}
	if r.Expires.After(r.Deadline) {
		t.violation(x, "two clocks", "the record of session %d expires after its deadline", s.number)
	}
	if data.Ended != "" {
		t.endedBy(x, s, data.Ended, data.Next)
		return
	}
	t.ends(x, s, r, data.EndBy)
	if !isNew && r.User != s.user {
		t.violation(x, "nobody as somebody else", "session %d is of %q and not of %q now", s.number, r.User, s.user)
	}
	// A Login creates its session with the values of the one before, and takes them back
	// if that has ended meanwhile: another request may have used them up.
	if lost := missing(s.marks, data.Marks); lost != 0 && (x == nil || s.creator != x) {
		t.violation(x, "no lost update", "mark %d of session %d is gone", lost, s.number)
	}
	if twice := repeated(data.Marks); twice != 0 {
		t.violation(x, "no doubled update", "mark %d is in session %d twice", twice, s.number)
	}
	for _, n := range data.Marks {
		if t.unsaved[n] {
			t.violation(x, "late changes", "mark %d is stored, of a goroutine that was left behind and does not save it", n)
		}
	}
	if x != nil {
		s.maybeUsed(p)
	}
	t.judgeSize(p, x, s, r)
	was := s.marks
	s.marks = data.Marks
	if len(r.Data) > 64<<10 {
		t.violation(x, "bounded records", "the record of session %d has %d bytes", s.number, len(r.Data))
	}
	if data.Key != s.key && x != nil {
		s.key, s.last, x.stored, x.storedIn = data.Key, time.Now(), time.Now(), s
		s.keys++
		x.storedNumber, x.storedKey, x.storedByLogin = s.keys, data.Key, x.login != "" && (isNew || x.renewal)
		recent, old, presented := 0, 0, 0
		for _, o := range data.Older {
			switch {
			case o.Issued == 0:
				presented++
			case time.Since(time.UnixMilli(o.Issued)) < arrival+2*t.skew:
				recent++
			default:
				old++
			}
		}
		if presented > maxIssued || recent > maxRecent || old > 0 && recent+old > maxIssued {
			t.violation(x, "bounded records", "session %d has older keys: %d presented, and of the others %d of the last minute and %d older", s.number, presented, recent, old)
		}
		if !isNew {
			t.renewed(x, s, was)
		}
	}
	if end := later(s.end, s.remember); r.Deadline.After(end.Add(t.skew)) {
		t.violation(x, "two clocks", "the record of session %d has its deadline at %v, and must end at %v", s.number, r.Deadline.Sub(t.w.began), end.Sub(t.w.began))
	}
	isRenewed := !isNew && x != nil && x.storedKey == data.Key // by x, whose own token is perhaps not in data any more
	for _, k := range t.tokens {
		older, isOlder := data.Older[k.key]
		if k.s == s && (k.key == data.Key && data.Unseen == 0 || isOlder && older.Issued == 0 || isRenewed && k.value == x.token) {
			t.notes(x, k)
		}
	}
	if by := data.Leases["grants"].By; by != s.lease {
		s.lease, s.leasedTo = by, x
	}
	t.touched(x, r.ID)
}

// judgeSize checks that a record's values are no larger than they were, or than they may be.
func (t *truth) judgeSize(p *process, x *exchange, s *sessionTruth, r *session.Record) {
	var members map[string]json.RawMessage
	if json.Unmarshal(r.Data, &members) != nil {
		return
	}
	was := s.size
	s.size = 0
	for name, raw := range members {
		if name == "session.flashes" || !strings.HasPrefix(name, "session.") {
			s.size += len(name) + len(raw)
		}
	}
	s.largest = max(s.largest, s.size)
	most := p.limits.maxData
	if x != nil && x.login != "" && s.creator == x && s.size > most {
		t.count("excused: a Login inherits values that are larger than MaxDataSize")
		most = max(most, t.largestOf(x))
	}
	if s.size > most && s.size > was {
		t.violation(x, "bounded records", "the values of session %d have %d bytes, had %d, and may have %d", s.number, s.size, was, most)
	}
}

// largestOf returns the most bytes that the values of a session had whose values a Login of a
// request may take over: the one of its token, or one that another Login has begun in its place.
func (t *truth) largestOf(x *exchange) (size int) {
	for s := t.sessions[t.idOf(x.token)]; s != nil; s = t.sessions[s.next] {
		size = max(size, s.largest)
	}
	return size
}

// setBack is called when the clocks were set back by d, at a moment without requests. What ends
// at a time that a record says, and what is as old as a record says, moves with the records. What
// tells the order of events does not.
func (t *truth) setBack(d time.Duration) {
	move := func(all ...*time.Time) {
		for _, at := range all {
			if !at.IsZero() {
				*at = at.Add(d)
			}
		}
	}
	for _, s := range t.sessions {
		if !s.ended.IsZero() {
			s.behind += d
		}
		move(&s.idleEnd, &s.lastIdleEnd, &s.end, &s.remember, &s.endBy, &s.last, &s.lastSeen, &s.expires, &s.deadline)
	}
	for _, k := range t.tokens {
		move(&k.issued, &k.max)
		if time.Now().Before(k.min) { // else an explicit renewal may have removed what could have access again
			move(&k.min)
		}
		if !k.replaced.IsZero() || !k.maybeReplaced.IsZero() {
			k.behind += d
		}
	}
	for _, all := range t.logins {
		for i := range all {
			move(&all[i].at)
		}
	}
	// What had expired lives again, if the store has not removed it yet.
	for id, s := range t.sessions {
		if s.ended.IsZero() && t.room.peek(id) == nil {
			s.ended, s.why = time.Now(), "expired"
		}
	}
	t.room.kept = slices.DeleteFunc(t.room.kept, func(k *kept) bool {
		r := t.room.peek(k.r.ID)
		if r != nil {
			k.r = r
		}
		return r == nil
	})
}

// isRefreshing reports whether a request has the lease of a live session.
func (t *truth) isRefreshing() bool {
	for _, s := range t.sessions {
		if s.lease != "" && s.ended.IsZero() && s.expires.After(time.Now()) && s.leasedTo != nil && s.leasedTo.ended.IsZero() {
			return true
		}
	}
	return false
}

// graceEnd returns when the grace of an explicit renewal is over that has replaced the token at
// that time; zero for zero.
func (k *token) graceEnd(at time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	return at.Add(grace + k.behind)
}

// used notes a use of a session by a request of a process that succeeded. A request that
// comes within a twentieth of the idle timeout after another one counts as that.
func (s *sessionTruth) used(p *process, at time.Time) {
	s.idleEnd = later(s.idleEnd, earlier(at.Add(p.limits.idle*19/20), s.end))
	s.lastIdleEnd = later(s.lastIdleEnd, at.Add(p.limits.idle))
}

// maybeUsed notes that a request of a process has perhaps used a session until now.
func (s *sessionTruth) maybeUsed(p *process) {
	s.lastIdleEnd = later(s.lastIdleEnd, time.Now().Add(p.limits.idle))
}

// deployed counts what a deployment has changed.
func (t *truth) deployed(old, is limits) {
	for _, c := range []struct {
		what     string
		old, now int64
	}{
		{"IdleTimeout", int64(old.idle), int64(is.idle)},
		{"Lifetime", int64(old.lifetime), int64(is.lifetime)},
		{"MaxDataSize", int64(old.maxData), int64(is.maxData)},
	} {
		switch {
		case c.now < c.old:
			t.count("deployed: a smaller " + c.what)
		case c.now > c.old:
			t.count("deployed: a larger " + c.what)
		}
	}
}

// ends checks that a record ends when EndBy says, and that only a Login removes that.
func (t *truth) ends(x *exchange, s *sessionTruth, r *session.Record, unixMilli int64) {
	var endBy time.Time
	if unixMilli != 0 {
		endBy = time.UnixMilli(unixMilli)
		s.idleEnd = earlier(s.idleEnd, endBy) // a Login that removes it counts from its own time, which may be earlier if the clocks were set back
		t.count("writes of sessions that EndBy ends")
		if r.Deadline.After(endBy) {
			t.violation(x, "EndBy", "session %d ends at %v, later than EndBy says", s.number, r.Deadline.Sub(t.w.began))
		}
	}
	switch isLost := !s.endBy.IsZero() && (endBy.IsZero() || endBy.After(s.endBy)); {
	case x != nil && x.login != "":
		s.loggedIn, s.loggedBy = time.Now(), x
	case isLost:
		t.violation(x, "EndBy", "session %d forgets its end at %v", s.number, s.endBy.Sub(t.w.began))
	}
	s.endBy = endBy
}

// touched checks that the clocks of a session's record were not set back, and that a
// passive request has not set them at all.
func (t *truth) touched(x *exchange, id string) {
	s := t.sessions[id]
	r := t.w.library.Peek(t.w.store, id)
	if s == nil || r == nil {
		return
	}
	if r.LastSeen.Before(s.lastSeen) {
		t.violation(nil, "clocks never back", "session %d was last seen at %v, and now at %v", s.number, s.lastSeen, r.LastSeen)
	}
	isFirst := s.lastSeen.IsZero()
	if x != nil && x.passive && x.login == "" && !isFirst && r.LastSeen.After(s.lastSeen) {
		t.violation(x, "two clocks", "a passive request is a use of session %d", s.number)
	}
	s.lastSeen, s.expires, s.deadline = r.LastSeen, r.Expires, r.Deadline
}

func (t *truth) deleted(x *exchange, id string) {
	if x != nil {
		for _, s := range t.sessions {
			if s.next == id && s.why == "login" && x.login != "" && x.failures-x.failuresAtEnd < 2 && !t.isForgotten(s) {
				t.violation(x, "a lost answer signs nobody out", "session %d, which has taken the place of session %d, is deleted", t.number(id), s.number)
			}
		}
	}
	if s := t.sessions[id]; s != nil && s.ended.IsZero() {
		s.ended, s.why = time.Now(), "deleted"
	}
}

// evicted notes that a session has made room for another one. Its tombstone may go likewise:
// then nobody knows any more that it has ended, and what has taken its place.
func (t *truth) evicted(x *exchange, k *kept) {
	s, what := t.sessions[k.r.ID], "an anonymous session that never came back"
	switch {
	case !s.ended.IsZero():
		what, s.isForgotten = "a tombstone", true
	case k.isBack:
		what = "an anonymous session"
	}
	t.count("evicted: " + what)
	t.w.log(x, "session %d is evicted", s.number)
	if s.ended.IsZero() {
		s.ended, s.why = time.Now(), "evicted"
	}
}

// endedBy is called when a tombstone was stored.
func (t *truth) endedBy(x *exchange, s *sessionTruth, why, next string) {
	s.ended, s.why, s.next, s.endedBy = time.Now(), why, next, x
	t.count("ended: " + why)
	if x != nil {
		x.failuresAtEnd = x.failures
	}
	t.w.log(x, "session %d has ended: %s", s.number, why)
	switch {
	case x == nil:
	case why == "logout" && !x.logout && !x.ends && x.login == "":
		t.violation(x, "ends only what was asked", "session %d was ended by a request without a Logout", s.number)
	case why == "logout" && errors.Is(x.err, session.ErrReplaced) && s.id == t.idOf(x.token):
		t.violation(x, "a replaced token ends nothing", "session %d was ended by a request that has no session", s.number)
	case why == "login" && x.login == "":
		t.violation(x, "ends only what was asked", "session %d was ended by a request without a Login", s.number)
	case why == "revoked" && !x.revoke && x.login == "":
		t.violation(x, "ends only what was asked", "session %d was revoked by a request that asked for no such thing", s.number)
	}
	if x == nil {
		return
	}
	// Values that have changed since a renewal stay behind, and those that do not fit.
	s.leavesValues = x.isFrozen() || s.size+maxAdded > x.p.limits.maxData
	if heir := t.sessions[s.next]; why == "login" && heir != nil && (s.user == "" || s.user == heir.user) && !s.leavesValues {
		if lost := missing(s.marks, heir.marks); lost != 0 {
			t.violation(x, "no lost update", "mark %d of session %d is not in session %d, which takes its place", lost, s.number, heir.number)
		}
	}
}

// idOf returns the id of a token's session, or "".
func (t *truth) idOf(value string) string {
	if k := t.tokens[value]; k != nil {
		return k.s.id
	}
	return ""
}

// isFrozen reports whether the request saw its session as it was before a renewal.
func (x *exchange) isFrozen() bool {
	k := x.w.truth.tokens[x.token]
	return k != nil && !k.maybeReplaced.IsZero()
}

// issuedTo notes the token of a response.
func (t *truth) issuedTo(x *exchange) {
	value, s := x.cookie.Value, x.storedIn
	if s == nil {
		t.violation(x, "stored before the cookie leaves", "the cookie is of no stored session")
		return
	}
	if t.tokens[value] != nil {
		return // the same once more
	}
	s.creator = nil
	k := &token{value: value, s: s, number: x.storedNumber, key: x.storedKey, issued: x.stored, byLogin: x.storedByLogin}
	own := 0
	for i, r := range s.explicit {
		if r.by == x {
			own++
		}
		if r.by == x && own > 1 && x.isDisturbed { // it may not know that its last renewal was stored
			k.maybeReplaced, k.renewal = r.at, i+1
		}
		isLeft := k.byLogin && r.by.login != ""
		if r.by != x && r.number > k.number && !isLeft {
			t.count("cookies of before an explicit renewal, sent after it")
			k.maybeReplaced, k.renewal = r.at, i+1
			break
		}
	}
	for _, newer := range t.tokens {
		if newer.s == s && newer.number > k.number {
			k.endsAfter(newer)
		}
	}
	t.tokens[value] = k
	t.count("tokens")
}

// renewed is called when a session got another key. marks are those of just before.
func (t *truth) renewed(x *exchange, s *sessionTruth, marks []int) {
	if !x.renewal {
		t.count("automatic renewals")
		if old := t.tokens[x.token]; old != nil && old.s == s { // also if the response never leaves
			for _, k := range t.tokens {
				if k.s == s && k.number > old.number && !k.noted.IsZero() {
					k.isFinal = true
				}
			}
			t.judgeOvertaken(x, old)
		}
		return
	}
	t.count("explicit renewals")
	isFirst := !slices.ContainsFunc(s.explicit, func(r renewal) bool { return r.by == x })
	if k := t.tokens[x.token]; x.login == "" && isFirst && k != nil && k.s == s && !k.replaced.IsZero() {
		t.violation(x, "a renewal lets nobody in", "a request renews session %d with %s, which was replaced at %v", s.number, t.nameOf(k.value), k.replaced.Sub(t.w.began))
	}
	x.renewal = false
	s.explicit = append(s.explicit, renewal{time.Now(), x, s.keys})
	for _, k := range t.replacedBy(x, s, false) {
		if k.maybeReplaced.IsZero() {
			k.maybeReplaced, k.renewal = time.Now(), len(s.explicit)
		}
	}
	for _, k := range t.replacedBy(x, s, true) {
		if k.replaced.IsZero() {
			k.replaced, k.before, k.isBeforeKnown = time.Now(), marks, k.renewal == len(s.explicit)
		}
	}
	if x.login != "" {
		s.end = time.Now().Add(x.p.limits.lifetime)
		s.idleEnd = earlier(s.idleEnd, s.end)
	}
	if x.remember != 0 {
		s.remember = time.Now().Add(x.remember)
	}
}

// event is Options.OnEvent.
func (w *world) event(ctx context.Context, e session.Event) {
	w.truth.count("event " + string(e.Kind))
	if x := exchangeOf(ctx); x != nil {
		x.events[e.Kind]++
	}
}

// replacedBy returns the tokens of a session that an explicit renewal replaces, perhaps
// or for certain. A Login leaves those of other Logins that were not presented.
func (t *truth) replacedBy(x *exchange, s *sessionTruth, certain bool) (all []*token) {
	for _, k := range t.tokens {
		isLeft := x.login != "" && k.byLogin && k.noted.IsZero() && (certain || k.presented.IsZero())
		if k.s == s && !isLeft {
			all = append(all, k)
		}
	}
	return all
}

// grant makes a credential.
func (t *truth) grant() int {
	n := t.next()
	t.issued[n] = time.Now()
	return n
}

// isFresh reports whether a credential is good still.
func (t *truth) isFresh(n int) bool { return n == 0 || time.Since(t.issued[n]) < 2*time.Minute }

func missing(want, got []int) int {
	have := map[int]bool{}
	for _, n := range got {
		have[n] = true
	}
	for _, n := range want {
		if !have[n] {
			return n
		}
	}
	return 0
}

func repeated(all []int) int {
	seen := map[int]bool{}
	for _, n := range all {
		if seen[n] {
			return n
		}
		seen[n] = true
	}
	return 0
}

// record returns a session's record as it is stored, or that of the session that took
// its place; nil if there is none. hasValues is whether that must have its values.
func (t *truth) record(id string) (_ *sessionTruth, hasValues bool) {
	user, hasValues := "", true
	for s := t.sessions[id]; s != nil && (user == "" || s.user == user); s = t.sessions[s.next] {
		if s.ended.IsZero() {
			return s, hasValues
		}
		user, hasValues = s.user, hasValues && !s.leavesValues
	}
	return nil, false
}
