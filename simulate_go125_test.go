//go:build !go1.26

package session_test

import "testing"

// seedRandom does nothing: testing/cryptotest came with Go 1.26.
func seedRandom(*testing.T, uint64) {}

const areIDsSeeded = false
