//go:build !race

package token_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/coatcheck/session/internal/token"
)

// What was verified is remembered, which the secret's uses show, also while the
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
		if verifies(v, value) {
			forgotten++
		}
		if verifies(v, value) {
			again++
		}
	}
	if again > 5 { // the table that grows may push one out
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
	forgotten := func() int { // leaves in values what was remembered
		n := len(values)
		values = slices.DeleteFunc(values, func(value string) bool { return verifies(v, value) })
		return n - len(values)
	}
	for forgotten() > 0 { // some had the same place as others
	}
	if len(values) < 10 {
		t.Fatalf("only %d are remembered", len(values))
	}
	for range 2000 {
		forged, _ := stranger.New("")
		v.Verify(forged)
	}
	if n := forgotten(); n > 0 {
		t.Errorf("%d were forgotten", n)
	}
}

// The table stops growing at its last size, however many come: what it takes
// beside the values is 64 bytes for each of 131 072 places, and would be three
// times as much after one step more.
func TestVerifiedIsBounded(t *testing.T) {
	s := newSigner(t, "cookie", "session", one)
	v := token.NewVerified(s)
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	const n, each, table = 140_000, 176, 64 << 17
	before := heap()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range n / 4 {
				value, _ := s.New("")
				v.Verify(value)
			}
		})
	}
	all.Wait()
	got := heap() - before
	if most := n*each + table + table/2; got > most {
		t.Errorf("%d bytes for %d values, want at most %d", got, n, most)
	}
	if least := table + n*each/2; got < least {
		t.Errorf("%d bytes for %d values, want at least %d: it has not grown", got, n, least)
	}
	runtime.KeepAlive(v)
}

// verifies reports whether a value had to be verified because it was not remembered.
func verifies(v *token.Verified, value string) bool {
	before := v.Uses()[0]
	v.Verify(value)
	return v.Uses()[0] > before
}
