package otel_test

import (
	"log"
	"os"

	"github.com/coatcheck/session"
	sessionotel "github.com/coatcheck/session/otel"
)

// The global providers of OpenTelemetry get what happens to sessions, and what
// calls of their store take.
func Example() {
	store, secret := session.NewMemoryStore(nil), []byte(os.Getenv("SESSION_SECRET"))
	telemetry, err := sessionotel.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	session.Must(session.New(&session.Options{
		Store:   telemetry.Store(store),
		OnEvent: telemetry.OnEvent,
		Secrets: [][]byte{secret},
	}))
}
