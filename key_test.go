package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// newVisitor returns a function that sends one request of one browser with handler f, and the
// store.
func newVisitor(t *testing.T, o session.Options) (visit func(f func(s *session.Session)) *http.Response, spy *spyStore, m *session.Manager) {
	t.Helper()
	spy = newSpy()
	o.Store = spy
	m = newManager(t, o)
	var handler func(s *session.Session)
	b := newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler(session.From(r.Context()))
	})))
	return func(f func(s *session.Session)) *http.Response {
		handler = f
		return b.get("/")
	}, spy, m
}

// TestValuesRoundTrip checks that a value is returned as it was set, in the same request and in
// the next.
func TestValuesRoundTrip(t *testing.T) {
	type nested struct {
		Name string
		List []map[string]*nested `json:"l,omitempty"`
		Time time.Time
	}
	for _, s := range []string{"", "plain", `"quoted" \ back`, "<script>&amp;</script>", "line\nbreak\ttab\x00", "é ü 漢字 😀 \u2028", "\x7f", strings.Repeat("long ", 1000), "null", "0", "{}"} {
		roundTrip(t, s)
		roundTrip(t, &s)
		roundTrip(t, []byte(s))
		roundTrip(t, map[string]string{s: s})
	}
	for _, n := range []int64{0, -1, 7, 1 << 53, 1<<53 + 1, 999_999_999_999_999_999, 1_000_000_000_000_000_000, math.MaxInt64, math.MinInt64} {
		roundTrip(t, n)
		roundTrip(t, int(n))
		roundTrip(t, uint64(n))
		roundTrip(t, time.Duration(n))
		roundTrip(t, json.Number(fmt.Sprint(n)))
	}
	for _, f := range []float64{0, -1.5, 1e300, math.SmallestNonzeroFloat64} {
		roundTrip(t, f)
	}
	roundTrip(t, true)
	roundTrip(t, false)
	roundTrip(t, (*int)(nil))
	roundTrip(t, []string(nil))
	roundTrip(t, []string{})
	roundTrip(t, any(nil))
	roundTrip(t, any("text"))
	roundTrip(t, json.RawMessage(`{"a":[1,2.50,"}",{"b":"\\\""}]}`))
	roundTrip(t, json.RawMessage(`"\ufffd"`))
	for _, s := range []string{"\ufffd", `\ufffd`, `\\ufffd`, "\\\ufffd", `"\ufffd"`} { // the replacement character itself is valid UTF-8
		roundTrip(t, s)
		roundTrip(t, map[string][]string{s: {s}})
	}
	roundTrip(t, []byte("\xff\x00\xfe"))
	roundTrip(t, nested{"a", []map[string]*nested{{"b": {Name: "]"}, "c": nil}}, time.Date(2000, 1, 2, 3, 4, 5, 6, time.UTC)})
}

func roundTrip[T any](t *testing.T, v T) {
	t.Helper()
	k := session.NewKey[T]("value")
	visit, _, _ := newVisitor(t, session.Options{})
	for request := range 2 {
		visit(func(s *session.Session) {
			if request == 0 {
				k.Set(s, v)
			}
			if got, ok := k.Lookup(s); !ok || !reflect.DeepEqual(got, v) {
				t.Errorf("request %d: %T %#v came back as %#v, %v", request, v, v, got, ok)
			}
		})
	}
}

func TestOddNames(t *testing.T) {
	names := []string{"a", "A", " ", `"`, `\`, `\"`, "a.b", "<&>", "é", "e\u0301", "\x00", "\n", "漢字", "😀", "\u2028", "session", "Session.x", "sessions.", "null", "{", "i", strings.Repeat("n", 1000)}
	visit, _, _ := newVisitor(t, session.Options{})
	visit(func(s *session.Session) {
		for i, n := range names {
			session.NewKey[int](n).Set(s, i)
		}
	})
	visit(func(s *session.Session) {
		for i, n := range names {
			if got, ok := session.NewKey[int](n).Lookup(s); got != i || !ok {
				t.Errorf("%q is %d, want %d", n, got, i)
			}
		}
		if got, want := s.Names(), slices.Sorted(slices.Values(names)); !slices.Equal(got, want) {
			t.Errorf("Names: %q, want %q", got, want)
		}
	})
}

func TestKeysMustBeMade(t *testing.T) {
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if p := recover(); p == nil || !strings.HasPrefix(fmt.Sprint(p), "session: ") {
				t.Errorf("%s: panic(%v)", what, p)
			}
		}()
		f()
	}
	for _, n := range []string{"", "session.", "session.flashes", "\xff", "a\xc3"} {
		panics(n, func() { session.NewKey[int](n) })
	}
	visit, _, _ := newVisitor(t, session.Options{})
	visit(func(s *session.Session) {
		panics("a zero Key", func() { session.Key[int]{}.Set(s, 1) })
	})
}

// TestUndecodableValueIsAbsent: promise 13. A program that has changed the type of a value
// finds the value absent, and loses nothing else.
func TestUndecodableValueIsAbsent(t *testing.T) {
	type point struct{ X, Y int }
	visit, spy, _ := newVisitor(t, session.Options{})
	const stored = `{"text":"many","fraction":1.5,"zero":01,"point":{"X":1,"Y":"2"},"broken":tru,"name":"value","big":12345678901234567890123,"over":9223372036854775808}`
	visit(func(s *session.Session) { name.Set(s, "") })
	visit(func(s *session.Session) { overwrite(t, spy, s.ID(), stored) })
	visit(func(s *session.Session) {
		for _, n := range []string{"text", "fraction", "zero", "point", "broken", "big", "over"} {
			if got, ok := session.NewKey[int](n).Lookup(s); got != 0 || ok {
				t.Errorf("%s as an int is %v, %v", n, got, ok)
			}
		}
		if got, ok := session.NewKey[point]("point").Lookup(s); got != (point{}) || ok {
			t.Errorf("a struct that decodes in part is %v, %v", got, ok)
		}
		if got, ok := session.NewKey[bool]("broken").Lookup(s); got || ok {
			t.Errorf("a value that is not a bool is %v, %v", got, ok)
		}
		if _, ok := session.NewKey[[]string]("name").Pop(s); ok || name.Get(s) != "" {
			t.Error("Pop of a value that cannot be decoded must return absent and remove it")
		}
		if err := s.Reload(t.Context()); err != nil || name.Get(s) != "value" {
			t.Fatalf("the rest of the session: %q, %v", name.Get(s), err)
		}
		session.NewKey[int]("text").Update(s, func(n int) int { return n + 1 })
		session.NewKey[bool]("broken").Delete(s)
	})
	const want = `"text":1,"fraction":1.5,"zero":01,"name":"value","point":{"X":1,"Y":"2"},"big":12345678901234567890123,"over":9223372036854775808}`
	visit(func(s *session.Session) {
		rec, err := spy.Store.Load(t.Context(), s.ID())
		if err != nil || !sameMembers(string(rec.Data), string(withKey(rec.Data, "{"+want))) {
			t.Errorf("stored is %s, want %s", rec.Data, want)
		}
	})
}

// overwrite replaces the values of a stored session, as another program does.
func overwrite(t *testing.T, spy *spyStore, id, data string) {
	t.Helper()
	rec, err := spy.Store.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	old := rec.Version
	rec.Version, rec.Data = old/2+1, withKey(rec.Data, data)
	if err := spy.Store.Save(t.Context(), rec, old); err != nil {
		t.Fatal(err)
	}
}

// withKey returns data, if it is an object, with the key of old in front.
func withKey(old []byte, data string) []byte {
	end := bytes.Index(old, []byte(`","`))
	if end < 0 {
		end = len(old) - len(`"}`)
	}
	members, is := strings.CutPrefix(strings.TrimLeft(data, " \t\r\n"), "{")
	key := string(old[:end+1])
	switch {
	case !is:
		return []byte(data)
	case strings.Trim(members, " \t\r\n") == "}":
		return []byte(key + members)
	}
	return []byte(key + "," + members)
}

// sameMembers compares two objects byte for byte, except for the order of their members, which
// must not contain `,"` at a deeper level except in {"X":1,"Y":"2"}.
func sameMembers(a, b string) bool {
	split := func(s string) []string {
		s = strings.ReplaceAll(strings.Trim(s, "{}"), `,"Y"`, ` "Y"`)
		parts := strings.Split(s, `,"`)
		for i := range parts {
			parts[i] = strings.Trim(parts[i], `"`)
		}
		slices.Sort(parts)
		return parts
	}
	return slices.Equal(split(a), split(b))
}

