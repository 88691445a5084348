package gorillastore_test

import (
	"log"
	"net/http"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/gorillastore"
)

var mux = http.NewServeMux()

// cart is in place of Values["cart"].
var cart = session.NewKey[[]string]("cart")

// add is in place of a Get, an append and a Save.
func add(manager *session.Manager, r *http.Request, item string) {
	cart.Update(manager.From(r.Context()), func(items []string) []string { return append(items, item) })
}

// An application that had sessions.NewCookieStore changes the line that makes its store, and wraps
// its handler.
func ExampleNew() {
	manager := session.Must(session.New(&session.Options{Store: session.NewMemoryStore(nil), Secrets: [][]byte{secret}}))
	store := gorillastore.New(manager, &gorillastore.Options{
		UserKey: gorillastore.UserKey{Session: "session-name", Key: "user"}, // Login when it is set, Logout when it is deleted
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		session, _ := store.Get(r, "session-name")
		session.Values["user"] = r.PostFormValue("user")
		if err := session.Save(r, w); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	log.Fatal(http.ListenAndServe("localhost:8080", manager.Handler(mux)))
}
