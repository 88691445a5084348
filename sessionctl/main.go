// Command sessionctl answers operators' questions about sessions, and ends sessions, from a shell.
// README.md begins with the questions.
//
//	sessionctl -store postgres://app@db/app list alice
//	sessionctl -store-env DATABASE_URL -yes revoke-all alice
//	sessionctl -store redis://localhost:6379 check
//	sessionctl cookie <cookie.txt
//
// Exit status:
//
//	0  done, or the answer is good
//	1  the answer is bad: no such session, a finding of check, a cookie that does not work
//	2  the command line or an environment variable is wrong
//	3  the store cannot be reached, or failed
//	4  not confirmed: nothing was changed
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
)

// Exit statuses: see the comment of the package.
const (
	exitDone = iota
	exitBad
	exitUsage
	exitStore
	exitRefused
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	p := program{
		getenv: os.Getenv, in: os.Stdin, out: os.Stdout, err: os.Stderr,
		canAsk: isTerminal(os.Stdin) && isTerminal(os.Stderr), showsProgress: isTerminal(os.Stderr),
	}
	status := p.run(ctx, os.Args[1:])
	stop()
	os.Exit(status)
}

func isTerminal(f *os.File) bool { return isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()) }

// A program is one run of the command.
type program struct {
	getenv        func(string) string
	in            io.Reader
	out, err      io.Writer // the answer; questions, progress and errors
	canAsk        bool      // whether a person can answer a question
	showsProgress bool      // whether err is a terminal

	flags
	hidden []string // passwords, which no error may contain
}

type flags struct {
	store, storeEnv, prefix, table string
	secretEnv, cookieName          string
	json, yes, values              bool
	timeout                        time.Duration
}

// A command is one of the commands.
type command struct {
	name string
	args string // names of the arguments
	text string // what the command does, for the usage

	// run returns exitDone or exitBad, or an error.
	run func(p *program, ctx context.Context, args []string) (int, error)
}

var commands = []command{
	{"list", "USER", "the live sessions of a user", onStore((*program).list)},
	{"show", "ID", "one session: clocks, sizes and names of values; with -values the values", onStore((*program).show)},
	{"revoke", "USER ID", "end one session of a user", onStore((*program).revoke)},
	{"revoke-all", "USER", "end all sessions of a user", onStore((*program).revokeAll)},
	{"count", "", "how many sessions are live and logged in, and of how many users", onStore((*program).count)},
	{"sweep", "", "delete expired sessions, which only use space", onStore((*program).sweep)},
	{"check", "", "what can lose sessions in this store, and what to do", onStore((*program).check)},
	{"cookie", "", "read a cookie from standard input, and say why it works or not", (*program).cookie},
}

// A usageError is a mistake in the command line or the environment.
type usageError string

func (e usageError) Error() string { return string(e) }

func usagef(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

// errRefused reports that the operator has not confirmed a command that ends sessions.
var errRefused = errors.New("not confirmed")

// run runs the command and returns the exit status.
func (p *program) run(ctx context.Context, args []string) int {
	status, err := p.parse(ctx, args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return status
	}
	fmt.Fprintln(p.err, "sessionctl:", p.hide(err.Error()))
	var usage usageError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errRefused):
		return exitRefused
	}
	return exitStore
}

