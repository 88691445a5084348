// Peers runs BenchmarkPeers several times and writes ../../docs/benchmarks.md.
//
//	go run ./peers -n 20
//
// Every cell of the table runs in a process of its own. The libraries of a case run after each
// other, so that other load of the machine affects all alike.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/coatcheck/session/tests/bench"
)

const benchstat = "golang.org/x/perf/cmd/benchstat@v0.0.0-20250813145418-2f7363a06fe1"

func main() {
	log.SetFlags(0)
	n := flag.Int("n", 20, "runs of each benchmark")
	many := flag.Int("many", 6, "runs, at most, of those with many sessions")
	benchtime := flag.String("benchtime", "0.2s", "time of each run")
	out := flag.String("o", "../../docs/benchmarks.md", "file to write")
	flag.Parse()
	if err := run(*n, *many, *benchtime, *out); err != nil {
		log.Fatal(err)
	}
}

func run(n, many int, benchtime, out string) error {
	dir, err := os.MkdirTemp("", "peers")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "bench.test")
	if _, err := output("go", "test", "-c", "-o", binary, "."); err != nil {
		return err
	}
	var raw bytes.Buffer
	for i := range n {
		for _, c := range bench.Cases {
			if c.Many && i >= many {
				continue
			}
			log.Printf("round %d of %d: %s", i+1, n, c.Name)
			for _, l := range bench.Libraries {
				benchtime := benchtime
				if c.Unit == "cpu-ns/op" {
					benchtime = "1s" // because processor time has a resolution of 10 ms
				}
				text, err := output(binary, "-test.run", "^$", "-test.benchtime", benchtime,
					"-test.bench", fmt.Sprintf("^BenchmarkPeers$/^case=%s$/^lib=%s$", regexp.QuoteMeta(c.Name), l.Name))
				if err != nil {
					return err
				}
				raw.Write(text)
			}
		}
	}
	results := filepath.Join(dir, "results.txt")
	if err := os.WriteFile(results, raw.Bytes(), 0o600); err != nil {
		return err
	}
	stat, err := output("go", "run", benchstat, "-filter", ".unit:(sec/op OR B/session OR cpu-sec/op)", "-row", "/case", "-col", "/lib", results)
	if err != nil {
		return err
	}
	os.Stdout.Write(stat)
	races, err := output("go", "run", "./elsewhere")
	if err != nil {
		return err
	}
	goVersion, err := output("go", "env", "GOVERSION")
	if err != nil {
		return err
	}
	versions, err := moduleVersions()
	if err != nil {
		return err
	}
	var page bytes.Buffer
	write(&page, report{
		n: n, many: min(n, many), benchtime: benchtime, goVersion: strings.TrimSpace(string(goVersion)),
		samples: parse(raw.String()), stat: string(stat), races: string(races), versions: versions,
	})
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(out, page.Bytes(), 0o644)
}

// moduleVersions returns the versions in go.mod, by module path.
func moduleVersions() (map[string]string, error) {
	text, err := output("go", "list", "-m", "-f", "{{.Path}} {{if .Replace}}(this checkout){{else}}{{.Version}}{{end}}", "all")
	versions := map[string]string{}
	for line := range strings.Lines(string(text)) {
		path, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		versions[path] = version
	}
	if err != nil {
		return nil, err
	}
	text, err = os.ReadFile("express/package.json")
	if err != nil {
		return nil, err
	}
	var pkg struct{ Dependencies map[string]string }
	err = json.Unmarshal(text, &pkg)
	maps.Copy(versions, pkg.Dependencies)
	return versions, err
}

// output runs a command and returns its standard output. If the command fails, its standard
// error is printed.
func output(name string, args ...string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		io.Copy(os.Stderr, &stdout)
		io.Copy(os.Stderr, &stderr)
		return nil, fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return stdout.Bytes(), nil
}
