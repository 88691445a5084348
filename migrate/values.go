package migrate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/big"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/object"
)

// A Value is a value to take over.
type Value struct {
	name  string
	take  func(s *session.Session, old any) (size int, err error)
	leave func(s *session.Session) // deletes the value from the new session
}

// As takes over the old value of this name under a key of the Manager's sessions. If the types
// differ, the value is converted as encoding/json would: numbers that fit, lists and objects, and
// text that a type decodes itself, such as a time. A value that does not convert, or would lose a
// part of itself, is reported by name and left out: gob keeps fields tagged `json:"-"` and the type
// of a number in an any, and JSON does not.
func As[T any](name string, key session.Key[T]) Value {
	return Convert(name, key, func(old any) (v T, err error) {
		if v, ok := old.(T); ok {
			return v, nil
		}
		raw, err := object.Marshal(old)
		if err != nil {
			return v, err
		}
		if !isWhole(old) {
			return v, fmt.Errorf("the JSON of a %T does not have all of it", old)
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			var zero T
			return zero, fmt.Errorf("a %T is no %T: %w", old, zero, err)
		}
		again, err := json.Marshal(v)
		if err == nil && !keeps(decoded(again), decoded(raw)) {
			err = fmt.Errorf("a %T does not hold all of it", v)
		}
		return v, err
	})
}

// decoded returns the value of raw as encoding/json decodes it into an any, with json.Number.
func decoded(raw []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	_ = d.Decode(&v) // raw was encoded by encoding/json and is valid
	return v
}

// keeps reports whether now has every element of the lists in before, and the same numbers.
func keeps(now, before any) bool {
	switch before := before.(type) {
	case json.Number:
		now, ok := now.(json.Number)
		if !ok {
			return true // the type encodes itself
		}
		changed, _ := new(big.Rat).SetString(now.String())
		original, _ := new(big.Rat).SetString(before.String())
		return changed.Cmp(original) == 0
	case []any:
		now, ok := now.([]any)
		if !ok {
			return true
		}
		for i, v := range before {
			if i >= len(now) || !keeps(now[i], v) {
				return false
			}
		}
	case map[string]any:
		now, _ := now.(map[string]any)
		for name, v := range before {
			if changed, ok := now[name]; ok && !keeps(changed, v) {
				return false
			}
		}
	}
	return true
}

// Convert takes over a value as [As] does, with a conversion function. The value is reported and
// left out if convert returns an error or panics, or if its result changes when it is encoded and
// decoded by encoding/json.
func Convert[T any](name string, key session.Key[T], convert func(old any) (T, error)) Value {
	take := func(s *session.Session, old any) (int, error) {
		v, err := safely(convert, old)
		if err != nil {
			return 0, err
		}
		raw, err := object.Marshal(v)
		if err != nil {
			return 0, err
		}
		if !survives(v, raw) {
			return 0, fmt.Errorf("a %T changes when it is stored as JSON: a field is tagged json:\"-\" or not exported, or a number is in an any", v)
		}
		key.Set(s, v)
		return len(raw), nil
	}
	return Value{name, take, key.Delete}
}

// safely calls convert and returns its panic as an error. Otherwise every request with an old
// session that convert does not expect would fail.
func safely[T any](convert func(old any) (T, error), old any) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the conversion panicked: %v", p)
		}
	}()
	return convert(old)
}
