//go:build unix && !linux

package testserver

import (
	"os/exec"
	"syscall"
)

// Own makes cmd, before it is started, run as u.
func (u *User) Own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: u.credential()}
}
