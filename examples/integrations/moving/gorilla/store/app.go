// Package store is a small application with gorilla's calls, and its sessions in a database.
package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
	"github.com/coatcheck/session/sqlstore"
	"github.com/gorilla/sessions"
)

var store sessions.Store

// App returns the application. Its sessions are in db and survive a restart; secret has 32
// bytes at least and is the same after it.
func App(ctx context.Context, db *sql.DB, secret []byte) (http.Handler, error) {
	records, err := sqlstore.New(db, sqlstore.SQLite, nil)
	if err != nil {
		return nil, err
	}
	if err := records.Migrate(ctx); err != nil {
		return nil, err
	}
	go records.SweepEvery(ctx, 5*time.Minute)
	manager, err := session.New(&session.Options{Store: records, Secrets: [][]byte{secret}})
	if err != nil {
		return nil, err
	}
	store = gorillastore.New(manager, &gorillastore.Options{
		UserKey: gorillastore.UserKey{Session: "session-name", Key: "user"}, // Login when it is set, Logout when it is deleted
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("GET /me", me)
	mux.HandleFunc("POST /logout", logout)
	return manager.Handler(mux), nil
}

func login(w http.ResponseWriter, r *http.Request) {
	session, _ := store.Get(r, "session-name")
	session.Values["user"] = r.PostFormValue("user")
	session.AddFlash("Hello!")
	if err := session.Save(r, w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func me(w http.ResponseWriter, r *http.Request) {
	session, _ := store.Get(r, "session-name")
	user, _ := session.Values["user"].(string)
	if user == "" {
		http.Error(w, "Please log in.", http.StatusUnauthorized)
		return
	}
	visits, _ := session.Values["visits"].(int)
	visits++
	session.Values["visits"] = visits
	flashes := session.Flashes()
	if err := session.Save(r, w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "%s, visit %d. ", user, visits)
	for _, f := range flashes {
		fmt.Fprint(w, f)
	}
}

func logout(w http.ResponseWriter, r *http.Request) {
	session, _ := store.Get(r, "session-name")
	session.Options.MaxAge = -1
	if err := session.Save(r, w); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
