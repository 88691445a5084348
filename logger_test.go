package session_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coatcheck/session"
)

// loggedLines are requests that make the Manager log a line, one for each type that logs.
var loggedLines = map[string]struct {
	o session.Options
	h http.HandlerFunc
}{
	"request failed": {session.Options{}, func(w http.ResponseWriter, r *http.Request) {
		session.NewKey[func()]("f").Set(session.From(r.Context()), func() {})
	}},
	"Secure cookie sent": {session.Options{}, func(w http.ResponseWriter, r *http.Request) {
		name.Set(session.From(r.Context()), "x")
	}},
	"token sent": {session.Options{Bearer: true}, func(w http.ResponseWriter, r *http.Request) {
		name.Set(session.From(r.Context()), "x")
	}},
	"first used after the first byte": {session.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		session.From(r.Context()).User()
	}},
	"too late to answer": {session.Options{}, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
		session.From(r.Context()).Login("alice")
	}},
}

func visitUnencrypted(m *session.Manager, h http.Handler) {
	m.Handler(h).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "http://example.com/", nil))
}

// TestLogger checks that log lines go to Options.Logger, and to no other logger.
func TestLogger(t *testing.T) {
	for line, c := range loggedLines {
		others, log := captureLog(t), new(bytes.Buffer)
		c.o.Logger = slog.New(slog.NewTextHandler(log, nil)).With("part", "sessions")
		visitUnencrypted(newManager(t, c.o), c.h)
		if !strings.Contains(log.String(), "session: "+line) || strings.Count(log.String(), "\n") != strings.Count(log.String(), "part=sessions") {
			t.Errorf("%s: Options.Logger got %q", line, log)
		}
		if others.Len() > 0 {
			t.Errorf("%s: slog.Default got %q", line, others)
		}
	}
}

// TestDefaultLogger checks that without a Logger a line goes to the slog.Default of that
// moment, with its own source position.
func TestDefaultLogger(t *testing.T) {
	for line, c := range loggedLines {
		m := newManager(t, c.o)
		for range 2 { // two default loggers, both set after New
			log := captureLog(t)
			slog.SetDefault(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{AddSource: true})))
			visitUnencrypted(m, c.h)
			if isOnce := line == "first used after the first byte" || strings.HasSuffix(line, "sent"); isOnce {
				m = newManager(t, c.o)
			}
			if !strings.Contains(log.String(), "session: "+line) || strings.Contains(log.String(), "logger.go") || !strings.Contains(log.String(), "source=") {
				t.Errorf("%s: slog.Default got %q", line, log)
			}
		}
		log := captureLog(t)
		slog.SetDefault(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelError + 1})))
		if visitUnencrypted(m, c.h); log.Len() > 0 {
			t.Errorf("%s: a disabled level was logged: %q", line, log)
		}
	}
}

// TestNoLineBypassesLogger checks that no file logs without Options.Logger.
func TestNoLineBypassesLogger(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	direct, lines := regexp.MustCompile(`\bslog\.(Debug|Info|Warn|Error|Log|Default|With)\w*\(`), 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || file == "logger.go" {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range direct.FindAll(source, -1) {
			t.Errorf("%s: %s", file, call)
		}
		lines += strings.Count(string(source), "log.WarnContext(") + strings.Count(string(source), "log.ErrorContext(")
	}
	if lines < 8 {
		t.Errorf("%d lines were found", lines)
	}
}

// TestLoggerIsPrintedAsItsType checks that a printed Options.Logger shows only its type,
// because its handler may contain secrets.
func TestLoggerIsPrintedAsItsType(t *testing.T) {
	o := session.Options{Logger: slog.New(slog.NewTextHandler(new(bytes.Buffer), nil)).With("password", "hush hush")}
	said := fmt.Sprint(o)
	for _, verb := range []string{"%+v", "%#v", "%s", "%d", "%x"} {
		said += fmt.Sprintf(verb, o) + fmt.Sprintf(verb, &o)
	}
	if found := spellingIn(said, []byte("hush hush")); found != "" || !strings.Contains(said, "Logger=*slog.Logger") {
		t.Errorf("%q in %s", found, said)
	}
}
