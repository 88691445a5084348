// Elsewhere measures the behaviour of session libraries under concurrent requests. It starts a
// real server for each library, configured as in its README, sends the same requests to all,
// and prints one Markdown table.
//
//	go run ./elsewhere
//
// Gates in the servers, not sleeps, fix the order of events: a request waits at its gate,
// before or after it has loaded its session, until the other requests have done their part.
package main

import (
	"fmt"
	"log"
	"os"
	"strings"
)

func main() {
	log.SetFlags(0)
	sites, notes, err := start()
	if err != nil {
		log.Fatal(err)
	}
	head, rule := "| |", "|---|"
	rows := make([]string, len(races))
	for _, s := range sites {
		s.renew()
	}
	for _, s := range sites {
		head += " " + s.name + " |"
		rule += "---|"
		for i, race := range races {
			rows[i] += " " + race.run(s) + " |"
		}
		s.stop()
	}
	fmt.Println(head)
	fmt.Println(rule)
	for i, race := range races {
		fmt.Println("| " + race.name + " |" + rows[i])
	}
	fmt.Println()
	fmt.Println(strings.Join(notes, "\n\n"))
}

// start starts all servers that can run. notes explain the others.
func start() (sites []*site, notes []string, err error) {
	for _, l := range libraries {
		s, err := l.serve()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", l.name, err)
		}
		sites = append(sites, s)
	}
	express, err := startExpress()
	if err != nil {
		notes = append(notes, "express-session was not measured: "+err.Error()+". (`npm ci` in tests/bench/express installs it.)")
	}
	ours := len(sites) - 1 // the last column
	sites = append(sites[:ours:ours], append(express, sites[ours])...)
	return sites, append(notes,
		"For an increment the handler uses the library's call, if there is one (this package: Key.Update). Otherwise it reads, and writes when the other 49 have read.",
		"icza/session keeps live pointers in the memory of one process. If its two calls follow each other directly, the count is mostly right.",
		"For a renewal the handler uses the library's call: RenewToken of scs; regenerate of express-session, with the values copied, as is usual; Renew of this package. The others have none: with gorilla/sessions a session is saved without its ID, with icza/session a new session gets the attributes of the old one.",
		"A cookie store cannot revoke a cookie: it is valid until it expires, also after a logout."), nil
}

// tempDir returns a temporary directory and a function that removes it.
func tempDir() (string, func(), error) {
	dir, err := os.MkdirTemp("", "elsewhere")
	return dir, func() { os.RemoveAll(dir) }, err
}
