package main

import (
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// TestRights checks that the rights that README.md lists are enough.
func TestRights(t *testing.T) {
	check := func(t *testing.T, p *place, mayNot ...string) {
		m := p.manager(session.Options{})
		id, value := p.begin(m, "alice")
		p.begin(m, "alice")
		p.run("list", "alice").want(t, exitDone, id)
		p.run("show", id).want(t, exitDone, "is live")
		p.runWith(value, "cookie").want(t, exitDone, "It works.")
		p.run("-yes", "revoke", "alice", id).want(t, exitDone, "Ended 1 session")
		p.run("-yes", "revoke-all", "alice").want(t, exitDone, "Ended 1 session")
		for _, command := range mayNot {
			p.run(command).want(t, exitStore)
		}
	}
	t.Run("Redis", func(t *testing.T) {
		p := redisPlace(t)
		acl := func(rules string) {
			t.Helper()
			args := []any{"acl", "setuser", "night"}
			for rule := range strings.FieldsSeq(rules) {
				args = append(args, rule)
			}
			must(t, p.redis.Do(t.Context(), args...).Err())
		}
		acl("on >" + password + " ~" + p.name + "* +get +getdel +eval +evalsha +zrange +zrem +zremrangebyscore +zadd +getrange +setrange +strlen +set +del +pexpire +pttl +info")
		p.env["SESSION_STORE"] = strings.Replace(p.env["SESSION_STORE"], "redis://:", "redis://night:", 1)
		check(t, p, "count")
		acl("+scan +dbsize")
		p.run("count").want(t, exitDone, "0, of 0 users")
		acl("+time +config|get")
		p.run("check").want(t, exitBad, "persistence is off", "ok  the clock")
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		p := postgresPlace(t)
		p.exec("CREATE ROLE night_TABLE_NAME LOGIN")
		p.exec("GRANT SELECT, UPDATE ON TABLE_NAME TO night_TABLE_NAME")
		p.env["SESSION_STORE"] = strings.Replace(p.env["SESSION_STORE"], "postgres:p4ss", "night_"+p.name+":p4ss", 1)
		check(t, p, "sweep")
		p.run("count").want(t, exitDone, "0, of 0 users")
		p.run("check").want(t, exitDone, "Nothing was found")
		p.exec("GRANT DELETE ON TABLE_NAME TO night_TABLE_NAME")
		p.run("sweep").want(t, exitDone)
	})
	t.Run("MariaDB", func(t *testing.T) {
		p := mariadbPlace(t)
		p.exec("CREATE USER night_TABLE_NAME")
		p.exec("GRANT SELECT, UPDATE ON mysql.TABLE_NAME TO night_TABLE_NAME")
		p.env["SESSION_STORE"] = strings.Replace(p.env["SESSION_STORE"], "app:p4ss%3Aw%40rd", "night_"+p.name, 1)
		p.expire()
		check(t, p, "sweep")
		p.run("check").want(t, exitDone, "?? ")
		p.exec("GRANT REPLICA MONITOR, REPLICATION MASTER ADMIN ON *.* TO night_TABLE_NAME")
		p.run("check").want(t, exitDone, "ok  the server is a primary", "no replica is connected")
		p.exec("GRANT DELETE ON mysql.TABLE_NAME TO night_TABLE_NAME")
		p.run("sweep").want(t, exitDone, "Deleted 1 expired session")
	})
}
