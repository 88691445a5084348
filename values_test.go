package session_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coatcheck/session"
)

// newVisitor returns a function that sends one request of one browser, whose
// handler is f, and the store behind it.
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

// A value comes back as it was set, in the same request and in the next.
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
	for _, s := range []string{"\ufffd", `\ufffd`, `\\ufffd`, "\\\ufffd", `"\ufffd"`} { // which is UTF-8
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

// Promise 13: a program that changed a value's type finds it absent, and loses
// nothing else.
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
			t.Errorf("a bool that is none is %v, %v", got, ok)
		}
		if _, ok := session.NewKey[[]string]("name").Pop(s); ok || name.Get(s) != "" {
			t.Error("Pop of a value that does not decode must find nothing and forget it")
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

// overwrite gives a stored session other values, as another program would.
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

// withKey returns data, if that is an object, after the key that old begins with.
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

// sameMembers compares two objects byte for byte but for the order of their
// members, none of which may contain `,"` at a deeper level but {"X":1,"Y":"2"}.
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

// A self encodes itself: as encoding/json would, or by hand.
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

// A value that cannot be encoded fails the request, and nothing is stored. It is a
// mistake of the program, and none of the store.
func TestUnencodableValueFailsTheRequest(t *testing.T) {
	fails := map[string]func(s *session.Session){
		"Set": func(s *session.Session) { session.NewKey[any]("bad").Set(s, func() {}) },
		"Update": func(s *session.Session) {
			session.NewKey[float64]("bad").Update(s, func(float64) float64 { return math.NaN() })
		},
	}
	// Promise 13. Text that is not UTF-8 would come back as other text.
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

// What Get returned, and what Set was given, may be changed afterwards.
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

// Values that nobody touched are carried byte for byte, however they are spelled.
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
			t.Error("Pop found something in nothing")
		}
		visits.Delete(s)
		s.Clear()
	})
	if n := spy.count(""); n != 0 {
		t.Errorf("forgetting nothing cost %d calls of the store", n)
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
			t.Errorf("Pop of what was popped: %d, %v", got, ok)
		}
	})
	visit(func(s *session.Session) {
		if len(s.Names()) != 0 || s.IsNew() {
			t.Errorf("left are %q", s.Names())
		}
	})
}

// Clear forgets values and flashes; user, token, clocks and Remember stay.
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

// Login keeps the values of an anonymous session and of the same user, and
// forgets another user's; what is set after it is the new user's.
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
					n = 1 // it was another user's
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
			t.Error("flashes from nowhere")
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
		t.Error("looking for flashes where there are none saved the session")
	}
}

// Flashes of some kinds leave those of others, in this request and in the store, and
// those that another request adds meanwhile.
func TestFlashesOfAKind(t *testing.T) {
	added := []session.Flash{{"info", "1"}, {"error", "2"}, {"", "3"}, {"info", "4"}, {"warning", "5"}}
	for _, c := range []struct {
		kinds      []string
		shown, now string // texts, now and in the next request
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

// Promise 13. Flashes that no page shows do not pile up: the newest 50 stay, of long ones
// as many as fit, and no request fails for them.
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

// A commit over MaxDataSize fails, and the session is as it was.
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
			s.Remember(day) // our own metadata does not count
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
		}) // which returned the error: it is the handler's
		status(200, func(s *session.Session) {
			name.Delete(s)
			session.NewKey[string]("more").Set(s, text(c.fits))
		})
	}
}

// ErrTooLarge is a mistake, and none of the store: 500. What does not fit stays pending
// until a Reload forgets it or another change makes it fit.
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
			t.Errorf("Save of what fits: %v, Err %v", err, s.Err())
		}
		name.Set(s, long)
		tooLarge("Save", s.Save(t.Context()))
		if err := s.Reload(t.Context()); err != nil || s.Err() != nil || name.Get(s) != "" || more.Get(s) != long {
			t.Errorf("Reload: %v, Err %v", err, s.Err())
		}
		name.Set(s, long)
		tooLarge("Save", s.Save(t.Context()))
		more.Set(s, "little") // and the response commits
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

// Promise 13. A session that is larger than a lowered limit is read, renewed, logged in
// and made smaller; only what makes it larger fails.
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
		"flash more": {func(s *session.Session) { s.AddFlash("", "more of it") }, true}, // in place of the older one
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

// A planted anonymous session that is full does not keep its victim from logging in,
// whatever the login's handler sets: the values of before go.
func TestLoginOverAFullSession(t *testing.T) {
	for _, meanwhile := range []bool{false, true} { // it is filled while the Login commits
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
			t.Errorf("the login is answered with %s", resp.Status)
		}
		if e := log.last(session.EventDropped); log.count(session.EventDropped) != 1 || !errors.Is(e.Err, session.ErrTooLarge) || e.User != "alice" {
			t.Errorf("events %+v", log.all)
		}
		visit(func(s *session.Session) {
			if s.User() != "alice" || name.Get(s) != "" || visits.Get(s) != 1 || len(s.Flashes()) != 1 {
				t.Errorf("in as %q, with %q", s.User(), s.Names())
			}
		})
		if resp := visit(func(s *session.Session) {
			s.Logout()
			s.Login("alice")
			name.Set(s, strings.Repeat("x", 1001)) // the request's own
		}); resp.StatusCode != http.StatusInternalServerError {
			t.Errorf("what the request sets itself: %s", resp.Status)
		}
	}
}

// What renewals keep of the values is bounded, however many there are.
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

// List has the sessions that live, the most recently seen first.
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
				time.Sleep(46 * minute) // the one of 15 minutes ago ends
				want = want[:3]
			}
		}
	})
}

// Reload forgets what is not saved and reads what others have saved.
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

// A Reload that failed is repaired by one that succeeds, for every kind of
// session: a store that fails is never mistaken for a session that has ended.
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
			t.Error("its cookie never left")
		}
	})
	t.Run("renewed in this request", func(t *testing.T) {
		visit, spy, _ := newVisitor(t, session.Options{})
		visit(login)
		visit(func(s *session.Session) { s.Renew(); save(t, s); check(t, spy, s) })
		visit(func(s *session.Session) {
			if s.User() != "alice" {
				t.Error("the browser holds the old cookie")
			}
		})
	})
}

// A value that is set again and again in one request takes the room of one.
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
