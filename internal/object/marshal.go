package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// ErrNotUTF8 is returned for a value with text that is not UTF-8.
var ErrNotUTF8 = errors.New("the value has text that is not UTF-8, which JSON cannot represent; use []byte for bytes")

// Marshal is [json.Marshal], except that it returns ErrNotUTF8 if json.Marshal would replace
// bytes that are not UTF-8 by U+FFFD, anywhere in v: the decoded value would be different.
//
// encoding/json writes such a replacement as an escape, and a U+FFFD of the text as itself. A
// json.Marshaler inside v that writes U+FFFD as an escape is refused too, because it may have
// used encoding/json. A json.RawMessage is JSON already and is not checked for escapes.
func Marshal(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	_, isJSON := v.(json.RawMessage)
	if !utf8.Valid(raw) || !isJSON && hasReplacement(raw) {
		return nil, ErrNotUTF8
	}
	return raw, nil
}

// hasReplacement reports whether raw contains U+FFFD as an escape.
func hasReplacement(raw []byte) bool {
	escape := []byte(`\ufffd`)
	for at := 0; ; {
		i := bytes.Index(raw[at:], escape)
		if i < 0 {
			return false
		}
		at += i
		slashes := 0
		for slashes < at && raw[at-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return true
		}
		at += len(escape)
	}
}
