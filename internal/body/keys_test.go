package body_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/body"
)

// story is the sequence of requests of one session. Times are relative to the begin of the
// session.
type story struct {
	*testing.T
	data []byte
	now  time.Duration
}

func newStory(t *testing.T) *story { return &story{T: t, data: []byte(begin(t))} }

func (s *story) edit(now time.Duration, f func(b *body.Body, now time.Time)) {
	s.Helper()
	s.now = now
	b := parse(s.T, string(s.data), at(now))
	f(b, at(now))
	s.data = b.Bytes()
}

// presents simulates a request that arrives with key k.
func (s *story) presents(now time.Duration, k byte) {
	s.Helper()
	s.edit(now, func(b *body.Body, now time.Time) { b.Present(key(k), now) })
}

// renews simulates a request with the key by that renews it automatically to k.
func (s *story) renews(now time.Duration, by, k byte) {
	s.Helper()
	s.edit(now, func(b *body.Body, now time.Time) {
		b.Present(key(by), now)
		b.RenewAutomatically(key(k), key(by), now)
	})
}

// replaces simulates a request that renews the session explicitly to k.
func (s *story) replaces(now time.Duration, k byte, isLogin bool) {
	s.Helper()
	s.edit(now, func(b *body.Body, now time.Time) { b.RenewExplicitly(key(k), isLogin, 10*time.Second, began, now) })
}

// open checks which of the keys a to h have full access.
func (s *story) open(now time.Duration, want string) {
	s.Helper()
	var got []byte
	for k := byte('a'); k <= 'h'; k++ {
		if body.HasAccess(s.data, key(k), at(now)) {
			got = append(got, k)
		}
	}
	if string(got) != want {
		s.Errorf("after %v the keys with access are %q, want %q: %s", now, got, want, s.data)
	}
}

// needs checks the maintenance that is due for a request with key k.
func (s *story) needs(now time.Duration, k byte, want body.Maintenance) {
	s.Helper()
	if got := body.MaintenanceFor(s.data, key(k), began, time.Hour, at(now)); got != want {
		s.Errorf("after %v key %c needs %+v, want %+v: %s", now, k, got, want, s.data)
	}
}

const (
	hour   = time.Hour
	second = time.Second
)

// TestAutomaticRenewal checks that the previous key has access until ten seconds after the new
// key was first presented.
func TestAutomaticRenewal(t *testing.T) {
	s := newStory(t)
	s.needs(hour-1, 'a', body.Maintenance{})
	s.needs(hour, 'a', body.Maintenance{Renew: true})
	s.renews(hour, 'a', 'b')
	s.open(hour, "ab")
	s.open(9*hour, "ab")
	s.needs(hour+second, 'b', body.Maintenance{Present: true})
	s.presents(hour+second, 'b')
	s.needs(hour+second, 'b', body.Maintenance{})
	s.needs(hour+second, 'a', body.Maintenance{})
	s.open(hour+11*second-time.Millisecond, "ab")
	s.open(hour+11*second, "b")
	s.needs(2*hour, 'b', body.Maintenance{Renew: true, Tidy: true})
	s.edit(2*hour, func(*body.Body, time.Time) {})
	if strings.Contains(string(s.data), key('a')+`":`) || strings.Contains(string(s.data), "tidy") {
		s.Errorf("the key was not removed from %s", s.data)
	}
	if body.ExplicitKey(s.data) != key('a') {
		s.Errorf("the explicit key is %q", body.ExplicitKey(s.data))
	}
}

