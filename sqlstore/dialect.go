package sqlstore

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/coatcheck/session"
)

// A Dialect names a kind of database.
type Dialect string

// The dialects. MySQL includes MariaDB.
const (
	PostgreSQL Dialect = "postgresql" // 14 or later
	MySQL      Dialect = "mysql"      // MySQL 8, MariaDB 10.6, or later, with InnoDB
	SQLite     Dialect = "sqlite"     // 3.35 or later
)

// dialect describes how a database differs from the others.
type dialect struct {
	schema   []string // statements; %[1]s is the table's full name, %[2]s its schema with a dot, %[3]s its name alone
	lock     string   // statement that serializes concurrent migrations
	numbered bool     // whether parameters are $1, $2, … instead of ?
	greatest string
	least    string
	upsert   bool   // whether it has ON CONFLICT … DO UPDATE … WHERE
	prepare  bool   // whether the statement of Load is prepared once per Store
	byPage   bool   // whether Sweep reads the table by physical pages
	index    string // query that counts the index of the schema's second statement; "": no such statement
	maxData  int    // size limit of the data column in bytes; 0: none that matters
}

var dialects = map[Dialect]*dialect{
	PostgreSQL: {
		// The fillfactor and the lack of an index on expires make touches cheap: the new row
		// version fits on the page of the old one and no index changes (HOT update). An index
		// on expires would prevent that.
		schema: []string{
			`CREATE TABLE IF NOT EXISTS %[1]s (id bytea PRIMARY KEY, version bigint NOT NULL, username bytea NOT NULL, data bytea NOT NULL, created bigint NOT NULL, deadline bigint NOT NULL, checksum bigint NOT NULL, seen bigint NOT NULL, expires bigint NOT NULL) WITH (fillfactor = 70)`,
			`CREATE INDEX IF NOT EXISTS %[3]s_username ON %[1]s (username) WHERE username <> ''`,
		},
		lock:     `SELECT pg_advisory_xact_lock(8394652017)`,
		numbered: true, greatest: "GREATEST", least: "LEAST", upsert: true, byPage: true,
		index: `SELECT count(to_regclass('%[2]s%[3]s_username'))`,
	},
	MySQL: {
		schema: []string{
			`CREATE TABLE IF NOT EXISTS %[1]s (id VARBINARY(128) NOT NULL PRIMARY KEY, version BIGINT NOT NULL, username VARBINARY(1024) NOT NULL, data MEDIUMBLOB NOT NULL, created BIGINT NOT NULL, deadline BIGINT NOT NULL, checksum BIGINT NOT NULL, seen BIGINT NOT NULL, expires BIGINT NOT NULL, INDEX %[3]s_username (username)) ENGINE=InnoDB`,
		},
		greatest: "GREATEST", least: "LEAST", maxData: 16<<20 - 1,
	},
	SQLite: {
		schema: []string{
			// data is the last column, because to read a column behind it would read its
			// overflow pages.
			`CREATE TABLE IF NOT EXISTS %[1]s (id BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL, username BLOB NOT NULL, created INTEGER NOT NULL, deadline INTEGER NOT NULL, checksum INTEGER NOT NULL, seen INTEGER NOT NULL, expires INTEGER NOT NULL, data BLOB NOT NULL)`,
			`CREATE INDEX IF NOT EXISTS %[2]s%[3]s_username ON %[3]s (username) WHERE username <> x''`,
		},
		greatest: "MAX", least: "MIN", upsert: true, prepare: true,
		index: `SELECT count(*) FROM %[2]ssqlite_master WHERE type = 'index' AND name = '%[3]s_username' COLLATE NOCASE`,
	},
}

// queries are a dialect's statements for one table.
type queries struct {
	schema                                           []string
	look, index                                      string // used by Migrate: select the table's columns; dialect.index
	load, create, save, version, touch, delete, list string
	reclaim                                          string // replaces an expired record, for a dialect whose create cannot
	pages, sweepPages, sweepIDs, sweepDelete         string
}

