package storetest

import "github.com/coatcheck/session"

const listDoc = "List returns the live records whose User is user, in any order."

var listCases = []testCase{
	{"ListOfTheUser", listDoc, func(k *kit) {
		a, b := user(), user()
		a1, a2, b1 := k.create(k.record(a)), k.create(k.record(a)), k.create(k.record(b))
		k.create(k.record(""))
		k.lists(a, a1, a2)
		k.lists(b, b1)
		k.lists(user())
	}},
	{"ListWithoutUser", `The user "" has none, although anonymous sessions exist.`, func(k *kit) {
		k.create(k.record(""))
		r := k.create(k.record(user()))
		k.save(r, func(r *session.Record) { r.User = "" })
		k.lists("")
	}},
	{"ListAfterSave", listDoc, func(k *kit) {
		r := k.create(k.record(user()))
		k.lists(r.User, k.save(k.save(r, nil), nil))
	}},
	{"ListAfterDelete", listDoc, func(k *kit) {
		r := k.create(k.record(user()))
		other := k.create(k.record(r.User))
		k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
		k.lists(r.User, other)
		k.expect("Delete", k.store.Delete(k.Context(), other.ID), nil)
		k.lists(r.User)
	}},
	{"ListOfMany", listDoc, func(k *kit) {
		u := user()
		var all []*session.Record
		for range 50 {
			all = append(all, k.create(k.record(u)))
		}
		k.lists(u, all...)
	}},
}
