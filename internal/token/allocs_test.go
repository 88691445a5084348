//go:build !race

package token_test

import (
	"testing"

	"github.com/coatcheck/session/internal/token"
)

// What was verified is remembered, which shows in allocations, also while the
// table grows and after it; and so is little that thousands of others came
// between.
func TestVerifiedRemembers(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	v := token.NewVerified(s)
	var values []string
	for range 5000 {
		value, _ := s.New("")
		v.Verify(value)
		values = append(values, value)
	}
	forgotten, again := 0, 0
	for _, value := range values {
		if allocates(func() { v.Verify(value) }) {
			forgotten++
		}
		if allocates(func() { v.Verify(value) }) {
			again++
		}
	}
	if again > 10 { // the runtime allocates too, now and then
		t.Errorf("%d of %d were verified again at once", again, len(values))
	}
	if forgotten > len(values)/20 {
		t.Errorf("%d of %d were forgotten", forgotten, len(values))
	}
}

// What a stranger sends is never remembered, and never takes the place of what is.
func TestVerifiedRemembersNoForgeries(t *testing.T) {
	s, stranger := newSigner(t, "cookie", "session", one), newSigner(t, "cookie", "session", two)
	v := token.NewVerified(s)
	var values []string
	for range 50 {
		value, _ := s.New("")
		v.Verify(value)
		values = append(values, value)
	}
	for range 2000 {
		forged, _ := stranger.New("")
		v.Verify(forged)
	}
	forgotten := 0
	for _, value := range values {
		if allocates(func() { v.Verify(value) }) {
			forgotten++
		}
	}
	if forgotten > 5 {
		t.Errorf("%d of %d were forgotten", forgotten, len(values))
	}
}

// allocates tells whether one call of f does, its first.
func allocates(f func()) bool {
	first := true
	return testing.AllocsPerRun(1, func() {
		if !first { // which AllocsPerRun does not count
			f()
		}
		first = false
	}) > 0
}