// TestLostResponses checks that a request with the previous key gets another key while the new
// key was not presented: ten seconds after the last key was issued, or one second if two were
// not presented.
func TestLostResponses(t *testing.T) {
	s := newStory(t)
	s.renews(hour, 'a', 'b')
	s.needs(hour+10*second, 'a', body.Maintenance{})
	s.needs(hour+10*second+time.Millisecond, 'a', body.Maintenance{Renew: true})
	s.renews(hour+11*second, 'a', 'c')
	s.needs(hour+12*second, 'a', body.Maintenance{})
	s.needs(hour+12*second+time.Millisecond, 'a', body.Maintenance{Renew: true})
	// The response with b arrives last: b has access for a minute, and the client replaces c by
	// it.
	s.presents(hour+13*second, 'c')
	s.open(hour+23*second, "bc")
	s.needs(hour+24*second, 'b', body.Maintenance{Present: true, Renew: true})
	s.renews(hour+24*second, 'b', 'd')
	s.open(hour+24*second, "bcd")
	s.needs(hour+40*second, 'b', body.Maintenance{Renew: true})
	s.needs(hour+40*second, 'c', body.Maintenance{}) // final
	s.presents(hour+41*second, 'd')
	s.open(hour+51*second, "d")
}

// TestKeyThatIsNotPresented checks that a key that was not presented ends a minute after it was
// issued, once a newer key was presented.
func TestKeyThatIsNotPresented(t *testing.T) {
	s := newStory(t)
	s.renews(hour, 'a', 'b')
	s.renews(hour+30*second, 'a', 'c')
	s.presents(hour+40*second, 'c')
	s.open(hour+50*second-time.Millisecond, "abc")
	s.open(hour+50*second, "bc")
	s.open(hour+60*second-time.Millisecond, "bc")
	s.open(hour+60*second, "c")
}

// TestExplicitRenewal checks that the previous keys have no access to the session, and see it
// for the grace as it was before.
func TestExplicitRenewal(t *testing.T) {
	s := newStory(t)
	s.renews(hour, 'a', 'b')
	s.edit(hour, func(b *body.Body, _ time.Time) { b.Set(`"name"`, []byte(`"before"`)) })
	s.replaces(2*hour, 'c', false)
	s.edit(2*hour, func(b *body.Body, _ time.Time) { b.Set(`"name"`, []byte(`"after"`)) })
	s.open(2*hour, "c")
	for k := byte('a'); k <= 'b'; k++ {
		f, ok := body.FrozenFor(s.data, key(k), at(2*hour+10*second-time.Millisecond))
		if !ok || string(body.Value(f.Values, `"name"`)) != `"before"` || body.HasKey(f.Values) || !f.Created.Equal(began) {
			t.Errorf("key %c sees %s, %t", k, f.Values, ok)
		}
		if _, ok := body.FrozenFor(s.data, key(k), at(2*hour+10*second)); ok {
			t.Errorf("key %c sees the session after the grace", k)
		}
	}
	for _, k := range []string{key('c'), key('x'), ""} {
		if _, ok := body.FrozenFor(s.data, k, at(2*hour)); ok && k != "" {
			t.Errorf("%q sees the session before the renewal", k)
		}
	}
	if body.ExplicitKey(s.data) != key('c') {
		t.Errorf("the explicit key is %q", body.ExplicitKey(s.data))
	}
	f, _ := body.FrozenFor(s.data, key('a'), at(2*hour))
	if same, err := body.Unchanged(f.Values, s.data); err != nil || string(same) != `{"session.flashes":[{"text":"hi"}],"cart":[1,2]}` {
		t.Errorf("unchanged are %s, %v", same, err)
	}
	// Ended keys and their session.tidy member are removed a minute after their end.
	s.needs(2*hour+70*second-time.Millisecond, 'c', body.Maintenance{})
	s.needs(2*hour+70*second, 'c', body.Maintenance{Tidy: true})
	s.edit(2*hour+70*second, func(*body.Body, time.Time) {})
	if strings.Contains(string(s.data), "past") || strings.Contains(string(s.data), "tidy") {
		t.Errorf("ended keys were not removed: %s", s.data)
	}
}

