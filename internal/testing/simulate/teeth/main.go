// Command teeth tests the simulator: it puts one fault after another into package session, and
// fails if the simulator does not find each of them within a number of seeds. Run it from the root
// directory. See CONTRIBUTING.md.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coatcheck/session/internal/testing/simulate"
)

// A fault is a plausible mistake in package session.
type fault struct {
	name    string // description of the mistake
	file    string // path from the root directory
	old     string // text that occurs once in the file
	new     string // replacement of that text
	promise string // promise that the fault breaks
}

var (
	from   = flag.Uint64("from", 0, "the first seed")
	seeds  = flag.Uint64("seeds", 1000, "number of seeds within which a fault must be found")
	limit  = flag.Duration("limit", 2*time.Minute, "time limit for the seeds of one fault")
	only   = flag.String("only", "", "a regular expression: only faults with a matching name")
	atOnce = flag.Int("parallel", 2, "number of faults that are tried concurrently")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "teeth:", err)
		os.Exit(1)
	}
}

func run() error {
	wanted, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	tried := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return !wanted.MatchString(f.name) })
	var mistakes []error
	for _, f := range tried {
		_, err := f.apply()
		mistakes = append(mistakes, err)
	}
	if err := errors.Join(mistakes...); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "teeth")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	results := make([]result, len(tried))
	turns := make(chan struct{}, *atOnce)
	done := make(chan struct{})
	for i, f := range tried {
		go func() {
			turns <- struct{}{}
			results[i] = f.try(filepath.Join(dir, strconv.Itoa(i)))
			fmt.Fprintf(os.Stderr, "%d of %d: %s: %v\n", i+1, len(tried), f.name, results[i])
			<-turns
			done <- struct{}{}
		}()
	}
	for range tried {
		<-done
	}
	return report(tried, results)
}

// report prints the table.
func report(tried []fault, results []result) error {
	width := 0
	for _, f := range tried {
		width = max(width, len(f.name))
	}
	missed := 0
	broken := map[string]bool{}
	for i, f := range tried {
		r := results[i]
		broken[r.promise] = true
		if r.promise == "" {
			missed++
		}
		note := ""
		if r.promise != "" && r.promise != f.promise {
			note = " (expected: " + f.promise + ")"
		}
		fmt.Printf("%-*s  %v%s\n", width, f.name, r, note)
	}
	if missed > 0 {
		return fmt.Errorf("%d of %d faults were not found", missed, len(tried))
	}
	if *only != "" {
		return nil
	}
	return unbroken(broken)
}

var oracle = regexp.MustCompile(`\bviolation\(\w+, "([^"]+)"`)

// unbroken returns an error if the simulator judges a promise that no fault has broken first: the
// oracle of such a promise is untested.
func unbroken(broken map[string]bool) error {
	files, err := filepath.Glob("internal/testing/simulate/*.go")
	if err != nil {
		return err
	}
	missing := map[string]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, m := range oracle.FindAllSubmatch(b, -1) {
			if promise := string(m[1]); !broken[promise] {
				missing[promise] = true
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	var names []string
	for name := range missing {
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Errorf("no fault breaks these promises first: %s", strings.Join(names, ", "))
}

// A result is the outcome of a fault.
type result struct {
	promise string // promise that was broken first; "": none
	seeds   int    // number of seeds until then; 0: unknown
	err     error
}

func (r result) String() string {
	switch {
	case r.err != nil:
		return "FAILED: " + r.err.Error()
	case r.promise == "":
		return fmt.Sprintf("NOT FOUND in %d seeds", r.seeds)
	case r.seeds == 1:
		return r.promise + ": the first seed"
	}
	return fmt.Sprintf("%s: %d seeds", r.promise, r.seeds)
}

// apply returns the file with the fault in it.
func (f fault) apply() ([]byte, error) {
	b, err := os.ReadFile(f.file)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(b), f.old); n != 1 {
		return nil, fmt.Errorf("fault %q: the old text occurs %d times in %s, want 1: adapt the table to the code", f.name, n, f.file)
	}
	return []byte(strings.Replace(string(b), f.old, f.new, 1)), nil
}

// try builds the tests with the fault and runs the simulator. dir does not exist.
func (f fault) try(dir string) result {
	binary, err := f.build(dir)
	if err != nil {
		return result{err: err}
	}
	totals := filepath.Join(dir, "totals")
	c := exec.Command(binary, "-test.run=^TestSimulate$", "-test.timeout="+limit.String(), "-simulate.first", "-simulate.totals="+totals,
		"-simulate.from="+strconv.FormatUint(*from, 10), "-simulate.seeds="+strconv.FormatUint(*seeds, 10))
	c.Env = append(os.Environ(), "GOMAXPROCS=1") // only one goroutine runs at a time
	out, failed := c.CombinedOutput()
	b, err := os.ReadFile(totals)
	if err != nil { // the process has ended in a panic
		return ofPanic(out, cmp.Or(failed, err))
	}
	var t simulate.Totals
	if err := json.Unmarshal(b, &t); err != nil {
		return result{err: err}
	}
	r := result{seeds: t.Seeds}
	for promise := range t.Broken {
		r.promise = promise
	}
	return r
}

var unended = regexp.MustCompile(`(?m)^seed (\d+) did not end`)

// ofPanic returns the result of a process that has written no totals. If all goroutines of a run
// wait for each other, testing/synctest panics: a request has not ended.
func ofPanic(out []byte, err error) result {
	if m := unended.FindSubmatch(out); m != nil {
		if seed, err := strconv.ParseUint(string(m[1]), 10, 64); err == nil {
			return result{promise: "every request ends", seeds: int(seed - *from + 1)}
		}
	}
	return result{err: fmt.Errorf("%w: %.500s", err, out)}
}

// build compiles the tests of the simulator in the root module, with the fault. It changes no file:
// an overlay of the go command replaces it.
func (f fault) build(dir string) (binary string, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	code, err := f.apply()
	if err != nil {
		return "", err
	}
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, code, 0o600); err != nil {
		return "", err
	}
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	replace := map[string]string{filepath.Join(root, f.file): changed}
	tests, err := filepath.Glob("*_test.go")
	if err != nil {
		return "", err
	}
	for _, test := range tests {
		if !strings.HasPrefix(test, "simulate") && test != "export_test.go" {
			replace[filepath.Join(root, test)] = "" // omitted, for a fast build
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	binary = filepath.Join(dir, "session.test")
	if out, err := exec.Command("go", "test", "-c", "-vet=off", "-overlay="+list, "-o", binary, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("fault %q: go test -c: %w\n%s", f.name, err, out)
	}
	return binary, nil
}
