package expressjs_test

import (
	"log"
	"net/http"
	"os"
	"time"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/expressjs"
	"github.com/redis/go-redis/v9"
)

// Share the sessions of an Express app whose cookie lives for 24 hours, and which stores the user
// in req.session.userId.
func Example() {
	client := redis.NewClient(&redis.Options{Addr: "localhost:6379", ContextTimeoutEnabled: true})
	tokens, err := expressjs.Tokens(os.Getenv("SESSION_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	store, err := expressjs.NewRedisStore(client, &expressjs.Options{
		Cookie:     expressjs.Cookie{MaxAge: 24 * time.Hour}, // as in Express
		UserMember: "userId",                                 // or "user.id", or Passport: true
	})
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := session.New(&session.Options{
		Tokens:   tokens,
		Store:    store,
		Lifetime: 30 * 24 * time.Hour, // absolute end of a login at Go; Express has none
		Cookie:   session.CookieOptions{Name: "connect.sid"},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("localhost:8080", sessions.Handler(http.DefaultServeMux)))
}
