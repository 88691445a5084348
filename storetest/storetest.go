// Package storetest checks a [session.Store] against its contract, the documentation of that
// interface, sentence by sentence:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) session.Store { return open(t) })
//	}
//
// It needs only the six methods of the store, and the real clock. It cannot test replies that
// are lost, servers that crash, or deadlines that pass during a call: the author of a store
// must test these.
package storetest

import (
	"context"
	"slices"
	"testing"

	"github.com/coatcheck/session"
)

// Run runs each case of the contract as a subtest of t. A case that fails prints the sentence
// that the store violates. Run takes a second or two.
//
// newStore is called once per case. It may return the same store every time, empty or in use:
// cases use ids and users of their own, and leave records behind that expire within an hour
// (those of one case in a hundred years).
func Run(t *testing.T, newStore func(t *testing.T) session.Store) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.check(t, newStore(t)) })
	}
	// These cases mostly wait, so they run in parallel. All their stores are created before the
	// first of them begins.
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

// testCase is one requirement of the contract.
type testCase struct {
	name     string
	sentence string // sentence of the documentation, quoted exactly
	run      func(k *kit)
}

var cases = slices.Concat(loadCases, createCases, saveCases, touchCases, deleteCases, listCases, valueCases, raceCases)

// check runs the case and prints its sentence if it fails.
func (c testCase) check(t tester, store session.Store) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("The contract of session.Store: %s", c.sentence)
		}
	}()
	c.run(&kit{t, store})
}

// tester is the part of *testing.T that cases use, so that the kit can be tested with stores
// that fail.
type tester interface {
	Helper()
	Context() context.Context
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}
