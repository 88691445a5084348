// Elsewhere shows what session libraries do with requests that overlap. It
// starts a real server for each, set up as its README does it, sends the same
// requests to all, and prints one Markdown table.
//
//	go run ./elsewhere
//
// The order of events is fixed by gates in the servers, not by sleeping:
// requests wait there, with their session loaded or before they look at it,
// until the others have done what is to come in between.
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

// start starts all servers there can be, and says which cannot.
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
		notes = append(notes, "express-session is left out: "+err.Error()+". (`npm ci` in bench/express installs it.)")
	}
	ours := len(sites) - 1 // the last column
	sites = append(sites[:ours:ours], append(express, sites[ours])...)
	return sites, append(notes,
		"An increment is the library's call for it, where there is one (ours: Key.Update); else the handler reads, and writes when the other 49 have read.",
		"icza/session keeps live pointers in the memory of one process. Its two calls in a row, with nothing in between, mostly count right.",
		"A renewal is the library's call for it: RenewToken of scs; regenerate of express-session, with the values copied over, as is usual; ours: Renew. The others have none: with gorilla/sessions a session whose ID was cleared is saved, with icza/session a new session gets the old one's attributes.",
		"A cookie store cannot forget: what it signed is good until it expires, logout or not."), nil
}

// tempDir returns a directory that stop removes.
func tempDir() (string, func(), error) {
	dir, err := os.MkdirTemp("", "elsewhere")
	return dir, func() { os.RemoveAll(dir) }, err
}
