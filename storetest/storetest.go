// Package storetest checks a [session.Store] against its contract, the
// documentation of that interface, sentence by sentence:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) session.Store { return open(t) })
//	}
//
// It needs nothing of the store but its six methods, and no clock but the real
// one. What it cannot see from there is the author's to test: replies that are
// lost, servers that die, deadlines that pass while a call is under way.
package storetest

import (
	"context"
	"slices"
	"testing"

	"github.com/coatcheck/session"
)

// Run runs each case of the contract as a subtest of t. A case that fails
// prints the sentence that the store breaks. It takes a second or two.
//
// newStore is called once per case and may return the same store every time, an
// empty one or one in use: cases make up ids and users of their own, and leave
// records behind that expire within the hour (one case: a hundred years).
func Run(t *testing.T, newStore func(t *testing.T) session.Store) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t, newStore(t)) })
	}
	// These spend their time waiting: they do so together, and all of their
	// stores are made before the first of them begins.
	t.Run("Expired", func(t *testing.T) {
		for _, c := range expiryCases {
			t.Run(c.name, func(t *testing.T) {
				store := newStore(t)
				t.Parallel()
				c.check(t, store)
			})
		}
	})
}

// A testCase is one thing that a store must do.
type testCase struct {
	name     string
	sentence string // of the documentation, word for word
	run      func(k *kit)
}

var cases = slices.Concat(loadCases, createCases, saveCases, touchCases, deleteCases, listCases, valueCases, raceCases)

// check runs the case and quotes the contract if it fails.
func (c testCase) check(t tester, store session.Store) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("The contract of session.Store: %s", c.sentence)
		}
	}()
	c.run(&kit{t, store})
}

// A tester is what a case needs of a *testing.T, so that the kit can be tested
// on stores that fail.
type tester interface {
	Helper()
	Context() context.Context
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}
