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

// truth is the model of an observer of all events: the content of the store, and the access of each
// token according to the promises. It determines the correct response of a request.
type truth struct {
	w          *world
	sessions   map[string]*sessionTruth // sessions by id
	tokens     map[string]*token        // tokens by the value of the cookie
	numbers    int                      // last number of a mark, voucher or credential
	issued     map[int]time.Time        // for each credential, the time of its issue
	used       map[int]*exchange
	vouchers   map[int]*exchange
	seconds    map[string]*secondTruth // second cookies by their value
	logins     map[string][]loginCall  // calls of Login by user
	unsaved    map[int]bool            // marks that goroutines have added after their handler and do not save
	active     map[string][]*exchange  // requests in progress with a token of a session, by its id
	violations []string
	failedAt   time.Time // time of the last failure of the store, the network or a process
	unsavedAt  time.Time // last time at which an answer of the issuer could not be saved: its lease runs out
	room       room
	skew       time.Duration // maximum difference of clocks, plus the maximum duration of a write
}

// sessionTruth is one session.
type sessionTruth struct {
	id           string
	number       int       // number in the order of creation
	creator      *exchange // nil after the token was sent
	user         string
	marks        []int
	ended        time.Time // zero: live
	why, next    string
	endedBy      *exchange     // or nil
	behind       time.Duration // by how much the clocks were set back since the end
	isForgotten  bool          // the tombstone was evicted
	leavesValues bool          // the session that replaced it may lack its values
	idleEnd      time.Time     // earliest idle end, by the successful requests
	lastIdleEnd  time.Time     // latest idle end, by the successful and failed requests
	end          time.Time     // end of the lifetime, since the last Login or the creation
	size         int           // size of the values in bytes
	largest      int           // maximum of size so far
	remember     time.Time     // end set by Remember, or zero
	endBy        time.Time     // end set by EndBy in the record, or zero
	loggedIn     time.Time     // time of the last write by a request with a Login
	loggedBy     *exchange     // that request
	key          string        // hash of the current key
	keys         int           // number of stored keys, including those whose response set no cookie
	explicit     []renewal     // explicit renewals in their order
	last         time.Time     // time at which the newest key was stored
	lease        string        // holder of the lease of the credential; "": none
	leasedTo     *exchange     // request that holds the lease
	lastSeen     time.Time     // LastSeen of the record
	expires      time.Time
	deadline     time.Time
	bound        time.Time // from when on a second cookie is demanded; zero: never
	boundStored  time.Time // when that was stored
}

// A loginCall is a call of Login.
type loginCall struct {
	x  *exchange
	at time.Time
}

// A renewal is an explicit renewal.
type renewal struct {
	at     time.Time
	by     *exchange
	number int // number of the new key
}

// A token is one key of a session.
type token struct {
	value     string
	s         *sessionTruth
	number    int // number of the key in its session
	issued    time.Time
	byLogin   bool
	presented time.Time // time of the first presentation; zero: none
	key       string    // hash of the key
	noted     time.Time // time at which the store recorded the presentation, or must have
	isFinal   bool      // a request with an older key got a newer one: no automatic renewal for this key

	// Times at which an explicit renewal has replaced the token: for certain, and possibly.
	replaced, maybeReplaced time.Time
	renewal                 int   // number of that renewal
	before                  []int // marks of the session just before that renewal
	isBeforeKnown           bool  // false: an earlier renewal may have replaced the token

	// After a newer token was presented, this one has full access at least until min and at most
	// until max. Zero: until the session ends.
	min, max time.Time
	minSet   time.Time // time at which min was set

	behind  time.Duration // by how much the clocks were set back since an explicit renewal replaced the token
	unmoved time.Duration // by how much issued did not move when the clocks were set back
}

