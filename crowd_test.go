package session_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session/internal/testing/crowds"
)

// TestCostOfACrowd: promise 21. The store calls of a request do not grow with the number of
// concurrent requests of the same session or user. The store takes a millisecond for each call,
// so that requests that do not share their calls overlap.
func TestCostOfACrowd(t *testing.T) {
	t.Parallel()
	for _, d := range crowds.Deeds {
		for _, n := range []int{1, 10, 100, 1000} {
			t.Run(fmt.Sprint(d.Name, "/", n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					spy := newSpy()
					slowStore(spy, time.Millisecond)
					began := time.Now()
					calls := d.Run(t, spy, n)
					if t.Logf("%.2f calls of the store for each request, %v", calls, time.Since(began)); calls > d.Most {
						t.Errorf("%.1f calls of the store for each request, want at most %v", calls, d.Most)
					}
				})
			})
		}
	}
}
