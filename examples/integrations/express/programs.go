package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// programs are the programs that the example starts. They end with ctx, and the example waits
// until all have ended.
type programs struct {
	ctx     context.Context
	running sync.WaitGroup
}

// startRedis starts a Redis of its own, unless REDIS_URL names one.
func (p *programs) startRedis() (string, error) {
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
	return "redis://127.0.0.1:" + port, p.start(nil, ".", path, "--bind", "127.0.0.1", "--port", port, "--save", "", "--logfile", os.DevNull)
}

// startNode installs the dependencies of the Express app once, and starts it.
func (p *programs) startNode(redisURL, secret string) (*url.URL, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, errors.New("node is not installed")
	}
	if _, err := os.Stat(filepath.Join("node", "app.js")); err != nil {
		return nil, errors.New("node/app.js not found: run this in examples/integrations/express")
	}
	if _, err := os.Stat(filepath.Join("node", "node_modules", "express-session")); err != nil {
		fmt.Println("npm ci: installing what the Express app needs")
		npm := exec.CommandContext(p.ctx, "npm", "ci")
		npm.Dir = "node"
		if out, err := npm.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("npm ci: %w\n%s", err, out)
		}
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	err = p.start([]string{"PORT=" + port, "REDIS_URL=" + redisURL, "SESSION_SECRET=" + secret}, "node", node, "app.js")
	if err != nil {
		return nil, err
	}
	address := &url.URL{Scheme: "http", Host: "127.0.0.1:" + port}
	return address, await(p.ctx, "the Express app", func() error {
		conn, err := net.Dial("tcp", address.Host)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
}

// start starts a program.
func (p *programs) start(env []string, dir string, args ...string) error {
	cmd := exec.CommandContext(p.ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	p.running.Go(func() {
		if err := cmd.Wait(); p.ctx.Err() == nil {
			log.Print(filepath.Base(args[0]), " has ended: ", err)
		}
	})
	return nil
}

// await waits until answers returns nil.
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
