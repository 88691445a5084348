package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/coatcheck/session"
)

// TestTerminal checks that the program itself asks on a terminal before it ends sessions, and
// obeys the answer.
func TestTerminal(t *testing.T) {
	program := filepath.Join(t.TempDir(), "sessionctl")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := sqlitePlace(t)
	m := p.manager(session.Options{})
	id, value := p.begin(m, "alice")
	for _, test := range []struct {
		answer string
		status int
		texts  []string
		isLive bool
	}{
		{"\n", exitRefused, []string{"[y/N]", "not confirmed: nothing was changed"}, true},
		{"n\n", exitRefused, []string{"not confirmed"}, true},
		{"\x04", exitRefused, []string{"not confirmed"}, true}, // Ctrl-D
		{"y\n", exitDone, []string{"End 1 session of alice", p.env["SESSION_STORE"], "Ended 1 session"}, false},
	} {
		out, status := p.onTerminal(program, test.answer, "revoke-all", "alice")
		result{out: out, status: status}.want(t, test.status, test.texts...)
		if p.isLive(m, "alice", id) != test.isLive {
			t.Errorf("after the answer %q the session is live: %v", test.answer, !test.isLive)
		}
	}
	_, other := p.begin(m, "bob")
	out, status := p.onTerminal(program, other+"\n", "cookie")
	result{out: strings.ReplaceAll(out, other, "(what was pasted)"), status: status}.want(t, exitDone, "Paste the cookie's value", "It works.")
	_ = value
}

// onTerminal runs the program on a terminal of its own.
func (p *place) onTerminal(program, answer string, args ...string) (out string, status int) {
	p.t.Helper()
	master, terminal := openTerminal(p.t)
	cmd := exec.Command(program, append(p.args[:len(p.args):len(p.args)], args...)...)
	for name, text := range p.env {
		cmd.Env = append(cmd.Env, name+"="+text)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	must(p.t, cmd.Start())
	must(p.t, terminal.Close())
	_, err := master.WriteString(answer)
	must(p.t, err)
	var all bytes.Buffer
	_, _ = all.ReadFrom(master) // EIO when the program has ended
	_ = cmd.Wait()
	return strings.ReplaceAll(all.String(), "\r\n", "\n"), cmd.ProcessState.ExitCode()
}

// openTerminal returns the two ends of a pseudoterminal: see pty(7).
func openTerminal(t testing.TB) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there is no /dev/ptmx: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	ioctl := func(request uintptr, argument *int32) {
		if _, _, code := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(argument))); code != 0 {
			t.Fatal(code)
		}
	}
	var unlock, number int32
	ioctl(syscall.TIOCSPTLCK, &unlock)
	ioctl(syscall.TIOCGPTN, &number)
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	must(t, err)
	return master, terminal
}
