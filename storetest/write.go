package storetest

import (
	"time"

	"github.com/coatcheck/session"
)

const (
	loadDoc   = "Load returns the live record with this id, or ErrNotFound."
	createDoc = "It returns ErrExists if the id is taken by a live record, and nil if that record's version is r.Version already: then this very call was applied before, and its reply lost."
	saveDoc   = "It returns ErrConflict if the version is another one, ErrNotFound if there is no such live record (a Save never revives), and nil if the version is r.Version already."
	clocksDoc = "LastSeen and Expires never move back: of each, the later of the stored and the given one is kept, Expires at most r.Deadline."
	expiryDoc = "From this instant on the record does not exist, for any method, whether or not its bytes are still there."
)

var loadCases = []testCase{
	{"LoadAbsent", loadDoc, func(k *kit) {
		k.lacks(k.record("").ID)
	}},
	{"LoadedRecordIsTheCallers", "The caller may change the fields of the Record it gets.", func(k *kit) {
		r := k.create(k.record(user()))
		got, err := k.store.Load(k.Context(), r.ID)
		if err != nil {
			k.Fatalf("Load: %v", err)
		}
		*got = session.Record{ID: "other", User: "other", Data: []byte("{}")}
		k.holds(r)
		k.lists(r.User, r)
	}},
}

var createCases = []testCase{
	{"CreateAdds", "Create adds a record.", func(k *kit) {
		k.holds(k.create(k.record("")))
		k.holds(k.create(k.record(user())))
	}},
	{"CreateTwice", createDoc, func(k *kit) {
		r := k.create(k.record(""))
		k.expect("Create of an id that is taken", k.store.Create(k.Context(), next(r, nil)), session.ErrExists)
		k.holds(r)
		past := next(r, func(r *session.Record) { r.Expires = time.Now().Add(-time.Minute).Truncate(time.Millisecond) })
		k.expect("Create, with an expired record, of an id that is taken", k.store.Create(k.Context(), past), session.ErrExists)
		k.holds(r)
	}},
	{"CreateAgain", createDoc, func(k *kit) {
		r := k.create(k.record(user()))
		k.expect("Create, sent again after its reply was lost,", k.store.Create(k.Context(), r), nil)
		k.holds(r)
		k.lists(r.User, r)
	}},
	{"CreateAgainAfterASave", createDoc, func(k *kit) {
		r := k.create(k.record(""))
		newer := k.save(r, nil)
		k.expect("Create of a record that was saved since", k.store.Create(k.Context(), r), session.ErrExists)
		k.holds(newer)
	}},
	{"CreateOfThePast", expiryDoc, func(k *kit) {
		r := k.brief(user(), -time.Minute)
		k.expect("Create of a record that has expired", k.store.Create(k.Context(), r), nil)
		k.lacks(r.ID)
		k.lists(r.User)
	}},
}

