package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/coatcheck/session"
)

// A Value is a value to take over.
type Value struct {
	name string
	take func(s *session.Session, old any) error
}

// As takes over the old value of this name under a key of ours. If it is of another
// type than the key's, it is converted as encoding/json would: numbers that fit, lists
// and objects, text that a type decodes itself, such as a time. What does not convert,
// or would lose a part of itself, is reported by name and left behind.
func As[T any](name string, key session.Key[T]) Value {
	return Convert(name, key, func(old any) (v T, err error) {
		if v, ok := old.(T); ok {
			return v, nil
		}
		raw, err := json.Marshal(old)
		if err != nil {
			return v, err
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			var zero T
			return zero, fmt.Errorf("a %T is no %T: %w", old, zero, err)
		}
		return v, nil
	})
}

// Convert is As with a conversion of the application's own. An error of it is
// reported, and the value left behind.
func Convert[T any](name string, key session.Key[T], convert func(old any) (T, error)) Value {
	return Value{name, func(s *session.Session, old any) error {
		v, err := convert(old)
		if err != nil {
			return err
		}
		if _, err := json.Marshal(v); err != nil {
			return err
		}
		key.Set(s, v)
		return nil
	}}
}

// userText is the user as the Manager names him.
func userText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case fmt.Stringer:
		return v.String(), nil
	case float64: // an integer, of JSON
		if n := int64(v); float64(n) == v && n < 1<<53 && n > -1<<53 {
			return strconv.FormatInt(n, 10), nil
		}
	case int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64:
		return fmt.Sprint(v), nil
	}
	return "", errors.New("is neither text nor an integer")
}
