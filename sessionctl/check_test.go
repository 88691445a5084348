package main

import (
	"database/sql"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/testing/servers"
	"github.com/coatcheck/session/sqlstore"
)

// checked runs check with JSON, and returns the texts with a mark.
func (p *place) checked(mark string) (texts []string) {
	p.t.Helper()
	var r report
	result := p.run("-json", "check")
	result.parse(p.t, &r)
	if want := map[bool]int{true: exitDone, false: exitBad}[r.Good]; result.status != want {
		p.t.Errorf("the exit status is %d, want %d", result.status, want)
	}
	for _, l := range r.Lines {
		if l.Mark == mark {
			texts = append(texts, l.Text)
		}
	}
	return texts
}

// finds checks that check has these findings, and no other.
func (p *place) finds(want ...string) {
	p.t.Helper()
	p.same(p.checked(markBad), want)
}

func (p *place) same(got, want []string) {
	p.t.Helper()
	if len(got) != len(want) {
		p.t.Errorf("check found %q, want %q", got, want)
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			p.t.Errorf("check found %q, want %q", got, want)
		}
	}
}

func TestCheckRedis(t *testing.T) {
	s := servers.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	p := placeInRedis(t, s, "")
	p.run("check").want(t, exitDone, "ok  no eviction", "ok  the clock of this machine", "Nothing was found that loses sessions.")
	for _, setting := range [][2]string{{"appendfsync", "everysec"}, {"maxmemory-policy", "allkeys-lru"}} {
		must(t, p.redis.ConfigSet(t.Context(), setting[0], setting[1]).Err())
	}
	p.run("check").want(t, exitBad, "!!  maxmemory-policy is allkeys-lru", "!!  appendfsync is everysec", "2 findings (!!).")
	p.finds("appendfsync is everysec", "maxmemory-policy is allkeys-lru")
	for _, setting := range [][2]string{{"appendfsync", "always"}, {"maxmemory-policy", "noeviction"}} {
		must(t, p.redis.ConfigSet(t.Context(), setting[0], setting[1]).Err())
	}

	must(t, p.redis.Do(t.Context(), "acl", "setuser", "app", "on", ">"+password, "~*", "+@all", "-config", "-time").Err())
	as := *p
	as.env = map[string]string{"SESSION_STORE": "redis://app:p4ss%3Aw%40rd@" + s.Addr}
	as.same(as.checked(markUnseen), []string{"CONFIG GET", "TIME"})
	as.run("check").want(t, exitDone, "??  not allowed to ask: CONFIG GET", "Could not be examined (??): 2 points.")
	must(t, p.redis.Do(t.Context(), "acl", "setuser", "app", "-scan").Err())
	as.run("count").want(t, exitStore, "the account lacks a right", "NOPERM")
}

func TestCheckPostgres(t *testing.T) {
	s := servers.Postgres(t, "-c", "wal_level=replica")
	p := placeInPostgres(t, s)
	p.run("check").want(t, exitDone, "ok  the server is a primary", "ok  the clock of this machine", "-   no replica is connected", "Nothing was found")

	p.exec("ALTER TABLE TABLE_NAME SET UNLOGGED")
	p.finds("the table is unlogged")
	p.exec("ALTER TABLE TABLE_NAME SET LOGGED")

	p.exec("CREATE ROLE app LOGIN")
	for setting, want := range map[string]string{
		"synchronous_commit = off":                       "synchronous_commit is off for role app",
		"default_transaction_isolation = 'serializable'": "the isolation level of role app is serializable",
		"default_transaction_read_only = on":             "default_transaction_read_only is on for role app",
	} {
		p.exec("ALTER ROLE app SET " + setting)
		p.finds(want)
		p.exec("ALTER ROLE app RESET ALL")
	}
	for setting, want := range map[string]string{
		"synchronous_commit=off":                     "synchronous_commit is off for this account",
		"default_transaction_isolation=serializable": "the isolation level of this account is serializable",
	} {
		with := *p
		with.env = map[string]string{"SESSION_STORE": p.env["SESSION_STORE"] + "&" + setting}
		with.finds(want)
	}
}

