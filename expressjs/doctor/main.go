// Command doctor looks at one session that an Express app and a Go service are to
// share, and says in plain words what is not as both expect it, and what to change.
//
//	go run ./doctor -redis redis://localhost:6379 -secret-env SESSION_SECRET 's%3A…'
//	go run ./doctor -postgres postgres://localhost/app -secret-env NEW,OLD - <cookie.txt
//
// The argument is the value of the cookie connect.sid in your own browser (developer
// tools, Application, Cookies), or "-" to read it from standard input, where it does
// not get into the shell's history. Log out afterwards: whoever has the cookie has the
// session. Nothing is changed, and neither a secret nor a whole id is printed.
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
	var redisURL, postgresURL, secretEnv, prefix, table string
	f := flag.NewFlagSet("doctor", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&redisURL, "redis", "", "URL of the Redis of connect-redis")
	f.StringVar(&postgresURL, "postgres", "", "URL of the PostgreSQL of connect-pg-simple")
	f.StringVar(&secretEnv, "secret-env", "SESSION_SECRET", "environment variables that hold the secrets, in Express's order, with commas")
	f.StringVar(&prefix, "prefix", "sess:", "prefix of connect-redis")
	f.StringVar(&table, "table", "session", "table of connect-pg-simple")
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
	e := &examination{out: out}
	id, err := e.cookie(cookie, secretEnv, getenv)
	if err != nil || id == "" {
		return e.problems, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var found *stored
	if redisURL != "" {
		found, err = e.redis(ctx, redisURL, prefix, id)
	} else {
		found, err = e.postgres(ctx, postgresURL, table, id)
	}
	if err != nil {
		return e.problems, errors.New(hide(err.Error(), id))
	}
	if found != nil {
		e.record(found)
	}
	if e.problems == 0 {
		e.say("", "Nothing is wrong with this session.")
	}
	return e.problems, nil
}

// hide takes an id out of a text.
func hide(text, id string) string { return strings.ReplaceAll(text, id, short(id)) }

// short is so much of an id that its owner knows it, and nobody can use it.
func short(id string) string { return fmt.Sprintf("%.4s…", id) }

// An examination writes what it finds.
type examination struct {
	out      io.Writer
	problems int
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
