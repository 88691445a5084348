//go:build !unix

package servers

import (
	"errors"
	"os/exec"
)

// own does nothing: without root no program needs another account, and the servers that
// are killed with their process group are started on Unix only.
func (u *user) own(cmd *exec.Cmd) {}

func suspendProcess(pid int) error { return errors.ErrUnsupported }

func resumeProcess(pid int) error { return errors.ErrUnsupported }
