// Package after is a small application as it is now.
package after

import (
	"fmt"
	"net/http"

	"github.com/coatcheck/session"
)

var visits = session.NewKey[int]("visits")

// App returns the application.
func App() http.Handler {
	sessions := session.Must(session.New(nil))
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", login)
	mux.HandleFunc("GET /me", me)
	mux.HandleFunc("POST /logout", logout)
	return sessions.Handler(mux)
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
