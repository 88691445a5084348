// Server is an example site on which users log in:
//
//	go run ./examples/server
//
// It is configured by the environment:
//
//	PORT            8080 by default
//	SESSION_SECRET  signs the cookies: at least 32 characters. Without it a random
//	                secret is used, which production refuses
//	APP_ENV         production: a Secure cookie with the __Host-Http- name, for use
//	                behind HTTPS; anything else: a cookie for plain HTTP
//
// With -tls it serves HTTPS on this machine, with a certificate that it makes, and binds sessions to
// the browser that logged in. It prints how to start a Chromium that can.
//
// Sessions are kept in memory. The same server with SQLite, Redis, PostgreSQL or MySQL is in
// examples/integrations/stores, which needs their drivers.
package main

import (
	"context"
	"errors"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/examples/internal/site"
)

func main() {
	site.Main(func(context.Context, string) (session.Store, error) {
		return nil, errors.New("this server keeps sessions in memory only: run the one in examples/integrations/stores")
	})
}