// TestExplicitRenewalWithoutGrace checks that a renewal without grace keeps no earlier state.
func TestExplicitRenewalWithoutGrace(t *testing.T) {
	b := parse(t, begin(t), began)
	b.RenewExplicitly(key('b'), false, 0, began, began)
	if data := b.Bytes(); body.HasAccess(data, key('a'), began) || strings.Contains(string(data), "past") {
		t.Errorf("earlier state was kept: %s", data)
	}
}

// TestKeysOfLogins checks that the responses of two Logins can arrive in any order: the key of
// each keeps its access until a minute passes without it being presented.
func TestKeysOfLogins(t *testing.T) {
	s := newStory(t)
	s.replaces(hour, 'b', true)
	s.replaces(hour+second, 'c', true)
	s.open(hour+second, "bc")
	s.needs(hour+second, 'b', body.Maintenance{Present: true, Renew: true})
	s.presents(hour+2*second, 'c')
	s.open(hour+60*second-time.Millisecond, "bc")
	s.open(hour+60*second, "c")
	// A Renew replaces all keys.
	s = newStory(t)
	s.replaces(hour, 'b', true)
	s.replaces(hour+second, 'c', false)
	s.open(hour+second, "c")
}

// TestIsOvertaken checks that IsOvertaken reports that a key older than the request's was
// presented.
func TestIsOvertaken(t *testing.T) {
	s := newStory(t)
	s.renews(hour, 'a', 'b')
	s.renews(hour+20*second, 'a', 'c')
	before := s.data
	s.presents(hour+21*second, 'b')
	for k, want := range map[byte]bool{'a': false, 'b': false, 'c': true} {
		if got := body.IsOvertaken(before, s.data, key(k)); got != want {
			t.Errorf("key %c: %t, want %t", k, got, want)
		}
	}
	if body.IsOvertaken(s.data, s.data, key('c')) {
		t.Error("IsOvertaken reports a key that was already presented")
	}
	// Mark records the key and ends no other.
	s.edit(hour+22*second, func(b *body.Body, _ time.Time) { b.Mark(key('c')) })
	s.open(9*hour, "bc")
}

// TestBounds checks that the number of keys is bounded for any number of renewals.
func TestBounds(t *testing.T) {
	count := func(data []byte, member string) int {
		var got map[string]json.RawMessage
		if raw := body.Value(data, member); raw != nil {
			if err := json.Unmarshal(raw, &got); err != nil {
				t.Fatal(err)
			}
		}
		return len(got)
	}
	for _, c := range []struct {
		name   string
		every  time.Duration
		most   int
		renews func(s *story, now time.Duration, i int)
	}{
		{"not presented, of the last minute", second / 2, 63 + 1, func(s *story, now time.Duration, i int) {
			s.edit(now, func(b *body.Body, now time.Time) { b.RenewAutomatically(numbered(i), key('a'), now) })
		}},
		{"not presented, older", 2 * time.Minute, 15 + 1, func(s *story, now time.Duration, i int) {
			s.edit(now, func(b *body.Body, now time.Time) { b.RenewAutomatically(numbered(i), key('a'), now) })
		}},
		{"presented", second / 100, 16, func(s *story, now time.Duration, i int) {
			s.edit(now, func(b *body.Body, now time.Time) {
				b.RenewAutomatically(numbered(i), key('a'), now)
				b.Present(numbered(i), now)
			})
		}},
	} {
		s, most := newStory(t), 0
		for i := range 200 {
			c.renews(s, hour+time.Duration(i)*c.every, i)
			most = max(most, count(s.data, `"session.older"`))
		}
		if most != c.most {
			t.Errorf("%s: at most %d older keys, want %d", c.name, most, c.most)
		}
	}
	s := newStory(t)
	for i := range 10 {
		s.edit(hour, func(b *body.Body, now time.Time) {
			b.RenewExplicitly(numbered(i), false, time.Minute, began, now)
		})
	}
	if n := count(s.data, `"session.past"`); n != 3 {
		t.Errorf("%d frozen sessions, want 3", n)
	}
	if _, ok := body.FrozenFor(s.data, numbered(5), at(hour)); ok {
		t.Error("a key from before the last three renewals still sees the session")
	}
}

func numbered(i int) string { return fmt.Sprintf("%022d", i) }

// FuzzBody parses and writes any data, and then lets requests renew its keys in any order. It
// checks the invariants after each step.
func FuzzBody(f *testing.F) {
	f.Add([]byte(`{}`), []byte("pre"))
	f.Add([]byte(`{"session.key":"a---------------------","name":"value"}`), []byte("aBpCeDlEpFz"))
	f.Add([]byte(`{"session.older":{"x":{"until":1}},"session.past":{"y":{}},"session.tidy":0,"a":[1]}`), []byte("~aaplee"))
	f.Add([]byte(`{"session.ended":"logout"}`), []byte{})
	f.Fuzz(func(t *testing.T, data, steps []byte) {
		now := began
		b, err := body.Parse(nil, data, now)
		isObject := json.Valid(data) && strings.HasPrefix(strings.TrimLeft(string(data), " \t\r\n"), "{")
		if err != nil && isObject {
			t.Fatalf("an object is refused: %v", err)
		}
		if err != nil || !isObject || hasTwins(data) { // invalid JSON inside a value is copied
			return
		}
		_, _ = body.EndingOf(data)
		_, _ = body.FrozenFor(data, key('a'), now)
		_ = body.MaintenanceFor(data, key('a'), began, hour, now)
		values := valuesOf(t, b.Bytes())
		b.Begin(key('a'))
		issued, replaced := []string{key('a')}, map[string]bool{}
		for i, step := range steps[:min(len(steps), 200)] {
			by := issued[int(step)%len(issued)]
			switch next := numbered(i); step % 5 {
			case 0:
				b.Present(by, now)
			case 1:
				now = now.Add(time.Duration(step) * time.Second)
			case 2, 3:
				if body.HasAccess(b.Bytes(), by, now) {
					b.Present(by, now)
					b.RenewAutomatically(next, by, now)
					issued = append(issued, next)
				}
			case 4:
				b.RenewExplicitly(next, false, 10*time.Second, began, now)
				for _, k := range issued {
					replaced[k] = true
				}
				issued = append(issued, next)
			}
			data := b.Bytes()
			if !body.HasKey(data) || !body.HasAccess(data, current(t, data), now) {
				t.Fatalf("the current key has no access: %s", data)
			}
			for k := range replaced {
				if body.HasAccess(data, k, now) {
					t.Fatalf("key %s was replaced, and has access: %s", k, data)
				}
			}
			if got := valuesOf(t, data); !maps.Equal(got, values) {
				t.Fatalf("the values changed from %v to %v", values, got)
			}
			if b, err = body.Parse(nil, slices.Clone(data), now); err != nil {
				t.Fatalf("%v: %s", err, data)
			}
			if again := b.Bytes(); len(again) > len(data) {
				t.Fatalf("data grows when it is parsed and written again:\n%s\n%s", data, again)
			}
		}
	})
}

// hasTwins reports whether two members of an object have the same name.
func hasTwins(data []byte) bool {
	d, names := json.NewDecoder(bytes.NewReader(data)), map[string]bool{}
	if _, err := d.Token(); err != nil {
		return true
	}
	for d.More() {
		name, _ := d.Token()
		text := fmt.Sprint(name)
		if names[text] {
			return true
		}
		names[text] = true
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return true
		}
	}
	return false
}

func current(t *testing.T, data []byte) string {
	var head struct {
		Key string `json:"session.key"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		t.Fatal(err)
	}
	return head.Key
}

// valuesOf returns the values by name, in JSON.
func valuesOf(t *testing.T, data []byte) map[string]string {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for name, raw := range members {
		if !strings.HasPrefix(name, "session.") {
			values[name] = string(raw)
		}
	}
	return values
}
