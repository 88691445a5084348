package session_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session"
)

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
