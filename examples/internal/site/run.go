// Package site is the site of the example server. It is a package of its own so that the server
// in examples/integrations/stores can use it.
package site

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
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
	withTLS := flag.Bool("tls", false, "serve HTTPS with a certificate made for this run, and bind sessions to the browser that logged in")
	flag.Parse()
	if err := run(ctx, os.Getenv, *withTLS, os.Stdout, open); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then lets in-flight requests finish.
func run(ctx context.Context, getenv func(string) string, withTLS bool, out io.Writer, open Open) error {
	opts, err := options(getenv)
	if err != nil {
		return err
	}
	if withTLS {
		opts.Cookie.Insecure, opts.DeviceBound = false, 10*time.Minute
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
	url, serve := fmt.Sprintf("://localhost:%d", listener.Addr().(*net.TCPAddr).Port), server.Serve
	if withTLS {
		certificate, hash, err := newCertificate()
		if err != nil {
			return err
		}
		server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate}}
		serve = func(l net.Listener) error { return server.ServeTLS(l, "", "") }
		fmt.Fprintf(out, "listening on https%s (a certificate for this run; sessions are bound to their browsers)\n", url)
		printChromium(out, "https"+url, hash)
	} else {
		fmt.Fprintf(out, "listening on http%s (%s)\n", url, mode(opts))
	}

	failed := make(chan error, 1)
	go func() { failed <- serve(listener) }()
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
// TLS, or if the server has a certificate that only this machine can verify.
func address(opts *session.Options, port string) string {
	host := ""
	if opts.Cookie.Insecure || opts.DeviceBound > 0 {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
