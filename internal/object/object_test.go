package object_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/coatcheck/session/internal/object"
)

// say formats members as "name=raw", separated by spaces.
func say(members []object.Member) string {
	var all []string
	for _, m := range members {
		all = append(all, string(m.Name)+"="+string(m.Raw))
	}
	return strings.Join(all, " ")
}

// TestAppend checks that every member is found byte for byte, and that a syntax error ends the
// scan after the members before it.
func TestAppend(t *testing.T) {
	for _, c := range []struct {
		data, want string
		bad        bool
	}{
		{"", "", false},
		{"{}", "", false},
		{" \t\r\n{ \t\r\n} \t\r\n", "", false},
		{`{"a":1}`, `"a"=1`, false},
		{` { "a" : 1 , "b" : "x" } `, `"a"=1 "b"="x"`, false},
		{`{"a":-0,"b":1.50e+01,"c":true,"d":null}`, `"a"=-0 "b"=1.50e+01 "c"=true "d"=null`, false},
		{`{"":"","a":"\"","b":"\\","c":"\\\"","d":"}{,:"}`, `""="" "a"="\"" "b"="\\" "c"="\\\"" "d"="}{,:"`, false},
		{`{"\"":1,"\\":2,"a\u0041":3}`, `"\""=1 "\\"=2 "a\u0041"=3`, false},
		{`{"a":{"b":[1,"]}",{}]},"c":[]}`, `"a"={"b":[1,"]}",{}]} "c"=[]`, false},
		{`{"a":{"b":"}","c":"}"},"d":1}`, `"a"={"b":"}","c":"}"} "d"=1`, false},
		{`{"a":{"b":"\"}"},"c":1}`, `"a"={"b":"\"}"} "c"=1`, false},
		{`{"a":{"b":{"c":"}"}},"d":{"e":[{}]}}`, `"a"={"b":{"c":"}"}} "d"={"e":[{}]}`, false},
		{`{"a":{},"b":[[[]]]}`, `"a"={} "b"=[[[]]]`, false},
		{`{"a":1,"a":2}`, `"a"=1 "a"=2`, false},
		{"{\"a\":1\n,\"b\":2\t}", `"a"=1 "b"=2`, false},
		// Values are not validated, only their ends are found.
		{`{"a":01,"b":tru,"c":x}`, `"a"=01 "b"=tru "c"=x`, false},
		{`{"a":[1}]}`, `"a"=[1}`, true},

		{"null", "", true},
		{"[]", "", true},
		{"x", "", true},
		{" ", "", true},
		{"{", "", true},
		{"{} x", "", true},
		{"{}{}", "", true},
		{`{"`, "", true},
		{`{"a`, "", true},
		{`{"a\"`, "", true},
		{`{"a"`, "", true},
		{`{"a" 1}`, "", true},
		{`{"a":`, "", true},
		{`{"a":}`, "", true},
		{`{"a":,"b":1}`, "", true},
		{`{"a":1`, "", true},
		{`{"a":"x`, "", true},
		{`{"a":"x\"}`, "", true},
		{`{"a":[1`, "", true},
		{`{"a":["x`, "", true},
		{`{,}`, "", true},
		{`{a:1}`, "", true},
		{`{1:1}`, "", true},
		{`{"a":1,}`, `"a"=1`, true},
		{`{"a":1 "b":2}`, `"a"=1`, true},
		{`{"a":1,,"b":2}`, `"a"=1`, true},
		{`{"a":1}x`, `"a"=1`, true},
		{`{"a":1,"b"}`, `"a"=1`, true},
	} {
		got, err := object.Append(nil, []byte(c.data))
		if say(got) != c.want || errors.Is(err, object.ErrSyntax) != c.bad || (err != nil) != c.bad {
			t.Errorf("%q: %s, %v, want %s, an error: %v", c.data, say(got), err, c.want, c.bad)
		}
	}
	had := []object.Member{{Name: []byte(`"z"`), Raw: []byte("0")}}
	if got, _ := object.Append(had, []byte(`{"a":1}`)); say(got) != `"z"=0 "a"=1` {
		t.Error("Append has dropped earlier members:", say(got))
	}
}

// TestFind checks that Find returns the first of several members with a name in its JSON
// encoding.
func TestFind(t *testing.T) {
	data := []byte(`{"a":1,"ab":2,"A":3,"b":{"a":4},"a":5,"\u0061":6}`)
	for name, want := range map[string]string{`"a"`: "1", `"ab"`: "2", `"A"`: "3", `"b"`: `{"a":4}`, `"\u0061"`: "6", `a`: "", `"c"`: "", "": ""} {
		if got := object.Find(data, name); string(got) != want || (got == nil) != (want == "") {
			t.Errorf("Find %s: %q, want %q", name, got, want)
		}
	}
	after := bytes.Index(data, []byte(`,"ab"`))
	for name, want := range map[string]string{`"a"`: "5", `"ab"`: "2", `"A"`: "3"} {
		if got := object.FindAfter(data, after, name); string(got) != want {
			t.Errorf("FindAfter %s: %q, want %q", name, got, want)
		}
	}
	for _, end := range []int{len(data) - 1, len(data), len(data) + 7} {
		if got := object.FindAfter(data, end, `"a"`); got != nil {
			t.Errorf("FindAfter %d: %q", end, got)
		}
	}
	if object.Find(nil, `"a"`) != nil || object.FindAfter(nil, 9, `"a"`) != nil || object.Find([]byte("null"), `"a"`) != nil {
		t.Error("Find found a member in empty data")
	}
}

