package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/storetest"
)

func TestSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	storetest.RunManagers(t, func(t *testing.T) session.Store {
		store, err := open(t.Context(), "sqlite:"+path)
		if err != nil {
			t.Fatal(err)
		}
		return store
	})
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v %v, want mode 0600", info.Mode(), err)
	}
}

// TestMistakes checks that the error for an invalid STORE does not contain the address, which
// may contain a password.
func TestMistakes(t *testing.T) {
	for _, name := range []string{"nonsense", "redis://:hunter2@[", "mysql://root:hunter2@", "postgres://u:hunter2@127.0.0.1:1/x?connect_timeout=1", "sqlite:/nowhere/at/all"} {
		store, err := open(t.Context(), name)
		if err == nil || store != nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("STORE=%s: %v", name, err)
		}
	}
}
