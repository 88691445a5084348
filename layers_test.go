package session_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/coatcheck/session"

// layers are the packages of a program that uses sessions, by folder, with the packages of
// this project that each may import. None of them may import what is for tests:
// internal/testing, sessiontest, storetest.
var layers = map[string][]string{
	".":                  {"internal/batch", "internal/body", "internal/crosssite", "internal/device", "internal/firstbyte", "internal/mistake", "internal/object", "internal/parallel", "internal/shared", "internal/storectx", "internal/token", "internal/watch"},
	"internal/batch":     {},
	"internal/body":      {"internal/object", "internal/token"},
	"internal/crosssite": {},
	"internal/device":    {},
	"internal/firstbyte": {},
	"internal/mistake":   {},
	"internal/object":    {},
	"internal/parallel":  {},
	"internal/shared":    {},
	"internal/storectx":  {},
	"internal/token":     {},
	"internal/watch":     {"internal/storectx"},
	"redisstore":         {".", "internal/body"},
	"sqlstore":           {"."},
	"otel":               {"."},
	"expressjs":          {".", "internal/body", "internal/mistake", "internal/object", "internal/shared"},
	"expressjs/doctor":   {".", "expressjs"},
	"gorillastore":       {".", "internal/batch", "internal/object"},
	"sessionctl":         {".", "internal/body", "internal/object", "internal/parallel", "internal/token", "redisstore", "sqlstore"},
	"migrate":            {".", "internal/body", "internal/crosssite", "internal/firstbyte", "internal/object"},
}

// A sourceFile is a Go file of a package of layers, without tests.
type sourceFile struct {
	folder, name string
	*ast.File
}

func (f sourceFile) path() string { return path.Join(f.folder, f.name) }

func (f sourceFile) isRoot() bool { return f.folder == "." }

func (f sourceFile) isOfRootModule() bool {
	return f.isRoot() || strings.HasPrefix(f.folder, "internal/")
}

// imports yields the paths that the file imports; those of this project as folders.
func (f sourceFile) imports(yield func(string, bool) bool) {
	for _, spec := range f.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		folder, isOurs := strings.CutPrefix(imported, modulePath)
		if isOurs {
			imported = path.Join(".", strings.TrimPrefix(folder, "/"))
		}
		if !yield(imported, isOurs) {
			return
		}
	}
}

func sourceFiles(t *testing.T) (files []sourceFile) {
	t.Helper()
	for folder := range layers {
		names, err := filepath.Glob(filepath.Join(filepath.FromSlash(folder), "*.go"))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s has no Go files: %v", folder, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, sourceFile{folder, filepath.Base(name), f})
		}
	}
	return files
}

// TestLayers checks what CONTRIBUTING.md claims about which package imports which.
func TestLayers(t *testing.T) {
	for _, f := range sourceFiles(t) {
		for imported, isOurs := range f.imports {
			isStandard := !strings.Contains(strings.Split(imported, "/")[0], ".")
			switch {
			case isOurs && !slices.Contains(layers[f.folder], imported):
				t.Errorf("%s imports %s, which is not below its package", f.path(), imported)
			case f.isOfRootModule() && !isOurs && !isStandard && (imported != "github.com/gorilla/securecookie" || f.folder != "internal/token"):
				t.Errorf("%s imports %s: the root module has one dependency, which internal/token hides", f.path(), imported)
			case f.isOfRootModule() && strings.HasPrefix(imported, "crypto/") && imported != "crypto/rand" && f.folder != "internal/token" && f.folder != "internal/device":
				t.Errorf("%s imports %s: cryptography belongs into internal/token and internal/device", f.path(), imported)
			}
		}
	}
}

// knowsHTTP are the root's files that may import net/http; of these, knowsCookies may name
// cookies and the header fields that carry them.
var (
	knowsHTTP    = []string{"carrier.go", "cookie.go", "cookie_options.go", "device.go", "device_endpoint.go", "failure.go", "manager.go", "options.go", "request.go", "response.go", "users.go"}
	knowsCookies = []string{"cookie.go", "cookie_options.go", "device.go"}
)

// TestFilesThatKnowHTTP checks that HTTP stays at the edge of the package: what loads,
// changes and commits sessions does not import net/http.
func TestFilesThatKnowHTTP(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if !f.isRoot() {
			continue
		}
		for imported := range f.imports {
			if imported == "net/http" && !slices.Contains(knowsHTTP, f.name) {
				t.Errorf("%s imports net/http", f.name)
			}
			if f.name == "store.go" && imported != "context" && imported != "errors" && imported != "time" {
				t.Errorf("store.go imports %s: the contract of a store needs nothing of this package", imported)
			}
		}
		if slices.Contains(knowsCookies, f.name) {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && isName(s.X, "http") && strings.Contains(s.Sel.Name, "Cookie") {
				t.Errorf("%s mentions http.%s", f.name, s.Sel.Name)
			}
			return true
		})
	}
}

