package otel_test

import (
	"log"
	"os"

	"github.com/coatcheck/session"
	sessionotel "github.com/coatcheck/session/otel"
)

// This example reports events and the duration of store calls to the global providers of
// OpenTelemetry.
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
