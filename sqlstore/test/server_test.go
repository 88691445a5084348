// Package sqlstore_test tests sqlstore on real databases. It is a module of its own so
// that the users of sqlstore do not have the drivers in their go.sum.
package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/testserver"
	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	_ "modernc.org/sqlite"
)

// binary returns the path of a server, in Debian's places too. Without one the
// test fails where CI=true says that all must be there, and is skipped elsewhere.
func binary(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	places, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	for _, path := range append(places, "/usr/sbin/"+name) {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: make servers", name)
	}
	t.Skipf("%s is not installed: make servers", name)
	return ""
}

// A server is a private database server: a free loopback port and a temporary
// folder, both gone when the tests are done.
type server struct {
	dir  string
	port int
	args []string
	user *testserver.User
	cmd  *exec.Cmd
}

// servers are ended when all tests have run: a start takes seconds, and tests
// make tables of their own.
var servers []*server

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	_ = mysql.SetLogger(&mysql.NopLogger{})
	code := m.Run()
	for _, s := range slices.Backward(servers) {
		if s.cmd != nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
		_ = os.RemoveAll(s.dir)
	}
	os.Exit(code)
}

// newServer prepares a server in a folder that belongs to the user who runs it.
// Some servers will not run as root: as is then the user.
func newServer(t testing.TB, as string) *server {
	dir, err := os.MkdirTemp("", "sessions")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: dir, port: freePort(t)}
	servers = append(servers, s)
	if as != "" {
		s.user = testserver.Unprivileged(t, as, dir)
	}
	return s
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// run runs a program to its end, as the server's user.
func (s *server) run(t testing.TB, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = s.dir
	s.user.Own(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", args[0], err, out)
	}
}

func (s *server) start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, log, log
	s.user.Own(s.cmd)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// stop keeps the server and the processes it has started from doing anything,
// until the function that it returns is called.
func (s *server) stop(t testing.TB) (resume func()) {
	pids := []int{s.cmd.Process.Pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0]))
	for _, task := range tasks {
		children, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(children)) {
			pid, _ := strconv.Atoi(child)
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		if err := testserver.Suspend(pid); err != nil {
			t.Log(err) // a child that has ended meanwhile
		}
	}
	resume = sync.OnceFunc(func() {
		for _, pid := range pids {
			_ = testserver.Resume(pid)
		}
	})
	t.Cleanup(resume)
	return resume
}

// open connects to a server and waits until it answers.
func (s *server) open(t testing.TB, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	t.Cleanup(func() { db.Close() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err = db.PingContext(ctx)
		cancel()
		if err == nil {
			return db
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			t.Fatalf("%s does not answer: %v\n%s", s.args[0], err, log)
		}
	}
}

// once starts a server when the first test asks for it.
func once(start func(t testing.TB) *server) func(t testing.TB) *server {
	var s *server
	return func(t testing.TB) *server {
		if s == nil {
			s = start(t)
		}
		return s
	}
}

// postgres is a PostgreSQL with its default durability.
var postgres = once(func(t testing.TB) *server {
	postgres, initdb := binary(t, "postgres"), binary(t, "initdb")
	s := newServer(t, "postgres")
	data := filepath.Join(s.dir, "data")
	s.run(t, initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	s.args = []string{postgres, "-D", data, "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-k", s.dir}
	s.start(t)
	return s
})

func postgresDSN(port int) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port)
}

func openPostgres(t testing.TB) *sql.DB {
	s := postgres(t)
	return s.open(t, "pgx", postgresDSN(s.port))
}

// openLibPQ connects to the same server with lib/pq.
func openLibPQ(t testing.TB) *sql.DB {
	s := postgres(t)
	return s.open(t, "postgres", postgresDSN(s.port))
}

// pgbouncer is a pooler in transaction mode before the PostgreSQL.
var pgbouncer = once(func(t testing.TB) *server {
	path := binary(t, "pgbouncer")
	behind := postgres(t)
	s := newServer(t, "postgres")
	config := filepath.Join(s.dir, "pgbouncer.ini")
	text := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%d user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nunix_socket_dir =\n", behind.port, s.port)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s.args = []string{path, config}
	s.start(t)
	return s
})

func openPgBouncer(t testing.TB) *sql.DB {
	openPostgres(t) // it must be up
	s := pgbouncer(t)
	return s.open(t, "pgx", postgresDSN(s.port)+"&default_query_exec_mode=exec")
}

// mariadb is a MariaDB, with its default durability too.
var mariadb = once(func(t testing.TB) *server {
	mariadbd, install := binary(t, "mariadbd"), binary(t, "mariadb-install-db")
	s := newServer(t, "mysql")
	data := filepath.Join(s.dir, "data")
	s.run(t, install, "--no-defaults", "--auth-root-authentication-method=normal", "--datadir="+data, "--skip-test-db", "--skip-name-resolve")
	s.args = []string{mariadbd, "--no-defaults", "--datadir=" + data, "--bind-address=127.0.0.1", "--port=" + strconv.Itoa(s.port),
		"--socket=" + filepath.Join(s.dir, "sock"), "--pid-file=" + filepath.Join(s.dir, "pid")}
	s.start(t)
	return s
})

func mariadbDSN(port int) string {
	return fmt.Sprintf("root@tcp(127.0.0.1:%d)/mysql?interpolateParams=true", port)
}

func openMariaDB(t testing.TB) *sql.DB {
	s := mariadb(t)
	return s.open(t, "mysql", mariadbDSN(s.port))
}

// sqliteDSN is the README's: pragmas belong into it, for the pool opens
// connections as it likes.
func sqliteDSN(path string) string {
	return "file:" + path + "?_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"
}

// openSQLite is the README's too: the file is made first, for its owner's eyes,
// and one connection writes and reads.
func openSQLite(t testing.TB, path, more string) *sql.DB {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	db, err := sql.Open("sqlite", sqliteDSN(path)+more)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}
