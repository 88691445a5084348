//go:build unix

package servers

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// own makes cmd, before it is started, run as u and in a process group of its own, so that
// `kill -9 0` in a shell ends what that shell has started and nothing else.
func (u *user) own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if u != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)}
	}
}

// suspendProcess keeps a process from running until resumeProcess. Where there is a /proc
// it returns when all threads have stopped: on a busy machine they run on for a while.
func suspendProcess(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !isRunning(pid) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not stop", pid)
}

// isRunning reports whether a thread of the process has neither stopped nor ended.
func isRunning(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		_, state, ok := strings.Cut(string(stat), ") ") // the state comes after the name
		if err == nil && ok && !strings.ContainsAny(state[:1], "TtZX") {
			return true
		}
	}
	return false
}

func resumeProcess(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }
