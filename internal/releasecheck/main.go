// Releasecheck checks that a release is tags and nothing else. It builds the published
// modules as a stranger's go get would have them: from a module proxy, without this
// checkout and without replace lines, which the go command ignores in dependencies. See
// CONTRIBUTING.md, "A release".
//
//	go run ./internal/releasecheck                                    check
//	go run ./internal/releasecheck -raise v0.2.0                      set the version in every go.mod
//	go run ./internal/releasecheck -api golang.org/x/exp/cmd/apidiff@latest   compare with the last release
package main

import (
	"archive/zip"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

const root = "github.com/coatcheck/session"

// published are the folders of the modules that are.
var published = []string{".", "expressjs", "gorillastore", "migrate", "otel", "redisstore", "sessionctl", "sqlstore"}

func main() {
	log.SetFlags(0)
	log.SetPrefix("releasecheck: ")
	next := flag.String("raise", "", "set the `version` of this project's modules in every go.mod, and do nothing else")
	apidiff := flag.String("api", "", "run this `package` to compare exported names with the last release, and do nothing else")
	flag.Parse()
	err := error(nil)
	switch {
	case *next != "":
		err = raise(*next)
	case *apidiff != "":
		err = compare(*apidiff)
	default:
		err = check()
	}
	if err != nil {
		log.Fatal(err)
	}
}

func check() error {
	version, err := requiredVersion()
	if err != nil {
		return err
	}
	if err := isUntagged(version); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "releasecheck")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	proxy := filepath.Join(dir, "proxy")
	for _, folder := range published {
		if err := requiresOnlyImports(folder); err != nil {
			return err
		}
		if err := publish(proxy, folder, version); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
	}
	for _, folder := range published {
		if err := use(dir, proxy, folder, version); err != nil {
			return fmt.Errorf("%s: %w", modulePath(folder), err)
		}
		fmt.Println("ok", modulePath(folder)+"@"+version)
	}
	return nil
}

func modulePath(folder string) string { return path.Join(root, folder) }

// requiresOnlyImports fails if a module requires one that its packages do not import:
// what only its tests need would upgrade the versions of those who use it.
func requiresOnlyImports(folder string) error {
	required, err := output(folder, "go", "list", "-m", "-f", "{{if not (or .Main .Indirect)}}{{.Path}}{{end}}", "all")
	if err != nil {
		return err
	}
	imported, err := output(folder, "go", "list", "-f", `{{join .Imports "\n"}}`, "./...")
	if err != nil {
		return err
	}
	for _, module := range required {
		if !slices.ContainsFunc(imported, func(pkg string) bool { return pkg == module || strings.HasPrefix(pkg, module+"/") }) {
			return fmt.Errorf("%s/go.mod requires %s, which none of its packages imports: its tests belong in a module of their own", folder, module)
		}
	}
	return nil
}

// output runs a command in folder and returns the words that it prints.
func output(folder, name string, args ...string) ([]string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = folder
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", folder, name, err)
	}
	return strings.Fields(string(out)), nil
}

// publish puts a module into a proxy's folder, as the tag of the version would have
// it.
func publish(proxy, folder, version string) error {
	files, err := filesOf(folder)
	if err != nil {
		return err
	}
	mod, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil {
		return err
	}
	at := filepath.Join(proxy, filepath.FromSlash(modulePath(folder)), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"list":            version + "\n",
		version + ".info": fmt.Sprintf(`{"Version":%q,"Time":"2026-01-01T00:00:00Z"}`, version),
		version + ".mod":  string(mod),
	} {
		if err := os.WriteFile(filepath.Join(at, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	f, err := os.Create(filepath.Join(at, version+".zip"))
	if err != nil {
		return err
	}
	z := zip.NewWriter(f)
	for _, name := range files {
		w, err := z.Create(modulePath(folder) + "@" + version + "/" + name)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(filepath.Join(folder, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return errors.Join(z.Close(), f.Close())
}

// filesOf returns the files of a module, without those of the modules below it and
// what begins with a dot.
func filesOf(folder string) (files []string, err error) {
	err = filepath.WalkDir(folder, func(at string, d fs.DirEntry, err error) error {
		if err != nil || at == folder {
			return err
		}
		if d.IsDir() {
			_, nested := os.Stat(filepath.Join(at, "go.mod"))
			if nested == nil || strings.HasPrefix(d.Name(), ".") {
				return filepath.SkipDir
			}
			return nil
		}
		name, err := filepath.Rel(folder, at)
		if d.Type().IsRegular() && !strings.HasPrefix(d.Name(), ".") {
			files = append(files, filepath.ToSlash(name))
		}
		return err
	})
	return files, err
}

// use gets the module from the proxy into a new module, and builds every package of it.
func use(dir, proxy, folder, version string) error {
	name := strings.ReplaceAll(folder, ".", "root")
	at := filepath.Join(dir, "stranger-"+name)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	cache, err := exec.Command("go", "env", "GOMODCACHE", "GOPROXY").Output()
	if err != nil {
		return err
	}
	known, next, _ := strings.Cut(strings.TrimSpace(string(cache)), "\n")
	run := func(args ...string) error {
		cmd := exec.Command("go", args...)
		cmd.Dir = at
		cmd.Env = append(os.Environ(),
			"GOPROXY=file://"+filepath.ToSlash(proxy)+",file://"+filepath.ToSlash(known)+"/cache/download,"+next,
			"GONOSUMDB="+root, "GOFLAGS=-modcacherw", "GOWORK=off",
			"GOMODCACHE="+filepath.Join(dir, "cache"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	for _, args := range [][]string{
		{"mod", "init", "example.com/stranger"},
		{"get", modulePath(folder) + "@" + version},
		{"build", modulePath(folder) + "/..."},
	} {
		if err := run(args...); err != nil {
			return err
		}
	}
	return nil
}
