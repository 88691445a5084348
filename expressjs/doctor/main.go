// Command doctor examines one session that an Express app and a Go service are to share. It prints
// what differs from the expectations of either side, and what to change.
//
//	go run ./doctor -redis redis://localhost:6379 -secret-env SESSION_SECRET 's%3A…'
//	go run ./doctor -postgres postgres://localhost/app -secret-env NEW,OLD - <cookie.txt
//
// The argument is the value of the cookie connect.sid in your own browser (developer tools,
// Application, Cookies), or "-" to read it from standard input, which keeps the value out of the
// history of the shell. Log out afterwards, because the cookie opens the session. Connect as the
// user of the Go service, so that the doctor checks the rights of that user. The doctor changes
// nothing, and prints neither a secret nor a whole id.
//
// The first characters of a line are "ok" for a successful check, "!!" for a fault, "??" for a
// setting that the doctor cannot see, with a way to check it, and "-" for a note.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

func main() {
	found, err := run(context.Background(), os.Args[1:], os.Getenv, os.Stdin, os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "doctor:", err)
		os.Exit(2)
	case found > 0:
		os.Exit(1)
	}
}

// run examines the session that the arguments describe, and returns the number of problems.
func run(ctx context.Context, args []string, getenv func(string) string, in io.Reader, out io.Writer) (int, error) {
	var redisURL, postgresURL, secretEnv string
	var a app
	f := flag.NewFlagSet("doctor", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&redisURL, "redis", "", "URL of the Redis of connect-redis, as Go connects to it")
	f.StringVar(&postgresURL, "postgres", "", "URL of the PostgreSQL of connect-pg-simple, as Go connects to it")
	f.StringVar(&secretEnv, "secret-env", "SESSION_SECRET", "environment variables with the secrets, separated by commas, in the order of Express")
	f.StringVar(&a.prefix, "prefix", "sess:", "prefix of connect-redis")
	f.StringVar(&a.table, "table", "session", "tableName of connect-pg-simple, with its schemaName and a dot before it")
	f.DurationVar(&a.ttl, "ttl", 24*time.Hour, "ttl of connect-redis or connect-pg-simple, for sessions without maxAge")
	if err := f.Parse(args); err != nil {
		return 0, err
	}
	if f.NArg() != 1 {
		return 0, errors.New(`give the value of the cookie as the only argument, in quotes, or "-" to read it from standard input`)
	}
	if (redisURL == "") == (postgresURL == "") {
		return 0, errors.New("give either -redis or -postgres")
	}
	cookie := f.Arg(0)
	if cookie == "-" {
		b, err := io.ReadAll(io.LimitReader(in, 1<<16))
		if err != nil {
			return 0, err
		}
		cookie = string(b)
	}
	e := &examination{out: out, app: a}
	id, err := e.cookie(cookie, secretEnv, getenv)
	if err != nil || id == "" {
		return e.problems, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var found *stored
	if redisURL != "" {
		found, err = e.redis(ctx, redisURL, id)
	} else {
		found, err = e.postgres(ctx, postgresURL, id)
	}
	if err != nil {
		return e.problems, errors.New(hide(err.Error(), id))
	}
	if found != nil {
		e.record(found)
	}
	e.sum()
	return e.problems, nil
}

// hide replaces an id in a text by its short form.
func hide(text, id string) string { return strings.ReplaceAll(text, id, short(id)) }

// short returns the first characters of an id, which are enough to recognize it and too few to
// use it.
func short(id string) string { return fmt.Sprintf("%.4s…", id) }

// An app is the configuration of the Express app in the flags.
type app struct {
	prefix, table string
	ttl           time.Duration // life of a session without maxAge
	cookieName    string        // "": unknown
}

// An examination prints its results.
type examination struct {
	out      io.Writer
	app      app
	problems int
	checked  []string // subjects of successful checks
	unseen   []string // settings that the doctor cannot see
}

func (e *examination) say(mark, format string, args ...any) {
	fmt.Fprintf(e.out, "%-4s"+format+"\n", append([]any{mark}, args...)...)
}

func (e *examination) ok(format string, args ...any)   { e.say("ok", format, args...) }
func (e *examination) note(format string, args ...any) { e.say("-", format, args...) }

func (e *examination) problem(format string, args ...any) {
	e.problems++
	e.say("!!", format, args...)
}

// cannotSee prints that the doctor cannot see a setting, and a way to check it.
func (e *examination) cannotSee(what, format string, args ...any) {
	e.unseen = append(e.unseen, what)
	e.say("??", format, args...)
}

// sum prints the last line, which names each subject that was checked and no other.
func (e *examination) sum() {
	text := "No fault in what was checked: "
	if e.problems > 0 {
		text = fmt.Sprintf("Faults (!!): %d. No fault in: ", e.problems)
	}
	if len(e.checked) == 0 {
		e.checked = []string{"nothing else"}
	}
	text += strings.Join(e.checked, ", ") + "."
	if len(e.unseen) > 0 {
		text += " Not checked, see ??: " + strings.Join(e.unseen, ", ") + "."
	}
	e.say("", "%s", text)
}
