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
	leave func(s *session.Session) // takes it out again
}

// As takes over the old value of this name under a key of ours. If it is of another
// type than the key's, it is converted as encoding/json would: numbers that fit, lists
// and objects, text that a type decodes itself, such as a time. What does not convert,
// or would lose a part of itself, is reported by name and left behind: gob keeps fields
// tagged `json:"-"` and the type of a number in an any, and JSON does not.
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

// decoded is a value as encoding/json has it without a type.
func decoded(raw []byte) (v any) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	_ = d.Decode(&v) // what was encoded just now
	return v
}

// keeps reports whether no element of a list has gone, and no number has changed.
func keeps(now, before any) bool {
	switch before := before.(type) {
	case json.Number:
		now, ok := now.(json.Number)
		if !ok {
			return true // a type that encodes itself
		}
		is, _ := new(big.Rat).SetString(now.String())
		was, _ := new(big.Rat).SetString(before.String())
		return is.Cmp(was) == 0
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
			if is, ok := now[name]; ok && !keeps(is, v) {
				return false
			}
		}
	}
	return true
}

// Convert is As with a conversion of the application's own. What it returns an error
// for, or panics at, and what it returns that is not the same after encoding/json has
// encoded and decoded it, is reported and left behind.
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
			return 0, fmt.Errorf("a %T is another one after it was JSON: a field is tagged json:\"-\" or not exported, or a number is in an any", v)
		}
		key.Set(s, v)
		return len(raw), nil
	}
	return Value{name, take, key.Delete}
}

// safely calls convert and returns its panic as an error: if the panic ended the request, an old
// session that convert does not expect would get no page at all.
func safely[T any](convert func(old any) (T, error), old any) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the conversion panicked: %v", p)
		}
	}()
	return convert(old)
}
