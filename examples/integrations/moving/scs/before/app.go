// Package before is a small application as it was.
package before

import (
	"fmt"
	"net/http"
	"time"

	"github.com/alexedwards/scs/v2"
)

var sessions *scs.SessionManager

// App returns the application.
func App() http.Handler {
	sessions = scs.New()
	sessions.Lifetime = 24 * time.Hour
	sessions.IdleTimeout = time.Hour
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("GET /me", me)
	mux.HandleFunc("POST /logout", logout)
	return sessions.LoadAndSave(mux)
}

func login(w http.ResponseWriter, r *http.Request) {
	if err := sessions.RenewToken(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	sessions.Put(r.Context(), "user", r.PostFormValue("user"))
	sessions.Put(r.Context(), "flash", "Hello!")
}

func me(w http.ResponseWriter, r *http.Request) {
	user := sessions.GetString(r.Context(), "user")
	if user == "" {
		http.Error(w, "Please log in.", http.StatusUnauthorized)
		return
	}
	visits := sessions.GetInt(r.Context(), "visits") + 1
	sessions.Put(r.Context(), "visits", visits)
	fmt.Fprintf(w, "%s, visit %d. %s", user, visits, sessions.PopString(r.Context(), "flash"))
}

func logout(w http.ResponseWriter, r *http.Request) {
	if err := sessions.Destroy(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
