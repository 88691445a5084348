package migrate_test

import (
	"log"
	"net/http"

	"github.com/alexedwards/scs/v2"
	"github.com/coatcheck/session"
	"github.com/coatcheck/session/migrate"
	"github.com/gorilla/sessions"
)

type item struct {
	Name string
	N    int
}

var (
	store  session.Store
	secret []byte
	mux    = http.NewServeMux()
	visits = session.NewKey[int]("visits")
	cart   = session.NewKey[[]item]("cart")
)

// From scs: the SessionManager stays as it was configured, and wraps nothing any more.
func ExampleSCS() {
	old := scs.New() // as before, with its Store, Codec and Cookie
	sessions := session.Must(session.New(&session.Options{Store: store, Secrets: [][]byte{secret}}))
	take, err := migrate.New(sessions, &migrate.Options{
		Old:    migrate.SCS(old),
		Store:  store,
		User:   "user",
		Values: []migrate.Value{migrate.As("visits", visits), migrate.As("cart", cart)},
		Ignore: []string{"flash"},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(take.Handler(mux))))
}

// From gorilla/sessions: the store stays as it was configured, with all its keys.
func ExampleGorilla() {
	old := sessions.NewCookieStore([]byte("the key"), nil, []byte("the key before"), nil)
	sessions := session.Must(session.New(&session.Options{Store: store, Secrets: [][]byte{secret}}))
	take, err := migrate.New(sessions, &migrate.Options{
		Old:    migrate.Gorilla(old, "session-name"),
		Store:  store,
		User:   "user",
		Values: []migrate.Value{migrate.As("visits", visits)},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(take.Handler(mux))))
}
