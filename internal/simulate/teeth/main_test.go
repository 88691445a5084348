package main

import "testing"

// What a fault replaces stands in the library once: else a change of it has taken the
// fault's place.
func TestFaultsApply(t *testing.T) {
	t.Chdir("../../..")
	for _, f := range faults {
		if _, err := f.apply(); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}
