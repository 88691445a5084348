// Package after is a small application as it is now.
package after

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/sqlstore"
)

var visits = session.NewKey[int]("visits")

// App returns the application. Its sessions are in db and survive a restart; secret has 32
// bytes at least and is the same after it.
func App(ctx context.Context, db *sql.DB, secret []byte) (http.Handler, error) {
	store, err := sqlstore.New(db, sqlstore.SQLite, nil)
	if err != nil {
		return nil, err
	}
	if err := store.Migrate(ctx); err != nil {
		return nil, err
	}
	go store.SweepEvery(ctx, 5*time.Minute)
	sessions, err := session.New(&session.Options{Store: store, Secrets: [][]byte{secret}})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("GET /me", me)
	mux.HandleFunc("POST /logout", logout)
	return sessions.Handler(mux), nil
}

func login(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	s.Login(r.PostFormValue("user"))
	s.AddFlash("info", "Hello!")
}

func me(w http.ResponseWriter, r *http.Request) {
	s := session.From(r.Context())
	if s.User() == "" {
		http.Error(w, "Please log in.", http.StatusUnauthorized)
		return
	}
	visits.Update(s, func(n int) int { return n + 1 })
	fmt.Fprintf(w, "%s, visit %d. ", s.User(), visits.Get(s))
	for _, f := range s.Flashes() {
		fmt.Fprint(w, f.Text)
	}
}

func logout(w http.ResponseWriter, r *http.Request) {
	session.From(r.Context()).Logout()
}