const (
	grace        = 10 * time.Second // Options.RenewGrace
	overlap      = 10 * time.Second // of the access of two tokens after an automatic renewal
	arrival      = time.Minute      // for which a token that was not presented has full access
	watchEvery   = 5 * time.Second
	storeTimeout = 5 * time.Second // Options.StoreTimeout
	maxWait      = 3 * time.Minute // of a Refresh: some leases of requests without a reply of the issuer
	newerWithin  = 5 * time.Second // by which a newer Login may be later, by the clocks
	minLease     = 2 * time.Second // a Refresh begins only with this time left
	maxIssued    = 16              // unpresented tokens with full access
	maxRecent    = 64              // likewise, including tokens of the last minute
	maxPast      = 3               // explicit renewals whose previous session a request can see
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
		used: map[int]*exchange{}, vouchers: map[int]*exchange{}, seconds: map[string]*secondTruth{}, logins: map[string][]loginCall{}, unsaved: map[int]bool{}, active: map[string][]*exchange{},
	}
	t.room = room{t: t, max: w.plan.MaxBytes}
	return t
}

// violation reports a broken promise.
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

// nameOf returns the name of a token in the history.
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

// disturbed records a failure.
func (t *truth) disturbed() { t.failedAt = time.Now() }

// storeFailed records that a store call of x failed, or has an unknown outcome.
func (t *truth) storeFailed(x *exchange) {
	t.disturbed()
	t.count("failed store calls")
	if x != nil {
		x.isDisturbed = true
		x.failures++
		x.failedAt = time.Now()
	}
}

