package session

import (
	"cmp"
	"slices"
	"time"

	"github.com/coatcheck/session/internal/body"
	"github.com/coatcheck/session/internal/parallel"
)

// Options.MaxPerUser, after a Login.
//
// A Login stores its session and then lists the sessions of the user. If MaxPerUser of them
// are newer, it ends its own session and no other. Otherwise its own session stays, and the
// least recently seen sessions beyond the limit end.
//
// The limit holds for any order of concurrent logins: of two sessions, at least one was stored
// before the Login of the other listed, and so is in that list. Consider the newest MaxPerUser
// sessions, and any other session s. Either the Login of s has listed all of them, and ends s, or
// the Login of one of them has listed s. Fewer than MaxPerUser sessions are newer than that one,
// so its Login ends the sessions beyond the limit, s among them.
//
// Concurrent logins of one user in one process share one list and decide together: n logins cost
// n endings rather than n².

// newerWithin is by how much the login time of another session may be later than that of a
// login for the session to count as newer. A larger difference comes from a clock that is wrong
// or was set back, and is no reason to end the login of a user who has just been authenticated.
const newerWithin = 5 * time.Second

// limit ends the sessions beyond Options.MaxPerUser after a Login. If that fails, the Login is
// still committed.
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
	var others []*Record // sessions of earlier logins that this one ends for all that wait
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

// decide lists the sessions of the user and decides which of them end, for all waiting logins.
// It returns those that belong to none of these logins.
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

// beyondLimit returns the records that end after the logins in all, whose sessions are among
// records.
func beyondLimit(records []*Record, all []*loginLimit, most int) (doomed []*Record) {
	var newest *Record // the newest login that stays
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
		case isRecent(a) && isRecent(b): // concurrent logins: in the order that all of them use
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

// isNewer reports whether r was logged in after login, within newerWithin.
func isNewer(r, login *Record) bool {
	return compareLogins(r, login) > 0 && r.Created.Sub(login.Created) <= newerWithin
}

// endBeyondLimit ends the sessions of records.
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
	return parallel.Do(len(records), maxParallel(), func(i int) (err error) {
		ended[i], _, err = t.m.end(c, records[i].ID, records[i].User, body.ReasonRevoke, records[i])
		return err
	})
}
