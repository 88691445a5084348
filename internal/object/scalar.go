package object

import (
	"bytes"
	"strconv"
)

// Quote returns s as a JSON string. s must not need escapes.
func Quote(s string) []byte {
	b := append(make([]byte, 0, len(s)+2), '"')
	return append(append(b, s...), '"')
}

// Unquote returns the text of a JSON string without escapes.
func Unquote(raw []byte) string { return string(bytes.Trim(raw, `"`)) }

// Number returns n as JSON.
func Number(n int64) []byte { return strconv.AppendInt(nil, n, 10) }

// Int decodes a JSON integer of at most 18 digits. ok is false if raw is anything else.
func Int(raw []byte) (n int64, ok bool) {
	d := bytes.TrimPrefix(raw, []byte("-"))
	if len(d) == 0 || len(d) > 18 || d[0] == '0' && len(d) > 1 {
		return 0, false
	}
	for _, c := range d {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if len(d) < len(raw) {
		n = -n
	}
	return n, true
}