// begins is called when a request arrives.
func (t *truth) begins(x *exchange) {
	if k := t.tokens[x.token]; k != nil {
		x.was = *k.s
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
		s.used(p, time.Now(), s.end)
		t.sessions[r.ID] = s
		t.count("sessions")
		if r.User != "" && (x == nil || x.login != r.User) {
			t.violation(x, "no access as another user", "session %d has the user %q, without a Login", s.number, r.User)
		}
		if x != nil && x.remember != 0 {
			s.remember = time.Now().Add(x.remember)
		}
	}
	var data struct {
		Ended  string `json:"session.ended"`
		Next   string `json:"session.next"`
		Key    string `json:"session.key"`
		Unseen int64  `json:"session.unseen"`
		EndBy  int64  `json:"session.endby"`
		First  string `json:"session.first"`
		Marks  []int  `json:"marks"`
		Older  map[string]struct {
			Issued int64 `json:"issued"`
		} `json:"session.older"`
		Device struct {
			From int64 `json:"from"`
		} `json:"session.device"`
		Leases map[string]struct {
			By string `json:"by"`
		} `json:"session.leases"`
	}
	if err := json.Unmarshal(r.Data, &data); err != nil {
		t.violation(x, "valid JSON", "the data of session %d is not a JSON object: %v", s.number, err)
	}
	if !s.ended.IsZero() {
		if data.Ended != s.why || !t.leadsTo(s, data.Next) {
			t.violation(x, "an ended session stays ended", "session %d was written after its end", s.number)
		}
		t.count("tombstones that lead to a later Login")
		s.next = data.Next
		return
	}
	if r.Expires.After(r.Deadline) {
		t.violation(x, "idle timeout and lifetime", "the record of session %d expires after its deadline", s.number)
	}
	if data.Ended != "" {
		t.endedBy(x, s, data.Ended, data.Next)
		return
	}
	t.ends(x, s, r, data.EndBy)
	if !isNew && r.User != s.user {
		t.violation(x, "no access as another user", "session %d has the user %q, and had %q", s.number, r.User, s.user)
	}
	// A Login creates its session with the values of the previous one, and removes them again if
	// that session has ended in the meantime, because another request may have consumed the values.
	if lost := missing(s.marks, data.Marks); lost != 0 && (x == nil || s.creator != x) {
		t.violation(x, "no lost update", "session %d has lost mark %d", s.number, lost)
	}
	if twice := repeated(data.Marks); twice != 0 {
		t.violation(x, "no duplicate update", "mark %d is twice in session %d", twice, s.number)
	}
	for _, n := range data.Marks {
		if t.unsaved[n] {
			t.violation(x, "late changes", "mark %d is stored, which a goroutine has added after its handler without a Save", n)
		}
	}
	if x != nil && x.proves == nil {
		s.maybeUsed(p)
	}
	t.judgeBinding(x, s, r, data.Device.From)
	t.judgeSize(p, x, s, r)
	was := s.marks
	s.marks = data.Marks
	if len(r.Data) > 64<<10 {
		t.violation(x, "bounded records", "the record of session %d has %d bytes", s.number, len(r.Data))
	}
	if data.Key != s.key && x != nil {
		s.key, s.last, x.stored, x.storedIn = data.Key, time.Now(), time.Now(), s
		s.keys++
		isExplicit := x.renewal && data.First == "" // a refused Login or Renew may be followed by an automatic renewal
		x.storedNumber, x.storedKey, x.storedByLogin = s.keys, data.Key, x.login != "" && (isNew || isExplicit)
		recent, old, presented := 0, 0, 0
		for _, o := range data.Older {
			switch {
			case o.Issued == 0:
				presented++
			case time.Until(time.UnixMilli(o.Issued)) > t.skew: // the clocks were set back since: older than its time says
			case time.Since(time.UnixMilli(o.Issued)) < arrival+2*t.skew:
				recent++
			default:
				old++
			}
		}
		if presented > maxIssued || recent > maxRecent || old > 0 && recent+old > maxIssued {
			t.violation(x, "bounded records", "session %d has too many older keys: %d presented; of the others, %d of the last minute and %d older", s.number, presented, recent, old)
		}
		if !isNew {
			t.renewed(x, s, was, isExplicit)
		}
	}
	if end := later(s.end, s.remember); r.Deadline.After(end.Add(t.skew)) {
		t.violation(x, "idle timeout and lifetime", "the record of session %d has its deadline at %v, and must end by %v", s.number, r.Deadline.Sub(t.w.began), end.Sub(t.w.began))
	}
	isRenewed := !isNew && x != nil && x.storedKey == data.Key // by x, whose own token may have left data
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

// leadsTo reports whether the session s and the one with this id were replaced by the same session,
// directly or not. Tombstones that lead to a later Login skip some of those between.
func (t *truth) leadsTo(s *sessionTruth, id string) bool {
	last := func(s *sessionTruth) *sessionTruth {
		for s != nil && t.sessions[s.next] != nil {
			s = t.sessions[s.next]
		}
		return s
	}
	return t.sessions[id] != nil && last(s) == last(t.sessions[id])
}

// judgeSize checks that the values of a record are no larger than before, or than the limit.
func (t *truth) judgeSize(p *process, x *exchange, s *sessionTruth, r *session.Record) {
	var members map[string]json.RawMessage
	if json.Unmarshal(r.Data, &members) != nil {
		return
	}
	was := s.size
	s.size = 0
	for name, raw := range members {
		if name == "session.flashes" || !strings.HasPrefix(name, "session.") {
			s.size += len(`"":,`) + len(name) + len(raw) // as Options.MaxDataSize counts
		}
	}
	s.largest = max(s.largest, s.size)
	most := p.limits.maxData
	if x != nil && x.login != "" && s.creator == x && s.size > most {
		t.count("excused: a Login inherits values larger than MaxDataSize")
		most = max(most, t.largestOf(x))
	}
	if s.size > most && s.size > was {
		t.violation(x, "bounded records", "the values of session %d have %d bytes, had %d, the limit is %d", s.number, s.size, was, most)
	}
}

// largestOf returns the maximum size of the values that a Login may inherit: those of the session
// of its token, and of the sessions with which other Logins have replaced it.
func (t *truth) largestOf(x *exchange) (size int) {
	for s := t.sessions[t.idOf(x.token)]; s != nil; s = t.sessions[s.next] {
		size = max(size, s.largest)
	}
	return size
}

// setBack is called when the clocks were set back by d, at a moment without requests. Ends and ages
// that depend on times in records move with the records. Times that order events do not move.
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
		move(&k.max)
		if k.s.keys-k.number < maxIssued || time.Now().Add(t.skew).Before(k.issued.Add(arrival)) { // otherwise it may have been removed, as one of too many
			move(&k.issued)
		} else {
			k.unmoved += d
		}
		if time.Now().Before(k.min) { // otherwise an explicit renewal may have removed a key that would have access again
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
	// Expired sessions are live again, if the store has not removed them yet.
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

// isRefreshing reports whether a request holds the lease of a live session.
func (t *truth) isRefreshing() bool {
	for _, s := range t.sessions {
		if s.lease != "" && s.ended.IsZero() && s.expires.After(time.Now()) && s.leasedTo != nil && s.leasedTo.ended.IsZero() {
			return true
		}
	}
	return false
}

// graceEnd returns the end of the grace of an explicit renewal that has replaced the token at this
// time. It returns zero for zero.
func (k *token) graceEnd(at time.Time) time.Time {
	if at.IsZero() {
		return at
	}
	return at.Add(grace + k.behind)
}

// used records a use of a session, which had its lifetime until end, by a successful request of a
// process. The store records a use only when a twentieth of the idle timeout has passed since the
// last one.
func (s *sessionTruth) used(p *process, at, end time.Time) {
	s.idleEnd = later(s.idleEnd, earlier(at.Add(p.limits.idle*19/20), end))
	s.lastIdleEnd = later(s.lastIdleEnd, at.Add(p.limits.idle))
}

// maybeUsed records that a request of a process may have used a session until now.
func (s *sessionTruth) maybeUsed(p *process) {
	s.lastIdleEnd = later(s.lastIdleEnd, time.Now().Add(p.limits.idle))
}

// deployed counts the changes by a deployment.
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

// ends checks that a record ends by the time of EndBy, and that only a Login removes that end.
func (t *truth) ends(x *exchange, s *sessionTruth, r *session.Record, unixMilli int64) {
	var endBy time.Time
	if unixMilli != 0 {
		endBy = time.UnixMilli(unixMilli)
		s.idleEnd = earlier(s.idleEnd, endBy) // the idle time of a Login that removes the end starts at that Login, which may be earlier if the clocks were set back
		t.count("writes of sessions with an EndBy")
		if r.Deadline.After(endBy) {
			t.violation(x, "EndBy", "session %d ends at %v, later than its EndBy", s.number, r.Deadline.Sub(t.w.began))
		}
	}
	switch isLost := !s.endBy.IsZero() && (endBy.IsZero() || endBy.After(s.endBy)); {
	case x != nil && x.login != "":
		s.loggedIn, s.loggedBy = time.Now(), x
	case isLost:
		t.violation(x, "EndBy", "session %d has lost its end at %v", s.number, s.endBy.Sub(t.w.began))
	}
	s.endBy = endBy
}

// touched checks that the times of a record did not move back, and that a passive request did not
// move them at all.
func (t *truth) touched(x *exchange, id string) {
	s := t.sessions[id]
	r := t.w.library.Peek(t.w.store, id)
	if s == nil || r == nil {
		return
	}
	if r.LastSeen.Before(s.lastSeen) {
		t.violation(nil, "times never move back", "LastSeen of session %d was %v, and is %v", s.number, s.lastSeen, r.LastSeen)
	}
	isFirst := s.lastSeen.IsZero()
	if x != nil && x.passive && x.login == "" && !isFirst && r.LastSeen.After(s.lastSeen) {
		t.violation(x, "idle timeout and lifetime", "a passive request has counted as a use of session %d", s.number)
	}
	s.lastSeen, s.expires, s.deadline = r.LastSeen, r.Expires, r.Deadline
}

func (t *truth) deleted(x *exchange, id string) {
	if x != nil {
		for _, s := range t.sessions {
			if s.next == id && s.why == "login" && x.login != "" && x.failures-x.failuresAtEnd < 2 && !t.isForgotten(s) {
				t.violation(x, "a lost reply logs no user out", "session %d, which has replaced session %d, is deleted", t.number(id), s.number)
			}
		}
	}
	if s := t.sessions[id]; s != nil && s.ended.IsZero() {
		s.ended, s.why = time.Now(), "deleted"
	}
}

// evicted records that a session was evicted for another one. If a tombstone is evicted, the end of
// its session and the session that replaced it are unknown from then on.
func (t *truth) evicted(x *exchange, k *kept) {
	s, what := t.sessions[k.r.ID], "an anonymous session without a second request"
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
		t.violation(x, "only requested sessions end", "session %d was ended by a request without a Logout", s.number)
	case why == "logout" && errors.Is(x.err, session.ErrReplaced) && s.id == t.idOf(x.token):
		t.violation(x, "a replaced token ends no session", "session %d was ended by a request that has no session", s.number)
	case why == "login" && x.login == "":
		t.violation(x, "only requested sessions end", "session %d was ended by a request without a Login", s.number)
	case why == "revoked" && !x.revoke && x.login == "":
		t.violation(x, "only requested sessions end", "session %d was revoked by a request without a Revoke", s.number)
	}
	if x == nil {
		return
	}
	// A Login does not inherit values that have changed since a renewal, nor values that exceed the
	// limit, nor those of a session for which the browser lacks a second cookie.
	lacksProof := s.id == t.idOf(x.token) && t.lacksProof(x, s)
	s.leavesValues = x.isFrozen() || lacksProof || s.size+maxAdded > x.p.limits.maxData
	if heir := t.sessions[s.next]; why == "login" && heir != nil && (s.user == "" || s.user == heir.user) && !s.leavesValues {
		if lost := missing(s.marks, heir.marks); lost != 0 {
			t.violation(x, "no lost update", "mark %d of session %d is not in session %d, which replaces it", lost, s.number, heir.number)
		}
	}
}

// idOf returns the id of the session of a token, or "".
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

// issuedTo records the token of a response.
func (t *truth) issuedTo(x *exchange) {
	value, s := x.cookie.Value, x.storedIn
	if s == nil {
		t.violation(x, "stored before the cookie is sent", "the cookie does not belong to a stored session")
		return
	}
	if t.tokens[value] != nil {
		return // the cookie is sent again
	}
	s.creator = nil
	k := &token{value: value, s: s, number: x.storedNumber, key: x.storedKey, issued: x.stored, byLogin: x.storedByLogin}
	own := 0
	for i, r := range s.explicit {
		if r.by == x {
			own++
		}
		if r.by == x && own > 1 && x.isDisturbed { // the request may not know that its last renewal was stored
			k.maybeReplaced, k.renewal = r.at, i+1
		}
		isLeft := k.byLogin && r.by.login != ""
		if r.by != x && r.number > k.number && !isLeft {
			t.count("cookies from before an explicit renewal, sent after it")
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

// renewed is called when a session got another key. marks are the marks just before.
func (t *truth) renewed(x *exchange, s *sessionTruth, marks []int, isExplicit bool) {
	if !isExplicit {
		t.count("automatic renewals")
		if old := t.tokens[x.token]; old != nil && old.s == s { // also if the response is never sent
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
		t.violation(x, "a previous token has limited access", "a request renews session %d with %s, which was replaced at %v", s.number, t.nameOf(k.value), k.replaced.Sub(t.w.began))
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

// event implements Options.OnEvent.
func (w *world) event(ctx context.Context, e session.Event) {
	w.truth.count("event " + string(e.Kind))
	if x := exchangeOf(ctx); x != nil {
		x.events[e.Kind]++
	}
}

// replacedBy returns the tokens of a session that an explicit renewal replaces, for certain or
// possibly. A Login keeps unpresented tokens of other Logins.
func (t *truth) replacedBy(x *exchange, s *sessionTruth, certain bool) (all []*token) {
	for _, k := range t.tokens {
		isLeft := x.login != "" && k.byLogin && k.noted.IsZero() && (certain || k.presented.IsZero())
		if k.s == s && !isLeft {
			all = append(all, k)
		}
	}
	return all
}

// grant issues a credential.
func (t *truth) grant() int {
	n := t.next()
	t.issued[n] = time.Now()
	return n
}

// isFresh reports whether a credential can be used without a refresh.
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

// record returns the stored session with this id, or the live session that replaced it; nil if
// there is none. hasValues reports whether it must have the values of the first.
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
