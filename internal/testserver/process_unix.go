//go:build unix

package testserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func (u *User) credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)}
}

// Suspend keeps a process from running until Resume. Where there is a /proc it returns
// when all threads have stopped: on a busy machine they go on for a while.
func Suspend(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !running(pid) {
			return nil
		}
	}
	return fmt.Errorf("process %d does not stop", pid)
}

// running reports whether a thread of the process is neither stopped nor gone.
func running(pid int) bool {
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

// Resume lets a suspended process run again.
func Resume(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }
