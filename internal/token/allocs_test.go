//go:build !race

package token_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/coatcheck/session/internal/token"
)

// TestVerifiedRemembers checks, by the counts of the secret, that verified values are cached
// while the table grows and afterwards, and that few values are evicted by thousands of others.
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
	if again > 5 { // an entry may be evicted while the table grows
		t.Errorf("%d of %d were verified again immediately", again, len(values))
	}
	if forgotten > len(values)/20 {
		t.Errorf("%d of %d were evicted", forgotten, len(values))
	}
}

// TestVerifiedRemembersNoForgeries checks that forged values are never cached and never evict a
// cached value.
func TestVerifiedRemembersNoForgeries(t *testing.T) {
	s, stranger := newSigner(t, "cookie", "session", one), newSigner(t, "cookie", "session", two)
	v := token.NewVerified(s)
	var values []string
	for range 50 {
		value, _ := s.New("")
		v.Verify(value)
		values = append(values, value)
	}
	forgotten := func() int { // counts the evicted values and keeps the others in values
		n := len(values)
		values = slices.DeleteFunc(values, func(value string) bool { return verifies(v, value) })
		return n - len(values)
	}
	for forgotten() > 0 { // until no values compete for a place
	}
	if len(values) < 10 {
		t.Fatalf("only %d values are cached", len(values))
	}
	for range 2000 {
		forged, _ := stranger.New("")
		v.Verify(forged)
	}
	if n := forgotten(); n > 0 {
		t.Errorf("%d values were evicted", n)
	}
}

// TestVerifiedIsBounded checks that the table stops growing at lastSize. Beside the values it
// uses 64 bytes for each of 131 072 places, and would use three times as much after another
// step.
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
		t.Errorf("%d bytes for %d values, want at least %d: the table has not grown", got, n, least)
	}
	runtime.KeepAlive(v)
}

// verifies reports whether value was verified because it was not cached.
func verifies(v *token.Verified, value string) bool {
	before := v.Uses()[0]
	v.Verify(value)
	return v.Uses()[0] > before
}
