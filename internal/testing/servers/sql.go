package servers

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Postgres starts a PostgreSQL with its default durability, but for what args say, such as
// "-c", "fsync=off".
func Postgres(t testing.TB, args ...string) *Server {
	t.Helper()
	postgres, initdb := Program(t, "postgres"), Program(t, "initdb")
	f := newFolder(t, "postgres")
	data := filepath.Join(f.path, "data")
	f.run(t, initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	return startOnPort(t, Command{Dir: f.path, user: f.user}, postgresAnswers, func(port string) []string {
		return append([]string{postgres, "-D", data, "-h", "127.0.0.1", "-p", port, "-k", f.path}, args...)
	})
}

// PostgresReplica starts a streaming replica of a PostgreSQL.
func PostgresReplica(t testing.TB, of *Server) *Server {
	t.Helper()
	postgres, backup := Program(t, "postgres"), Program(t, "pg_basebackup")
	f := newFolder(t, "postgres")
	data := filepath.Join(f.path, "data")
	f.run(t, backup, "-D", data, "-h", "127.0.0.1", "-p", of.Port(), "-U", "postgres", "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	return startOnPort(t, Command{Dir: f.path, user: f.user}, postgresAnswers, func(port string) []string {
		return []string{postgres, "-D", data, "-h", "127.0.0.1", "-p", port, "-k", f.path}
	})
}

// PgBouncer starts a pooler in transaction mode in front of a PostgreSQL.
func PgBouncer(t testing.TB, behind *Server) *Server {
	t.Helper()
	path, f := Program(t, "pgbouncer"), newFolder(t, "postgres")
	config := filepath.Join(f.path, "pgbouncer.ini")
	return startOnPort(t, Command{Dir: f.path, user: f.user}, postgresAnswers, func(port string) []string {
		text := fmt.Sprintf("[databases]\n* = host=127.0.0.1 port=%s user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nunix_socket_dir =\n", behind.Port(), port)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return []string{path, config}
	})
}

// PostgresURL returns the URL of the database that [Postgres] has, at the server's address
// or that of a proxy in front of it.
func PostgresURL(addr string) string {
	return "postgres://postgres@" + addr + "/postgres?sslmode=disable"
}

// postgresAnswers reports whether a server lets the user "postgres" log in: it listens
// before that.
func postgresAnswers(addr string) bool {
	const version3 = 3 << 16 // of the protocol
	parameters := "user\x00postgres\x00database\x00postgres\x00\x00"
	message := binary.BigEndian.AppendUint32(nil, uint32(8+len(parameters)))
	message = binary.BigEndian.AppendUint32(message, version3)
	return probe(addr, string(message)+parameters, func(r *bufio.Reader) bool {
		kind, err := r.ReadByte()
		return err == nil && kind == 'R' // AuthenticationOk; 'E' while it starts
	})
}

// MariaDB starts a MariaDB with its default durability, but for what args say, such as
// "--log-bin".
func MariaDB(t testing.TB, args ...string) *Server {
	t.Helper()
	mariadbd, install := Program(t, "mariadbd"), Program(t, "mariadb-install-db")
	f := newFolder(t, "mysql")
	data := filepath.Join(f.path, "data")
	f.run(t, install, "--no-defaults", "--auth-root-authentication-method=normal", "--datadir="+data, "--skip-test-db", "--skip-name-resolve")
	return startOnPort(t, Command{Dir: f.path, user: f.user}, mariaDBAnswers, func(port string) []string {
		return append([]string{mariadbd, "--no-defaults", "--datadir=" + data, "--bind-address=127.0.0.1", "--port=" + port,
			"--socket=" + filepath.Join(f.path, "sock"), "--pid-file=" + filepath.Join(f.path, "pid")}, args...)
	})
}

// MariaDBDSN returns the data source name of the database that [MariaDB] has, at the
// server's address or that of a proxy in front of it.
func MariaDBDSN(addr string) string {
	return "root@tcp(" + addr + ")/mysql?interpolateParams=true"
}

// mariaDBAnswers reports whether a server greets with version 10 of the protocol.
func mariaDBAnswers(addr string) bool {
	return probe(addr, "", func(r *bufio.Reader) bool {
		head, err := r.Peek(5) // length, number of the packet, version
		return err == nil && head[4] == 10
	})
}
