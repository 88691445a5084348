// Chi is the quickstart on github.com/go-chi/chi.
package main

import (
	"fmt"
	"log"
	"net/http"

	"github.com/coatcheck/session"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

var visits = session.NewKey[int]("visits")

func app(sessions *session.Manager) http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer)
	r.Post("/login", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Login(r.PostFormValue("user"))
	})
	r.Post("/logout", func(w http.ResponseWriter, r *http.Request) {
		session.From(r.Context()).Logout()
	})
	r.Get("/dashboard", func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		if s.User() == "" {
			http.Error(w, "Please log in.", http.StatusUnauthorized)
			return
		}
		visits.Update(s, func(n int) int { return n + 1 })
		fmt.Fprintf(w, "Welcome back, %s!", s.User())
	})
	r.Get("/visits", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, visits.Get(session.From(r.Context())))
	})
	r.Get("/panic", func(http.ResponseWriter, *http.Request) { panic("oh") })
	return sessions.Handler(r)
}

func main() {
	sessions := session.Must(session.New(&session.Options{
		Cookie: session.CookieOptions{Insecure: true}, // only for plain http://localhost
	}))
	log.Fatal(http.ListenAndServe("localhost:8080", app(sessions)))
}
