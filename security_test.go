package session_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
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

// TestNoTokenOrSecretIsOutput checks that over the life of a session with all its failures
// the package outputs no token and no secret.
func TestNoTokenOrSecretIsOutput(t *testing.T) {
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

// FuzzCookieValue checks that an edited cookie value causes no error, finds no session and
// costs no store call, and that the unedited value finds its own session only.
//
// The fuzzer edits the valid value, because it cannot guess a signature: cut characters, from
// position at on, are replaced by insert.
func FuzzCookieValue(f *testing.F) {
	store := newSpy()
	h := newManager(f, session.Options{Store: store}).Handler(reception)
	name, value := logIn(f, h, "alice")
	logIn(f, h, "bob") // a second session that could be returned by mistake
	f.Add(0, 0, "")
	f.Add(0, len(value), "garbage")
	f.Add(0, len(value), strings.Repeat("A", len(value)))
	f.Add(118, 0, "==")
	f.Add(118, 0, "=")
	f.Add(118, 0, "%3D%3D")
	f.Add(117, 1, "B")
	f.Add(60, 0, "\n")
	f.Add(0, 0, " \t")
	f.Add(0, 0, "\"")
	f.Add(60, 0, "; ")
	f.Add(118, 0, "; __Host-Http-session=x")
	f.Fuzz(func(t *testing.T, at, cut int, insert string) {
		at = min(max(at, 0), len(value))
		cut = min(max(cut, 0), len(value)-at)
		edited := value[:at] + insert + value[at+cut:]
		calls := store.count("")
		resp := present(h, "/", name+"="+edited)
		got := body(resp)
		if resp.StatusCode != http.StatusOK || len(resp.Cookies()) != 0 {
			t.Fatalf("%d, Set-Cookie %q", resp.StatusCode, resp.Header["Set-Cookie"])
		}
		want, loads, exact := "", 0, 0
		for v := range ourValues(name, name+"="+edited) {
			if v == value || v == value+"==" {
				want, loads = "alice", 1
			}
			if isPlausible(v) {
				exact++
			}
		}
		if exact > 4 {
			want, loads = "", 0
		}
		if n := store.count("") - calls; got != want || n != loads {
			t.Fatalf("%q and %d calls of the store, want %q and %d", got, n, want, loads)
		}
	})
}

// isPlausible reports whether a value has the length of a valid one.
func isPlausible(v string) bool { return len(v) == 116 || len(v) == 118 || len(v) == 120 }

// ourValues yields the values of the session cookie in a line of Cookie header, parsed as RFC
// 6265 (5.4) has browsers write it.
func ourValues(name, line string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, pair := range strings.Split(line, ";") {
			n, v, ok := strings.Cut(pair, "=")
			if ok && strings.Trim(n, " \t") == name && !yield(strings.Trim(v, " \t")) {
				return
			}
		}
	}
}

// FuzzCookieHeader checks that no Cookie header causes a panic or more than four loads, and
// that a valid cookie after it is found unless four cookies with the session's name and a
// plausible length precede it. The header is one line, or two, as HTTP/2 may split it.
func FuzzCookieHeader(f *testing.F) {
	store := newSpy()
	h := newManager(f, session.Options{Store: store}).Handler(reception)
	name, value := logIn(f, h, "alice")
	// Validly signed cookies of ended sessions, so that each costs a load.
	dead := make([]string, 5)
	for i := range dead {
		_, v := logIn(f, h, "carol")
		dead[i] = name + "=" + v
		present(h, "/logout", dead[i])
	}
	noise := name + "=" + strings.Repeat("A", len(value))
	for _, s := range []string{"", ";", "=", ";=;", name, name + "=", "other=1", " \t;\x00", name + `="x`, noise,
		strings.Repeat(noise+";", 3), strings.Repeat(noise+";", 4), strings.Repeat(name+"=x;", 50), "\xff\xfe" + name + "=\xff"} {
		f.Add(s, "", byte(0))
		f.Add("", s, byte(1))
		f.Add(s, s, byte(5))
	}
	f.Fuzz(func(t *testing.T, first, second string, n byte) {
		n %= byte(len(dead) + 1)
		raw := []string{first, strings.Join(append(dead[:n:n], second), "; ")}
		exact := 0
		for _, line := range raw {
			for v := range ourValues(name, line) {
				if isPlausible(v) {
					exact++
				}
			}
		}
		loads := store.count("Load")
		expectUser(t, h, "", raw...)
		if got := store.count("Load") - loads; got > min(exact, 4) {
			t.Fatalf("%d loads for %d cookies", got, exact)
		}
		want := "alice"
		if exact >= 4 {
			want = ""
		}
		valid := name + "=" + value
		for _, lines := range [][]string{{raw[0], raw[1], valid}, {raw[0], raw[1] + "; " + valid}} {
			loads = store.count("Load")
			expectUser(t, h, want, lines...)
			if got := store.count("Load") - loads; got > 4 {
				t.Fatalf("%d loads", got)
			}
		}
	})
}