var saveCases = []testCase{
	{"SaveReplaces", "Save replaces the live record whose id is r.ID and whose version is old, in one step.", func(k *kit) {
		r := k.create(k.record(user()))
		r = k.save(r, func(r *session.Record) { // as Remember does: all times later
			r.Created = r.Created.Add(time.Second)
			r.LastSeen = r.LastSeen.Add(time.Second)
			r.Deadline = r.Deadline.Add(time.Minute)
			r.Expires = r.Expires.Add(time.Minute)
		})
		k.holds(r)
		r = k.save(r, func(r *session.Record) { // as the end of a session does: an earlier Deadline
			r.Deadline = r.Deadline.Add(-30 * time.Minute)
			r.Expires = r.Deadline
		})
		k.holds(r)
		k.lists(r.User, r)
	}},
	{"SaveOverAnotherVersion", saveDoc, func(k *kit) {
		r := k.create(k.record(""))
		newer := k.save(r, nil)
		k.expect("Save over a version that was replaced", k.store.Save(k.Context(), next(r, nil), r.Version), session.ErrConflict)
		k.holds(newer)
		k.expect("Save over a version that never existed", k.store.Save(k.Context(), next(r, nil), version()), session.ErrConflict)
		k.holds(newer)
	}},
	{"SaveAgain", saveDoc, func(k *kit) {
		r := k.create(k.record(""))
		newer := k.save(r, nil)
		k.expect("Save, sent again after its reply was lost,", k.store.Save(k.Context(), newer, r.Version), nil)
		k.holds(newer)
	}},
	{"SaveAgainAfterASave", saveDoc, func(k *kit) {
		r := k.create(k.record(""))
		newer := k.save(r, nil)
		newest := k.save(newer, nil)
		k.expect("Save, sent again after another Save,", k.store.Save(k.Context(), newer, r.Version), session.ErrConflict)
		k.holds(newest)
	}},
	{"SaveAbsent", saveDoc, func(k *kit) {
		r := k.record(user())
		k.expect("Save of a record that never existed", k.store.Save(k.Context(), next(r, nil), r.Version), session.ErrNotFound)
		k.lacks(r.ID)
		k.lists(r.User)
	}},
	{"SaveDeleted", saveDoc, func(k *kit) {
		r := k.create(k.record(user()))
		k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
		k.expect("Save of a deleted record", k.store.Save(k.Context(), next(r, nil), r.Version), session.ErrNotFound)
		k.lacks(r.ID)
		k.lists(r.User)
	}},
	{"SaveOfThePast", "So a Save ends a record only by its Deadline.", func(k *kit) {
		past := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
		r := touchable(k)
		was := r.Expires
		r = k.save(r, func(r *session.Record) { r.Expires = past })
		r.Expires = was
		k.holds(r)
		k.lists(r.User, r)
		k.save(r, func(r *session.Record) { r.Deadline, r.Expires = past, past })
		k.lacks(r.ID)
		k.lists(r.User)
	}},
	{"SaveNeverBackward", clocksDoc, func(k *kit) {
		r := touchable(k)
		loaded := *r // the copy of a request that loaded the record before the Touch
		r = k.touch(r, r.LastSeen.Add(time.Minute), r.Expires.Add(time.Minute))
		seen, expires := r.LastSeen, r.Expires
		r = k.save(&loaded, nil)
		r.LastSeen, r.Expires = seen, expires
		k.holds(r)
		k.lists(r.User, r)
		r = k.save(r, func(r *session.Record) { // a Save does not move the clocks of an earlier Save back either
			r.User, r.LastSeen, r.Expires = "", r.LastSeen.Add(-time.Hour), r.Expires.Add(-time.Minute)
		})
		r.LastSeen, r.Expires = seen, expires
		k.holds(r)
	}},
	{"SaveEachClockByItself", clocksDoc, func(k *kit) {
		r := touchable(k)
		seen, expires := r.LastSeen.Add(time.Second), r.Expires
		r = k.save(r, func(r *session.Record) { r.LastSeen, r.Expires = seen, expires.Add(-time.Minute) })
		r.Expires = expires
		k.holds(r)
		expires = expires.Add(time.Second)
		r = k.save(r, func(r *session.Record) { r.LastSeen, r.Expires = seen.Add(-time.Minute), expires })
		r.LastSeen = seen
		k.holds(r)
		k.holds(k.touch(r, seen.Add(time.Second), expires.Add(time.Second)))
	}},
	{"SaveNeverPastDeadline", "Expires is never after Deadline.", func(k *kit) {
		r := touchable(k)
		r = k.touch(r, r.LastSeen, r.Deadline)
		r = k.save(r, func(r *session.Record) { // the new Deadline is before the stored Expires
			r.Deadline = r.Deadline.Add(-40 * time.Minute)
			r.Expires = r.Deadline.Add(-10 * time.Minute)
		})
		r.Expires = r.Deadline
		k.holds(r)
	}},
	{"SaveOverWhatLoadReturns", "The stored ones are those that Load would return.", func(k *kit) {
		r := k.create(k.record(user()))
		loaded, err := k.store.Load(k.Context(), r.ID)
		if err != nil {
			k.Fatalf("Load: %v", err)
		}
		saved := k.save(loaded, func(r *session.Record) {
			r.LastSeen, r.Expires = r.LastSeen.Add(-time.Minute), r.Expires.Add(-time.Minute)
		})
		saved.LastSeen, saved.Expires = loaded.LastSeen, loaded.Expires
		k.holds(saved)
	}},
	{"SaveWithoutUser", `It is set at Create; a Save keeps it or makes it "", and then the record leaves the user's list.`, func(k *kit) {
		r, other := k.create(k.record(user())), k.record("")
		other.User = r.User
		k.create(other)
		anonymous := k.save(r, func(r *session.Record) { r.User = "" })
		k.holds(anonymous)
		k.lists(r.User, other)
	}},
	{"Versions", "Version is 63 random bits, never 0, chosen by the caller anew for every Create and Save.", func(k *kit) {
		const most = 1<<63 - 1 // a float64 has 53 bits of precision and would equal its neighbours
		r := k.record("")
		r.Version = most
		k.create(r)
		k.holds(r)
		k.expect("Save over a version that differs in its last bit", k.store.Save(k.Context(), next(r, nil), most-1), session.ErrConflict)
		least := k.save(r, func(r *session.Record) { r.Version = 1 })
		k.holds(least)
		k.holds(k.save(least, func(r *session.Record) { r.Version = most - 1 }))
	}},
}

var deleteCases = []testCase{
	{"DeleteRemoves", "Delete removes a record.", func(k *kit) {
		r, other := k.create(k.record(user())), k.create(k.record(""))
		k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
		k.lacks(r.ID)
		k.holds(other)
	}},
	{"DeleteAbsent", "It returns nil if there is none.", func(k *kit) {
		r := k.create(k.record(""))
		k.expect("Delete of a record that never existed", k.store.Delete(k.Context(), k.record("").ID), nil)
		k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
		k.expect("Delete of a deleted record", k.store.Delete(k.Context(), r.ID), nil)
	}},
}