func (p *program) parse(ctx context.Context, args []string) (int, error) {
	f := flag.NewFlagSet("sessionctl", flag.ContinueOnError)
	f.SetOutput(io.Discard) // an error could print the URL of a store
	f.StringVar(&p.store, "store", "", "`URL` of the store, without a password: redis://HOST:6379, postgres://USER@HOST/DB, mysql://USER@HOST/DB or sqlite:FILE")
	f.StringVar(&p.storeEnv, "store-env", "SESSION_STORE", "environment `variable` with the URL of the store, which may contain a password")
	f.StringVar(&p.prefix, "prefix", "", "`prefix` of the keys in Redis: redisstore.Options.Prefix (default session:)")
	f.StringVar(&p.table, "table", "", "`table` in the database: sqlstore.Options.Table (default sessions)")
	f.StringVar(&p.secretEnv, "secret-env", "SESSION_SECRET", "for cookie: environment `variables` with the secrets, separated by commas, in the order of session.Options.Secrets")
	f.StringVar(&p.cookieName, "cookie-name", "", "for cookie: `name` of the cookie, if it is neither the default nor in the input")
	f.BoolVar(&p.values, "values", false, "for show: print the values too, which may be personal or secret")
	f.BoolVar(&p.yes, "yes", false, "for revoke and revoke-all: do not ask")
	f.BoolVar(&p.json, "json", false, "print JSON, for programs")
	f.DurationVar(&p.timeout, "timeout", 15*time.Second, "limit of one call of the store, except count and sweep")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		printUsage(f, p.out)
		return exitDone, err
	} else if err != nil {
		return exitUsage, usagef("%s; sessionctl -help lists the flags", hideURLs(err.Error()))
	}
	if p.timeout <= 0 {
		return exitUsage, usagef("-timeout must be more than 0")
	}
	if f.NArg() == 0 {
		printUsage(f, p.err)
		return exitUsage, usagef("no command")
	}
	name, args := f.Arg(0), f.Args()[1:]
	for _, c := range commands {
		if c.name != name {
			continue
		}
		if want := len(strings.Fields(c.args)); len(args) != want {
			return exitUsage, usagef("%s takes %s; flags come before the command: sessionctl %s", name, arguments(c.args), strings.TrimSpace("-store … "+name+" "+c.args))
		}
		return c.run(p, ctx, args)
	}
	return exitUsage, usagef("no command %q; sessionctl -help lists the commands", hideURLs(name))
}

// arguments describes the arguments of a command.
func arguments(names string) string {
	if names == "" {
		return "no argument"
	}
	return strings.ReplaceAll(names, " ", " and ") + ", and nothing else"
}

func printUsage(f *flag.FlagSet, to io.Writer) {
	fmt.Fprintf(to, "Usage: sessionctl [flags] command\n\nCommands:\n")
	for _, c := range commands {
		fmt.Fprintf(to, "  %-18s %s\n", c.name+" "+c.args, c.text)
	}
	fmt.Fprintf(to, "\nExit status: %d done; %d a bad answer; %d a mistake in the command line;\n%d the store failed; %d not confirmed.\n\nFlags:\n",
		exitDone, exitBad, exitUsage, exitStore, exitRefused)
	f.SetOutput(to)
	f.PrintDefaults()
}

// hide removes passwords from a text.
func (p *program) hide(text string) string {
	for _, secret := range p.hidden {
		text = strings.ReplaceAll(text, secret, "…")
	}
	return text
}

// hideURLs removes what looks like a URL from a text that may contain an argument.
func hideURLs(text string) string {
	words := strings.Fields(text)
	for i, word := range words {
		if strings.Contains(word, "://") {
			words[i] = "…"
		}
	}
	return strings.Join(words, " ")
}

// storeURL returns the URL of the store, or "" if none is given.
func (p *program) storeURL() (string, error) {
	if p.store == "" {
		text := strings.TrimSpace(p.getenv(p.storeEnv))
		p.hidden = append(p.hidden, passwords(text)...)
		return text, nil
	}
	if len(passwords(p.store)) > 0 {
		return "", usagef("-store contains a password, which every user of this machine can see: put the URL into an environment variable and name it by -store-env, or leave the password to PGPASSWORD or ~/.pgpass")
	}
	return p.store, nil
}

// passwords returns the passwords in the URL of a store, decoded and escaped.
func passwords(text string) (found []string) {
	add := func(password string) {
		if password != "" {
			found = append(found, password, url.QueryEscape(password), url.PathEscape(password))
		}
	}
	u, err := url.Parse(text)
	if err != nil { // for example because the password contains a character that must be escaped
		_, rest, _ := strings.Cut(text, "://")
		account := rest[:max(strings.LastIndex(rest, "@"), 0)]
		_, password, _ := strings.Cut(account, ":")
		add(password)
		return found
	}
	password, _ := u.User.Password()
	add(password)
	for name, values := range u.Query() {
		if strings.Contains(strings.ToLower(name), "password") {
			for _, value := range values {
				add(value)
			}
		}
	}
	return found
}

// answer prints v as JSON with -json, and otherwise what text prints.
func (p *program) answer(v any, text func(io.Writer)) {
	if !p.json {
		text(p.out)
		return
	}
	e := json.NewEncoder(p.out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // out is closed: the answer has no reader
}