func (d *dialect) queries(table string) (q queries) {
	dot := strings.Index(table, ".") + 1
	named := func(s string) string { return fmt.Sprintf(s, table, table[:dot], table[dot:]) }
	for _, s := range d.schema {
		q.schema = append(q.schema, named(s))
	}
	q.look = "SELECT * FROM " + table + " WHERE 1 = 0"
	if d.index != "" {
		q.index = named(d.index)
	}
	fill := func(s string) string { return d.number(strings.ReplaceAll(s, "TABLE", table)) }
	set := "version = ?, username = ?, data = ?, created = ?, deadline = ?, checksum = ?, seen = ?, expires = ?"
	later := func(column string) string { return d.greatest + "(" + column + ", ?)" }
	q.load = fill("SELECT " + columns + " FROM TABLE WHERE id = ? AND expires > ?")
	q.version = fill("SELECT version FROM TABLE WHERE id = ? AND expires > ?")
	// The arguments are those of saveArgs. The new checksum is that of r, adjusted by the
	// amounts by which the stored clocks are later than those of r. It is set before the
	// clocks, because MySQL evaluates assignments from left to right and uses values that are
	// already assigned.
	seen, expires := later("seen"), d.least+"("+later("expires")+", ?)"
	q.save = fill("UPDATE TABLE SET version = ?, username = ?, data = ?, created = ?, deadline = ?," +
		" checksum = ? + 3 * (" + seen + " - ?) + 5 * (" + expires + " - ?), seen = " + seen + ", expires = " + expires +
		" WHERE id = ? AND version = ? AND expires > ?")
	q.delete = fill("DELETE FROM TABLE WHERE id = ?")
	// A touch changes the checksum by the same amounts as the clocks, so a damaged row stays
	// damaged.
	expires = d.greatest + "(expires, " + d.least + "(?, deadline))"
	q.touch = fill("UPDATE TABLE SET checksum = checksum + 3 * (" + seen + " - seen) + 5 * (" + expires + " - expires), seen = " + seen + ", expires = " + expires + " WHERE id = ? AND expires > ?")
	q.list = fill("SELECT " + columns + " FROM TABLE WHERE username = ? AND username <> " + d.empty() + " AND expires > ?")
	insert := " INTO TABLE (" + columns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
	if d.upsert {
		var excluded []string
		for _, c := range strings.Split(columns, ", ")[1:] {
			excluded = append(excluded, c+" = excluded."+c)
		}
		q.create = fill("INSERT" + insert + " ON CONFLICT (id) DO UPDATE SET " + strings.Join(excluded, ", ") + " WHERE TABLE.expires <= ?")
	} else {
		// IGNORE ignores a duplicate id. It would also ignore values that are too long, which
		// fits has refused before.
		q.create = fill("INSERT IGNORE" + insert)
		q.reclaim = fill("UPDATE TABLE SET " + set + " WHERE id = ? AND expires <= ?")
	}
	q.pages = fill("SELECT pg_relation_size('TABLE') / current_setting('block_size')::bigint")
	q.sweepPages = fill("DELETE FROM TABLE WHERE ctid >= ?::tid AND ctid < ?::tid AND expires <= ?")
	q.sweepIDs = fill("SELECT id, expires FROM TABLE WHERE id > ? ORDER BY id LIMIT ?")
	q.sweepDelete = fill("DELETE FROM TABLE WHERE expires <= ? AND id IN ")
	return q
}

// createTail returns the arguments of queries.create that follow those of the row.
func (d *dialect) createTail(now int64) []any {
	if d.upsert {
		return []any{now}
	}
	return nil
}

func (d *dialect) empty() string {
	if d.numbered {
		return "''"
	}
	return "x''"
}

// number replaces the parameters ? by $1, $2, … if the dialect needs that.
func (d *dialect) number(query string) string {
	if !d.numbered {
		return query
	}
	var b strings.Builder
	n := 0
	for _, c := range query {
		if c == '?' {
			n++
			fmt.Fprintf(&b, "$%d", n)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// maxUser is the length in bytes of a user that every database can index.
const maxUser = 1024

// fits returns an error if the columns cannot hold r, because some databases would truncate it
// silently.
func (d *dialect) fits(r *session.Record) error {
	switch {
	case len(r.ID) == 0 || len(r.ID) > 128:
		return fmt.Errorf("sqlstore: the id has %d bytes, must have 1 to 128", len(r.ID))
	case len(r.User) > maxUser:
		return fmt.Errorf("sqlstore: the user has %d bytes, must have at most %d", len(r.User), maxUser)
	case d.maxData > 0 && len(r.Data) > d.maxData:
		return fmt.Errorf("sqlstore: the data has %d bytes, must have at most %d", len(r.Data), d.maxData)
	}
	return nil
}

// refused reports whether err is the database's reply that it did not execute the statement.
// Any other error leaves the outcome open: a deadline, a lost connection, a shutdown, a commit
// that fails while it is written to the disk.
func refused(err error) bool {
	var code interface{ Code() int } // modernc.org/sqlite
	if errors.As(err, &code) {
		switch code.Code() & 0xff {
		case 1, 3, 5, 6, 8, 14, 18, 19, 20: // ERROR, PERM, BUSY, LOCKED, READONLY, CANTOPEN, TOOBIG, CONSTRAINT, MISMATCH
			return true
		}
		return false
	}
	switch state := sqlState(err); {
	case state == "40003": // statement completion unknown
		return false
	case len(state) == 5:
		return strings.Contains("22 23 25 28 40 42 44 54 55", state[:2])
	}
	return false
}

// sqlState returns the SQLSTATE of an error of PostgreSQL or MySQL, or "". It recognizes the
// errors of drivers by their methods and fields, so that no driver is imported.
func sqlState(err error) string {
	var state interface{ SQLState() string } // pgx, lib/pq
	if errors.As(err, &state) {
		return state.SQLState()
	}
	for e := err; e != nil; e = errors.Unwrap(e) { // go-sql-driver/mysql
		if v := reflect.Indirect(reflect.ValueOf(e)); v.Kind() == reflect.Struct && v.Type().Name() == "MySQLError" {
			if f := v.FieldByName("SQLState"); f.IsValid() {
				return fmt.Sprintf("%s", f)
			}
		}
	}
	return ""
}