// TestCheckPostgresReplicas checks a primary with a replica, whose commits wait for it or not, and
// the replica.
func TestCheckPostgresReplicas(t *testing.T) {
	primary := servers.Postgres(t)
	p := placeInPostgres(t, primary)
	replica := servers.PostgresReplica(t, primary)
	servers.Eventually(t, "the replica follows", func() bool {
		var n int
		return p.db.QueryRow("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").Scan(&n) == nil && n == 1
	})
	p.finds("1 replica is connected, and synchronous_standby_names is empty")
	set := func(standbys string) {
		p.exec("ALTER SYSTEM SET synchronous_standby_names = '" + standbys + "'")
		p.exec("SELECT pg_reload_conf()")
		servers.Eventually(t, "the setting is read", func() bool {
			var now string
			return p.db.QueryRow("SHOW synchronous_standby_names").Scan(&now) == nil && now == standbys
		})
	}
	set("*")
	p.run("check").want(t, exitDone, "ok  1 replica is connected, and commits wait for one")
	local := *p
	local.env = map[string]string{"SESSION_STORE": p.env["SESSION_STORE"] + "&synchronous_commit=local"}
	local.finds("synchronous_commit is local, so a commit waits for none")

	at := *p
	at.env = map[string]string{"SESSION_STORE": servers.PostgresURL(replica.Addr)}
	servers.Eventually(t, "the replica has the table", func() bool { return at.run("count").status == exitDone })
	at.finds("the server is a replica")
	replica.Kill()
	servers.Eventually(t, "the primary notices", func() bool {
		var n int
		return p.db.QueryRow("SELECT count(*) FROM pg_stat_replication").Scan(&n) == nil && n == 0
	})
	p.finds("synchronous_standby_names is set and no replica is connected")
}

func TestCheckMariaDB(t *testing.T) {
	s := servers.MariaDB(t)
	p := newPlace(t, "mysql://root@"+s.Addr+"/mysql").inDatabase("mysql", servers.MariaDBDSN(s.Addr), "mysql")
	p.run("check").want(t, exitDone, "ok  writes are committed at once", "ok  the clock of this machine", "-   no replica is connected", "Nothing was found")
	for _, test := range []struct{ set, reset, want string }{
		{"autocommit = 0", "autocommit = 1", "autocommit is off"},
		{"read_only = 1", "read_only = 0", "read_only is ON"},
		{"innodb_flush_log_at_trx_commit = 2", "innodb_flush_log_at_trx_commit = 1", "innodb_flush_log_at_trx_commit is 2"},
		{"tx_isolation = 'READ-UNCOMMITTED'", "tx_isolation = 'REPEATABLE-READ'", "the isolation level is READ-UNCOMMITTED"},
	} {
		p.exec("SET GLOBAL " + test.set)
		p.finds(test.want)
		if test.set == "autocommit = 0" {
			p.losesWrites(servers.MariaDBDSN(s.Addr))
		}
		p.exec("SET GLOBAL " + test.reset)
	}
	p.exec("ALTER TABLE TABLE_NAME ENGINE = MyISAM")
	p.finds("the engine of the table is MyISAM")
	p.exec("ALTER TABLE TABLE_NAME ENGINE = InnoDB")

	p.exec("CREATE USER app")
	p.exec("GRANT SELECT ON mysql.* TO app")
	as := *p
	as.env = map[string]string{"SESSION_STORE": "mysql://app@" + s.Addr + "/mysql"}
	as.same(as.checked(markUnseen), []string{"whether the server is a replica", "may not ask for replicas"})
}

