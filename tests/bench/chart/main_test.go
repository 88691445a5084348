package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestChartsAreCurrent checks that the charts are those of the tables.
func TestChartsAreCurrent(t *testing.T) {
	const docs = "../../../docs"
	dir := t.TempDir()
	if err := run(docs, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cost-light.svg", "cost-dark.svg"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(docs, "pictures", name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("docs/pictures/%s is not the chart of docs/benchmarks.md (%v): run go run ./chart in tests/bench", name, err)
		}
	}
}
