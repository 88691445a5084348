// Command many runs the simulator for a range of seeds on all cores, from the root directory: one
// process per core, each with a part of the range. It prints the totals, and fails if any process
// fails. See CONTRIBUTING.md.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/coatcheck/session/internal/testing/simulate"
)

func main() {
	from := flag.Uint64("from", 0, "the first seed")
	seeds := flag.Uint64("seeds", 20000, "number of seeds")
	flag.Parse()
	if err := run(*from, *seeds); err != nil {
		fmt.Fprintln(os.Stderr, "simulate:", err)
		os.Exit(1)
	}
}

func run(from, seeds uint64) error {
	dir, err := os.MkdirTemp("", "simulate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "session.test")
	if out, err := exec.Command("go", "test", "-c", "-o", binary, ".").CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	began := time.Now()
	n := uint64(min(runtime.NumCPU(), int(max(seeds, 1))))
	parts := make(chan part)
	for i := range n {
		first, end := from+seeds*i/n, from+seeds*(i+1)/n
		go func() { parts <- simulatePart(binary, filepath.Join(dir, strconv.Itoa(int(i))), first, end-first) }()
	}
	var totals simulate.Totals
	failed := 0
	for range n {
		p := <-parts
		if p.err != nil {
			failed++
			fmt.Printf("Seeds from %d: %v\n%s\n", p.from, p.err, p.out)
		}
		totals.Merge(&p.totals)
	}
	fmt.Printf("%v%10v from seed %d\n", &totals, time.Since(began).Round(time.Second), from)
	if failed > 0 {
		return fmt.Errorf("%d of %d processes have failed", failed, n)
	}
	return nil
}

// part is the result of one process.
type part struct {
	from   uint64
	totals simulate.Totals
	out    []byte
	err    error
}

func simulatePart(binary, file string, from, seeds uint64) part {
	p := part{from: from}
	c := exec.Command(binary, "-test.run=^TestSimulate$", "-test.timeout=0", "-simulate.totals="+file,
		"-simulate.from="+strconv.FormatUint(from, 10), "-simulate.seeds="+strconv.FormatUint(seeds, 10))
	c.Env = append(os.Environ(), "GOMAXPROCS=1") // only one goroutine runs at a time
	if p.out, p.err = c.CombinedOutput(); p.err != nil {
		// There may be no totals: a panic ends the process.
		if b, err := os.ReadFile(file); err == nil {
			_ = json.Unmarshal(b, &p.totals)
		}
		return p
	}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &p.totals)
	}
	p.err = err
	return p
}
