package session

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// Options.MaxPerUser, after a Login.
//
// A Login stores its session and then lists the user's. If MaxPerUser of the listed
// ones are newer, it ends its own and no other; else its own stays, and of the rest
// the least recently seen beyond the limit end. So the limit holds, in whatever order
// concurrent logins move: of two sessions at least one was stored before the other's
// Login listed, and so is seen by it. Take the newest MaxPerUser sessions of all, and
// any other one: either its own Login has seen all of them, and ends it, or the Login
// of one of them has seen it. That Login stays too, for fewer than MaxPerUser are
// newer than its session, and ends what it sees beyond the limit.
//
// Concurrent logins of one user in one process share one list, and decide together:
// n of them cost n endings and not n².

// newerWithin is how far ahead of a login another session of the user may have been
// authenticated to count as newer. A session with a later time is one of a clock that
// was set back since, or that is wrong, and no reason to end the login of a user who
// has just typed the right password.
const newerWithin = 5 * time.Second

// logins are the logins whose users' sessions are to be limited.
type logins struct {
	mu sync.Mutex
	of map[string][]*loginLimit // by user: those that wait for the one that lists now
}

// A loginLimit is one login that waits for the decision.
type loginLimit struct {
	rec     *Record
	lists   chan struct{}   // closed: it is the one to list, for all that wait
	decided chan struct{}   // closed: doomed is known
	doomed  map[string]bool // ids to end
}

// join adds a login. isFirst is whether no other of its user lists, so that it does.
func (ls *logins) join(rec *Record) (l *loginLimit, isFirst bool) {
	l = &loginLimit{rec: rec, lists: make(chan struct{}), decided: make(chan struct{})}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	waiting, isListing := ls.of[rec.User]
	if ls.of == nil {
		ls.of = map[string][]*loginLimit{}
	}
	ls.of[rec.User] = append(waiting, l)
	return l, !isListing
}

// take returns the logins that wait: their sessions are stored, and so will be listed.
func (ls *logins) take(user string) []*loginLimit {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	all := ls.of[user]
	ls.of[user] = nil
	return all
}

// next lets one of the logins list that have come meanwhile.
func (ls *logins) next(user string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if waiting := ls.of[user]; len(waiting) > 0 {
		close(waiting[0].lists)
		return
	}
	delete(ls.of, user)
}

// abandon removes a login that does not wait any longer. It returns false if another
// one lists for it already.
func (ls *logins) abandon(l *loginLimit) bool {
	ls.mu.Lock()
	user := l.rec.User
	i := slices.Index(ls.of[user], l)
	if i >= 0 {
		ls.of[user] = slices.Delete(ls.of[user], i, i+1)
	}
	ls.mu.Unlock()
	select {
	case <-l.lists: // it was its turn
		ls.next(user)
	default:
	}
	return i >= 0
}

// limit ends the sessions beyond Options.MaxPerUser, now that this one has logged in.
// If it fails the login stands.
func (t *tx) limit() {
	rec := t.stored.rec
	if rec.User == "" || t.m.maxUser == 0 {
		return
	}
	l, isFirst := t.m.logins.join(rec)
	var err error
	if !isFirst {
		select {
		case <-l.lists:
		case <-l.decided:
		case <-t.context().Done():
			if t.m.logins.abandon(l) {
				err = storeError("list", t.c.Err())
			} else {
				<-l.decided // within StoreTimeout: the list has a deadline
			}
		}
		resumed(t.s.ctx)
		t.renewContext()
	}
	var others []*Record // that this login ends for all
	if err == nil && l.doomed == nil {
		others, err = t.decide(rec.User)
	}
	if err == nil {
		err = t.endBeyondLimit(others)
	}
	if err == nil && l.doomed[rec.ID] {
		err = t.endBeyondLimit([]*Record{rec})
	}
	if err != nil {
		t.note(EventStoreFailed, rec, err)
	}
}

// decide lists the user's sessions and decides which of them end, for all logins that
// wait. It returns those that are of none of these.
func (t *tx) decide(user string) (others []*Record, err error) {
	var all []*loginLimit
	doomed := map[string]bool{}
	defer func() { // also if the store panics
		for _, l := range all {
			l.doomed = doomed
			close(l.decided)
		}
		t.m.logins.next(user)
	}()
	all = t.m.logins.take(user)
	records, err := t.m.live(t.context(), user)
	if err != nil {
		return nil, err
	}
	own := map[string]bool{}
	for _, l := range all {
		own[l.rec.ID] = true
	}
	for _, r := range beyondLimit(records, all, t.m.maxUser) {
		doomed[r.ID] = true
		if !own[r.ID] {
			others = append(others, r)
		}
	}
	return others, nil
}

// beyondLimit returns which of a user's sessions end, now that these logins are among
// them.
func beyondLimit(records []*Record, all []*loginLimit, most int) (doomed []*Record) {
	var newest *Record // of the logins that stay
	for _, l := range all {
		newer := 0
		for _, r := range records {
			if isNewer(r, l.rec) {
				newer++
			}
		}
		switch {
		case newer >= most:
			doomed = append(doomed, l.rec)
		case newest == nil || isNewer(l.rec, newest):
			newest = l.rec
		}
	}
	if newest == nil {
		return doomed
	}
	room := most - 1
	rest := slices.DeleteFunc(slices.Clone(records), func(r *Record) bool {
		newer := isNewer(r, newest)
		if newer {
			room--
		}
		return newer || r.ID == newest.ID || slices.ContainsFunc(doomed, func(d *Record) bool { return d.ID == r.ID })
	})
	isRecent := func(r *Record) bool { return newest.Created.Sub(r.Created).Abs() <= newerWithin }
	slices.SortStableFunc(rest, func(a, b *Record) int {
		switch {
		case isRecent(a) && isRecent(b): // other logins of this moment: in the order in which all of them count
			return compareLogins(b, a)
		case isRecent(a):
			return -1
		case isRecent(b):
			return 1
		}
		return b.LastSeen.Compare(a.LastSeen)
	})
	return append(doomed, rest[min(max(room, 0), len(rest)):]...)
}

// compareLogins orders sessions by when their users logged in.
func compareLogins(a, b *Record) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
}

// isNewer reports whether the user of r logged in after that of login, as far as the
// clocks can be believed.
func isNewer(r, login *Record) bool {
	return compareLogins(r, login) > 0 && r.Created.Sub(login.Created) <= newerWithin
}

// endBeyondLimit ends sessions of the user's.
func (t *tx) endBeyondLimit(records []*Record) error {
	c, ended := t.context(), make([]*Record, len(records))
	defer func() { // also if the store panics
		for _, rec := range ended {
			switch {
			case rec == nil:
				continue
			case rec.ID == t.stored.rec.ID:
				t.lose(statusEnded)
			}
			t.note(EventRevoked, rec, nil)
		}
	}()
	return inParallel(len(records), func(i int) (err error) {
		ended[i], _, err = t.m.end(c, records[i].ID, records[i].User, body.ReasonRevoke, records[i])
		return err
	})
}
