package session_test

import (
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/simulate"
	"github.com/coatcheck/session/storetest"
)

// What the simulator says of the library is worth nothing if its store breaks the contract
// by itself.
func TestSimulatedStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) session.Store { return simulate.NewStore(library) })
}
