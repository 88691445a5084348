package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// missing adds a finding if the table does not exist.
func (c *checkup) missing(ctx context.Context, s *sqlTarget) (bool, error) {
	_, err := s.db.ExecContext(ctx, "SELECT 1 FROM "+s.table+" WHERE 1 = 0")
	if isNoTable(err) {
		c.say(markBad, "there is no table %q, so every request that needs a session is answered with 503: let the program call Migrate when it starts, or name another table by -table", s.table)
		return true, nil
	}
	return false, err
}

// sqlClock compares the clocks; query returns that of the server in Unix milliseconds.
func (c *checkup) sqlClock(ctx context.Context, s *sqlTarget, query string) error {
	return c.clock("the server", func() (time.Time, error) {
		var ms int64
		err := s.db.QueryRowContext(ctx, query).Scan(&ms)
		return time.UnixMilli(ms), err
	})
}

func (c *checkup) postgres(ctx context.Context, s *sqlTarget) error {
	if missing, err := c.missing(ctx, s); missing || err != nil {
		return err
	}
	var isReplica bool
	var number int
	var persistence, fsync, pages, standbys, version string
	var role setting
	err := s.db.QueryRowContext(ctx, `SELECT pg_is_in_recovery(), current_setting('server_version_num')::int, current_setting('server_version'),
		(SELECT relpersistence::text FROM pg_class WHERE oid = to_regclass($1)),
		current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_standby_names'),
		current_setting('synchronous_commit'), current_setting('default_transaction_isolation'), current_setting('default_transaction_read_only')`, s.table).
		Scan(&isReplica, &number, &version, &persistence, &fsync, &pages, &standbys, &role.commit, &role.isolation, &role.readOnly)
	if err != nil {
		return err
	}
	c.expect(number >= 140000, "the version is "+version, "the version %s is too old: use PostgreSQL 14 or later", version)
	c.expect(!isReplica, "the server is a primary",
		"the server is a replica: it lags, shows sessions that have ended, and refuses writes; connect to the primary (target_session_attrs=read-write in the URL)")
	c.expect(persistence == "p", "the table survives a crash",
		"the table is unlogged or temporary, so a crash empties it: ALTER TABLE %s SET LOGGED", s.table)
	c.expect(fsync == "on" && pages == "on", "writes reach the disk (fsync, full_page_writes)",
		"fsync is %s and full_page_writes is %s, so a crash can damage the whole database: set both to on", fsync, pages)
	c.postgresRole(role, "this account")
	if err := c.postgresRoles(ctx, s); err != nil {
		return err
	}
	if !isReplica {
		if err := c.postgresReplicas(ctx, s, standbys, role.commit); err != nil {
			return err
		}
	}
	return c.sqlClock(ctx, s, "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
}

// A setting has the parameters of PostgreSQL that may differ between roles; "" is not set.
type setting struct{ commit, isolation, readOnly string }

// postgresRole examines the parameters of one role.
func (c *checkup) postgresRole(s setting, of string) {
	if s.commit != "" {
		c.expect(s.commit != "off", "a commit waits for the disk, for "+of+" (synchronous_commit is "+s.commit+")",
			"synchronous_commit is off for %s, so a crash loses the last acknowledged writes, logouts among them: set on", of)
	}
	if s.isolation != "" {
		c.expect(s.isolation == "read committed" || s.isolation == "read uncommitted", "the isolation level is "+s.isolation+", for "+of,
			"the isolation level of %s is %s: no session is lost, but concurrent requests of one session roll each other back and are retried, until some get 503; set default_transaction_isolation to 'read committed'", of, s.isolation)
	}
	if s.readOnly != "" {
		c.expect(s.readOnly == "off", "writes are allowed, for "+of,
			"default_transaction_read_only is on for %s, so every login and logout is answered with 503: set off", of)
	}
}

// postgresRoles examines the parameters that are set for other roles or databases: the application
// may connect as another role than this command.
func (c *checkup) postgresRoles(ctx context.Context, s *sqlTarget) error {
	rows, err := s.db.QueryContext(ctx, `SELECT coalesce('role ' || r.rolname, 'every role'), unnest(s.setconfig)
		FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
		WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) AND coalesce(r.rolname, '') <> current_user
		ORDER BY 1, 2`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var role, config string
		if err := rows.Scan(&role, &config); err != nil {
			return err
		}
		switch name, value, _ := strings.Cut(config, "="); name {
		case "synchronous_commit":
			c.postgresRole(setting{commit: value}, role)
		case "default_transaction_isolation":
			c.postgresRole(setting{isolation: value}, role)
		case "default_transaction_read_only":
			c.postgresRole(setting{readOnly: value}, role)
		}
	}
	return rows.Err()
}

// postgresReplicas examines whether a promoted replica could lack writes.
func (c *checkup) postgresReplicas(ctx context.Context, s *sqlTarget, standbys, commit string) error {
	var replicas int
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM pg_stat_replication").Scan(&replicas); err != nil {
		return err
	}
	switch {
	case replicas == 0 && standbys == "":
		c.say(markNote, "no replica is connected")
	case standbys == "":
		c.say(markBad, "%s connected, and synchronous_standby_names is empty: a promoted replica can lack acknowledged writes, logouts among them; name a replica there, or end all sessions after a failover", isAre(replicas, "replica"))
	case replicas == 0:
		c.say(markBad, "synchronous_standby_names is set and no replica is connected, so every write waits until it is answered with 503: start the replica")
	case commit == "local" || commit == "off":
		c.say(markBad, "%s connected, and synchronous_commit is %s, so a commit waits for none: a promoted replica can lack acknowledged writes, logouts among them; set on", isAre(replicas, "replica"), commit)
	default:
		c.say(markOK, "%s connected, and commits wait for one (synchronous_standby_names)", isAre(replicas, "replica"))
	}
	return nil
}

