package body_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coatcheck/session/internal/body"
)

var began = time.UnixMilli(1732630000000)

// at returns a time after the session began.
func at(d time.Duration) time.Time { return began.Add(d) }

// key returns a key of the length of a real one, distinguished by its first letter.
func key(letter byte) string { return string(letter) + strings.Repeat("-", 21) }

// parse parses data, or ends the test.
func parse(t *testing.T, data string, now time.Time) *body.Body {
	t.Helper()
	b, err := body.Parse(nil, []byte(data), now)
	if err != nil {
		t.Fatal(err)
	}
	return &b
}

// begin returns the data of a session with key a and some values.
func begin(t *testing.T) string {
	b := parse(t, `{"name":"value","cart":[1,2],"session.flashes":[{"text":"hi"}]}`, began)
	b.Begin(key('a'))
	return string(b.Bytes())
}

// TestEveryMember checks that every member of the table in the package comment is preserved, in
// the order that the comment describes.
func TestEveryMember(t *testing.T) {
	data := `{"session.key":"` + key('d') + `",` +
		`"session.unseen":1732630030000,` +
		`"session.first":"` + key('a') + `",` +
		`"session.tidy":1732630160000,` +
		`"session.older":{"` + key('c') + `":{"issued":1732630020000,"login":true},"` + key('b') + `":{"until":1732630100000},"` + key('a') + `":{"until":1732630200000,"final":true}},` +
		`"session.remember":1733000000000,"session.endby":1732999999000,"session.idle":60000,` +
		`"session.device":{"from":1732630010000,"key":"ES256.AAAA","made":1732630000001,"used":1732630000002,"at":1732630000003,"old":1732630000000},` +
		`"session.leases":{"tokens":{"by":"me","until":1732630035000}},` +
		`"session.flashes":[{"text":"hi"}],"n":1,` +
		`"session.past":{"` + key('z') + `":{"until":1732630100000,"created":1732600000000,"values":{"n":0}}},` +
		`"spaced": {"x" : "y", "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz" : 0}}`
	b := parse(t, data, began)
	if got, want := string(b.Bytes()), strings.Replace(data, `"spaced": {`, `"spaced":{`, 1); got != want {
		t.Errorf("written again:\n%s\nwant\n%s", got, want)
	}
	if b.Remembered() != time.UnixMilli(1733000000000) || b.Limit() != time.UnixMilli(1732999999000) || body.IdleOf([]byte(data)) != time.Minute {
		t.Errorf("remembered until %v, limited to %v, idle for %v", b.Remembered(), b.Limit(), body.IdleOf([]byte(data)))
	}
	want := body.Device{From: at(10 * time.Second), Key: "ES256.AAAA", Made: at(1e6), Used: at(2e6), At: at(3e6), Old: began}
	if d := b.Device(); d != want || !body.BoundFrom([]byte(data)).Equal(want.From) {
		t.Errorf("the device is %+v, bound from %v, want %+v", d, body.BoundFrom([]byte(data)), want)
	}
	if !body.IsRemembered([]byte(data)) || !body.HasKey([]byte(data)) || body.IsTombstone([]byte(data)) {
		t.Error("the record is not recognized as remembered")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, data := range []string{`[]`, `"text"`, `{"a":1`, `{"a":1}x`, `null`} {
		if _, err := body.Parse(nil, []byte(data), began); err == nil {
			t.Errorf("%s is accepted as the data of a record", data)
		}
	}
}

// TestBegin checks that a new session keeps only the values and flashes of the session before.
func TestBegin(t *testing.T) {
	b := parse(t, begin(t), began)
	b.Remember(at(time.Hour))
	b.EndBy(at(time.Hour))
	b.SetIdle(time.Minute)
	b.Bind(body.Device{Key: "ES256.AAAA", From: began})
	b.Set(body.Leases, []byte(`{"tokens":{"by":"me","until":1}}`))
	b.RenewExplicitly(key('b'), false, time.Minute, began, began)
	b.Begin(key('c'))
	if got, want := string(b.Bytes()), strings.Replace(begin(t), key('a'), key('c'), 1); got != want {
		t.Errorf("the data is %s, want %s", got, want)
	}
	if b.Begin(""); body.HasKey(b.Bytes()) {
		t.Error("the body of a token without a key has a key")
	}
}

// TestEarliestEndBy checks that EndBy keeps the earliest time.
func TestEarliestEndBy(t *testing.T) {
	b := parse(t, `{}`, began)
	for _, end := range []time.Duration{2 * time.Hour, time.Hour, 3 * time.Hour} {
		b.EndBy(at(end))
	}
	if b.EndBy(time.Time{}); b.Limit() != at(time.Hour) {
		t.Errorf("the limit is %v, want %v", b.Limit(), at(time.Hour))
	}
	if b.RemoveLimit(); !b.Limit().IsZero() {
		t.Error("the limit was not removed")
	}
}

// TestSize checks that only values and flashes count against Options.MaxDataSize.
func TestSize(t *testing.T) {
	b := parse(t, `{"a":1,"session.flashes":[]}`, began)
	size := b.Size()
	if want := len(`"a":1,"session.flashes":[],`); size != want {
		t.Errorf("the size is %d, want %d", size, want)
	}
	b.Begin(key('a'))
	b.Remember(at(time.Hour))
	b.SetIdle(time.Minute)
	b.Bind(body.Device{Key: "ES256.AAAA", From: began})
	b.RenewExplicitly(key('b'), false, time.Minute, began, began)
	if b.Size() != size {
		t.Errorf("the size is %d with metadata, and %d without", b.Size(), size)
	}
}

// TestIsForeign checks the names that a record of another program's token may contain: values,
// and no members of keys and endings.
func TestIsForeign(t *testing.T) {
	for _, name := range []string{"name", "", "session", "session.flashes", "session.leases", "session.remember", "session.endby"} {
		if !body.IsForeign(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{"session.key", "session.older", "session.ended", "session.idle", "session.other"} {
		if body.IsForeign(name) {
			t.Errorf("%q is allowed", name)
		}
	}
}

// TestHasAccess checks that only the current key and older keys that have not ended have
// access.
func TestHasAccess(t *testing.T) {
	data := `{"session.key":"` + key('c') + `","session.older":{"` + key('b') + `":{},"` + key('a') + `":{"until":1732630010000}},"` + key('x') + `":{}}`
	for _, c := range []struct {
		key  string
		now  time.Time
		want bool
	}{
		{key('c'), began, true},
		{key('b'), at(time.Hour), true},
		{key('a'), at(10*time.Second - time.Millisecond), true},
		{key('a'), at(10 * time.Second), false},
		{key('x'), began, false}, // the name of a value, not of a key
		{"", began, false},
		{key('c')[:21], began, false},
	} {
		if got := body.HasAccess([]byte(data), c.key, c.now); got != c.want {
			t.Errorf("HasAccess(%q) after %v: %t, want %t", c.key, c.now.Sub(began), got, c.want)
		}
	}
	if !body.IsCurrent([]byte(`{"a":1}`), "") || body.IsCurrent([]byte(data), "") {
		t.Error("a token without a key must have access to a record without a key only")
	}
}

// TestPeekAllocatesNothing checks that reading a record with the current key does not allocate.
func TestPeekAllocatesNothing(t *testing.T) {
	data, current := []byte(begin(t)), key('a')
	if n := testing.AllocsPerRun(100, func() {
		if !body.HasAccess(data, current, began) || body.MaintenanceFor(data, current, began, time.Hour, began) != (body.Maintenance{}) || body.IsTombstone(data) {
			t.Error("the current key has no access")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTombstone(t *testing.T) {
	for _, e := range []body.Ending{
		{Reason: body.ReasonLogout, At: began},
		{Reason: body.ReasonRevoke, At: began},
		{Reason: body.ReasonLogin, At: began, Next: `a"b\c`},
	} {
		got, ok := body.EndingOf(e.Tombstone())
		if !ok || !got.At.Equal(e.At) || got.Reason != e.Reason || got.Next != e.Next {
			t.Errorf("%+v is read as %+v, %t", e, got, ok)
		}
	}
	for _, data := range []string{`{}`, begin(t), `{"a":1,"session.ended":"logout"}`, `{"session.endedly":1}`} {
		if _, ok := body.EndingOf([]byte(data)); ok {
			t.Errorf("%s is accepted as a tombstone", data)
		}
	}
	if e, ok := body.EndingOf([]byte(`{"session.ended":null,"session.at":"x","session.next":[]}`)); !ok || !e.At.IsZero() || e.Next != "" || e.Reason != "" {
		t.Errorf("a damaged tombstone is read as %+v, %t", e, ok)
	}
}

func TestLeases(t *testing.T) {
	take := func(until int64) func(body.Lease) (body.Lease, error) {
		return func(body.Lease) (body.Lease, error) { return body.Lease{By: "me", Until: until}, nil }
	}
	give := func(body.Lease) (body.Lease, error) { return body.Lease{}, nil }
	held := at(time.Minute).UnixMilli()
	var raw []byte
	for _, c := range []struct {
		name string
		f    func(body.Lease) (body.Lease, error)
		want string
	}{
		{`"b"`, give, ``},
		{`"a"`, take(held), `{"a":{"by":"me","until":1732630060000}}`},
		{`"b"`, take(1), `{"a":{"by":"me","until":1732630060000},"b":{"by":"me","until":1}}`},
		{`"b"`, give, `{"a":{"by":"me","until":1732630060000}}`},
		{`"a"`, give, ``},
	} {
		var err error
		if raw, err = body.EditLease(raw, c.name, c.f); err != nil || string(raw) != c.want {
			t.Fatalf("%s: %s, %v, want %s", c.name, raw, err, c.want)
		}
	}
	if raw, err := body.EditLease([]byte(`"damaged"`), `"a"`, take(held)); err != nil || !strings.HasPrefix(string(raw), `{"a":{`) {
		t.Errorf("damaged leases become %s, %v", raw, err)
	}
	wrong := errors.New("held")
	refuse := func(body.Lease) (body.Lease, error) { return body.Lease{}, wrong }
	if raw, err := body.EditLease([]byte(`{"a":1}`), `"a"`, refuse); err != wrong || string(raw) != `{"a":1}` {
		t.Errorf("a refused lease leaves %s, %v", raw, err)
	}
	lease := body.LeaseOf([]byte(`{"session.leases":{"a":{"by":"me","until":1732630060000}}}`), `"a"`)
	if lease.By != "me" || !lease.IsHeld(began) || lease.IsHeld(at(time.Minute)) {
		t.Errorf("the lease is read as %+v", lease)
	}
}

// TestChanges checks that changes without effect are dropped when others are added, and that
// changes that depend on a value are computed again for another value.
func TestChanges(t *testing.T) {
	count := func(in []byte) ([]byte, error) { return append(slices.Clone(in), '0'), nil }
	var cs body.Changes
	cs = cs.Add(body.Change{Call: "Set", Name: `"a"`, Raw: []byte("1")})
	cs = cs.Add(body.Change{Call: "Set", Name: `"b"`, Raw: []byte("2")})
	before := cs
	cs = cs.Add(body.Change{Call: "Set", Name: `"a"`, Raw: []byte("3")})
	if len(cs) != 2 || string(before.Value(nil, `"a"`)) != "1" || string(cs.Value(nil, `"a"`)) != "3" {
		t.Errorf("%d changes, a is %s and was %s", len(cs), cs.Value(nil, `"a"`), before.Value(nil, `"a"`))
	}
	cs = cs.Add(body.Change{Call: "Update", Name: `"n"`, In: []byte("1"), Raw: []byte("10"), Again: count})
	cs = cs.Add(body.Change{Call: "Update", Name: `"n"`, In: []byte("10"), Raw: []byte("100"), Again: count})
	cs = cs.Add(body.Change{Call: "Delete", Name: `"b"`})
	for in, want := range map[string]string{
		`{"n":1}`:                 `{"a":3,"n":100}`,
		`{"n":2,"b":1,"c":false}`: `{"a":3,"n":200,"c":false}`,
	} {
		if got, err := cs.ApplyTo([]byte(in)); err != nil || string(got) != want {
			t.Errorf("applied to %s: %s, %v, want %s", in, got, err, want)
		}
	}
	if names := cs.Names([]byte(`{"b":1,"c":2}`)); len(names) != 3 || slices.Contains(names, `"b"`) {
		t.Errorf("the names are %s", names)
	}
	if !cs.Of(`"n"`) || cs.Of(`"c"`) || !cs.AddValues() {
		t.Error("Of does not report the changed members")
	}

	// Clear removes values and flashes, and keeps metadata.
	cleared := cs.Add(body.Change{Call: "Clear"})
	b := parse(t, begin(t), began)
	b.Remember(at(time.Hour))
	if err := b.Apply(cleared); err != nil {
		t.Fatal(err)
	}
	if got, want := string(b.Bytes()), `{"session.key":"`+key('a')+`","session.remember":1732633600000}`; got != want || len(cleared) != 1 || cleared.AddValues() {
		t.Errorf("%d changes leave %s, want %s", len(cleared), got, want)
	}

	wrong := errors.New("no number")
	failing := body.Changes{{Call: "Update", Name: `"n"`, In: []byte("1"), Raw: []byte("2"), Again: func([]byte) ([]byte, error) { return nil, wrong }}}
	if _, err := failing.ApplyTo([]byte(`{"n":1}`)); err != nil {
		t.Errorf("a change of the same value is computed again: %v", err)
	}
	if _, err := failing.ApplyTo([]byte(`{"n":7}`)); err != wrong {
		t.Errorf("a change that cannot be computed again: %v, want %v", err, wrong)
	}
}
