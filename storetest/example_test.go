package storetest_test

import (
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/storetest"
)

// This example tests a store of your own.
func Example() {
	newStore := func(t *testing.T) session.Store { return session.NewMemoryStore(nil) } // yours
	_ = func(t *testing.T) {
		open := func(t *testing.T) session.Store { return newStore(t) }
		storetest.Run(t, open)         // the contract
		storetest.RunManagers(t, open) // three processes, one browser, fifty concurrent requests
	}
}
