package storetest

import (
	"errors"
	"time"

	"github.com/coatcheck/session"
)

const (
	touchDoc       = "Touch moves LastSeen and Expires of a live record, each only forward in time and Expires never past Deadline."
	touchAbsentDoc = "It returns ErrNotFound if there is no such live record."
)

// touchable returns a stored record whose Expires can move in both directions.
func touchable(k *kit) *session.Record {
	r := k.record(user())
	r.Expires = r.Deadline.Add(-30 * time.Minute)
	return k.create(r)
}

// touch moves a record's times and returns the record that is expected afterwards.
func (k *kit) touch(r *session.Record, seen, expires time.Time) *session.Record {
	k.Helper()
	k.expect("Touch", k.store.Touch(k.Context(), r.ID, seen, expires), nil)
	touched := *r
	touched.LastSeen, touched.Expires = seen, expires
	return &touched
}

var touchCases = []testCase{
	{"TouchForward", touchDoc, func(k *kit) {
		r := touchable(k)
		r = k.touch(r, r.LastSeen.Add(time.Millisecond), r.Expires.Add(time.Millisecond))
		k.holds(r)
		r = k.touch(r, r.LastSeen.Add(time.Minute), r.Expires.Add(time.Minute))
		k.holds(r)
		k.holds(k.touch(r, r.LastSeen, r.Expires)) // the times that the record has already
	}},
	{"TouchNeverBackward", touchDoc, func(k *kit) {
		r := touchable(k)
		k.touch(r, r.LastSeen.Add(-time.Minute), r.Expires.Add(-time.Minute))
		k.holds(r)
		k.touch(r, r.LastSeen.Add(-time.Minute), time.Now().Add(-time.Minute).Truncate(time.Millisecond))
		k.holds(r)
	}},
	{"TouchEachByItself", touchDoc, func(k *kit) {
		r := touchable(k)
		was := r.Expires
		r = k.touch(r, r.LastSeen.Add(time.Second), was.Add(-time.Minute))
		r.Expires = was
		k.holds(r)
		seen := r.LastSeen
		r = k.touch(r, seen.Add(-time.Minute), was.Add(time.Second))
		r.LastSeen = seen
		k.holds(r)
	}},
	{"TouchNeverPastDeadline", "Deadline is the absolute end: Touch never moves Expires past it.", func(k *kit) {
		r := touchable(k)
		r = k.touch(r, r.LastSeen.Add(time.Second), r.Deadline.Add(time.Hour))
		r.Expires = r.Deadline
		k.holds(r)
	}},
	{"TouchKeepsTheRest", "Data and Version stay.", func(k *kit) {
		r := touchable(k)
		r = k.touch(r, r.LastSeen.Add(time.Second), r.Expires.Add(time.Second))
		k.holds(r)
		k.lists(r.User, r)
		r = k.save(r, nil) // over the same version, which the touch did not change
		r = k.touch(r, r.LastSeen.Add(time.Second), r.Expires.Add(time.Second))
		k.holds(r)
	}},
	{"TouchAbsent", touchAbsentDoc, func(k *kit) {
		r := k.record("")
		k.expect("Touch of a record that never existed", k.store.Touch(k.Context(), r.ID, r.LastSeen, r.Expires), session.ErrNotFound)
		k.lacks(r.ID)
	}},
	{"TouchDeleted", touchAbsentDoc, func(k *kit) {
		r := k.create(k.record(user()))
		k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
		k.expect("Touch of a deleted record", k.store.Touch(k.Context(), r.ID, r.LastSeen, r.Expires), session.ErrNotFound)
		k.lacks(r.ID)
		k.lists(r.User)
	}},
}

// expired stores a record and returns it when it has expired. Each case has a record of its
// own, because a method that removes expired records would hide the error of the next.
func expired(k *kit, user string) *session.Record {
	r := k.create(k.brief(user, soon))
	_, err := k.store.Load(k.Context(), r.ID)
	if errors.Is(err, session.ErrNotFound) && time.Now().Before(r.Expires) {
		k.Errorf("the record was absent before its Expires")
	}
	await(r.Expires)
	return r
}

// await sleeps until t, and a little longer because the clock of a server may be some
// milliseconds behind.
func await(t time.Time) { time.Sleep(time.Until(t) + 20*time.Millisecond) }

var expiryCases = []testCase{
	{"Load", expiryDoc, func(k *kit) {
		k.lacks(expired(k, "").ID)
	}},
	{"Create", expiryDoc, func(k *kit) {
		r := next(expired(k, ""), func(r *session.Record) { r.Deadline, r.Expires = later(r), later(r) })
		k.expect("Create of an id whose record has expired", k.store.Create(k.Context(), r), nil)
		k.holds(r)
	}},
	{"Save", expiryDoc, func(k *kit) {
		r := expired(k, user())
		live := next(r, func(r *session.Record) { r.Deadline, r.Expires = later(r), later(r) })
		k.expect("Save of an expired record", k.store.Save(k.Context(), live, r.Version), session.ErrNotFound)
		k.lacks(r.ID)
		k.lists(r.User)
	}},
	{"Touch", expiryDoc, func(k *kit) {
		r := k.record(user()) // with a Deadline in an hour
		r.Expires = time.Now().Add(soon).Truncate(time.Millisecond)
		k.create(r)
		await(r.Expires)
		k.expect("Touch of an expired record", k.store.Touch(k.Context(), r.ID, time.Now(), later(r)), session.ErrNotFound)
		k.lacks(r.ID)
		k.lists(r.User)
	}},
	{"Delete", expiryDoc, func(k *kit) {
		k.expect("Delete of an expired record", k.store.Delete(k.Context(), expired(k, "").ID), nil)
	}},
	{"List", expiryDoc, func(k *kit) {
		live := k.create(k.record(user()))
		expired(k, live.User)
		k.lists(live.User, live)
	}},
	{"TouchedInTime", touchDoc, func(k *kit) {
		k.inTime(func(life time.Duration) *session.Record {
			r := k.record(user())
			r.Expires = time.Now().Add(life).Truncate(time.Millisecond)
			return r
		}, func(r *session.Record) (*session.Record, error) {
			touched := *r
			touched.Expires = r.Deadline.Add(-time.Minute)
			return &touched, k.store.Touch(k.Context(), r.ID, r.LastSeen, touched.Expires)
		})
	}},
	{"SavedInTime", "Save replaces the live record whose id is r.ID and whose version is old, in one step.", func(k *kit) {
		k.inTime(func(life time.Duration) *session.Record {
			return k.brief(user(), life)
		}, func(r *session.Record) (*session.Record, error) {
			saved := next(r, func(r *session.Record) { r.Deadline, r.Expires = later(r), later(r) })
			return saved, k.store.Save(k.Context(), saved, r.Version)
		})
	}},
}

// inTime checks that a record that extend has extended exists after its previous end. If that
// end comes before the extension, on a slow machine, the next record lives twice as long.
func (k *kit) inTime(brief func(life time.Duration) *session.Record, extend func(r *session.Record) (*session.Record, error)) {
	k.Helper()
	for life := soon; ; life *= 2 {
		r := k.create(brief(life))
		longer, err := extend(r)
		if life < time.Minute && !time.Now().Before(r.Expires) {
			continue
		}
		k.expect("the call that extends a record", err, nil)
		await(r.Expires)
		k.holds(longer)
		k.lists(longer.User, longer)
		return
	}
}

func later(r *session.Record) time.Time { return r.LastSeen.Add(time.Hour) }
