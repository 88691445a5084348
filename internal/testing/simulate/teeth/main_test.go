package main

import (
	"path/filepath"
	"testing"
)

// TestFaultsApply checks that the text that a fault replaces occurs once in the library. Otherwise
// a change of the library needs a change of the table.
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
