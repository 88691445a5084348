//go:build unix

package testserver

import "syscall"

func (u *User) credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)}
}

// Suspend keeps a process from running until Resume.
func Suspend(pid int) error { return syscall.Kill(pid, syscall.SIGSTOP) }

// Resume lets a suspended process run again.
func Resume(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }
