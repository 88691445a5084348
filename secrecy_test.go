package session_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

// spellingIn returns the first encoding of b that said contains, or "".
func spellingIn(said string, b []byte) string {
	hexadecimal := hex.EncodeToString(b)
	goSyntax := fmt.Sprintf("%#v", b) // []byte{0x6f, 0x6c, …}
	for _, s := range []string{
		string(b), strings.Trim(fmt.Sprintf("%q", b), `"`),
		hexadecimal, strings.ToUpper(hexadecimal),
		strings.Trim(fmt.Sprint(b), "[]"), // decimal, as %v prints bytes
		goSyntax[len("[]byte{") : len(goSyntax)-1],
		base64.RawStdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b),
		base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b),
	} {
		if strings.Contains(said, s) {
			return s
		}
	}
	return ""
}

// witness records everything that the package outputs: to the log, to OnEvent, in errors, in
// printed values, and to the store.
type witness struct {
	session.Store // every record that is written to it is also added to said
	mu            sync.Mutex
	said          *bytes.Buffer // a pointer, so that printing a witness does not print its contents
	ids           map[string]bool
}

func newWitness(store session.Store) *witness {
	return &witness{Store: store, said: new(bytes.Buffer), ids: map[string]bool{}}
}

// Write implements io.Writer for the log.
func (w *witness) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(p)
}

// hear prints things with every verb, and errors with all that they wrap.
func (w *witness) hear(things ...any) {
	for _, x := range things {
		fmt.Fprintf(w, "%v\n%+v\n%#v\n", x, x, x)
		slog.Info("heard", "thing", x)
		if err, ok := x.(error); ok {
			for e := range errorsIn(err) {
				fmt.Fprintf(w, "%v\n%+v\n%#v\n", e, e, e)
			}
		}
	}
}

func (w *witness) record(r *session.Record) {
	w.hear(r, *r)
	fmt.Fprintf(w, "%s\n", r.Data)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids[r.ID] = true
}

func (w *witness) Create(ctx context.Context, r *session.Record) error {
	w.record(r)
	w.hear(ctx)
	return w.Store.Create(ctx, r)
}

func (w *witness) Save(ctx context.Context, r *session.Record, old uint64) error {
	w.record(r)
	return w.Store.Save(ctx, r, old)
}

// TestStolenStoreIsUseless: promise 10. An attacker who reads the store finds hashes of keys,
// and nothing that gives access to a session.
func TestStolenStoreIsUseless(t *testing.T) {
	store := newWitness(session.NewMemoryStore(nil))
	h := newManager(t, session.Options{Store: store, Secrets: [][]byte{oldSecret}}).Handler(reception)
	name, value := logIn(t, h, "alice")
	renewed := issued(t, present(h, "/renew", name+"="+value)).Value
	token := tokenOf(t, renewed)
	sum := sha256.Sum256(keyOf(t, renewed))
	hash := base64.RawURLEncoding.EncodeToString(sum[:16])
	if id := base64.RawURLEncoding.EncodeToString(token[:16]); !store.ids[id] || len(store.ids) != 1 || !strings.Contains(store.said.String(), hash) {
		t.Fatalf("the ids %v, want %s, and %s in its record", store.ids, id, hash)
	}
	for _, v := range []string{value, renewed} {
		if found := spellingIn(store.said.String(), keyOf(t, v)); found != "" || strings.Contains(store.said.String(), v) {
			t.Errorf("the store contains the token: %s", found)
		}
	}
	// A Manager of the attacker signs any value, with another secret.
	thief := newManager(t, session.Options{Store: store.Store, Secrets: [][]byte{newSecret}}).Handler(reception)
	_, loot := logIn(t, thief, "mallory")
	for id := range store.ids {
		for _, v := range []string{id, strings.Repeat(id+hash, 3)[:120], base64.URLEncoding.EncodeToString([]byte("1700000000|" + id + hash + "|" + string(sum[:]))), loot} {
			expectUser(t, h, "", name+"="+v)
		}
	}
	expectUser(t, h, "alice", name+"="+renewed)
}

// TestNothingSaysATokenOrASecret checks that over the life of a session with all its failures
// the package outputs no token and no secret.
func TestNothingSaysATokenOrASecret(t *testing.T) {
	spy := newSpy()
	w := newWitness(spy)
	before := slog.Default()
	defer slog.SetDefault(before)
	slog.SetDefault(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true})))

	secrets := [][]byte{newSecret, oldSecret}
	var log events
	breakRule := false
	m := newManager(t, session.Options{
		Store: w, Secrets: secrets, MaxDataSize: 100, MaxPerUser: 3, IdleTimeout: time.Hour,
		Cookie: session.CookieOptions{Adapt: func(r *http.Request, c *http.Cookie) {
			w.hear(c)
			if breakRule {
				c.Domain = "example.com"
			}
		}},
		ErrorHandler: func(rw http.ResponseWriter, r *http.Request, err error) { w.hear(err, r.Context()) },
		OnEvent:      func(ctx context.Context, e session.Event) { log.on(ctx, e); w.hear(ctx, e, &e, e.Err) },
	})
	act := map[string]func(rw http.ResponseWriter, r *http.Request, s *session.Session){
		"set":      func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { name.Set(s, "x") },
		"flash":    func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { s.AddFlash("info", "hello") },
		"login":    func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { s.Login("alice") },
		"nobody":   func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { s.Login("") },
		"renew":    func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { s.Renew() },
		"remember": func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { s.Remember(time.Hour) },
		"logout":   func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { s.Logout() },
		"broken": func(_ http.ResponseWriter, _ *http.Request, s *session.Session) {
			session.NewKey[chan int]("broken").Set(s, nil)
		},
		"huge": func(_ http.ResponseWriter, _ *http.Request, s *session.Session) {
			name.Set(s, strings.Repeat("x", 200))
		},
		"late": func(rw http.ResponseWriter, _ *http.Request, s *session.Session) { rw.Write(ok); s.Login("bob") },
		"save": func(_ http.ResponseWriter, r *http.Request, s *session.Session) {
			name.Set(s, "y")
			w.hear(s.Save(r.Context()))
		},
		"reload": func(_ http.ResponseWriter, r *http.Request, s *session.Session) { w.hear(s.Reload(r.Context())) },
		"panic":  func(_ http.ResponseWriter, _ *http.Request, s *session.Session) { s.Logout(); panic("at the disco") },
		"ended": func(_ http.ResponseWriter, r *http.Request, s *session.Session) { // another request of the same browser ends the session
			present(m.Handler(reception), "/renew", r.Header["Cookie"]...)
			name.Set(s, "z")
		},
		"devices": func(_ http.ResponseWriter, r *http.Request, s *session.Session) {
			all, err := m.List(r.Context(), "alice")
			w.hear(all, err)
			for _, d := range all {
				w.hear(d, &d, slog.AnyValue(d))
				w.hear(m.Edit(r.Context(), "alice", d.ID, func(s *session.Session) { name.Set(s, "edited"); w.hear(s, s.ID(), s.Names()) }))
				w.hear(m.Edit(r.Context(), "alice", d.ID, func(s *session.Session) { s.Renew(); w.hear(s, s.Save(r.Context())) }))
			}
			w.hear(m.RevokeOthers(r.Context(), s), m.Revoke(r.Context(), "alice", s.ID()), m.RevokeAll(r.Context(), "alice"))
		},
	}
	h := m.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		tell := func() {
			w.hear(s, m, r.Context(), context.WithValue(r.Context(), new(int), "v"), rw, s.Err(), s.ID(), s.User(), s.Names())
		}
		tell()
		act[r.URL.Path[1:]](rw, r, s)
		tell()
		if r.URL.RawQuery == "save" {
			w.hear(s.Save(r.Context()))
			tell()
		}
	}))

	var values []string
	failures := 0
	visit := func(path string, cookies ...string) string {
		func() {
			defer func() {
				if p := recover(); p != nil && p != "at the disco" {
					panic(p)
				}
			}()
			for _, c := range present(h, path, cookies...).Cookies() {
				if c.Value != "" {
					values = append(values, c.Value)
					cookies = []string{c.Name + "=" + c.Value}
				}
			}
		}()
		said := w.said.String()
		w.said.Reset()
		failures += strings.Count(said, "level=ERROR")
		for _, v := range values[max(0, len(values)-6):] { // includes those of this visit
			if v := v[16:72]; strings.Contains(said, v) { // the part that contains the token
				t.Fatalf("GET %s: a cookie was output: …%s…", path, around(said, v))
			}
			if s := spellingIn(said, keyOf(t, v)); s != "" {
				t.Fatalf("GET %s: a token was output: …%s…", path, around(said, s))
			}
		}
		for _, s := range secrets {
			if s := spellingIn(said, s); s != "" {
				t.Fatalf("GET %s: a secret was output: …%s…", path, around(said, s))
			}
		}
		return strings.Join(cookies, "; ")
	}
	fresh := func() string { return visit("/login?save") }
	for path := range act {
		visit("/" + path)
		visit("/"+path, fresh())
		visit("/"+path+"?save", fresh())
		visit("/"+path, fresh()+"; "+fresh()) // two live sessions
		visit("/"+path, fresh()[:100])        // an invalid signature
		stale := fresh()
		visit("/renew", stale)
		visit("/"+path, stale)
		for _, call := range []string{"", "Create", "Save", "Load", "Delete", "List"} {
			held := fresh()
			spy.hook(func(_ context.Context, c, id string) error {
				if call == "" || c == call {
					return errors.Join(errDown, session.ErrIndeterminate, fmt.Errorf("%s of %s", c, id))
				}
				return nil
			})
			visit("/"+path, held)
			visit("/" + path)
			spy.hook(nil)
		}
		held := fresh()
		breakRule = true
		visit("/"+path, held)
		visit("/" + path)
		breakRule = false
	}

	// The witness has recorded every kind of event.
	for _, kind := range []session.EventKind{session.EventCreated, session.EventLoggedIn, session.EventLoggedOut, session.EventRenewed,
		session.EventRevoked, session.EventRejected, session.EventDropped, session.EventStoreFailed} {
		if log.count(kind) == 0 {
			t.Errorf("no event %s", kind)
		}
	}
	if len(values) < 100 || failures < 10 {
		t.Errorf("only %d tokens and %d errors in the log", len(values), failures)
	}
}

