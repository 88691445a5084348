//go:build race

package session_test

// raceDetector tells that allocations are not what they are without it.
const raceDetector = true
