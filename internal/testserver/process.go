package testserver

import (
	"os"
	"os/user"
	"strconv"
	"testing"
)

// A User is the account of a program that refuses to run as root. A nil User is the
// account of the test.
type User struct{ uid, gid int }

// Unprivileged returns the user of this name and makes dir the user's own. It returns
// nil unless the test runs as root.
func Unprivileged(t testing.TB, name, dir string) *User {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	account, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(account.Uid)
	gid, _ := strconv.Atoi(account.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	return &User{uid, gid}
}
