package storetest

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/coatcheck/session"
)

func TestMemoryStore(t *testing.T) {
	Run(t, func(t *testing.T) session.Store { return session.NewMemoryStore(nil) })
}

// TestSharedStore uses one store for all cases, as with a database.
func TestSharedStore(t *testing.T) {
	s := newMapStore()
	Run(t, func(t *testing.T) session.Store { return s })
}

func TestBrokenStores(t *testing.T) {
	caught := map[string]bool{}
	for _, f := range slices.Concat(writeFaults, touchAndListFaults) {
		t.Run(f.name, func(t *testing.T) {
			failed := failures(t, func() session.Store {
				s := newMapStore()
				f.into(s)
				return s
			})
			if want := strings.Fields(f.fails); !slices.Equal(failed, want) {
				t.Errorf("fails\n%s, want\n%s", failed, want)
			}
			for _, name := range failed {
				caught[name] = true
			}
		})
	}
	for name := range all {
		if !caught[name] {
			t.Errorf("no broken store fails %s: add a fault that does", name)
		}
	}
}

// all yields every case and its full name.
func all(yield func(string, testCase) bool) {
	for _, c := range cases {
		if !yield(c.name, c) {
			return
		}
	}
	for _, c := range expiryCases {
		if !yield("Expired/"+c.name, c) {
			return
		}
	}
}

// failures returns the names of the cases that a store fails, and checks that each has printed
// its sentence.
func failures(t *testing.T, newStore func() session.Store) (names []string) {
	for name, c := range all {
		var r *recorder
		synctest.Test(t, func(*testing.T) { r = record(c, newStore()) })
		if !r.failed {
			continue
		}
		names = append(names, name)
		if log := strings.Join(r.log, "\n"); !strings.Contains(log, c.sentence) || len(r.log) < 2 {
			t.Errorf("%s failed without a reason or without its sentence: %s", name, log)
		}
	}
	return names
}

// record runs a case and returns the calls that it made to its tester.
func record(c testCase, s session.Store) *recorder {
	r := &recorder{}
	var done sync.WaitGroup
	done.Go(func() { c.check(r, s) })
	done.Wait()
	return r
}

type recorder struct {
	mu     sync.Mutex
	failed bool
	log    []string
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return context.Background() }

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, fmt.Sprintf(format, args...))
}

func (r *recorder) Errorf(format string, args ...any) {
	r.Logf(format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = true
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// TestSentences checks that every case quotes the documentation exactly, and that every
// sentence about a method has a case.
func TestSentences(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../store.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, c := range file.Comments {
		text.WriteString(oneLine(c.Text()) + " ")
	}
	quoted := map[string]bool{}
	for name, c := range all {
		quoted[c.sentence] = true
		if !strings.Contains(text.String(), c.sentence) {
			t.Errorf("%s quotes what store.go does not say: %s", name, c.sentence)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		store, ok := n.(*ast.InterfaceType)
		if !ok {
			return true
		}
		for _, method := range store.Methods.List {
			for _, s := range strings.SplitAfter(oneLine(method.Doc.Text()), ". ") {
				if s = strings.TrimSpace(s); !quoted[s] {
					t.Errorf("no case for: %s", s)
				}
			}
		}
		return false
	})
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