// FuzzValues checks that for any Data of a store, reading, writing, logging in and out and
// listing do not panic: each ends in a response or an error. Each value of a JSON object is
// decoded as by encoding/json, also after another value was written.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"", "{}", "null", "[]", `{"name":"x"}`, ` { "name" : "x" , "visits" : 3 } `, `{"name":"\"","visits":-0}`, `{"name":"\\","a":"\\\""}`, `{"a":{"b":[1,"]}",{}]}}`,
		`{"name":`, `{"name":}`, `{"name"`, `{"`, `{"\`, `{"a\"`, `{,}`, `{"a":1,}`, `{"a":1}x`, `{"a":1,"a":2}`, `{"name":1e999,"visits":"x"}`,
		`{"session.flashes":7}`, `{"session.flashes":[{"i":"1","t":"hello"}]}`, `{"session.remember":true,"name":"x"}`,
		`{"session.ended":""}`, `{"session.ended":"`, `{"session.ended":"x","session.next":"y"}`, `{"session.unseen":1,"session.good":{"a":0}}`, `{"session.renewed":"x","session.past":{"":{"until":9e9}},"session.first":7}`, "{\"\u2028<\":\"\\u0000\"}", "\x00", "\xff", strings.Repeat(`{"a":`, 1000)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		visitAll(t, data)
		var members map[string]json.RawMessage
		if json.Unmarshal(data, &members) != nil || members == nil {
			return
		}
		for n := range members {
			if n == "" || strings.HasPrefix(n, "session.") { // names that no key may have
				delete(members, n)
			}
		}
		canonical, err := json.Marshal(members)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(canonical, &members); err != nil {
			t.Fatal(err)
		}
		readAll(t, canonical, members)
	})
}

// planted returns a handler, and the cookie of a session whose record has this Data.
func planted(t *testing.T, data []byte, timeout time.Duration, h http.HandlerFunc) (http.Handler, string) {
	t.Helper()
	store := session.NewMemoryStore(nil)
	name, value := logIn(t, newManager(t, session.Options{Store: store}).Handler(reception), "alice")
	records, err := store.List(t.Context(), "alice")
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	r := *records[0]
	r.Data, r.Version = withKey(r.Data, string(data)), r.Version^1
	if err := store.Save(t.Context(), &r, records[0].Version); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, session.Options{
		Store: store, StoreTimeout: timeout, MaxDataSize: 1 << 24,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { fmt.Fprint(w, "error: ", err) },
	})
	return m.Handler(h), name + "=" + value
}

// visitAll calls every operation on a session. A tombstone that names itself as successor would
// be followed until the timeout.
func visitAll(t *testing.T, data []byte) {
	for what, act := range map[string]func(s *session.Session){
		"read":   func(s *session.Session) { s.Names(); name.Get(s); visits.Get(s) },
		"write":  func(s *session.Session) { name.Set(s, "y"); visits.Update(s, func(n int) int { return n + 1 }) },
		"delete": func(s *session.Session) { name.Delete(s); visits.Pop(s) },
		"flash":  func(s *session.Session) { s.AddFlash("info", "hello"); s.Flashes() },
		"clear":  (*session.Session).Clear,
		"login":  func(s *session.Session) { s.Login("alice") },
		"other":  func(s *session.Session) { s.Login("bob") },
		"renew":  (*session.Session).Renew,
		"stay":   func(s *session.Session) { s.Remember(time.Hour) },
		"logout": (*session.Session).Logout,
	} {
		h, cookie := planted(t, data, 50*time.Millisecond, func(w http.ResponseWriter, r *http.Request) { act(session.From(r.Context())) })
		resp := present(h, "/", cookie)
		failed := strings.HasPrefix(body(resp), "error: ")
		if failed != (resp.StatusCode == http.StatusServiceUnavailable) || failed && len(resp.Cookies()) != 0 {
			t.Fatalf("%s: %d, Set-Cookie %q", what, resp.StatusCode, resp.Header["Set-Cookie"])
		}
		present(h, "/", cookie) // reads the session after the operation
	}
}

// readAll checks the values of a session's data, before and after a write.
func readAll(t *testing.T, data []byte, members map[string]json.RawMessage) {
	own := session.NewKey[int]("the test's own")
	delete(members, "the test's own")
	compare := func(s *session.Session) {
		for n, want := range members {
			if got, found := session.NewKey[json.RawMessage](n).Lookup(s); !found || !bytes.Equal(got, want) {
				t.Fatalf("of %s the member %q reads as %s (%v)", data, n, got, found)
			}
		}
	}
	h, cookie := planted(t, data, 0, func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		compare(s)
		own.Update(s, func(n int) int { return n + 1 })
		compare(s)
	})
	for range 2 {
		if resp := present(h, "/", cookie); resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", data, body(resp))
		}
	}
}
