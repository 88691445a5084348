// Command doctor looks at one session that an Express app and a Go service are to
// share, and says in plain words what is not as both expect it, and what to change.
//
//	go run ./doctor -redis redis://localhost:6379 -secret-env SESSION_SECRET 's%3A…'
//	go run ./doctor -postgres postgres://localhost/app -secret-env NEW,OLD - <cookie.txt
//
// The argument is the value of the cookie connect.sid in your own browser (developer
// tools, Application, Cookies), or "-" to read it from standard input, where it does
// not get into the shell's history. Log out afterwards: whoever has the cookie has the
// session. Connect as the Go service will, so that its rights are seen. Nothing is changed,
// and neither a secret nor a whole id is printed.
//
// A line begins with "ok" for what was checked, "!!" for a fault, "??" for what cannot be
// seen from here, with how to look, and "-" for what is good to know.
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

// run examines what the arguments say, and returns how many problems it has found.
func run(ctx context.Context, args []string, getenv func(string) string, in io.Reader, out io.Writer) (int, error) {
	var redisURL, postgresURL, secretEnv string
	var a app
	f := flag.NewFlagSet("doctor", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&redisURL, "redis", "", "URL of the Redis of connect-redis, as Go connects to it")
	f.StringVar(&postgresURL, "postgres", "", "URL of the PostgreSQL of connect-pg-simple, as Go connects to it")
	f.StringVar(&secretEnv, "secret-env", "SESSION_SECRET", "environment variables that hold the secrets, in Express's order, with commas")
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

// hide takes an id out of a text.
func hide(text, id string) string { return strings.ReplaceAll(text, id, short(id)) }

// short is so much of an id that its owner knows it, and nobody can use it.
func short(id string) string { return fmt.Sprintf("%.4s…", id) }

// An app is what the doctor is told about the Express app.
type app struct {
	prefix, table string
	ttl           time.Duration // of a session without maxAge
	cookieName    string        // "": not told
}

// An examination writes what it finds.
type examination struct {
	out      io.Writer
	app      app
	problems int
	checked  []string // what has been looked at
	unseen   []string // what cannot be seen from here
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

// cannotSee says what is not to be seen from here, and how to look.
func (e *examination) cannotSee(what, format string, args ...any) {
	e.unseen = append(e.unseen, what)
	e.say("??", format, args...)
}

// sum says no more than what was checked.
func (e *examination) sum() {
	text := "No fault in what was checked: "
	if e.problems > 0 {
		text = fmt.Sprintf("%d of the lines above begin with !!. Checked: ", e.problems)
	}
	text += strings.Join(e.checked, ", ") + "."
	if len(e.unseen) > 0 {
		text += " Not to be seen from here, look yourself (??): " + strings.Join(e.unseen, ", ") + "."
	}
	e.say("", "%s", text)
}
