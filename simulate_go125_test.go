//go:build !go1.26

package session_test

import "testing"

// seedRandom does nothing: testing/cryptotest came with Go 1.26. Without it, a seed does not decide
// the order of sessions that began in the same millisecond, so there is no TestSimulateTwice.
func seedRandom(*testing.T, uint64) {}
