package testserver

import (
	"os/exec"
	"syscall"
)

// Own makes cmd, before it is started, run as u. On Linux the kernel kills the process
// when the test has ended.
func (u *User) Own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: u.credential(), Pdeathsig: syscall.SIGKILL}
}