func isName(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// callsStore are the root's files that may call the store.
var callsStore = []string{"commit.go", "queue.go", "record.go", "successor.go", "touch.go", "users.go"}

// TestFilesThatCallTheStore checks where network I/O can happen.
func TestFilesThatCallTheStore(t *testing.T) {
	methods := []string{"Create", "Delete", "List", "Load", "Save", "Touch"}
	found := map[string]bool{}
	for _, f := range sourceFiles(t) {
		if !f.isRoot() {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains(methods, method.Sel.Name) {
				return true
			}
			of, ok := method.X.(*ast.SelectorExpr)
			if isName(method.X, "store") || ok && of.Sel.Name == "store" {
				found[f.name] = true
			}
			return true
		})
	}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, callsStore) {
		t.Errorf("the store is called in %v, want %v", got, callsStore)
	}
}

// startsGoroutines are the files that may start goroutines or timers.
var startsGoroutines = []string{"change.go", "internal/parallel/parallel.go", "internal/watch/watch.go"}

// TestGoroutines checks that every goroutine and timer of the library has its place.
func TestGoroutines(t *testing.T) {
	for _, f := range sourceFiles(t) {
		if !f.isOfRootModule() || slices.Contains(startsGoroutines, f.path()) {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s starts a goroutine", f.path())
			case *ast.SelectorExpr:
				if n.Sel.Name == "AfterFunc" || n.Sel.Name == "Go" {
					t.Errorf("%s calls %s", f.path(), n.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestNoGlobalState checks that no package-level variable is assigned to. Only the
// simulator sets simulated, which it does from tests.
func TestNoGlobalState(t *testing.T) {
	files := sourceFiles(t)
	globals := map[string]map[string]bool{} // folder, name
	declared := map[any]bool{}              // the specs at package level
	for _, f := range files {
		for _, d := range f.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for _, spec := range decl.Specs {
				declared[spec] = true
				for _, name := range spec.(*ast.ValueSpec).Names {
					if globals[f.folder] == nil {
						globals[f.folder] = map[string]bool{}
					}
					globals[f.folder][name.Name] = name.Name != "_"
				}
			}
		}
	}
	for _, f := range files {
		if !f.isOfRootModule() {
			continue
		}
		check := func(e ast.Expr) {
			id := rootOf(e)
			isGlobal := id != nil && globals[f.folder][id.Name] && (id.Obj == nil || declared[id.Obj.Decl])
			if isGlobal {
				t.Errorf("%s sets the global variable %s", f.path(), id.Name)
			}
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, left := range n.Lhs {
						check(left)
					}
				}
			case *ast.IncDecStmt:
				check(n.X)
			}
			return true
		})
	}
}

// rootOf returns the variable that an expression is a part of, or nil.
func rootOf(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// TestFilesInContributing checks that CONTRIBUTING.md describes each file of the root and each
// package under internal, and no other.
func TestFilesInContributing(t *testing.T) {
	text, err := os.ReadFile("CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	mentioned := map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		if cell, ok := strings.CutPrefix(line, "| "); ok {
			cell, _, _ = strings.Cut(cell, "|")
			for i, word := range strings.Split(cell, "`") {
				if i%2 == 1 {
					mentioned[word] = true
				}
			}
		}
	}
	for name := range mentioned {
		if strings.HasSuffix(name, ".go") {
			if found, _ := filepath.Glob(name); len(found) == 0 {
				t.Errorf("CONTRIBUTING.md mentions %s, which is not there", name)
			}
			continue
		}
		if _, err := os.Stat(filepath.Join("internal", filepath.FromSlash(name))); err != nil && name != "testing/…" {
			t.Errorf("CONTRIBUTING.md mentions internal/%s, which is not there", name)
		}
	}
	for _, f := range sourceFiles(t) {
		name := f.name
		if strings.HasPrefix(name, "memory") {
			name = "memory*.go"
		}
		if f.isRoot() && !mentioned[name] && name != "doc.go" && name != "simulated.go" {
			t.Errorf("CONTRIBUTING.md does not mention %s", f.name)
		}
		if pkg, ok := strings.CutPrefix(f.folder, "internal/"); ok && !mentioned[pkg] {
			t.Errorf("CONTRIBUTING.md does not mention internal/%s", pkg)
		}
	}
}