func (c *checkup) mysql(ctx context.Context, s *sqlTarget) error {
	if missing, err := c.missing(ctx, s); missing || err != nil {
		return err
	}
	v, err := variables(ctx, s)
	if err != nil {
		return err
	}
	c.expect(v["autocommit"] == "ON", "writes are committed at once (autocommit)",
		"autocommit is off, so no session is ever stored: set autocommit = ON, or add autocommit=1 to the data source name of the application")
	c.expect(v["read_only"] == "OFF", "the server accepts writes",
		"read_only is %s: the server is a replica, or writes are refused; connect to the primary", v["read_only"])
	c.expect(v["innodb_flush_log_at_trx_commit"] == "1", "a commit waits for the disk (innodb_flush_log_at_trx_commit is 1)",
		"innodb_flush_log_at_trx_commit is %s, so a crash loses about a second of acknowledged writes, logouts among them: set 1", v["innodb_flush_log_at_trx_commit"])
	if v["innodb_doublewrite"] != "" {
		c.expect(v["innodb_doublewrite"] == "ON", "a crash leaves no half-written page (innodb_doublewrite)",
			"innodb_doublewrite is %s, so a crash can damage the whole database: set ON", v["innodb_doublewrite"])
	}
	isolation := v["transaction_isolation"] + v["tx_isolation"] // MariaDB before 11.1 has the second one only
	if v["transaction_isolation"] != "" {
		isolation = v["transaction_isolation"]
	}
	c.expect(isolation != "READ-UNCOMMITTED", "the isolation level is "+isolation,
		"the isolation level is READ-UNCOMMITTED, so a request can see a login that is then rolled back: set REPEATABLE-READ, the default")
	if err := c.mysqlEngine(ctx, s); err != nil {
		return err
	}
	if err := c.mysqlReplicas(ctx, s, v); err != nil {
		return err
	}
	return c.sqlClock(ctx, s, "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED)")
}

// variables returns the variables of the server, as they are for this connection.
func variables(ctx context.Context, s *sqlTarget) (map[string]string, error) {
	rows, err := s.db.QueryContext(ctx, "SHOW VARIABLES")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		all[strings.ToLower(name)] = value
	}
	return all, rows.Err()
}

