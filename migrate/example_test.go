package migrate_test

import (
	"log"
	"net/http"
	"strconv"
	"time"

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

	accounts map[string]struct {
		disabled        bool
		passwordChanged time.Time
	}
)

// From scs: the SessionManager keeps its configuration and no longer wraps the handler.
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

// From gorilla/sessions: the store keeps its configuration, with all its keys.
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

// Two values decide whether a user is logged in. Accounts may have been disabled, or may have a new
// password.
func ExampleOptions() {
	old := scs.New()
	sessions := session.Must(session.New(&session.Options{Store: store, Secrets: [][]byte{secret}}))
	_, err := migrate.New(sessions, &migrate.Options{
		Old:   migrate.SCS(old),
		Store: store,
		UserFunc: func(old map[string]any) (user string, ok bool) {
			id, _ := old["user_id"].(int64)
			ok, _ = old["authenticated"].(bool) // a logout sets "authenticated" to false and leaves user_id
			return strconv.FormatInt(id, 10), ok
		},
		Allow: func(user string, created time.Time) bool {
			a := accounts[user]
			return !a.disabled && !created.Before(a.passwordChanged)
		},
		Ignore: []string{"user_id", "authenticated"},
	})
	if err != nil {
		log.Fatal(err)
	}
}
