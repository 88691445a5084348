package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// plain returns a text that was stored or given, in quotes if a terminal might interpret it.
func plain(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) >= 0 {
		return strconv.Quote(s)
	}
	return s
}

// date returns a time in UTC.
func date(t time.Time) string {
	if t.IsZero() { // of a session that migrate has taken over
		return "unknown"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// distance returns how far a time is from now.
func distance(t, now time.Time) string {
	if d := t.Sub(now); d > 0 {
		return "in " + span(d)
	}
	return span(now.Sub(t)) + " ago"
}

// when returns a time in UTC, and how far it is from now.
func when(t, now time.Time) string { return date(t) + " (" + distance(t, now) + ")" }

// span returns a duration in its largest unit or two, rounded down.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	case d < 14*24*time.Hour:
		return fmt.Sprintf("%d days %d h", int(d.Hours()/24), int(d.Hours())%24)
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// plural returns a number with a noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// isAre returns a number with a noun and the present tense of "to be".
func isAre(n int, noun string) string {
	if n == 1 {
		return plural(n, noun) + " is"
	}
	return plural(n, noun) + " are"
}

// printTable prints rows in columns.
func printTable(w io.Writer, rows [][]string) {
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	_ = t.Flush()
	for line := range strings.Lines(text.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// The marks of the lines of a report.
const (
	markOK     = "ok"     // examined, and good
	markBad    = "bad"    // a finding
	markUnseen = "unseen" // could not be examined
	markNote   = "note"
)

// A line is one sentence of a report.
type line struct {
	Mark string `json:"mark"`
	Text string `json:"text"`
}

// A report is the answer of check and cookie.
type report struct {
	Good  bool   `json:"good"` // no line is markBad
	Lines []line `json:"lines"`
}

func (r *report) say(mark, format string, args ...any) {
	r.Lines = append(r.Lines, line{mark, fmt.Sprintf(format, args...)})
}

// count returns the number of lines with a mark.
func (r *report) count(mark string) (n int) {
	for _, l := range r.Lines {
		if l.Mark == mark {
			n++
		}
	}
	return n
}

// status sets Good, and returns the exit status.
func (r *report) status() int {
	if r.Good = r.count(markBad) == 0; r.Good {
		return exitDone
	}
	return exitBad
}

func (r *report) print(w io.Writer) {
	signs := map[string]string{markOK: "ok", markBad: "!!", markUnseen: "??", markNote: "-"}
	for _, l := range r.Lines {
		fmt.Fprintf(w, "%-4s%s\n", signs[l.Mark], l.Text)
	}
}