type kind string

// self encodes itself, as encoding/json would or by hand.
type self struct {
	text   string
	byHand bool
}

func (v self) MarshalJSON() ([]byte, error) {
	if v.byHand {
		return []byte(`"` + v.text + `"`), nil
	}
	return json.Marshal(v.text)
}

type textual string

func (v textual) MarshalText() ([]byte, error) { return []byte(v), nil }

// TestUnencodableValueFailsTheRequest checks that a value that cannot be encoded fails the
// request, that nothing is stored, and that this is a mistake of the program, not a failure of
// the store.
func TestUnencodableValueFailsTheRequest(t *testing.T) {
	fails := map[string]func(s *session.Session){
		"Set": func(s *session.Session) { session.NewKey[any]("bad").Set(s, func() {}) },
		"Update": func(s *session.Session) {
			session.NewKey[float64]("bad").Update(s, func(float64) float64 { return math.NaN() })
		},
	}
	// Promise 13. Text that is not UTF-8 would be decoded as different text.
	type nested struct {
		List []map[string]any
	}
	const nonce = "\xff\x00\xfe"
	notUTF8 := map[string]any{
		"text":              nonce,
		"a byte of several": "é"[:1],
		"a surrogate":       "\xed\xa0\x80",
		"a type of text":    kind(nonce),
		"a pointer":         &[]string{nonce}[0],
		"a list":            []string{"good", nonce},
		"nested":            nested{List: []map[string]any{{"a": []any{1, nonce}}}},
		"a map's key":       map[string]int{nonce: 1},
		"JSON":              json.RawMessage(`"` + nonce[:1] + `"`),
		"JSON inside":       []json.RawMessage{json.RawMessage(`{"a":"` + nonce[:1] + `"}`)},
		"Marshaler":         self{nonce, false},
		"raw Marshaler":     self{nonce[:1], true},
		"text Marshaler":    textual(nonce),
		"its map":           map[textual]int{textual(nonce): 1},
		"after a backslash": `\` + nonce,
		"after an escape":   `\ufffd` + nonce,
	}
	for what, v := range notUTF8 {
		fails["Set "+what] = func(s *session.Session) { session.NewKey[any]("bad").Set(s, v) }
		fails["Update "+what] = func(s *session.Session) {
			session.NewKey[any]("bad").Update(s, func(any) any { return v })
		}
	}
	fails["Set a string"] = func(s *session.Session) { session.NewKey[string]("bad").Set(s, nonce) }
	fails["Set JSON itself"] = func(s *session.Session) {
		session.NewKey[json.RawMessage]("bad").Set(s, json.RawMessage(`"`+nonce[:1]+`"`))
	}
	for call, f := range fails {
		t.Run(call, func(t *testing.T) {
			var log events
			visit, spy, _ := newVisitor(t, session.Options{OnEvent: log.on})
			visit(func(s *session.Session) { visits.Set(s, 1) })
			call, _, _ := strings.Cut(call, " ")
			writes := spy.count("Save") + spy.count("Create")
			resp := visit(func(s *session.Session) {
				visits.Set(s, 2)
				f(s)
				if err := s.Err(); err == nil || errors.Is(err, session.ErrStore) || !strings.Contains(err.Error(), call) || !strings.Contains(err.Error(), "bad") {
					t.Errorf("Err is %v, want one that names call and key", err)
				}
				visits.Set(s, 3)
			})
			if resp.StatusCode != http.StatusInternalServerError || spy.count("Save")+spy.count("Create") != writes {
				t.Errorf("status %d, %d writes", resp.StatusCode, spy.count("Save")-writes)
			}
			if n := log.count(session.EventStoreFailed); n > 0 {
				t.Errorf("%d EventStoreFailed", n)
			}
			visit(func(s *session.Session) {
				if got := visits.Get(s); got != 1 || s.Err() != nil {
					t.Errorf("the next request sees %d, %v", got, s.Err())
				}
			})
		})
	}
}

// TestGetDecodesAfresh checks that values returned by Get, and values passed to Set, may be
// changed afterwards.
func TestGetDecodesAfresh(t *testing.T) {
	list := session.NewKey[[]string]("list")
	table := session.NewKey[map[string]int]("table")
	pointer := session.NewKey[*[]int]("pointer")
	visit, _, _ := newVisitor(t, session.Options{})
	check := func(s *session.Session) {
		t.Helper()
		l, m, p := list.Get(s), table.Get(s), pointer.Get(s)
		if l[0] != "a" || m["a"] != 1 || (*p)[0] != 1 {
			t.Fatalf("changed behind the session's back: %v %v %v", l, m, *p)
		}
		l[0], m["a"], (*p)[0] = "changed", 9, 9
	}
	visit(func(s *session.Session) {
		l, m, p := []string{"a"}, map[string]int{"a": 1}, []int{1}
		list.Set(s, l)
		table.Set(s, m)
		pointer.Set(s, &p)
		l[0], m["a"], p[0] = "changed", 9, 9
		check(s)
		check(s)
	})
	for range 2 {
		visit(check)
	}
}

// TestUntouchedValuesAreCarried checks that values that no request changed are kept byte for
// byte, in any encoding.
func TestUntouchedValuesAreCarried(t *testing.T) {
	const odd = `{ "a" : 1.0, "a":1e2 ,"t":"\u00e9\/é" , "n":[ 12345678901234567890 ]}`
	visit, spy, _ := newVisitor(t, session.Options{})
	visit(func(s *session.Session) { name.Set(s, "") })
	visit(func(s *session.Session) { overwrite(t, spy, s.ID(), ` { "odd" : `+odd+"\n, \"name\":\"value\" }\n") })
	for range 2 {
		visit(func(s *session.Session) { visits.Update(s, func(n int) int { return n + 1 }) })
	}
	visit(func(s *session.Session) {
		rec, err := spy.Store.Load(t.Context(), s.ID())
		if err != nil || !strings.Contains(string(rec.Data), `"odd":`+odd) {
			t.Errorf("stored is %s, %v", rec.Data, err)
		}
		if name.Get(s) != "value" || visits.Get(s) != 2 {
			t.Errorf("name %q, visits %d", name.Get(s), visits.Get(s))
		}
	})
}

func TestPopDeleteUpdate(t *testing.T) {
	visit, spy, _ := newVisitor(t, session.Options{})
	visit(func(s *session.Session) {
		if _, ok := visits.Pop(s); ok {
			t.Error("Pop found a value in an empty session")
		}
		visits.Delete(s)
		s.Clear()
	})
	if n := spy.count(""); n != 0 {
		t.Errorf("deleting an absent value cost %d store calls", n)
	}
	visit(func(s *session.Session) {
		visits.Update(s, func(n int) int { return n + 1 })
		visits.Update(s, func(n int) int { return n + 10 })
		visits.Set(s, visits.Get(s)*2)
		visits.Update(s, func(n int) int { return n + 1 })
		name.Set(s, "value")
		name.Delete(s)
	})
	visit(func(s *session.Session) {
		if got := visits.Get(s); got != 23 || !slices.Equal(s.Names(), []string{"visits"}) {
			t.Errorf("visits is %d, names %q", got, s.Names())
		}
		if got, ok := visits.Pop(s); got != 23 || !ok {
			t.Errorf("Pop: %d, %v", got, ok)
		}
		if got, ok := visits.Pop(s); got != 0 || ok {
			t.Errorf("a second Pop: %d, %v", got, ok)
		}
	})
	visit(func(s *session.Session) {
		if len(s.Names()) != 0 || s.IsNew() {
			t.Errorf("names left: %q", s.Names())
		}
	})
}

// TestClear checks that Clear removes values and flashes, and keeps user, token, clocks and
// Remember.
func TestClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		visit, _, _ := newVisitor(t, session.Options{})
		visit(func(s *session.Session) {
			name.Set(s, "value")
			s.AddFlash("info", "hello")
			s.Login("alice")
			s.Remember(30 * day)
		})
		time.Sleep(day)
		var id string
		var ends time.Time
		visit(func(s *session.Session) {
			id, ends = s.ID(), s.Expires()
			visits.Set(s, 1)
			s.Clear()
			if len(s.Names()) != 0 || s.Flashes() != nil {
				t.Errorf("Clear left %q", s.Names())
			}
			visits.Set(s, 2)
		})
		resp := visit(func(s *session.Session) {
			if !slices.Equal(s.Names(), []string{"visits"}) || visits.Get(s) != 2 || s.Flashes() != nil {
				t.Errorf("after Clear and Set: %q, %d", s.Names(), visits.Get(s))
			}
			if s.User() != "alice" || s.ID() != id || !s.Expires().Equal(ends) {
				t.Errorf("user %q, expires %v", s.User(), s.Expires())
			}
			s.Renew()
		})
		if c := resp.Cookies(); len(c) != 1 || c[0].MaxAge != int(29*day/time.Second) {
			t.Errorf("the cookie after a Clear and a Renew is %v", c)
		}
	})
}

// TestLoginKeepsOrForgets checks that Login keeps the values of an anonymous session and of the
// same user, and drops those of another user. Values that are set after the Login belong to the
// new user.
func TestLoginKeepsOrForgets(t *testing.T) {
	for _, c := range []struct{ before, after, name, flash string }{
		{"", "alice", "value", "hello"},
		{"alice", "alice", "value", "hello"},
		{"alice", "bob", "", ""},
	} {
		visit, _, _ := newVisitor(t, session.Options{})
		visit(func(s *session.Session) {
			if c.before != "" {
				s.Login(c.before)
			}
			name.Set(s, "value")
			s.AddFlash("", "hello")
		})
		check := func(s *session.Session) {
			t.Helper()
			if s.User() != c.after || name.Get(s) != c.name || visits.Get(s) != 7 {
				t.Errorf("%q, then %q: user %q, %q, %d", c.before, c.after, s.User(), name.Get(s), visits.Get(s))
			}
		}
		visit(func(s *session.Session) {
			visits.Set(s, 1)
			s.Login(c.after)
			visits.Update(s, func(n int) int {
				if n == 0 {
					n = 1 // the first flash was of another user
				}
				return n + 6
			})
			check(s)
		})
		visit(func(s *session.Session) {
			check(s)
			if f := s.Flashes(); fmt.Sprint(f) != fmt.Sprint([]session.Flash{{Text: c.flash}}) && c.flash != "" || c.flash == "" && f != nil {
				t.Errorf("%q, then %q: flashes %v", c.before, c.after, f)
			}
		})
	}
}

func TestFlashes(t *testing.T) {
	want := []session.Flash{{"info", "first"}, {"", `<b>"second"</b> 😀`}, {"info", "first"}}
	visit, spy, _ := newVisitor(t, session.Options{})
	visit(func(s *session.Session) {
		if s.Flashes() != nil {
			t.Error("a new session has flashes")
		}
		for _, f := range want[:2] {
			s.AddFlash(f.Kind, f.Text)
		}
	})
	visit(func(s *session.Session) {
		s.Login("alice")
		s.AddFlash(want[2].Kind, want[2].Text)
		if len(s.Names()) != 0 {
			t.Errorf("Names shows flashes: %q", s.Names())
		}
	})
	visit(func(s *session.Session) {
		if got := s.Flashes(); !slices.Equal(got, want) {
			t.Errorf("flashes are %v, want %v", got, want)
		}
		if got := s.Flashes(); got != nil {
			t.Errorf("shown flashes are shown again: %v", got)
		}
		s.AddFlash("inf\xff", "next \xfe page")
	})
	visit(func(s *session.Session) {
		if got := s.Flashes(); !slices.Equal(got, []session.Flash{{"inf\ufffd", "next \ufffd page"}}) {
			t.Errorf("the next page shows %v", got)
		}
	})
	saves := spy.count("Save")
	visit(func(s *session.Session) { s.Flashes() })
	if spy.count("Save") != saves {
		t.Error("Flashes without flashes has saved the session")
	}
}

// TestFlashesOfAKind checks that Flashes of some kinds keeps those of other kinds, in this
// request and in the store, and those that another request adds meanwhile.
func TestFlashesOfAKind(t *testing.T) {
	added := []session.Flash{{"info", "1"}, {"error", "2"}, {"", "3"}, {"info", "4"}, {"warning", "5"}}
	for _, c := range []struct {
		kinds      []string
		shown, now string // texts that are shown, and that are left for the next request
	}{
		{nil, "12345", "67"},
		{[]string{}, "12345", "67"},
		{[]string{"info"}, "14", "23567"},
		{[]string{"warning", "error"}, "25", "13467"},
		{[]string{""}, "3", "124567"},
		{[]string{"info", "info"}, "14", "23567"},
		{[]string{"Info", "err"}, "", "1234567"},
	} {
		atDesk(t, session.Options{}, func(d *desk) {
			texts := func(all []session.Flash) (text string) {
				for _, f := range all {
					text += f.Text
				}
				return text
			}
			b := d.browser()
			d.do(b, func(s *session.Session) {
				for _, f := range added {
					s.AddFlash(f.Kind, f.Text)
				}
			})
			saves := 0
			d.do(b, func(s *session.Session) {
				if got := texts(s.Flashes(c.kinds...)); got != c.shown {
					t.Errorf("%q: shows %s, want %s", c.kinds, got, c.shown)
				}
				if got := s.Flashes(c.kinds...); got != nil {
					t.Errorf("%q: shows them again: %v", c.kinds, got)
				}
				d.do(b, func(s *session.Session) { s.AddFlash("info", "6"); s.AddFlash("error", "7") })
				saves = d.spy.count("Save")
			})
			if got := d.spy.count("Save") > saves; got != (c.shown != "") {
				t.Errorf("%q: saves: %v", c.kinds, got)
			}
			d.do(b, func(s *session.Session) {
				if got := texts(s.Flashes()); got != c.now {
					t.Errorf("%q: leaves %s, want %s", c.kinds, got, c.now)
				}
			})
		})
	}
}

// TestFlashesThatAreNeverShown: promise 13. Flashes that no page shows do not accumulate: the
// newest 50 are kept, or as many as fit, and no request fails because of them.
func TestFlashesThatAreNeverShown(t *testing.T) {
	for _, c := range []struct{ length, at, most, least int }{
		{10, 1, 50, 50}, {10, 7, 50, 50}, {10, 70, 50, 50}, {1000, 1, 10, 9}, {1000, 7, 10, 9}, {6000, 1, 1, 1},
	} {
		var log events
		visit, _, _ := newVisitor(t, session.Options{MaxDataSize: 10_000, OnEvent: log.on})
		visit(func(s *session.Session) { s.Login("alice"); visits.Set(s, 7) })
		added := 0
		for added < 140 {
			if resp := visit(func(s *session.Session) {
				for range c.at {
					added++
					s.AddFlash("", fmt.Sprintf("%0*d", c.length, added))
				}
			}); resp.StatusCode != http.StatusOK {
				t.Fatalf("%+v: %s after %d flashes", c, resp.Status, added)
			}
		}
		if n := log.count(session.EventDropped); n == 0 || n > added {
			t.Errorf("%+v: %d EventDropped", c, n)
		}
		visit(func(s *session.Session) {
			all := s.Flashes()
			if len(all) > c.most || len(all) < c.least || visits.Get(s) != 7 {
				t.Errorf("%+v: %d flashes are left", c, len(all))
			}
			for i, f := range all {
				if want := fmt.Sprintf("%0*d", c.length, added-len(all)+1+i); f.Text != want {
					t.Fatalf("%+v: flash %d is %q, want %q", c, i, f.Text, want)
				}
			}
		})
		dropped := log.count(session.EventDropped)
		visit(func(s *session.Session) { s.AddFlash("", "next") })
		if log.count(session.EventDropped) != dropped {
			t.Errorf("%+v: dropped, although there is room", c)
		}
	}
}

// TestMaxDataSize checks that a commit over MaxDataSize fails, and leaves the session
// unchanged.
func TestMaxDataSize(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		limit, fits, over int
	}{{1000, 950, 1000}, {0, 64<<10 - 50, 64 << 10}} {
		visit, _, _ := newVisitor(t, session.Options{MaxDataSize: c.limit})
		status := func(want int, f func(s *session.Session)) {
			t.Helper()
			if resp := visit(f); resp.StatusCode != want {
				t.Errorf("limit %d: status %d, want %d", c.limit, resp.StatusCode, want)
			}
		}
		status(200, func(s *session.Session) {
			name.Set(s, text(c.fits))
			s.Login("alice")
			s.Remember(day) // metadata of the package does not count
			s.EndBy(time.Now().Add(day))
		})
		status(500, func(s *session.Session) { name.Set(s, text(c.over)) })
		status(500, func(s *session.Session) { s.AddFlash("", text(100)) })
		status(200, func(s *session.Session) {
			if len(name.Get(s)) != c.fits {
				t.Errorf("limit %d: the value is %d bytes long", c.limit, len(name.Get(s)))
			}
			visits.Set(s, 1)
			session.NewKey[string]("more").Set(s, text(50))
			if err := s.Save(t.Context()); err == nil || errors.Is(err, session.ErrStore) || !strings.Contains(err.Error(), "Options.MaxDataSize") {
				t.Errorf("Save: %v", err)
			}
		}) // Save has returned the error, so the response remains the handler's
		status(200, func(s *session.Session) {
			name.Delete(s)
			session.NewKey[string]("more").Set(s, text(c.fits))
		})
	}
}

// TestErrTooLarge checks that ErrTooLarge is a mistake of the program (500), not a failure of
// the store. A change that does not fit stays pending until a Reload drops it or another change
// makes it fit.
func TestErrTooLarge(t *testing.T) {
	var log events
	visit, _, _ := newVisitor(t, session.Options{MaxDataSize: 1000, OnEvent: log.on})
	long, more := strings.Repeat("x", 900), session.NewKey[string]("more")
	visit(func(s *session.Session) { name.Set(s, long) })
	tooLarge := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, session.ErrTooLarge) || errors.Is(err, session.ErrStore) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if resp := visit(func(s *session.Session) { more.Set(s, long) }); resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("the response is %s", resp.Status)
	}
	resp := visit(func(s *session.Session) {
		more.Set(s, long)
		for range 2 {
			tooLarge("Save", s.Save(t.Context()))
			tooLarge("Err", s.Err())
		}
		name.Delete(s)
		if err := s.Save(t.Context()); err != nil || s.Err() != nil {
			t.Errorf("Save of a value that fits: %v, Err %v", err, s.Err())
		}
		name.Set(s, long)
		tooLarge("Save", s.Save(t.Context()))
		if err := s.Reload(t.Context()); err != nil || s.Err() != nil || name.Get(s) != "" || more.Get(s) != long {
			t.Errorf("Reload: %v, Err %v", err, s.Err())
		}
		name.Set(s, long)
		tooLarge("Save", s.Save(t.Context()))
		more.Set(s, "little") // the response commits it
	})
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the response is %s", resp.Status)
	}
	resp = visit(func(s *session.Session) {
		if name.Get(s) != long || more.Get(s) != "little" {
			t.Errorf("stored are %d bytes and %q", len(name.Get(s)), more.Get(s))
		}
		visits.Set(s, 7)
		_, err := more.UpdateNow(t.Context(), s, func(string) string { return long })
		tooLarge("UpdateNow", err)
		if more.Get(s) != "little" {
			t.Errorf("an UpdateNow that failed has left %d bytes", len(more.Get(s)))
		}
		if err := s.Save(t.Context()); err != nil {
			t.Errorf("Save after it: %v", err)
		}
	})
	if resp.StatusCode != http.StatusOK || log.count(session.EventStoreFailed) != 0 {
		t.Errorf("%s, events %v", resp.Status, log.all)
	}
}

// TestLoweredMaxDataSize: promise 13. A session that is larger than a lowered limit can be
// read, renewed, logged in and reduced. Only a change that makes it larger fails.
func TestLoweredMaxDataSize(t *testing.T) {
	store := session.NewMemoryStore(nil)
	more := session.NewKey[string]("more")
	for what, c := range map[string]struct {
		f    func(s *session.Session)
		fits bool
	}{
		"Delete":     {func(s *session.Session) { visits.Delete(s) }, true},
		"smaller":    {func(s *session.Session) { name.Set(s, strings.Repeat("y", 4000)) }, true},
		"as large":   {func(s *session.Session) { name.Set(s, strings.Repeat("y", 5000)) }, true},
		"exchanged":  {func(s *session.Session) { visits.Delete(s); more.Set(s, "") }, true},
		"Renew":      {func(s *session.Session) { s.Renew() }, true},
		"Remember":   {func(s *session.Session) { s.Remember(day) }, true},
		"Login":      {func(s *session.Session) { s.Login("alice") }, true},
		"Save":       {func(s *session.Session) { visits.Set(s, 8); s.Save(t.Context()) }, true},
		"Flashes":    {func(s *session.Session) { s.Flashes() }, true},
		"larger":     {func(s *session.Session) { name.Set(s, strings.Repeat("y", 5001)) }, false},
		"one more":   {func(s *session.Session) { more.Set(s, "") }, false},
		"UpdateNow":  {func(s *session.Session) { visits.UpdateNow(t.Context(), s, func(n int) int { return n + 1 }) }, true},
		"Take":       {func(s *session.Session) { visits.Take(t.Context(), s) }, true},
		"flash more": {func(s *session.Session) { s.AddFlash("", "more of it") }, true}, // replaces the older flash
	} {
		for _, user := range []string{"", "alice"} {
			m := newManager(t, session.Options{Store: store})
			b := newBrowser(t, m.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
				name.Set(s, strings.Repeat("x", 5000))
				visits.Set(s, 7)
				s.AddFlash("", strings.Repeat("x", 100))
				if user != "" {
					s.Login(user)
				}
			}}))
			b.get("/")
			lowered := newManager(t, session.Options{Store: store, MaxDataSize: 1000})
			b.h = lowered.Handler(routes{"/": func(w http.ResponseWriter, r *http.Request, s *session.Session) { c.f(s) }})
			if resp := b.get("/"); (resp.StatusCode == http.StatusOK) != c.fits {
				t.Errorf("%s of %q: %s", what, user, resp.Status)
			}
		}
	}
}

// TestLoginOverAFullSession checks that a full anonymous session that an attacker has planted
// does not prevent a login, whatever its handler sets: the earlier values are dropped.
func TestLoginOverAFullSession(t *testing.T) {
	for _, meanwhile := range []bool{false, true} { // whether the session is filled while the Login commits
		var log events
		visit, spy, _ := newVisitor(t, session.Options{MaxDataSize: 1000, OnEvent: log.on})
		fill := func(s *session.Session) { name.Set(s, strings.Repeat("x", 970)) }
		visit(fill)
		if meanwhile {
			visit(func(s *session.Session) { name.Set(s, "x") })
			spy.hook(once(spy, "Save", func(context.Context) { visit(fill) }))
		}
		login := func(s *session.Session) {
			s.Login("alice")
			visits.Update(s, func(n int) int { return n + 1 })
			s.AddFlash("good", "You are logged in.")
		}
		if resp := visit(login); resp.StatusCode != http.StatusOK || !setsCookie(resp) {
			t.Errorf("the login was answered with %s", resp.Status)
		}
		if e := log.last(session.EventDropped); log.count(session.EventDropped) != 1 || !errors.Is(e.Err, session.ErrTooLarge) || e.User != "alice" {
			t.Errorf("events %+v", log.all)
		}
		visit(func(s *session.Session) {
			if s.User() != "alice" || name.Get(s) != "" || visits.Get(s) != 1 || len(s.Flashes()) != 1 {
				t.Errorf("logged in as %q, with %q", s.User(), s.Names())
			}
		})
		if resp := visit(func(s *session.Session) {
			s.Logout()
			s.Login("alice")
			name.Set(s, strings.Repeat("x", 1001)) // a value of the request itself
		}); resp.StatusCode != http.StatusInternalServerError {
			t.Errorf("a value of the request itself: %s", resp.Status)
		}
	}
}

// TestRenewalsOfAFullSession checks that the values that renewals keep are bounded.
func TestRenewalsOfAFullSession(t *testing.T) {
	for _, ask := range asks {
		atDesk(t, session.Options{MaxDataSize: 10_000}, func(d *desk) {
			b := d.browser()
			for i := range 10 {
				d.do(b, func(s *session.Session) {
					name.Set(s, strings.Repeat(fmt.Sprint(i), 9_900))
					ask(s)
				})
			}
			d.do(b, func(s *session.Session) {
				rec, err := d.spy.Store.Load(t.Context(), s.ID())
				if err != nil || len(rec.Data) > 41_000 {
					t.Errorf("%d bytes, %v", len(rec.Data), err)
				}
			})
		})
	}
}

// TestListIsInOrder checks that List returns the live sessions, the most recently seen first.
func TestListIsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newManager(t, session.Options{})
		h := m.Handler(clockRoutes)
		var want []string
		browsers := map[string]*browser{}
		for range 5 {
			b := newBrowser(t, h)
			b.get("/login")
			id := body(b.get("/id"))
			want, browsers[id] = append([]string{id}, want...), b
			time.Sleep(5 * minute)
		}
		oldest := want[4]
		browsers[oldest].get("/look")
		browsers[want[3]].get("/logout")
		want = []string{oldest, want[0], want[1], want[2]}
		newBrowser(t, h).get("/set")
		for i := range 2 {
			sessions, err := m.List(t.Context(), "alice")
			var got []string
			for _, s := range sessions {
				got = append(got, s.ID)
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("List: %q, want %q, %v", got, want, err)
			}
			if i == 0 {
				time.Sleep(46 * minute) // the session of 15 minutes ago expires
				want = want[:3]
			}
		}
	})
}

// TestReload checks that Reload drops unsaved changes and reads those of other requests.
func TestReload(t *testing.T) {
	visit, spy, m := newVisitor(t, session.Options{})
	visit(func(s *session.Session) {
		s.Login("alice")
		name.Set(s, "value")
	})
	for call, f := range map[string]func(s *session.Session){
		"Set": func(s *session.Session) { name.Set(s, "unsaved") }, "Clear": (*session.Session).Clear,
		"Login": func(s *session.Session) { s.Login("bob") }, "Logout": (*session.Session).Logout,
		"Renew": (*session.Session).Renew, "Remember": func(s *session.Session) { s.Remember(day) },
		"a refused call": func(s *session.Session) { s.Login("") },
	} {
		writes := spy.count("Save") + spy.count("Create")
		resp := visit(func(s *session.Session) {
			f(s)
			if err := s.Reload(t.Context()); err != nil || s.User() != "alice" || name.Get(s) != "value" || s.Err() != nil {
				t.Errorf("Reload after %s: %v, %q, %q", call, err, s.User(), name.Get(s))
			}
		})
		if resp.StatusCode != 200 || len(resp.Cookies()) > 0 || spy.count("Save")+spy.count("Create") != writes {
			t.Errorf("%s was carried out after a Reload", call)
		}
	}
	visit(func(s *session.Session) {
		others, err := m.List(t.Context(), "alice")
		if err != nil || len(others) != 1 {
			t.Fatal(others, err)
		}
		name.Get(s)
		edit := func(s *session.Session) { name.Set(s, "newer") }
		if err := m.Edit(t.Context(), "alice", others[0].ID, edit); err != nil || name.Get(s) != "value" {
			t.Errorf("before Reload %q, %v", name.Get(s), err)
		}
		if err := s.Reload(t.Context()); err != nil || name.Get(s) != "newer" {
			t.Errorf("after Reload %q, %v", name.Get(s), err)
		}
		if err := m.RevokeAll(t.Context(), "alice"); err != nil || s.User() != "alice" {
			t.Errorf("before Reload %q, %v", s.User(), err)
		}
		if err := s.Reload(t.Context()); err != session.ErrEnded || s.User() != "" || s.Err() != nil {
			t.Errorf("after RevokeAll and Reload %q, %v", s.User(), err)
		}
	})
}

// TestReloadAfterAFailure checks that after a failed Reload a later one succeeds, for every
// kind of session: a failing store is never mistaken for a session that has ended.
func TestReloadAfterAFailure(t *testing.T) {
	check := func(t *testing.T, spy *spyStore, s *session.Session) {
		t.Helper()
		spy.down.Store(true)
		for range 3 {
			if err := s.Reload(context.Background()); !errors.Is(err, session.ErrStore) || !errors.Is(s.Err(), session.ErrStore) {
				t.Errorf("Reload of a store that is down: %v", err)
			}
		}
		spy.down.Store(false)
		if err := s.Reload(context.Background()); err != nil || s.Err() != nil || s.User() != "alice" {
			t.Errorf("Reload of a store that is back: %q, %v", s.User(), err)
		}
	}
	save := func(t *testing.T, s *session.Session) {
		t.Helper()
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	login := func(s *session.Session) { s.Login("alice") }
	t.Run("stored before", func(t *testing.T) {
		visit, spy, _ := newVisitor(t, session.Options{})
		visit(login)
		visit(func(s *session.Session) { check(t, spy, s) })
	})
	t.Run("new in this request", func(t *testing.T) {
		visit, spy, _ := newVisitor(t, session.Options{})
		resp := visit(func(s *session.Session) { login(s); save(t, s); check(t, spy, s) })
		if len(resp.Cookies()) != 1 {
			t.Error("the cookie was not sent")
		}
	})
	t.Run("renewed in this request", func(t *testing.T) {
		visit, spy, _ := newVisitor(t, session.Options{})
		visit(login)
		visit(func(s *session.Session) { s.Renew(); save(t, s); check(t, spy, s) })
		visit(func(s *session.Session) {
			if s.User() != "alice" {
				t.Error("the browser still has the old cookie")
			}
		})
	})
}

// TestSetAgainTakesNoRoom checks that a value that is set repeatedly in one request needs the
// memory of one.
func TestSetAgainTakesNoRoom(t *testing.T) {
	m := newManager(t, session.Options{})
	newBrowser(t, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		before := heap()
		for i := range 500 {
			name.Set(s, strings.Repeat("x", 64<<10-100+i%2))
		}
		if grown := heap() - before; grown > 1<<20 {
			t.Errorf("%d bytes for one value of 64 KiB", grown)
		}
	}))).get("/")
}

var voucher = session.NewKey[string]("voucher")

// onOneRecord sends n requests of one browser to several processes over one store. All have
// loaded the session before the first of them calls f.
func onOneRecord(t *testing.T, n int, begin func(s *session.Session), f func(i int, r *http.Request, s *session.Session)) *browser {
	t.Helper()
	store := session.NewMemoryStore(nil)
	var processes []http.Handler
	run := func(w http.ResponseWriter, r *http.Request) {}
	for range 3 {
		m := newManager(t, session.Options{Store: store})
		processes = append(processes, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { run(w, r) })))
	}
	b := newBrowser(t, processes[0])
	run = func(w http.ResponseWriter, r *http.Request) { begin(session.From(r.Context())) }
	b.get("/")
	var loaded, done sync.WaitGroup
	loaded.Add(n)
	run = func(w http.ResponseWriter, r *http.Request) {
		s := session.From(r.Context())
		s.User()
		loaded.Done()
		loaded.Wait()
		var i int
		fmt.Sscanf(r.URL.Path, "/%d", &i)
		f(i, r, s)
	}
	for i := range n {
		r := b.request(fmt.Sprint("/", i))
		done.Go(func() { processes[i%len(processes)].ServeHTTP(httptest.NewRecorder(), r) })
	}
	done.Wait()
	run = func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, session.From(r.Context()).Names(), visits.Get(session.From(r.Context())))
	}
	return b
}

// TestTakeIsOnce: promise 1. Of requests that have all read the value, exactly one takes it,
// and their other changes are kept.
func TestTakeIsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		b := onOneRecord(t, 30, func(s *session.Session) { voucher.Set(s, "ten euros") }, func(i int, r *http.Request, s *session.Session) {
			visits.Update(s, func(n int) int { return n + 1 })
			v, ok, err := voucher.Take(r.Context(), s)
			if err != nil || ok != (v != "") {
				t.Errorf("Take: %q, %v, %v", v, ok, err)
			}
			if _, has := voucher.Lookup(s); has {
				t.Error("the value was not removed")
			}
			mu.Lock()
			defer mu.Unlock()
			if ok {
				got = append(got, v)
			}
		})
		if !slices.Equal(got, []string{"ten euros"}) {
			t.Errorf("requests took %q", got)
		}
		if left := body(b.get("/")); left != `[visits] 30` {
			t.Errorf("values left: %s", left)
		}
	})
}

// TestUpdateNowIsFinal: promise 1. UpdateNow returns the value that was stored: no two requests
// get the same number, although all have read the same record.
func TestUpdateNowIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 30
		var mu sync.Mutex
		var got []int
		b := onOneRecord(t, n, func(s *session.Session) { s.Login("alice") }, func(i int, r *http.Request, s *session.Session) {
			saw := 0
			v, err := visits.UpdateNow(r.Context(), s, func(n int) int { saw = n; return n + 1 })
			if err != nil || v != saw+1 || visits.Get(s) != v {
				t.Errorf("UpdateNow: %d, %v; f saw %d, and now it is %d", v, err, saw, visits.Get(s))
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, v)
		})
		slices.Sort(got)
		for i, v := range got {
			if v != i+1 {
				t.Fatalf("the numbers are %d", got)
			}
		}
		if left := body(b.get("/")); left != fmt.Sprint(`[visits] `, n) {
			t.Errorf("values left: %s", left)
		}
	})
}

// TestUpdateNowReturnsWhatWasStored checks that UpdateNow returns the stored value even if f
// never returns the same value twice and the value changes back and forth during its retries.
func TestUpdateNowReturnsWhatWasStored(t *testing.T) {
	atDesk(t, session.Options{}, func(d *desk) {
		b := d.browser()
		calls := 0
		d.do(b, func(s *session.Session) {
			others, err := d.m.List(t.Context(), "alice")
			if err != nil {
				t.Fatal(err)
			}
			changes := []string{"other", "before", "other", "before"}
			d.spy.hook(func(_ context.Context, call, _ string) error {
				if call != "Save" || len(changes) == 0 {
					return nil
				}
				rec, err := d.spy.Store.Load(t.Context(), others[0].ID)
				if err != nil {
					t.Fatal(err)
				}
				old := rec.Version
				rec.Version++
				rec.Data = withKey(rec.Data, fmt.Sprintf(`{"name":%q}`, changes[0]))
				changes = changes[1:]
				if err := d.spy.Store.Save(t.Context(), rec, old); err != nil {
					t.Fatal(err)
				}
				return nil
			})
			got, err := name.UpdateNow(t.Context(), s, func(v string) string { calls++; return fmt.Sprint(v, calls) })
			if err != nil || got != name.Get(s) {
				t.Errorf("%q, %v, and the session has %q", got, err, name.Get(s))
			}
			name.Set(s, name.Get(s)) // so that the commit of the response has a change too
			if err := s.Reload(t.Context()); err != nil || name.Get(s) != got {
				t.Errorf("returned %q, stored %q, %v", got, name.Get(s), err)
			}
		})
	})
}

// TestTakeOfNothing checks that Take without a value creates no session and costs no store call
// but the load. Pending changes are committed nevertheless.
func TestTakeOfNothing(t *testing.T) {
	visit, spy, _ := newVisitor(t, session.Options{})
	take := func(s *session.Session) {
		t.Helper()
		if v, ok, err := voucher.Take(t.Context(), s); v != "" || ok || err != nil {
			t.Errorf("Take: %q, %v, %v", v, ok, err)
		}
	}
	if resp := visit(take); spy.count("") != 0 || setsCookie(resp) {
		t.Errorf("without a session: %s", spy.summary())
	}
	if resp := visit(func(s *session.Session) {
		name.Set(s, "value")
		take(s)
		if s.IsNew() {
			t.Error("the pending change was not committed")
		}
	}); !setsCookie(resp) {
		t.Error("no cookie")
	}
	spy.forget()
	visit(take)
	if got := spy.summary(); got != "Load" {
		t.Errorf("in a stored session: %s", got)
	}
	visit(func(s *session.Session) {
		visits.Set(s, 7)
		session.NewKey[[]string]("name").Take(t.Context(), s) // cannot be decoded
		if err := s.Reload(t.Context()); err != nil || visits.Get(s) != 7 || name.Get(s) != "value" {
			t.Errorf("%v, stored are %d and %q", err, visits.Get(s), name.Get(s))
		}
	})
	visit(func(s *session.Session) {
		s.Logout()
		take(s)
	})
	visit(func(s *session.Session) {
		if !s.IsNew() {
			t.Error("the Logout was not committed")
		}
		voucher.Set(s, "mine")
		if v, ok, err := voucher.Take(t.Context(), s); v != "mine" || !ok || err != nil {
			t.Errorf("Take of a value that this request has set: %q, %v, %v", v, ok, err)
		}
		take(s)
	})
}

// TestImmediateCommitsAll checks that Take and UpdateNow commit all pending changes, including
// a Login, and that the response sets the cookie.
func TestImmediateCommitsAll(t *testing.T) {
	for what, f := range immediate {
		atDesk(t, session.Options{}, func(d *desk) {
			b := newBrowser(t, d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.f(session.From(r.Context())) })))
			d.do(b, func(s *session.Session) { voucher.Set(s, "good") })
			if !d.do(b, func(s *session.Session) {
				s.Login("alice")
				name.Set(s, "value")
				if err := f(t.Context(), s); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				all, err := d.m.List(t.Context(), "alice")
				if err != nil || len(all) != 1 {
					t.Fatalf("%s: stored are %d sessions, %v", what, len(all), err)
				}
				if stored, _ := name.Of(all[0]); stored != "value" {
					t.Errorf("%s: stored is %q", what, stored)
				}
			}) {
				t.Errorf("%s: no cookie", what)
			}
			d.expect(b, "value")
		})
	}
}

// immediate contains Take and UpdateNow. The session must have a voucher.
var immediate = map[string]func(ctx context.Context, s *session.Session) error{
	"Take": func(ctx context.Context, s *session.Session) error {
		_, _, err := voucher.Take(ctx, s)
		return err
	},
	"UpdateNow": func(ctx context.Context, s *session.Session) error {
		_, err := voucher.UpdateNow(ctx, s, func(v string) string { return v + "!" })
		return err
	},
}

// TestImmediateWhileTheStoreFails checks that the caller gets a failure of the store: the
// response remains the handler's, and the change is not made later, when the store works again.
// Other pending changes are.
func TestImmediateWhileTheStoreFails(t *testing.T) {
	for what, f := range immediate {
		t.Run(what, func(t *testing.T) {
			visit, spy, _ := newVisitor(t, session.Options{})
			visit(func(s *session.Session) { s.Login("alice"); voucher.Set(s, "good") })
			resp := visit(func(s *session.Session) {
				name.Set(s, "value")
				spy.hook(failing("Save", errDown))
				for range 3 {
					if err := f(t.Context(), s); !errors.Is(err, session.ErrStore) || !errors.Is(err, errDown) {
						t.Error(err)
					}
				}
				if got := voucher.Get(s); got != "good" {
					t.Errorf("the voucher is %q", got)
				}
			})
			if resp.StatusCode != 200 {
				t.Errorf("the response is %s", resp.Status)
			}
			visit(func(s *session.Session) {
				name.Set(s, "value")
				if err := f(t.Context(), s); !errors.Is(err, errDown) {
					t.Error(err)
				}
				spy.hook(nil)
				if err := s.Save(t.Context()); err != nil || s.Err() != nil {
					t.Error(err, s.Err())
				}
			})
			visit(func(s *session.Session) {
				if voucher.Get(s) != "good" || name.Get(s) != "value" {
					t.Errorf("stored are %q and %q", voucher.Get(s), name.Get(s))
				}
				if err := f(t.Context(), s); err != nil {
					t.Error(err)
				}
				if got := voucher.Get(s); got != map[string]string{"Take": "", "UpdateNow": "good!"}[what] {
					t.Errorf("the voucher is %q", got)
				}
			})
			spy.down.Store(true)
			if resp := visit(func(s *session.Session) {
				if err := f(t.Context(), s); !errors.Is(err, errDown) {
					t.Error(err)
				}
			}); resp.StatusCode != 200 {
				t.Errorf("after a failed load: %s", resp.Status)
			}
		})
	}
}

// TestImmediateOfUnknownOutcome checks that after an unknown outcome at most one request gets
// the value, and no update is counted twice.
func TestImmediateOfUnknownOutcome(t *testing.T) {
	for _, applied := range []bool{true, false} {
		visit, spy, _ := newVisitor(t, session.Options{})
		unsure := func(on bool) {
			spy.hook(nil)
			spy.after = nil
			switch {
			case on && applied:
				spy.after = lost("Save")
			case on:
				spy.hook(failing("Save", session.ErrIndeterminate))
			}
		}
		visit(func(s *session.Session) { voucher.Set(s, "good"); visits.Set(s, 1) })
		taken := 0
		take := func(s *session.Session) error {
			_, ok, err := voucher.Take(t.Context(), s)
			if ok {
				taken++
			}
			return err
		}
		visit(func(s *session.Session) {
			unsure(true)
			if err := take(s); !errors.Is(err, session.ErrIndeterminate) {
				t.Error(err)
			}
			unsure(false)
			if err := take(s); !errors.Is(err, session.ErrIndeterminate) {
				t.Errorf("before a Reload: %v", err)
			}
			if err := s.Reload(t.Context()); err != nil {
				t.Error(err)
			}
			if err := take(s); err != nil {
				t.Error(err)
			}
		})
		if want := map[bool]int{true: 0, false: 1}[applied]; taken != want {
			t.Errorf("applied %v: %d requests have taken the value, want %d", applied, taken, want)
		}
		var count int
		visit(func(s *session.Session) {
			up := func() (int, error) { return visits.UpdateNow(t.Context(), s, func(n int) int { return n + 1 }) }
			unsure(true)
			if _, err := up(); !errors.Is(err, session.ErrIndeterminate) {
				t.Error(err)
			}
			unsure(false)
			s.Save(t.Context())
			if err := s.Reload(t.Context()); err != nil {
				t.Error(err)
			}
			count = visits.Get(s)
		})
		if want := map[bool]int{true: 2, false: 1}[applied]; count != want {
			t.Errorf("applied %v: counted %d, want %d", applied, count, want)
		}
	}
}

// TestUpdateNowOfWhatCannotBeEncoded checks that the caller gets the error for a value that
// cannot be encoded, and that nothing changes.
func TestUpdateNowOfWhatCannotBeEncoded(t *testing.T) {
	visit, _, _ := newVisitor(t, session.Options{})
	ratio := session.NewKey[float64]("ratio")
	resp := visit(func(s *session.Session) {
		ratio.Set(s, 1)
		name.Set(s, "value")
		if v, err := ratio.UpdateNow(t.Context(), s, func(float64) float64 { return math.NaN() }); err == nil || v != 0 {
			t.Error(v, err)
		}
		if s.Err() != nil || ratio.Get(s) != 1 {
			t.Error(s.Err(), ratio.Get(s))
		}
	})
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
	visit(func(s *session.Session) {
		if name.Get(s) != "value" || ratio.Get(s) != 1 {
			t.Errorf("stored are %q and %v", name.Get(s), ratio.Get(s))
		}
	})
}

// TestImmediateWhenItIsLate: promise 6. In a stored session Take and UpdateNow work after the
// first byte and after the handler. If a session would have to be created, they return an error
// and do nothing.
func TestImmediateWhenItIsLate(t *testing.T) {
	for what, f := range immediate {
		for _, returned := range []bool{false, true} {
			for _, stored := range []bool{false, true} {
				t.Run(fmt.Sprint(what, " returned=", returned, " stored=", stored), func(t *testing.T) {
					atDesk(t, session.Options{}, func(d *desk) {
						logged := captureLog(t)
						release, done := make(chan struct{}), make(chan struct{})
						b := newBrowser(t, d.m.Handler(routes{
							"/begin": func(w http.ResponseWriter, r *http.Request, s *session.Session) { voucher.Set(s, "good") },
							"/late": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
								s.User()
								fmt.Fprint(w, "the first byte")
								late := func() {
									defer close(done)
									ctx, cancel := context.WithCancel(r.Context())
									cancel() // as net/http does when the handler has returned
									switch err := f(ctx, s); {
									case stored && err != nil:
										t.Errorf("in a stored session: %v", err)
									case !stored && what == "UpdateNow":
										expectCall(t, err, "UpdateNow")
									case !stored && err != nil:
										t.Error(err)
									}
									if err := s.Save(ctx); err != nil || s.Err() != nil {
										t.Error("Save:", err, s.Err())
									}
								}
								if returned {
									go func() { <-release; late() }()
								} else {
									late()
								}
							},
							"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, voucher.Get(s)) },
						}))
						if stored {
							b.get("/begin")
						}
						b.get("/late")
						close(release)
						<-done
						want := ""
						if stored && what == "UpdateNow" {
							want = "good!"
						}
						if got := body(b.get("/look")); got != want {
							t.Errorf("the voucher is %q, want %q", got, want)
						}
						time.Sleep(minute)
						if n := d.log.count(session.EventDropped); n > 0 || logged.Len() > 0 {
							t.Errorf("%d EventDropped, logged %s", n, logged)
						}
					})
				})
			}
		}
	}
}

// TestImmediateWithThePreviousKey: promise 3. With the key from before an explicit renewal they
// work as long as no other request has changed the value since. After that they return
// ErrReplaced, and the newer value is kept.
func TestImmediateWithThePreviousKey(t *testing.T) {
	for what, f := range immediate {
		for how, ask := range asks {
			for _, meanwhile := range []bool{false, true} { // whether the renewal is after this request's load
				for _, changed := range []bool{false, true} {
					t.Run(fmt.Sprint(what, " ", how, " meanwhile=", meanwhile, " changed=", changed), func(t *testing.T) {
						atDesk(t, session.Options{}, func(d *desk) {
							b := d.browser()
							d.do(b, func(s *session.Session) { voucher.Set(s, "good") })
							g := newGate()
							routes := routes{
								"/renew": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
									ask(s)
									if changed {
										voucher.Set(s, "newer")
									}
								},
								"/use": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
									s.User()
									if meanwhile {
										g.pass()
									}
									if err := f(t.Context(), s); changed && err != session.ErrReplaced || !changed && err != nil {
										t.Error(err)
									}
									visits.Set(s, 7) // is kept
								},
							}
							b.h = d.m.Handler(routes)
							old := b.replay(b.cookie())
							if meanwhile {
								g.during(old, "/use", func() { b.get("/renew") })
							} else {
								b.get("/renew")
								old.get("/use")
							}
							want := map[string]string{"Take": "", "UpdateNow": "good!"}[what]
							if changed {
								want = "newer"
							}
							b.h = d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.f(session.From(r.Context())) }))
							old.h = b.h
							d.do(b, func(s *session.Session) {
								if voucher.Get(s) != want || visits.Get(s) != 7 {
									t.Errorf("stored are %q and %d, want %q", voucher.Get(s), visits.Get(s), want)
								}
							})
							time.Sleep(11 * second)
							d.do(old, func(s *session.Session) {
								if err := f(t.Context(), s); err != session.ErrReplaced {
									t.Errorf("after the grace: %v", err)
								}
							})
						})
					})
				}
			}
		}
	}
}

// TestImmediateAfterTheEnd checks that they return ErrEnded for a session that has ended,
// whether the request knew it or not.
func TestImmediateAfterTheEnd(t *testing.T) {
	for what, f := range immediate {
		for _, known := range []bool{false, true} {
			atDesk(t, session.Options{}, func(d *desk) {
				b := d.browser()
				d.do(b, func(s *session.Session) { voucher.Set(s, "good") })
				d.do(b, func(s *session.Session) {
					user, id := s.User(), s.ID()
					if err := d.m.Revoke(t.Context(), user, id); err != nil {
						t.Error(err)
					}
					if known {
						s.Reload(t.Context())
					}
					if err := f(t.Context(), s); err != session.ErrEnded || s.Err() != nil {
						t.Errorf("%s, known %v: %v, Err %v", what, known, err, s.Err())
					}
				})
			})
		}
	}
}

// TestUpdateNowPanics checks that if f panics nothing is stored, and no mutex is held.
func TestUpdateNowPanics(t *testing.T) {
	visit, spy, _ := newVisitor(t, session.Options{})
	visit(func(s *session.Session) { visits.Set(s, 1) })
	for _, when := range []string{"at first", "at the commit", "the store"} {
		visit(func(s *session.Session) {
			s.User()
			if when == "at the commit" {
				spy.hook(once(spy, "Save", func(context.Context) {
					visit(func(s *session.Session) { visits.Set(s, 2) })
				}))
			}
			if when == "the store" {
				spy.hook(panicking("Save"))
			}
			if p := returns(t, func() {
				visits.UpdateNow(t.Context(), s, func(n int) int {
					if when == "at first" || n == 2 {
						panic("f")
					}
					return 9
				})
			}); p == nil {
				t.Error("no panic")
			}
			spy.hook(nil)
			if err := s.Save(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Reload(t.Context()); err != nil || visits.Get(s) > 2 {
				t.Error(err, visits.Get(s))
			}
			visits.Set(s, 1)
		})
	}
}

// TestTakeTogetherWithALogin checks that a Login that takes over an anonymous session's values
// takes a voucher only if no other request has: neither one that renewed the session, nor one
// that ended it afterwards.
func TestTakeTogetherWithALogin(t *testing.T) {
	for _, known := range []bool{false, true} { // whether the other request is before this one's load
		for how, c := range map[string]struct {
			before, after func(s *session.Session) // calls of the other request around its Take
			known, late   error                    // error of Take in the login, by known
		}{
			"taken":              {nil, nil, nil, nil},
			"renewed and taken":  {(*session.Session).Renew, nil, session.ErrReplaced, session.ErrReplaced},
			"taken and renewed":  {nil, (*session.Session).Renew, nil, session.ErrReplaced},
			"taken and ended":    {nil, (*session.Session).Logout, nil, nil},
			"taken by the login": {func(s *session.Session) { s.Login("alice") }, nil, nil, nil},
			"taken by bob":       {func(s *session.Session) { s.Login("bob") }, nil, nil, nil},
		} {
			t.Run(fmt.Sprint(how, " known=", known), func(t *testing.T) {
				atDesk(t, session.Options{}, func(d *desk) {
					taken := 0
					take := func(s *session.Session) error {
						v, ok, err := voucher.Take(t.Context(), s)
						if ok != (v == "good") {
							t.Errorf("%q, %v", v, ok)
						}
						if ok {
							taken++
						}
						return err
					}
					g := newGate()
					b := newBrowser(t, d.m.Handler(routes{
						"/begin": func(w http.ResponseWriter, r *http.Request, s *session.Session) { voucher.Set(s, "good") },
						"/other": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
							if c.before != nil {
								c.before(s)
							}
							if err := take(s); err != nil {
								t.Errorf("the other request: %v", err)
							}
							if c.after != nil {
								c.after(s)
							}
						},
						"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
							if !known {
								s.User()
								g.pass()
							}
							s.Login("alice")
							want := c.late
							if known {
								want = c.known
							}
							if err := take(s); err != want {
								t.Errorf("the login: %v, want %v", err, want)
							}
						},
						"/who": func(w http.ResponseWriter, r *http.Request, s *session.Session) { fmt.Fprint(w, s.User()) },
					}))
					b.get("/begin")
					old := b.replay(b.cookie())
					if known {
						b.get("/other")
						old.get("/login")
					} else {
						g.during(old, "/login", func() { b.get("/other") })
					}
					if taken != 1 {
						t.Errorf("%d requests have taken the voucher", taken)
					}
					if got := body(old.get("/who")); got != "alice" {
						t.Errorf("logged in as %q", got)
					}
				})
			})
		}
	}
}

// TestImmediateAfterALoginThatIsLate checks that after a Login as another user that came too
// late, Take and UpdateNow, which were meant for the other user's session, return an error and
// store nothing.
func TestImmediateAfterALoginThatIsLate(t *testing.T) {
	for what, f := range immediate {
		atDesk(t, session.Options{}, func(d *desk) {
			b := d.browser()
			b.h = d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				s := session.From(r.Context())
				s.Login("bob")
				d.spy.down.Store(true)
				fmt.Fprint(w, "the first byte")
				d.spy.down.Store(false)
				for range 2 {
					expectCall(t, f(t.Context(), s), "Login")
				}
			}))
			b.get("/")
			b.h = d.m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.f(session.From(r.Context())) }))
			d.do(b, func(s *session.Session) {
				if s.User() != "alice" || voucher.Get(s) != "" {
					t.Errorf("%s: logged in as %q, the voucher is %q", what, s.User(), voucher.Get(s))
				}
			})
		})
	}
}

// TestLoginInheritsNothingUsedUp checks that a session that a Login creates does not get a
// value that another request has used up, whether that request renewed the session before, or
// ended it afterwards. Values that have not changed are kept.
func TestLoginInheritsNothingUsedUp(t *testing.T) {
	renew := func(s *session.Session) {
		s.Renew()
		if err := s.Save(t.Context()); err != nil {
			t.Error(err)
		}
		voucher.Take(t.Context(), s)
		visits.UpdateNow(t.Context(), s, func(n int) int { return n + 1 })
	}
	for how, c := range map[string]struct {
		other     func(s *session.Session)
		meanwhile bool // whether this is after the load of the request that logs in
		name      string
	}{
		"renewed":                   {renew, false, "before"},
		"renewed meanwhile":         {renew, true, "before"},
		"renewed, and another one":  {func(s *session.Session) { renew(s); voucher.Set(s, "another") }, true, "before"},
		"taken meanwhile":           {func(s *session.Session) { voucher.Take(t.Context(), s); visits.Delete(s) }, true, "before"},
		"taken and ended meanwhile": {func(s *session.Session) { voucher.Take(t.Context(), s); s.Logout() }, true, ""},
	} {
		t.Run(how, func(t *testing.T) {
			atDesk(t, session.Options{}, func(d *desk) {
				g := newGate()
				b := newBrowser(t, d.m.Handler(routes{
					"/begin": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						voucher.Set(s, "good")
						visits.Set(s, 7)
						name.Set(s, "before")
					},
					"/other": func(w http.ResponseWriter, r *http.Request, s *session.Session) { c.other(s) },
					"/login": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						s.User()
						if c.meanwhile {
							g.pass()
						}
						s.Login("alice")
					},
					"/look": func(w http.ResponseWriter, r *http.Request, s *session.Session) {
						if voucher.Get(s) != "" || visits.Get(s) != 0 || name.Get(s) != c.name || s.User() != "alice" {
							t.Errorf("logged in as %q, with the voucher %q, %d and %q", s.User(), voucher.Get(s), visits.Get(s), name.Get(s))
						}
					},
				}))
				b.get("/begin")
				old := b.replay(b.cookie())
				if c.meanwhile {
					g.during(old, "/login", func() { b.get("/other") })
				} else {
					b.get("/other")
					old.get("/login")
				}
				old.get("/look")
			})
		})
	}
}

// TestTakeAndUpdateNowUnderFaults sends random requests of one browser to three processes,
// which take, count, renew, log in and out, over a store that loses calls and replies. No
// voucher is taken twice, and no session gives a number twice.
func TestTakeAndUpdateNowUnderFaults(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			chance := newChance(seed)
			o, tokens := session.Options{RenewAfter: minute}, &plainTokens{}
			if seed%3 == 0 {
				o = session.Options{Tokens: tokens}
			}
			var use func(r *http.Request, s *session.Session)
			var processes []http.Handler
			store := session.NewMemoryStore(nil)
			for range 3 {
				spy := &spyStore{Store: store, calls: map[string]int{}}
				spy.before = func(context.Context, string, string) error {
					time.Sleep(time.Duration(chance.of(5)) * time.Millisecond)
					if chance.of(15) == 0 {
						return []error{errDown, session.ErrIndeterminate}[chance.of(2)]
					}
					return nil
				}
				spy.after = func(_ context.Context, call, _ string, err error) error {
					time.Sleep(time.Duration(chance.of(3)) * time.Millisecond)
					if err == nil && chance.of(15) == 0 && (call == "Save" || call == "Create") {
						return session.ErrIndeterminate
					}
					return err
				}
				o.Store, o.Secrets = spy, nil
				if o.Tokens == nil {
					o.Secrets = [][]byte{[]byte("0123456789abcdef0123456789abcdef")}
				}
				m, err := session.New(&o)
				if err != nil {
					t.Fatal(err)
				}
				processes = append(processes, m.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					for range 1 + chance.of(4) {
						time.Sleep(time.Duration(chance.of(4)) * time.Millisecond)
						use(r, session.From(r.Context()))
					}
				})))
			}
			var mu sync.Mutex
			got, offered := map[string]bool{}, 0
			once := func(format string, args ...any) {
				mu.Lock()
				defer mu.Unlock()
				what := fmt.Sprintf(format, args...)
				if got[what] {
					t.Errorf("seed %d: twice: %s", seed, what)
				}
				got[what] = true
			}
			use = func(r *http.Request, s *session.Session) {
				switch chance.of(12) {
				case 0:
					mu.Lock()
					offered++
					v := fmt.Sprint(offered)
					mu.Unlock()
					voucher.Set(s, v)
				case 1, 2, 3, 4:
					if v, ok, _ := voucher.Take(r.Context(), s); ok {
						once("voucher %s", v)
					}
				case 5, 6:
					if n, err := visits.UpdateNow(r.Context(), s, func(n int) int { return n + 1 }); err == nil {
						once("number %d of session %s", n, s.ID())
					}
				case 7:
					s.Renew()
				case 8:
					s.Login([]string{"alice", "alice", "bob"}[chance.of(3)])
				case 9:
					if chance.of(3) == 0 {
						s.Logout()
					}
				case 10:
					s.Reload(r.Context())
				case 11:
					s.Save(r.Context())
				}
			}
			b := newBrowser(t, nil)
			for range 6 {
				sent := b.request("/")
				var all sync.WaitGroup
				for range 5 {
					process, r := processes[chance.of(3)], sent.Clone(context.Background())
					all.Go(func() {
						w := httptest.NewRecorder()
						process.ServeHTTP(w, r)
						b.jar.SetCookies(origin, w.Result().Cookies())
					})
				}
				all.Wait()
				if chance.of(3) == 0 {
					time.Sleep(time.Duration(chance.of(80)) * second)
				}
			}
		})
	}
}

// chance is a source of random numbers for several goroutines.
type chance struct {
	mu  sync.Mutex
	rnd *rand.Rand
}

func newChance(seed uint64) *chance { return &chance{rnd: rand.New(rand.NewPCG(seed, 1))} }

// of returns a number below n.
func (c *chance) of(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rnd.IntN(n)
}
