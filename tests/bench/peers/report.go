package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/coatcheck/session/tests/bench"
)

// samples are results by "case/lib/unit". A key without a slash is a line of the head, such as
// "cpu".
type samples struct {
	values map[string][]float64
	head   map[string]string
}

// parse parses the output of Go's benchmarks.
func parse(text string) samples {
	s := samples{map[string][]float64{}, map[string]string{}}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 1 && strings.HasSuffix(f[0], ":") {
			s.head[strings.TrimSuffix(f[0], ":")] = strings.Join(f[1:], " ")
		}
		if len(f) < 4 || !strings.HasPrefix(f[0], "BenchmarkPeers/case=") {
			continue
		}
		c, lib, _ := strings.Cut(strings.TrimPrefix(f[0], "BenchmarkPeers/case="), "/lib=")
		if i := strings.LastIndexByte(lib, '-'); i > 0 {
			if _, err := strconv.Atoi(lib[i+1:]); err == nil {
				lib = lib[:i] // removes GOMAXPROCS
			}
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				key := c + "/" + lib + "/" + f[i+1]
				s.values[key] = append(s.values[key], v)
			}
		}
	}
	return s
}

func (s samples) median(c, lib, unit string) (float64, bool) {
	v := slices.Sorted(slices.Values(s.values[c+"/"+lib+"/"+unit]))
	if len(v) == 0 {
		return 0, false
	}
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2, true
}

// report is the content of docs/benchmarks.md.
type report struct {
	n, many              int
	benchtime, goVersion string
	samples              samples
	stat, races          string
	versions             map[string]string // by module path
}

func write(w io.Writer, r report) {
	p := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	p("# Benchmarks\n")
	p("For those who compare libraries: what a request costs, and what concurrent requests lose. Written by `make bench-peers`. Times depend on the machine and its load: compare the ratios. Allocations are exact.\n")
	p("## What a request costs\n")
	p("A whole request, from the handler's first line to its last: the same request, a `ResponseWriter` without cost, a session of three small values (a string of 16 bytes, a bool, an int), no network. Each library is configured as in its README. Median time and allocations of %d runs (%d where there are 100 000 sessions or more); the best of each row in bold.\n", r.n, r.many)
	head, rule := "| |", "|---|"
	for _, l := range bench.Libraries {
		head += " " + l.Name + " |"
		rule += "---|"
	}
	p("%s\n%s", head, rule)
	for _, c := range bench.Cases {
		if _, measured := r.samples.median(c.Name, bench.Libraries[0].Name, c.Unit); measured {
			p("| %s |%s", c.Text, r.row(c.Name, c.Unit))
		}
	}
	p("\nThe libraries:\n")
	for _, l := range bench.Libraries {
		p("- **%s**: %s %s, %s.", l.Name, l.Module, r.versions[l.Module], l.Text)
	}
	p("")
	p("Notes:\n")
	p("- `gorilla-*` and `icza` have no middleware: a request that does not use its session costs nothing.")
	p("- All rows of `gin` and `fiber` include their router and response: the first row is their cost without sessions. The request that fiber gets is already parsed, as its own server would do it.")
	p("- Tokens that are not signed are not verified: a forged cookie costs a look-up in the store instead, which is a round trip with a remote store.")
	p("- ours caches cookies that it has verified. The first read of a session by a process also costs a verification, about as much as `forged`.")
	p("- ours writes the last use of a session only when 1/20 of the idle timeout has passed, which does not happen in these runs.")
	p("- Whole servers run in a process of their own, with 16 connections that are kept alive; the time is the user and system time of that process, without the clients.")
	p("- –: 4 KB do not fit into a cookie; the creation of 100 000 files takes minutes; cookies and files use no heap; express-session is measured as a whole server only.\n")
	p("## Concurrent requests\n")
	p("`go run ./elsewhere` in `tests/bench/`: real servers on loopback, 10 trials of each race, gates instead of sleeps.\n")
	p("%s", strings.TrimSpace(r.races))
	p("\n## Machine and commands\n")
	p("%s, %d cores, %s/%s, %s.\n", r.samples.head["cpu"], runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, r.goVersion)
	p("```sh\nmake bench-peers        # or, in tests/bench/:\ngo run ./peers -n %d -many %d -benchtime %s\n```\n", r.n, r.many, r.benchtime)
	p("Each cell of each run is a process of its own; the runs are interleaved. The same results in benchstat, compared with ours:\n")
	p("```text\n%s\n```", trimLines(r.stat))
}

// row returns a line of the table.
func (r report) row(c, unit string) string {
	best := 0.0
	for _, l := range bench.Libraries {
		if v, ok := r.samples.median(c, l.Name, unit); ok && (best == 0 || v < best) {
			best = v
		}
	}
	var row strings.Builder
	for _, l := range bench.Libraries {
		v, ok := r.samples.median(c, l.Name, unit)
		cell := "–"
		if ok {
			cell = quantity(unit, v)
			if v == best && !strings.HasSuffix(c, "bare") {
				cell = "**" + cell + "**"
			}
			if allocs, ok := r.samples.median(c, l.Name, "allocs/op"); ok && unit == "ns/op" {
				cell += fmt.Sprintf(" · %.0f", allocs)
			}
		}
		row.WriteString(" " + cell + " |")
	}
	return row.String()
}

func quantity(unit string, v float64) string {
	switch {
	case unit == "B/session":
		return fmt.Sprintf("%.0f B", v)
	case v >= 100_000:
		return fmt.Sprintf("%.0f µs", v/1000)
	case v >= 10_000:
		return fmt.Sprintf("%.1f µs", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.2f µs", v/1000)
	}
	return fmt.Sprintf("%.0f ns", v)
}

func trimLines(text string) string {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	return strings.Join(lines, "\n")
}
