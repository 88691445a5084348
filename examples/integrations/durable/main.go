// Durable is a site whose sessions survive a restart of the program: they are in a file, and the
// secret that signs the cookies is the same afterwards.
//
//	export SESSION_SECRET=$(openssl rand -base64 32) # keep it: with another one all users log in again
//	go -C examples/integrations run ./durable
//
// Open http://localhost:8080/, log in, restart the program, and reload the page.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
	_ "modernc.org/sqlite"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", "localhost:8080")
	if err != nil {
		log.Fatal(err)
	}
	log.Print("http://localhost:8080/")
	if err := serve(ctx, listener, "sessions.db", os.Getenv("SESSION_SECRET")); err != nil {
		log.Fatal(err)
	}
}

// serve serves the site until ctx ends. It opens in this order: the database, its schema, the store,
// the Manager, the server. It ends in the reverse order, because the last requests still store.
func serve(ctx context.Context, l net.Listener, path, secret string) error {
	if err := createPrivate(path); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=busy_timeout(1000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1) // SQLite has one writer: requests queue here, where their deadlines count
	store, err := sqlstore.New(db, sqlstore.SQLite, nil)
	if err != nil {
		return err
	}
	if err := store.Migrate(ctx); err != nil {
		return err
	}
	go store.SweepEvery(ctx, 10*time.Minute)
	sessions, err := session.New(&session.Options{Store: store, Secrets: [][]byte{[]byte(secret)}})
	if err != nil {
		return err
	}

	server := &http.Server{Handler: app(sessions), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(grace) // returns when the last response is written
}

// createPrivate creates a file that only its owner can read, as SQLite does not.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

var visits = session.NewKey[int]("visits")

func app(sessions *session.Manager) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login("alice") // check a password here
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if s.User() == "" {
			fmt.Fprint(w, `<form method="post" action="/login"><button>Log in as alice</button></form>`)
			return
		}
		visits.Update(s, func(n int) int { return n + 1 })
		fmt.Fprintf(w, "Hello %s, this is your visit number %d.", s.User(), visits.Get(s))
	})
	return http.NewCrossOriginProtection().Handler(sessions.Handler(mux))
}
