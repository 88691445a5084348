// Command express runs an Express app and a Go app on the same sessions, behind one
// door: log in at Node, see the dashboard of Go, sign out there, and be a stranger at
// Node. See README.md.
//
//	cd examples/express && go run .
//
// It needs node, npm and redis-server, or REDIS_URL. PORT is 8080 by default, and
// NODE_ENV=production makes the cookie Secure on both sides: for a proxy with TLS
// before this one.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil && ctx.Err() == nil {
		stop()
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // which ends what was started
	redisURL, err := startRedis(ctx)
	if err != nil {
		return err
	}
	o, err := redis.ParseURL(redisURL)
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	o.ContextTimeoutEnabled = true
	client := redis.NewClient(o)
	defer client.Close()
	if err := await(ctx, "Redis", func() error { return client.Ping(ctx).Err() }); err != nil {
		return err
	}
	secret := os.Getenv("SESSION_SECRET")
	if secret == "" {
		secret = rand.Text()
	}
	node, err := startNode(ctx, redisURL, secret)
	if err != nil {
		return err
	}
	sessions, err := newSessions(client, secret, os.Getenv("NODE_ENV") == "production")
	if err != nil {
		return err
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	l, err := net.Listen("tcp", net.JoinHostPort("localhost", port))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: newProxy(newApp(sessions), node), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Fprintf(out, "Open http://localhost:%d (Ctrl-C ends it)\n", l.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// startRedis starts a Redis of its own, unless REDIS_URL names one.
func startRedis(ctx context.Context) (string, error) {
	if address := os.Getenv("REDIS_URL"); address != "" {
		return address, nil
	}
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return "", errors.New("redis-server is not installed: install it, or set REDIS_URL")
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	return "redis://127.0.0.1:" + port, start(ctx, nil, ".", path, "--bind", "127.0.0.1", "--port", port, "--save", "", "--logfile", os.DevNull)
}

// startNode installs what the Express app needs, once, and starts it.
func startNode(ctx context.Context, redisURL, secret string) (*url.URL, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, errors.New("node is not installed")
	}
	if _, err := os.Stat(filepath.Join("node", "app.js")); err != nil {
		return nil, errors.New("node/app.js is not here: run this in examples/express")
	}
	if _, err := os.Stat(filepath.Join("node", "node_modules", "express-session")); err != nil {
		fmt.Println("npm ci: installing what the Express app needs")
		npm := exec.CommandContext(ctx, "npm", "ci")
		npm.Dir = "node"
		if out, err := npm.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("npm ci: %w\n%s", err, out)
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	err = start(ctx, []string{"PORT=" + port, "REDIS_URL=" + redisURL, "SESSION_SECRET=" + secret}, "node", node, "app.js")
	if err != nil {
		return nil, err
	}
	address := &url.URL{Scheme: "http", Host: "127.0.0.1:" + port}
	return address, await(ctx, "the Express app", func() error {
		conn, err := net.Dial("tcp", address.Host)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// start starts a program that ends with ctx.
func start(ctx context.Context, env []string, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		if err := cmd.Wait(); ctx.Err() == nil {
			log.Print(filepath.Base(args[0]), " has ended: ", err)
		}
	}()
	return nil
}

// await waits until something answers.
func await(ctx context.Context, what string, answers func() error) error {
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := answers()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return fmt.Errorf("%s does not answer: %w", what, err)
		}
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}