// TestCheckMariaDBReplicas checks a primary with a replica, whose commits wait for it or not, and
// the replica.
func TestCheckMariaDBReplicas(t *testing.T) {
	open := func(s *servers.Server) *place { return newPlace(t, "mysql://root@"+s.Addr+"/mysql") }
	primary := servers.MariaDB(t, "--log-bin=binlog", "--server-id=1")
	replica := servers.MariaDB(t, "--server-id=2")
	p := open(primary).inDatabase("mysql", servers.MariaDBDSN(primary.Addr), sqlstore.MySQL)
	at := open(replica).inDatabase("mysql", servers.MariaDBDSN(replica.Addr), sqlstore.MySQL)
	at.exec("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = " + primary.Port() + ", MASTER_USER = 'root'")
	at.exec("START SLAVE")
	at.finds("the server is a replica")
	servers.Eventually(t, "the replica is registered", func() bool { return !strings.Contains(p.run("check").out, "no replica is connected") })
	p.finds("semi-synchronous replication is OFF and sync_binlog is 0")
	p.exec("SET GLOBAL rpl_semi_sync_master_enabled = ON")
	p.finds("semi-synchronous replication is ON and sync_binlog is 0")
	p.exec("SET GLOBAL sync_binlog = 1")
	p.run("check").want(t, exitDone, "ok  1 replica is connected, and commits wait for one")
}

// losesWrites checks what the finding says: what a program stores is gone when its connection ends.
func (p *place) losesWrites(dsn string) {
	p.t.Helper()
	db, err := sql.Open("mysql", dsn)
	must(p.t, err)
	store, err := sqlstore.New(db, sqlstore.MySQL, &sqlstore.Options{Table: p.name})
	must(p.t, err)
	now := time.Now().Truncate(time.Millisecond)
	must(p.t, store.Create(p.t.Context(), &session.Record{ID: "lost", Data: []byte("{}"), Version: 1, Created: now, LastSeen: now, Deadline: now.Add(time.Hour), Expires: now.Add(time.Hour)}))
	must(p.t, db.Close())
	if _, err := p.store.Load(p.t.Context(), "lost"); err != session.ErrNotFound {
		p.t.Errorf("a session is stored without autocommit: %v", err)
	}
}

func TestCheckSQLite(t *testing.T) {
	p := sqlitePlace(t)
	p.run("check").want(t, exitDone, "ok  the file is not damaged", "ok  the file has a write-ahead log", "??  how the application opens the file", "Nothing was found")
	p.exec("PRAGMA journal_mode = DELETE")
	p.run("check").want(t, exitDone, "-   the file has no write-ahead log")
}

// TestClock checks the comparison of two clocks. The server reads its clock during a call of a
// second.
func TestClock(t *testing.T) {
	before := time.UnixMilli(1732639200000)
	for _, test := range []struct{ server, want time.Duration }{
		{0, 0}, {time.Second, 0}, {-time.Minute, time.Minute}, {time.Minute, -59 * time.Second},
	} {
		if got := skew(before, before.Add(test.server), before.Add(time.Second)); got != test.want {
			t.Errorf("the clock of a server that is ahead by %v: %v, want %v", test.server, got, test.want)
		}
	}
	for ahead, want := range map[time.Duration]string{0: "within 2 s of each other", -24 * time.Hour: " ahead of that of the server", 24 * time.Hour: " behind that of the server"} {
		c := &checkup{}
		must(t, c.clock("the server", func() (time.Time, error) { return time.Now().Add(ahead), nil }))
		if len(c.Lines) != 1 || !strings.Contains(c.Lines[0].Text, want) || (c.status() == exitDone) != (ahead == 0) {
			t.Errorf("a server that is ahead by %v: %+v", ahead, c.Lines)
		}
	}
	if err := new(checkup).clock("the server", func() (time.Time, error) { return time.Time{}, os.ErrClosed }); err == nil {
		t.Error("an error was lost")
	}
}
