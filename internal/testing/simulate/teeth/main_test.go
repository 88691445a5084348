package main

import (
	"path/filepath"
	"testing"
)

// What a fault replaces stands in the library once: else a change of it has taken the
// fault's place.
func TestFaultsApply(t *testing.T) {
	t.Chdir("../../../..")
	for _, f := range faults {
		if _, err := f.apply(); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
	}
}

// TestFaultBuilds checks that the tests of the simulator compile without the other tests.
func TestFaultBuilds(t *testing.T) {
	t.Chdir("../../../..")
	if _, err := faults[0].build(filepath.Join(t.TempDir(), "fault")); err != nil {
		t.Error(err)
	}
}