// TestFoundHasNoRoom checks that an append to a found value does not overwrite the bytes behind
// it.
func TestFoundHasNoRoom(t *testing.T) {
	data := []byte(`{"a":1,"b":2}`)
	members, _ := object.Append(nil, data)
	_ = append(members[0].Raw, "xxx"...)
	_ = append(members[0].Name, "xxx"...)
	if string(data) != `{"a":1,"b":2}` {
		t.Errorf("the data was changed to %s", data)
	}
}

func TestSetAndGet(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{`"a"`, "9", `"a"=9 "b"=2 "a"=3`},
		{`"b"`, "9", `"a"=1 "b"=9 "a"=3`},
		{`"c"`, "9", `"a"=1 "b"=2 "a"=3 "c"=9`},
		{`"a"`, "", `"b"=2 "a"=3`},
		{`"b"`, "", `"a"=1 "a"=3`},
		{`"c"`, "", `"a"=1 "b"=2 "a"=3`},
	} {
		members, _ := object.Append(nil, []byte(`{"a":1,"b":2,"a":3}`))
		var raw []byte
		if c.raw != "" {
			raw = []byte(c.raw)
		}
		members = object.Set(members, c.name, raw)
		if got := say(members); got != c.want {
			t.Errorf("Set %s %q: %s, want %s", c.name, c.raw, got, c.want)
		}
		if got := object.Get(members, c.name); c.raw != "" && string(got) != c.raw {
			t.Errorf("Get %s: %q", c.name, got)
		}
	}
	if object.Get(nil, `"a"`) != nil {
		t.Error("Get found a member among none")
	}
}

// TestWrite checks that Write returns the object, in exactly as many bytes as Size says.
func TestWrite(t *testing.T) {
	for _, data := range []string{`{}`, `{"a":1}`, `{"a":1,"b":"x","c":{"d":[ 1 ]}}`} {
		members, _ := object.Append(nil, []byte(data))
		got := object.Write(members)
		if string(got) != data || len(got) != cap(got) {
			t.Errorf("%s is written as %s", data, got)
		}
		size := len("{}")
		for _, m := range members {
			size += m.Size()
		}
		if want := len(got) + min(len(members), 1); size != want { // one comma less than members
			t.Errorf("%s: the sizes are %d, want %d", data, size, want)
		}
	}
}

// TestScannerEnds checks that a Scanner that has ended stays ended.
func TestScannerEnds(t *testing.T) {
	for _, data := range []string{`{}`, `{"a":1}`, `{"a":1,}`, ``, `x`} {
		s := object.Scan([]byte(data))
		for s.Next() {
		}
		err := s.Err
		for range 3 {
			if s.Next() || s.Err != err {
				t.Errorf("the scan of %q continues: %v", data, s.Err)
			}
		}
	}
}

