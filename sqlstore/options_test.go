package sqlstore_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/coatcheck/session/sqlstore"
)

func TestNew(t *testing.T) {
	db := &sql.DB{}
	long := strings.Repeat("x", 48)
	for _, table := range []string{"", "sessions", "Sessions_2", "_", "web.sessions", long, long + "." + long} {
		if _, err := sqlstore.New(db, sqlstore.PostgreSQL, &sqlstore.Options{Table: table}); err != nil {
			t.Errorf("table %q: %v", table, err)
		}
	}
	for _, table := range []string{" ", "2sessions", "a.b.c", ".sessions", "web.", "a b", "a-b", `a"`, "a`", "a;drop", "a?", "séance", long + "x", "sessions\n", "%s"} {
		if _, err := sqlstore.New(db, sqlstore.PostgreSQL, &sqlstore.Options{Table: table}); err == nil || !strings.HasPrefix(err.Error(), "sqlstore: Options.Table: ") {
			t.Errorf("table %q: %v", table, err)
		}
	}
	if _, err := sqlstore.New(nil, sqlstore.SQLite, nil); err == nil || !strings.Contains(err.Error(), "db is nil") {
		t.Errorf("no db: %v", err)
	}
	for _, d := range []sqlstore.Dialect{"", "oracle", "PostgreSQL"} {
		if _, err := sqlstore.New(db, d, nil); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q is no dialect", string(d))) {
			t.Errorf("dialect %q: %v", d, err)
		}
	}
}
