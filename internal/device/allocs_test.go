//go:build !race

package device

import "testing"

// A stamp is verified with every request of a bound session, so that costs no allocation.
func TestVerifyAllocatesNothing(t *testing.T) {
	s := newStamps(t, "name", two, one)
	stamp := newStamps(t, "name", one).New(KindCookie, at, id)
	if n := testing.AllocsPerRun(1000, func() { s.Verify(KindCookie, stamp, id) }); n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
