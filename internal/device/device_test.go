package device

import (
	"net/http"
	"strings"
	"testing"
)

// The headers that go to the browser are those that Chromium 156 was seen to read.
func TestHeadersToTheBrowser(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Registration("/.session/device/x", "abc"), `(ES256 RS256);path="/.session/device/x";challenge="abc"`},
		{Challenge("abc", "id"), `"abc";id="id"`},
		{string(Ended("id")), `{"session_identifier":"id","continue":false}`},
		{string(Instructions{"id", "/d", "__Host-x-bound", "Path=/; Secure; HttpOnly; SameSite=Lax"}.JSON()),
			`{"session_identifier":"id","refresh_url":"/d","scope":{"include_site":false},` +
				`"credentials":[{"type":"cookie","name":"__Host-x-bound","attributes":"Path=/; Secure; HttpOnly; SameSite=Lax"}],` +
				`"allowed_refresh_initiators":["*"]}`},
	} {
		if c.got != c.want {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
	for _, name := range []string{RegistrationHeader, ChallengeHeader, ResponseHeader, IdentifierHeader, SkippedHeader} {
		if http.CanonicalHeaderKey(name) != name {
			t.Errorf("%s is not the spelling of package http", name)
		}
	}
}

// A header of the browser is read bare, as Chromium sends it, and quoted, as the draft has it.
func TestField(t *testing.T) {
	for _, c := range []struct {
		lines []string
		want  string // "": malformed
	}{
		{[]string{`abc.def_-`}, "abc.def_-"},
		{[]string{` abc `}, "abc"},
		{[]string{`abc;p="x"`}, "abc"},
		{[]string{`"abc"`}, "abc"},
		{[]string{`"abc";p="x"`}, "abc"},
		{[]string{`"abc" ; p`}, "abc"},
		{[]string{`"a\"b\\c"`}, `a"b\c`},
		{[]string{strings.Repeat("a", maxField)}, strings.Repeat("a", maxField)},

		{nil, ""},
		{[]string{}, ""},
		{[]string{``}, ""},
		{[]string{` `}, ""},
		{[]string{`""`}, ""},
		{[]string{`;p`}, ""},
		{[]string{`abc`, `abc`}, ""},
		{[]string{`"abc`}, ""},
		{[]string{`abc"`}, ""},
		{[]string{`"abc"x`}, ""},
		{[]string{`"abc", "def"`}, ""},
		{[]string{`abc, def`}, ""},
		{[]string{`abc def`}, ""},
		{[]string{`"a\bc"`}, ""},
		{[]string{`"abc\`}, ""},
		{[]string{"abc\x00"}, ""},
		{[]string{"\"ab\nc\""}, ""},
		{[]string{"äbc"}, ""},
		{[]string{`"äbc"`}, ""},
		{[]string{strings.Repeat("a", maxField+1)}, ""},
	} {
		got, ok := Field(http.Header{ResponseHeader: c.lines}, ResponseHeader)
		if !ok {
			got = ""
		}
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%.60q: %.60q, %v, want %.60q", c.lines, got, ok, c.want)
		}
	}
}

// The reason that a browser gives is a word, even if an attacker sends the header.
func TestSkipped(t *testing.T) {
	for line, want := range map[string]string{
		`quota_exceeded;session_identifier="abc"`: "quota_exceeded",
		`unreachable`:              "unreachable",
		`"server_error"`:           "server_error",
		`a;x, b;y`:                 "a",
		``:                         "",
		`<script>`:                 "",
		`Quota`:                    "",
		`a=b`:                      "",
		strings.Repeat("a", 33):    "",
		`"quota_exceeded` + "\n\"": "",
	} {
		if got := Skipped(http.Header{SkippedHeader: {line}}); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if got := Skipped(http.Header{}); got != "" {
		t.Errorf("without the header: %q", got)
	}
}

// FuzzField checks three properties: no header causes a panic; a value has no character that
// would need an escape elsewhere; a bare value and the same value in quotes are read the same.
func FuzzField(f *testing.F) {
	for _, line := range []string{`abc`, `"abc"`, `"a\"b";x=1`, `a;b`, `"`, `"\`, `a, b`} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		h := http.Header{ResponseHeader: {line}}
		value, ok := Field(h, ResponseHeader)
		if ok != (value != "") && ok {
			t.Fatalf("an empty value of %q", line)
		}
		if ok && strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
			t.Fatalf("%q is read as %q", line, value)
		}
		if ok && !strings.HasPrefix(strings.Trim(line, " "), `"`) {
			again, _ := Field(http.Header{ResponseHeader: {`"` + value + `"`}}, ResponseHeader)
			if again != value {
				t.Fatalf("%q is read as %q, and in quotes as %q", line, value, again)
			}
		}
		Skipped(http.Header{SkippedHeader: {line}})
	})
}
