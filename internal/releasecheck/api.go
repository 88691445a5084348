package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// compare prints how the exported names of the published modules differ from those of the
// last release, as apidiff, which go run finds by this package path, says it.
func compare(apidiff string) error {
	tags, err := output(".", "git", "tag", "--merged", "HEAD", "--no-contains", "HEAD", "--sort=-version:refname", "--list", "v*")
	if err != nil {
		return err
	}
	if len(tags) == 0 {
		fmt.Println("There is no earlier release to compare with.")
		return nil
	}
	dir, err := os.MkdirTemp("", "releasecheck")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	before := filepath.Join(dir, "before")
	if _, err := output(".", "git", "worktree", "add", "--quiet", "--detach", before, tags[0]); err != nil {
		return err
	}
	defer output(".", "git", "worktree", "remove", "--force", before)
	for _, folder := range published {
		name := modulePath(folder)
		if _, err := os.Stat(filepath.Join(before, folder, "go.mod")); err != nil {
			fmt.Printf("%s is not in %s.\n", name, tags[0])
			continue
		}
		api := filepath.Join(dir, "api")
		write := exec.Command("go", "run", apidiff, "-m", "-w", api, name)
		write.Dir = filepath.Join(before, folder)
		if out, err := write.CombinedOutput(); err != nil {
			return fmt.Errorf("%s of %s: %w\n%s", name, tags[0], err, out)
		}
		cmd := exec.Command("go", "run", apidiff, "-m", api, name)
		var stderr strings.Builder // says which internal packages it ignores
		cmd.Dir, cmd.Stderr = folder, &stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, stderr.String())
		}
		if strings.TrimSpace(string(out)) == "" {
			out = []byte("no changes\n")
		}
		fmt.Printf("%s since %s:\n%s", name, tags[0], out)
	}
	return nil
}
