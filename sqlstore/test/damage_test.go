package sqlstore_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
)

// vandal damages the columns of one record.
type vandal struct {
	t     *testing.T
	db    *sql.DB
	table string
	mark  string // a parameter
	store *sqlstore.Store
	r     *session.Record
}

func (v *vandal) set(id, column string, value any) {
	v.t.Helper()
	query := "UPDATE " + v.table + " SET " + column + " = " + v.mark + " WHERE id = " + v.mark
	if v.mark == "$" {
		query = "UPDATE " + v.table + " SET " + column + " = $1 WHERE id = $2"
	}
	res, err := v.db.Exec(query, value, []byte(id))
	must(v.t, err)
	if n, _ := res.RowsAffected(); n != 1 {
		v.t.Fatalf("%s: %d rows changed", column, n)
	}
}

// look reads the damaged record by Load and List and checks that it is absent or an error.
func (v *vandal) look(what string, ids, users []string) {
	v.t.Helper()
	for _, id := range ids {
		if r, err := v.store.Load(v.t.Context(), id); err == nil || r != nil {
			v.t.Errorf("%s: Load returned %+v, %v", what, r, err)
		}
	}
	for _, user := range users {
		if rs, err := v.store.List(v.t.Context(), user); len(rs) > 0 {
			v.t.Errorf("%s: List returned %+v, %v", what, rs[0], err)
		}
	}
}

// TestDamage flips every bit of every column, and truncates every column at every length. The
// record must then be absent or an error, under its old keys and under its new ones.
func TestDamage(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		v := &vandal{t: t, db: db, table: newTable(), mark: "?"}
		if d == sqlstore.PostgreSQL {
			v.mark = "$"
		}
		v.store = openStore(t, db, d, v.table)
		v.r = record("bob", time.Hour)
		v.r.ID, v.r.Data = "id_of-bob", []byte(`{"n":1}`)
		must(t, v.store.Create(t.Context(), v.r))
		v.bytes("id", []byte(v.r.ID))
		v.bytes("username", []byte(v.r.User))
		v.bytes("data", v.r.Data)
		for _, column := range []string{"version", "created", "deadline", "checksum", "seen", "expires"} {
			v.ints(column)
		}
		if got, err := v.store.Load(t.Context(), v.r.ID); err != nil || got.User != "bob" {
			t.Errorf("after the repair: %+v, %v", got, err)
		}
	})
}

func (v *vandal) bytes(column string, was []byte) {
	at := v.r.ID
	for i := range 8*len(was) + len(was) {
		bad, what := slices.Clone(was), fmt.Sprintf("%s, bit %d flipped", column, i)
		if i < 8*len(was) {
			bad[i/8] ^= 1 << (i % 8)
		} else {
			bad = bad[:i-8*len(was)]
			what = fmt.Sprintf("%s, cut to %d bytes", column, len(bad))
		}
		ids, users := []string{v.r.ID}, []string{v.r.User}
		switch column {
		case "id":
			ids = append(ids, string(bad))
		case "username":
			users = append(users, string(bad))
		}
		v.set(at, column, bad)
		at = ids[len(ids)-1]
		v.look(what, ids, users)
	}
	v.set(at, column, was)
}

func (v *vandal) ints(column string) {
	var was int64
	must(v.t, v.db.QueryRow("SELECT "+column+" FROM "+v.table).Scan(&was))
	for i := range 64 {
		v.set(v.r.ID, column, was^1<<i)
		v.look(fmt.Sprintf("%s, bit %d flipped", column, i), []string{v.r.ID}, []string{v.r.User})
	}
	v.set(v.r.ID, column, was)
}

// TestDamageStays checks that a touch does not repair the checksum of a damaged record, and
// that the columns of another record under this key are an error too.
func TestDamageStays(t *testing.T) {
	onEach(t, func(t *testing.T, db *sql.DB, d sqlstore.Dialect) {
		v := &vandal{t: t, db: db, table: newTable(), mark: "?"}
		if d == sqlstore.PostgreSQL {
			v.mark = "$"
		}
		v.store = openStore(t, db, d, v.table)
		v.r = record("bob", time.Hour)
		must(t, v.store.Create(t.Context(), v.r))
		v.set(v.r.ID, "seen", v.r.LastSeen.Add(-time.Hour).UnixMilli())
		must(t, v.store.Touch(t.Context(), v.r.ID, v.r.LastSeen.Add(time.Second), v.r.Expires.Add(time.Second)))
		v.look("seen, and then touched", []string{v.r.ID}, []string{"bob"})

		alice := record("alice", time.Hour)
		must(t, v.store.Create(t.Context(), alice))
		must(t, v.store.Delete(t.Context(), v.r.ID))
		v.set(alice.ID, "id", []byte(v.r.ID))
		v.look("alice's record under bob's id", []string{v.r.ID, alice.ID}, []string{"alice", "bob"})
		if err := v.store.Save(t.Context(), next(v.r), v.r.Version+7); !errors.Is(err, session.ErrConflict) {
			t.Errorf("Save over the damaged record: %v", err)
		}
	})
}
