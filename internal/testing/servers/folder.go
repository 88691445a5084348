package servers

import (
	"os"
	"os/exec"
	accounts "os/user"
	"strconv"
	"testing"
)

// A user is the account of a program that refuses to run as root. A nil user is the
// account of the test.
type user struct{ uid, gid int }

// A folder has the files of a server, and belongs to the user who runs the server.
type folder struct {
	path string
	user *user
}

// newFolder makes a folder that is removed after the test. If the test runs as root, the
// folder belongs to the named account; "" is the account of the test.
func newFolder(t testing.TB, account string) folder {
	t.Helper()
	path, err := os.MkdirTemp("", "servers") // not t.TempDir, which other accounts cannot read
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(path) })
	if account == "" || os.Getuid() != 0 {
		return folder{path, nil}
	}
	a, err := accounts.Lookup(account)
	if err != nil {
		t.Fatal(err)
	}
	u := &user{}
	u.uid, _ = strconv.Atoi(a.Uid)
	u.gid, _ = strconv.Atoi(a.Gid)
	if err := os.Chown(path, u.uid, u.gid); err != nil {
		t.Fatal(err)
	}
	return folder{path, u}
}

// run runs a program to its end, as the folder's user.
func (f folder) run(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = f.path
	f.user.own(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", args[0], err, out)
	}
}
