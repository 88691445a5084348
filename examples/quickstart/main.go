// Quickstart is the shortest program with sessions: a login, and a page that knows the user.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"

	"github.com/coatcheck/session"
)

func app() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		// Check a password here. Login stores the session; the response sets the cookie.
		session.From(r.Context()).Login(cmp.Or(r.PostFormValue("userId"), "user123"))
		fmt.Fprint(w, "Logged in and session created!")
	})
	mux.HandleFunc("GET /dashboard", func(w http.ResponseWriter, r *http.Request) {
		user := session.From(r.Context()).User() // "" while no user is logged in
		if user == "" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, "Please log in.")
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8") // a name is not HTML
		fmt.Fprintf(w, "Welcome back, %s!", user)
	})
	sessions := session.Must(session.New(nil)) // safe defaults: see Options
	return http.NewCrossOriginProtection().Handler(sessions.Handler(mux))
}

func main() {
	log.Fatal(http.ListenAndServe("localhost:8080", app()))
}
