//go:build go1.26

package session_test

import (
	"testing"
	"testing/cryptotest"
)

// seedRandom makes what the test draws from crypto/rand depend on the seed. Of two
// sessions that began at the same millisecond, the one with the higher random id counts
// as the newer (Options.MaxPerUser).
func seedRandom(t *testing.T, seed uint64) { cryptotest.SetGlobalRandom(t, seed) }

// areIDsSeeded reports whether seedRandom works with this version of Go.
const areIDsSeeded = true