// TestWrongVerbShowsNoToken covers verbs that do not fit, with which fmt prints the targets of
// pointers, unlike with %v. log.Printf("session %s", s) is an easy mistake, and go vet finds
// only some.
func TestWrongVerbShowsNoToken(t *testing.T) {
	m := newManager(t, session.Options{})
	said := map[string]string{}
	h := m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		name.Set(s, "x")
		if err := s.Save(r.Context()); err != nil {
			t.Error(err)
		}
		for what, x := range map[string]any{"Session": s, "Context": r.Context(), "Manager": m, "ResponseWriter": w} {
			for _, verb := range []string{"%s", "%q", "%d", "%x"} {
				said[verb+" of the "+what] += fmt.Sprintf(verb, x)
			}
		}
	}))
	first := issued(t, present(h, "/"))
	second := issued(t, present(h, "/", "x=y")) // also a new session, because the request has no session cookie
	present(h, "/", first.Name+"="+first.Value)
	for what, text := range said {
		for _, c := range []*http.Cookie{first, second} {
			if found := spellingIn(text, keyOf(t, c.Value)); found != "" {
				t.Errorf("%s shows the token that it issues: …%s…", what, around(text, found))
			}
			if strings.Contains(text, c.Value) {
				t.Errorf("%s shows the cookie of the request: …%s…", what, around(text, c.Value))
			}
		}
	}
}

func around(said, s string) string {
	i := strings.Index(said, s)
	return said[max(0, i-100):min(len(said), i+len(s)+20)]
}
