package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// startExpress starts express-session twice: as in its README, and with the cookie.maxAge of
// other examples in the README.
func startExpress() (sites []*site, err error) {
	const dir = "express"
	text, err := os.ReadFile(filepath.Join(dir, "node_modules", "express-session", "package.json"))
	if err != nil {
		return nil, errors.New("express-session is not installed in tests/bench/express")
	}
	var pkg struct{ Version string }
	if err := json.Unmarshal(text, &pkg); err != nil {
		return nil, err
	}
	for _, option := range []string{"", "maxAge"} {
		s, err := startNode(dir, option)
		if err != nil {
			for _, s := range sites {
				s.stop()
			}
			return nil, err
		}
		s.name = "express-session " + pkg.Version
		if option != "" {
			s.name += " with cookie." + option
		}
		sites = append(sites, s)
	}
	return sites, nil
}

func startNode(dir, option string) (*site, error) {
	cmd := exec.Command("node", "server.js", option)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.New("node does not start")
	}
	stop := func() { stdin.Close(); cmd.Wait() }
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		stop()
		return nil, errors.New("tests/bench/express/server.js does not start")
	}
	return &site{url: "http://127.0.0.1:" + strings.TrimSpace(port), stop: stop}, nil
}
