//go:build !unix

package e2e

import "os/exec"

// ownGroup does nothing: the browsers that need it run on Unix only.
func ownGroup(*exec.Cmd) {}
