package simulate

import (
	"regexp"
	"strings"
)

// maxLines bounds the printed part of a history to what a person can read.
const maxLines = 60

// legend explains the words in a history.
const legend = `How to read it: the first column is the virtual time since the beginning. Requests, sessions and the tokens of a
session are numbered in the order of their creation. A token is the value of a session's cookie: each renewal of the
key makes a new one. A mark is a number that a request adds to a list in the session, where the mark must stay; a voucher
may be taken by one request only; a credential may be sent to its issuer once. "found" is the user at the time when
the handler began. A line with VIOLATION describes a broken promise.`

var sessionOrRequest = regexp.MustCompile(`\b(session|request) [0-9]+`)

// Explain describes the first violation of a run for readers who do not know the simulator: the
// plan, and the part of the history that concerns the sessions of the violation.
func (r *Result) Explain() string {
	if len(r.Violations) == 0 {
		return "no promise was broken"
	}
	lines := append([]string{
		"Broken promise: " + r.Violations[0],
		"Plan: " + r.Plan.String(),
		legend, "",
	}, r.relevant()...)
	return strings.Join(lines, "\n")
}

// relevant returns the last lines of the history that concern the sessions of the first violation,
// up to that violation.
func (r *Result) relevant() (lines []string) {
	history := r.History
	for i, line := range history {
		if strings.Contains(line, "VIOLATION") {
			history = history[:i+1]
			break
		}
	}
	// The topics are first those of the violation, then those of its request.
	topics := map[string]bool{}
	note := func(line, kind string) {
		for _, topic := range sessionOrRequest.FindAllString(line, -1) {
			if strings.HasPrefix(topic, kind) {
				topics[topic] = true
			}
		}
	}
	note(r.Violations[0], "")
	concerns := func(line string) bool {
		all := sessionOrRequest.FindAllString(line, -1)
		for _, topic := range all {
			if topics[topic] {
				return true
			}
		}
		return len(all) == 0 && (strings.Contains(line, "process") || strings.Contains(line, "clock"))
	}
	for _, kind := range []string{"session", "request"} { // requests of those sessions
		var found []string
		for _, line := range history {
			if concerns(line) {
				found = append(found, line)
			}
		}
		for _, line := range found {
			note(line, kind)
		}
	}
	for _, line := range history {
		if concerns(line) {
			lines = append(lines, line)
		}
	}
	if n := len(lines) - maxLines; n > 0 {
		lines = append([]string{"…"}, lines[n:]...)
	}
	return lines
}