// mysqlEngine examines the engine of the table.
func (c *checkup) mysqlEngine(ctx context.Context, s *sqlTarget) error {
	schema, table, ok := strings.Cut(s.table, ".")
	if !ok {
		schema, table = "", s.table
	}
	var engine string
	err := s.db.QueryRowContext(ctx, "SELECT coalesce(engine, '') FROM information_schema.tables WHERE table_schema = coalesce(nullif(?, ''), database()) AND table_name = ?", schema, table).Scan(&engine)
	if err != nil {
		return err
	}
	c.expect(engine == "InnoDB", "the table survives a crash (its engine is InnoDB)",
		"the engine of the table is %s, which a crash damages or empties: ALTER TABLE %s ENGINE = InnoDB", engine, s.table)
	return nil
}

// mysqlReplicas examines whether the server is a replica, and whether a promoted replica could
// lack writes.
func (c *checkup) mysqlReplicas(ctx context.Context, s *sqlTarget, v map[string]string) error {
	sources, err := countRows(ctx, s, "SHOW REPLICA STATUS")
	if isDenied(err) {
		c.say(markUnseen, "this account may not ask whether the server is a replica: give it REPLICATION CLIENT (in MariaDB REPLICA MONITOR)")
	} else if err != nil {
		return err
	} else {
		c.expect(sources == 0, "the server is a primary",
			"the server is a replica: it lags, and shows sessions that have ended; connect to the primary")
	}
	query := "SHOW REPLICAS"
	if strings.Contains(v["version"], "MariaDB") {
		query = "SHOW REPLICA HOSTS"
	}
	replicas, err := countRows(ctx, s, query)
	isSemiSync := v["rpl_semi_sync_master_enabled"] == "ON" || v["rpl_semi_sync_source_enabled"] == "ON"
	switch {
	case isDenied(err):
		c.say(markUnseen, "this account may not ask for replicas: give it REPLICATION SLAVE (in MariaDB REPLICATION MASTER ADMIN)")
	case err != nil:
		return err
	case replicas == 0:
		c.say(markNote, "no replica is connected")
	default:
		c.expect(isSemiSync && v["sync_binlog"] == "1", isAre(replicas, "replica")+" connected, and commits wait for one (semi-synchronous replication)",
			"%s connected: semi-synchronous replication is %s and sync_binlog is %s, so a promoted replica can lack acknowledged writes, logouts among them; set ON and 1, or end all sessions after a failover",
			isAre(replicas, "replica"), map[bool]string{true: "ON", false: "OFF"}[isSemiSync], v["sync_binlog"])
	}
	return nil
}

// countRows returns the number of rows of a query.
func countRows(ctx context.Context, s *sqlTarget, query string) (n int, _ error) {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}

// isDenied reports whether err is the reply of MySQL that a privilege is missing.
func isDenied(err error) bool {
	var reply *mysql.MySQLError
	return errors.As(err, &reply) && reply.Number == 1227
}

func (c *checkup) sqlite(ctx context.Context, s *sqlTarget) error {
	if missing, err := c.missing(ctx, s); missing || err != nil {
		return err
	}
	var damage, journal string
	err := errors.Join(
		s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&damage),
		s.db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal))
	if err != nil {
		return err
	}
	c.expect(damage == "ok", "the file is not damaged (quick_check)",
		"the file is damaged (%s): stop the application, restore or delete the file, and end all sessions", plain(damage))
	if journal == "wal" {
		c.say(markOK, "the file has a write-ahead log (journal_mode is WAL)")
	} else {
		c.say(markNote, "the file has no write-ahead log: a write waits for reads; _pragma=journal_mode(WAL) in the data source name sets one")
	}
	if err := c.sqliteWrites(ctx, s); err != nil {
		return err
	}
	c.say(markOK, "the clock of the file is that of this machine")
	c.say(markUnseen, "how the application opens the file: its data source name must have _pragma=synchronous(FULL), and the file must be on a disk of this machine, not on a network file system")
	return nil
}

// sqliteWrites examines whether the file can be written, by a transaction that changes nothing.
func (c *checkup) sqliteWrites(ctx context.Context, s *sqlTarget) error {
	_, err := s.db.ExecContext(ctx, fmt.Sprintf("DELETE FROM %s WHERE 1 = 0", s.table))
	if err != nil && strings.Contains(err.Error(), "readonly") {
		c.say(markBad, "the file is read-only for this account: if the application has the same, every login and logout is answered with 503; make the file and its folder writable")
		return nil
	}
	return err
}