// FuzzAppend checks three properties: no bytes cause a panic; an object that encoding/json
// accepts has the same members here, and is equal after it is written; and bytes that cannot be
// scanned give ErrSyntax.
func FuzzAppend(f *testing.F) {
	for _, s := range []string{"", "{}", "null", "[]", `{"a":1}`, ` { "a" : "x\"\\" , "b" : { "c" : [ 1 , "]}" ] } } `, `{"a":`, `{"`, `{"\`, `{,}`, `{"a":1,}`,
		`{"a":1,"a":2}`, `{"\u0041":1,"A":2}`, "{\"a\":\"\xff\"}", strings.Repeat(`{"a":`, 100), `{"a":1}{"b":2}`, "{\"a\":1\x00}"} {
		f.Add([]byte(s), 3)
	}
	f.Fuzz(func(t *testing.T, data []byte, pos int) {
		object.FindAfter(data, max(0, min(pos, len(data))), `"a"`)
		members, err := object.Append(nil, data)
		if err != nil && !errors.Is(err, object.ErrSyntax) {
			t.Fatal(err)
		}
		if err == nil && len(data) > 0 {
			after(t, data, members)
			again, err := object.Append(nil, object.Write(members))
			if err != nil || say(again) != say(members) {
				t.Fatalf("%q is written as %q, which is %s (%v)", data, object.Write(members), say(again), err)
			}
		}
		want, is := decoded(data)
		if !is {
			return
		}
		if err != nil || len(members) != len(want) {
			t.Fatalf("%q has %s, %v, want %q", data, say(members), err, want)
		}
		if written, is := decoded(object.Write(members)); !is || !slices.Equal(written, want) {
			t.Fatalf("%q is written as %q", data, object.Write(members))
		}
		for i, m := range members {
			var name string
			if json.Unmarshal(m.Name, &name) != nil || fmt.Sprintf("%s=%s", name, m.Raw) != want[i] || !json.Valid(m.Raw) {
				t.Fatalf("%q: member %d is %s=%s, want %s", data, i, m.Name, m.Raw, want[i])
			}
		}
	})
}

// after checks that a scan from the end of each member returns the members that follow.
func after(t *testing.T, data []byte, members []object.Member) {
	t.Helper()
	const blanks = " \t\r\n"
	pos := 0
	for i, m := range members {
		pos += bytes.Index(data[pos:], m.Name) + len(m.Name) // no quote precedes a name
		rest := bytes.TrimLeft(data[pos:], blanks)
		rest = bytes.TrimLeft(bytes.TrimPrefix(rest, []byte(":")), blanks)
		pos = len(data) - len(rest) + len(m.Raw)
		var follow []object.Member
		s := object.ScanAfter(data, pos)
		for s.Next() {
			follow = append(follow, object.Member{Name: s.Name, Raw: s.Raw})
		}
		if s.Err != nil || say(follow) != say(members[i+1:]) {
			t.Fatalf("%q after %d: %s, %v, want %s", data, pos, say(follow), s.Err, say(members[i+1:]))
		}
	}
}

// TestScanAfter checks that a scan from the end of a member's value finds the members and the
// syntax errors that follow.
func TestScanAfter(t *testing.T) {
	for _, data := range []string{`{"a":1}`, " { \"a\" : {\"b\":[1]} ,\n\"b\":\"x,\\\"\" , \"c\":[] , \"a\" : null } "} {
		members, err := object.Append(nil, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		after(t, []byte(data), members)
	}
	for _, c := range []struct {
		name, data string
		pos        int
		want       string
		bad        bool
	}{
		{"after the last", `{"a":1}`, 6, "", false},
		{"before a comma", `{"a":1,"b":2}`, 6, `"b"=2`, false},
		{"no comma", `{"a":1 "b":2}`, 6, "", true},
		{"a comma and no member", `{"a":1,}`, 6, "", true},
		{"a mistake further on", `{"a":1,"b":2,"c"}`, 6, `"b"=2`, true},
		{"something after the end", `{"a":1}x`, 6, "", true},
		{"at the end", `{"a":1}`, 7, "", true},
		{"beyond the end", `{"a":1}`, 70, "", true},
		{"at the beginning", `{"a":1}`, 0, `"a"=1`, false},
		{"of no data", "", 5, "", false},
	} {
		var got []object.Member
		s := object.ScanAfter([]byte(c.data), c.pos)
		for s.Next() {
			got = append(got, object.Member{Name: s.Name, Raw: s.Raw})
		}
		if say(got) != c.want || (s.Err == object.ErrSyntax) != c.bad || (s.Err != nil) != c.bad {
			t.Errorf("%s: %s, %v", c.name, say(got), s.Err)
		}
	}
}

// TestSetCarriesTheRest checks that changing or removing a member changes no byte of the
// others.
func TestSetCarriesTheRest(t *testing.T) {
	rest := "\"a\\u0041\":{ \"x\" :\t1.50e+01 },\"b\":\"\\u003c\\/\xff\u2028\""
	for _, c := range []struct {
		name, data string
		raw        []byte
		want       string
	}{
		{"last, replaced", `{` + rest + `,"z":1}`, []byte("[2]"), `{` + rest + `,"z":[2]}`},
		{"last, removed", `{` + rest + `,"z":1}`, nil, `{` + rest + `}`},
		{"first, replaced", `{"z":1,` + rest + `}`, []byte("[2]"), `{"z":[2],` + rest + `}`},
		{"first, removed", `{"z":1,` + rest + `}`, nil, `{` + rest + `}`},
		{"new", `{` + rest + `}`, []byte("[2]"), `{` + rest + `,"z":[2]}`},
		{"the first of all", ``, []byte("[2]"), `{"z":[2]}`},
		{"the only one, removed", `{"z":1}`, nil, `{}`},
		{"an empty value", `{"z":1}`, []byte{}, `{"z":}`},
	} {
		members, err := object.Append(nil, []byte(c.data))
		if err != nil {
			t.Fatal(c.name, err)
		}
		if got := object.Write(object.Set(members, `"z"`, c.raw)); string(got) != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// decoded returns the members of an object as encoding/json sees them.
func decoded(data []byte) (all []string, is bool) {
	if !json.Valid(data) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, false
		}
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return nil, false
		}
		all = append(all, fmt.Sprintf("%s=%s", name, raw))
	}
	if _, err := d.Token(); err != nil {
		return nil, false
	}
	_, err := d.Token()
	return slices.Clip(all), err == io.EOF
}
