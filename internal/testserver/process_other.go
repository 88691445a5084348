//go:build !unix

package testserver

import (
	"errors"
	"os/exec"
)

// Own does nothing: without root there is no other user to run as.
func (u *User) Own(cmd *exec.Cmd) {}

// Suspend keeps a process from running until Resume. Here it cannot.
func Suspend(pid int) error { return errors.ErrUnsupported }

// Resume lets a suspended process run again. Here it cannot.
func Resume(pid int) error { return errors.ErrUnsupported }
