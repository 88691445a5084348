// Package site is the site of the example server. It is a package of its own so that the server
// in examples/integrations/stores can use it.
package site

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/coatcheck/session"
)

// Open opens the store with this name, the value of STORE.
type Open func(ctx context.Context, name string) (session.Store, error)

// Main is the main function of the server.
func Main(open Open) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv, os.Stdout, open); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then lets in-flight requests finish.
func run(ctx context.Context, getenv func(string) string, out io.Writer, open Open) error {
	opts, err := options(getenv)
	if err != nil {
		return err
	}
	if name := getenv("STORE"); name != "" && name != "memory" {
		if opts.Secrets == nil {
			return errors.New("SESSION_SECRET is not set: sessions that outlive the process need one that does, of at least 32 characters: " + hint)
		}
		if opts.Store, err = open(ctx, name); err != nil {
			return fmt.Errorf("STORE: %w", err)
		}
	}
	sessions, err := session.New(opts)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address(opts, cmp.Or(getenv("PORT"), "8080")))
	if err != nil {
		return err
	}
	closing := make(chan struct{})
	server := &http.Server{
		Handler:           newApp(sessions, closing),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	server.RegisterOnShutdown(func() { close(closing) })
	fmt.Fprintf(out, "listening on http://localhost:%d (%s)\n",
		listener.Addr().(*net.TCPAddr).Port, mode(opts))

	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	fmt.Fprintln(out, "shutting down")
	grace, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return server.Shutdown(grace)
}

func mode(opts *session.Options) string {
	if opts.Cookie.Insecure {
		return "development: a cookie for plain HTTP"
	}
	return "production: a Secure cookie, for use behind HTTPS"
}

const hint = `make one with "openssl rand -base64 32"`

// options reads the environment.
func options(getenv func(string) string) (*session.Options, error) {
	secret, production := getenv("SESSION_SECRET"), getenv("APP_ENV") == "production"
	switch n := utf8.RuneCountInString(secret); {
	case n == 0 && production:
		return nil, errors.New("SESSION_SECRET is not set, and APP_ENV=production does not sign cookies with a random one: it needs at least 32 characters: " + hint)
	case n > 0 && n < 32:
		return nil, fmt.Errorf("SESSION_SECRET has %d characters and needs at least 32: %s", n, hint)
	}
	opts := &session.Options{
		MaxPerUser: 50, // every visitor can log in as any user here, and the page lists all sessions of the user
		Cookie:     session.CookieOptions{Insecure: !production},
	}
	if secret != "" {
		opts.Secrets = [][]byte{[]byte(secret)}
	}
	return opts, nil
}

// address returns where the server listens: on this machine only if the cookie is sent without
// TLS.
func address(opts *session.Options, port string) string {
	host := ""
	if opts.Cookie.Insecure {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
