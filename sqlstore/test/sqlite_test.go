package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
)

// TestSQLiteFileMode checks that with the README's way to create the file, the files that
// SQLite puts beside it are readable by the owner only.
func TestSQLiteFileMode(t *testing.T) {
	dir := t.TempDir()
	s := newStore(t, openSQLite(t, filepath.Join(dir, "sessions.db"), ""), sqlstore.SQLite)
	must(t, s.Create(t.Context(), record("", time.Hour)))
	files, err := os.ReadDir(dir)
	must(t, err)
	if len(files) < 3 {
		t.Errorf("%d files, want the database, its log and its index", len(files))
	}
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
}

// TestSQLiteRestart checks that records are stored across a restart.
func TestSQLiteRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	db := openSQLite(t, path, "")
	s, r := openStore(t, db, sqlstore.SQLite, "sessions"), record("alice", time.Hour)
	must(t, s.Create(t.Context(), r))
	db.Close()
	s = openStore(t, openSQLite(t, path, ""), sqlstore.SQLite, "sessions")
	if got, err := s.Load(t.Context(), r.ID); err != nil || got.Version != r.Version {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
}

// TestSQLiteLoadThroughChangesOfTheTable checks that the prepared statement of Load works with
// a table that did not exist at New, and after the table was altered, dropped and created
// again, on each connection of the pool.
func TestSQLiteLoadThroughChangesOfTheTable(t *testing.T) {
	db := openSQLite(t, filepath.Join(t.TempDir(), "sessions.db"), "")
	db.SetMaxOpenConns(4)
	s, err := sqlstore.New(db, sqlstore.SQLite, nil)
	must(t, err)
	lacks := func() {
		t.Helper()
		if r, err := s.Load(t.Context(), "id"); err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("Load without a table: %v, %v", r, err)
		}
	}
	has := func() {
		t.Helper()
		r := record("alice", time.Hour)
		must(t, s.Create(t.Context(), r))
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				if got, err := s.Load(t.Context(), r.ID); err != nil || got.Version != r.Version {
					t.Errorf("Load: %+v, %v", got, err)
				}
			})
		}
		all.Wait()
	}
	exec := func(query string) {
		t.Helper()
		_, err := db.Exec(query)
		must(t, err)
	}
	lacks()
	must(t, s.Migrate(t.Context()))
	has()
	exec("ALTER TABLE sessions ADD COLUMN note TEXT")
	has()
	exec("VACUUM")
	has()
	exec("DROP TABLE sessions")
	lacks()
	exec("CREATE TABLE sessions (data BLOB NOT NULL, id BLOB NOT NULL PRIMARY KEY, version INTEGER NOT NULL, username BLOB NOT NULL, created INTEGER NOT NULL, deadline INTEGER NOT NULL, checksum INTEGER NOT NULL, seen INTEGER NOT NULL, expires INTEGER NOT NULL)")
	has()
}

// TestSQLiteLocked checks that a process that holds the lock of the file delays the others by
// at most busy_timeout.
func TestSQLiteLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openStore(t, openSQLite(t, path, ""), sqlstore.SQLite, "sessions")
	r := record("", time.Hour)
	must(t, s.Create(t.Context(), r))
	tx, err := openSQLite(t, path, "").Begin()
	must(t, err)
	start := time.Now()
	err = s.Save(t.Context(), next(r), r.Version)
	if took := time.Since(start); took < time.Second/2 { // no upper bound, because a slow machine takes longer; SQLite's waits add up to a little less than busy_timeout
		t.Errorf("Save waited for %v, busy_timeout is 1 s", took)
	}
	if err == nil || errors.Is(err, session.ErrIndeterminate) {
		t.Errorf("Save to a locked database: %v", err)
	}
	if _, err := s.Load(t.Context(), r.ID); err != nil {
		t.Errorf("Load from a locked database, which needs no lock: %v", err)
	}
	must(t, tx.Rollback())
	must(t, s.Save(t.Context(), next(r), r.Version))
}

// TestSQLiteFull fills a database up to a limit of SQLite, and up to the size of a file system
// of 4 MB if one can be mounted.
func TestSQLiteFull(t *testing.T) {
	t.Run("MaxPageCount", func(t *testing.T) {
		fillUp(t, filepath.Join(t.TempDir(), "sessions.db"), "&_pragma=max_page_count(100)", nil, func(db *sql.DB) {
			_, err := db.Exec("PRAGMA max_page_count = 1000000")
			must(t, err)
		})
	})
	t.Run("FileSystem", func(t *testing.T) {
		dir := t.TempDir()
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir).CombinedOutput(); err != nil {
			t.Skipf("cannot mount a file system: %v %s", err, out)
		}
		t.Cleanup(func() { _ = exec.Command("umount", "-l", dir).Run() })
		fillUp(t, filepath.Join(dir, "sessions.db"), "", func() {
			f, err := os.Create(filepath.Join(dir, "ballast")) // fills the rest of the last page
			must(t, err)
			for err == nil {
				_, err = f.Write(make([]byte, 4096))
			}
			f.Close()
		}, func(*sql.DB) {
			must(t, exec.Command("mount", "-o", "remount,size=16m", dir).Run())
		})
	})
}

// fillUp logs users in until a login fails. stuff, if not nil, then fills the disk to the last
// byte. At the end relieve frees space.
func fillUp(t *testing.T, path, more string, stuff func(), relieve func(*sql.DB)) {
	db := openSQLite(t, path, more)
	store := openStore(t, db, sqlstore.SQLite, "sessions")
	var failed []session.Event
	o := session.Options{OnEvent: func(_ context.Context, e session.Event) {
		if e.Kind == session.EventStoreFailed {
			failed = append(failed, e)
		}
	}}
	note := session.NewKey[string]("note")
	site := newSite(t, store, o, func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		switch r.URL.Path {
		case "/login":
			s.Login("alice")
			note.Set(s, strings.Repeat("x", 10_000))
		case "/logout":
			s.Logout()
		}
		fmt.Fprint(w, s.User())
	})
	var in []*browser
	for {
		b := site.browser()
		status, _ := b.get("/login")
		if status == http.StatusServiceUnavailable {
			break
		}
		if in = append(in, b); status != http.StatusOK || len(in) > 1000 {
			t.Fatalf("login %d: %d", len(in), status)
		}
	}
	if len(in) < 10 || len(failed) == 0 || !strings.Contains(fmt.Sprint(failed[0].Err), "full") {
		t.Fatalf("after %d logins the failures are %+v", len(in), failed)
	}
	if stuff != nil {
		stuff()
	}
	stillIn := func(b *browser) bool {
		status, user := b.get("/")
		if status != http.StatusOK {
			t.Errorf("GET / was answered %d", status)
		}
		return user == "alice"
	}
	for i, b := range in {
		if !stillIn(b) {
			t.Errorf("login %d of %d was acknowledged and is lost", i, len(in))
		}
	}
	// A logout may fit, in place of its own record. If it does not, its answer must say so.
	refused := 0
	for _, b := range in {
		old := b.copy()
		status, _ := b.get("/logout")
		if status == http.StatusServiceUnavailable {
			refused++
		}
		if in := stillIn(old); in != (status == http.StatusServiceUnavailable) {
			t.Errorf("logout was answered %d, session still live: %v", status, in)
		}
	}
	t.Logf("%d logins fit; then %d logouts could not be stored and were answered with an error", len(in), refused)
	if stuff != nil && refused == 0 {
		t.Error("every logout fitted, although the file system was full")
	}
	relieve(db)
	b := site.browser()
	b.expect("/login", http.StatusOK)
	b.expect("/logout", http.StatusOK)
}
