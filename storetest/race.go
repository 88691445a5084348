package storetest

import (
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coatcheck/session"
)

const keepDoc = "What a method answers without an error is so for every later call, in this process or another one: the promises of this package hold as far as a store keeps what it acknowledged."

var raceCases = []testCase{
	{"CreateRacingCreate", createDoc, func(k *kit) {
		r := k.record(user())
		var winner atomic.Pointer[session.Record]
		together(32, func(int) {
			mine := next(r, nil)
			switch err := k.store.Create(k.Context(), mine); {
			case err == nil && winner.Swap(mine) != nil:
				k.Errorf("two of several Creates of one id succeeded")
			case err != nil:
				k.expect("Create", err, session.ErrExists)
			}
		})
		if winner.Load() == nil {
			k.Fatalf("none of several Creates of one id succeeded")
		}
		k.holds(winner.Load())
		k.lists(r.User, winner.Load())
	}},
	{"SaveRacingSave", "Save replaces the live record whose id is r.ID and whose version is old, in one step.", func(k *kit) {
		// Each Save adds one: the value in the record is the number of Saves that succeeded.
		r := k.record("")
		r.Data = []byte("0")
		k.create(r)
		var acknowledged atomic.Int64
		together(32, func(int) {
			for range 40 {
				old, err := k.store.Load(k.Context(), r.ID)
				if err != nil {
					k.Errorf("Load: %v", err)
					return
				}
				n, _ := strconv.Atoi(string(old.Data))
				err = k.store.Save(k.Context(), next(old, func(r *session.Record) { r.Data = strconv.AppendInt(nil, int64(n+1), 10) }), old.Version)
				if err == nil {
					acknowledged.Add(1)
				} else {
					k.expect("Save", err, session.ErrConflict)
				}
			}
		})
		got, err := k.store.Load(k.Context(), r.ID)
		if err != nil {
			k.Fatalf("Load: %v", err)
		}
		if n := acknowledged.Load(); n == 0 || string(got.Data) != strconv.FormatInt(n, 10) {
			k.Errorf("%d Saves were acknowledged and %s were stored", n, got.Data)
		}
	}},
	{"ListRacingCreate", keepDoc, func(k *kit) {
		// A List that finds no record yet must not keep later Lists from finding it.
		for range 4 {
			u, made := user(), make([]*session.Record, 16)
			together(2*len(made), func(i int) {
				if i%2 == 0 {
					made[i/2] = k.record(u)
					k.expect("Create", k.store.Create(k.Context(), made[i/2]), nil)
					return
				}
				for range 4 {
					_, err := k.store.List(k.Context(), u)
					k.expect("List", err, nil)
				}
			})
			k.lists(u, made...)
		}
	}},
	{"DeleteRacingSave", saveDoc, func(k *kit) {
		together(10, func(int) {
			for range 50 {
				r := k.record("")
				k.expect("Create", k.store.Create(k.Context(), r), nil)
				together(3, func(i int) {
					switch i {
					case 0:
						k.expect("Delete", k.store.Delete(k.Context(), r.ID), nil)
					case 1:
						k.orGone("Save", k.store.Save(k.Context(), next(r, nil), r.Version))
					case 2:
						k.orGone("Touch", k.store.Touch(k.Context(), r.ID, r.LastSeen.Add(time.Second), r.Expires))
					}
				})
				k.lacks(r.ID)
			}
		})
	}},
	{"TouchRacingSave", keepDoc, func(k *kit) {
		// There is one writer, so every Save finds the version of the previous one.
		r := touchable(k)
		last := r
		together(2, func(i int) {
			for n := range 100 {
				if i == 0 {
					newer := next(last, nil)
					k.expect("Save", k.store.Save(k.Context(), newer, last.Version), nil)
					last = newer
					continue
				}
				ms := time.Duration(n) * time.Millisecond
				k.expect("Touch", k.store.Touch(k.Context(), r.ID, r.LastSeen.Add(ms), r.Expires.Add(ms)), nil)
			}
		})
		got, err := k.store.Load(k.Context(), r.ID)
		if err != nil || got.Version != last.Version || string(got.Data) != string(last.Data) {
			k.Errorf("after the last Save, Load returned (%+v, %v)", got, err)
		}
	}},
}

// together runs f(0) to f(n-1) concurrently and waits for them.
func together(n int, f func(i int)) {
	var done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		done.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	done.Wait()
}

// orGone checks the result of a call that may execute before or after a Delete.
func (k *kit) orGone(call string, err error) {
	k.Helper()
	if err != nil && !errors.Is(err, session.ErrNotFound) {
		k.Errorf("%s racing a Delete returned %v", call, err)
	}
}
