package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
)

// A goMod is what `go mod edit -json` prints.
type goMod struct {
	Module  struct{ Path string }
	Require []struct{ Path, Version string }
	Replace []struct {
		Old, New struct{ Path, Version string }
	}
}

func readGoMod(folder string) (m goMod, err error) {
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = folder
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &m)
	}
	if err != nil {
		err = fmt.Errorf("%s/go.mod: %w", folder, err)
	}
	return m, err
}

// modules returns the folders of all modules of the checkout.
func modules() (folders []string, err error) {
	err = filepath.WalkDir(".", func(at string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && at != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.Name() == "go.mod":
			folders = append(folders, filepath.Dir(at))
		}
		return nil
	})
	return folders, err
}

func isOurs(module string) bool { return module == root || strings.HasPrefix(module, root+"/") }

// requiredVersion returns the version at which every module requires the others of this
// project: the one that is tagged next. It is one version, because internal packages, which
// other modules import, make no promise between versions. Each module is replaced by its
// folder, so that a checkout builds by itself.
func requiredVersion() (version string, err error) {
	folders, err := modules()
	if err != nil {
		return "", err
	}
	for _, folder := range folders {
		m, err := readGoMod(folder)
		if err != nil {
			return "", err
		}
		replaced := map[string]string{}
		for _, r := range m.Replace {
			if !isOurs(r.Old.Path) {
				return "", fmt.Errorf("%s/go.mod replaces %s: the users of the module would get another one than its tests", folder, r.Old.Path)
			}
			replaced[r.Old.Path] = filepath.Join(folder, filepath.FromSlash(r.New.Path))
		}
		for _, r := range m.Require {
			if !isOurs(r.Path) {
				continue
			}
			if version == "" {
				version = r.Version
			}
			if r.Version != version {
				return "", fmt.Errorf("%s/go.mod requires %s %s, and another go.mod requires %s: all modules are tagged together", folder, r.Path, r.Version, version)
			}
			if want := filepath.Join(".", strings.TrimPrefix(r.Path, root)); replaced[r.Path] != want {
				return "", fmt.Errorf("%s/go.mod does not replace %s by its folder", folder, r.Path)
			}
		}
	}
	return version, nil
}

// isUntagged fails if the version is an earlier release. The modules may have changed
// since, so they must not be satisfied with what that release had.
func isUntagged(version string) error {
	head, err := output(".", "git", "rev-parse", "HEAD")
	if err != nil {
		fmt.Println("Skipped: whether", version, "is tagged already, which only a git repository tells.")
		return nil
	}
	tagged, err := output(".", "git", "for-each-ref", "--format=%(*objectname)%(objectname)", "refs/tags/"+version)
	if err != nil {
		return err
	}
	if len(tagged) > 0 && !strings.HasPrefix(tagged[0], head[0]) {
		return fmt.Errorf("%s is tagged already: go run ./internal/releasecheck -raise with the next version", version)
	}
	return nil
}

// raise has every module require the others of this project at a version.
func raise(version string) error {
	folders, err := modules()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		m, err := readGoMod(folder)
		if err != nil {
			return err
		}
		for _, r := range m.Require {
			if isOurs(r.Path) {
				if _, err := output(folder, "go", "mod", "edit", "-require="+r.Path+"@"+version); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
