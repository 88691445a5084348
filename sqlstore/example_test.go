package sqlstore_test

import (
	"context"
	"database/sql"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
)

// This example uses PostgreSQL through pgx: import _ "github.com/jackc/pgx/v5/stdlib".
func Example() {
	ctx := context.Background()
	db, err := sql.Open("pgx", os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20) // by default only two connections are kept after use

	store, err := sqlstore.New(db, sqlstore.PostgreSQL, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Migrate(ctx); err != nil {
		log.Fatal(err)
	}
	sessions, err := session.New(&session.Options{
		Store:   store,
		Secrets: [][]byte{[]byte(os.Getenv("SESSION_SECRET"))},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(":8080", sessions.Handler(http.DefaultServeMux)))
}

// Any number of processes may sweep concurrently.
func ExampleStore_Sweep() {
	var ctx context.Context // ends with the process
	var store *sqlstore.Store
	go func() {
		for range time.Tick(5 * time.Minute) {
			n, err := store.Sweep(ctx)
			slog.InfoContext(ctx, "expired sessions deleted", "n", n, "err", err)
		}
	}()
}

// This example uses one file on one machine, through modernc.org/sqlite. The program creates
// the file first, so that other users of the machine cannot read it. SQLite gives the same mode
// to the files beside it.
func ExampleNew_sqlite() {
	f, err := os.OpenFile("sessions.db", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	f.Close()
	db, err := sql.Open("sqlite", "file:sessions.db?_txlock=immediate"+
		"&_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		log.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	store, err := sqlstore.New(db, sqlstore.SQLite, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Migrate(context.Background()); err != nil {
		log.Fatal(err)
	}
}
