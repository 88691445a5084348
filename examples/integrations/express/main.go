// Command express runs an Express app and a Go app on the same sessions, behind one proxy: log
// in at Node, use the dashboard of Go, log out there, and be logged out at Node. See README.md.
//
//	cd examples/integrations/express && go run .
//
// It needs node, npm and redis-server, or REDIS_URL. PORT is 8080 by default.
// NODE_ENV=production is for use behind a proxy with TLS that sets X-Forwarded-Proto and
// X-Forwarded-For: the cookie is then Secure on both sides.
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
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil && ctx.Err() == nil {
		stop()
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	p := programs{ctx: ctx}
	defer p.running.Wait()
	defer cancel()
	redisURL, err := p.startRedis()
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
	node, err := p.startNode(redisURL, secret)
	if err != nil {
		return err
	}
	production := os.Getenv("NODE_ENV") == "production"
	sessions, err := newSessions(client, secret, production)
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
	server := &http.Server{Handler: newProxy(newApp(sessions), node, production), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	fmt.Fprintf(out, "Open http://localhost:%d (Ctrl-C ends it)\n", l.Addr().(*net.TCPAddr).Port)
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
