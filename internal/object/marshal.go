package object

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// ErrNotUTF8 says that a value has text that is not UTF-8.
var ErrNotUTF8 = errors.New("it has text that is not UTF-8, which JSON cannot hold: keep bytes as []byte")

// Marshal is json.Marshal, except that it returns ErrNotUTF8 where that would replace
// bytes that are not UTF-8 by U+FFFD, wherever they are in v: the value would not come
// back as it was.
//
// encoding/json spells such a replacement as an escape, and a U+FFFD that is in the
// text as itself. A json.Marshaler inside v that spells U+FFFD as an escape is refused
// too, for it may have used encoding/json. What a json.RawMessage says is JSON already.
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

// hasReplacement reports whether U+FFFD is in JSON text as an escape.
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
