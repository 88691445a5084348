package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"

	"github.com/coatcheck/session"
	"github.com/coatcheck/session/internal/object"
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
		raw, err := object.Marshal(old)
		if err != nil {
			return v, err
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

// keeps tells whether no element of a list has gone, and no number has changed.
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

// Convert is As with a conversion of the application's own. An error of it is
// reported, and the value left behind.
func Convert[T any](name string, key session.Key[T], convert func(old any) (T, error)) Value {
	return Value{name, func(s *session.Session, old any) error {
		v, err := convert(old)
		if err != nil {
			return err
		}
		if _, err := object.Marshal(v); err != nil {
			return err
		}
		key.Set(s, v)
		return nil
	}}
}

// userText is the user as the Manager names him.
func userText(v any) (string, error) {
	if v == nil {
		return "", nil
	}
	if s, ok := v.(fmt.Stringer); ok {
		return s.String(), nil
	}
	switch of := reflect.ValueOf(v); {
	case of.Kind() == reflect.String:
		return of.String(), nil
	case of.CanInt():
		return strconv.FormatInt(of.Int(), 10), nil
	case of.CanUint():
		return strconv.FormatUint(of.Uint(), 10), nil
	case of.CanFloat(): // an integer, of JSON
		if f := of.Float(); f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return strconv.FormatInt(int64(f), 10), nil
		}
	}
	return "", errors.New("is neither text nor an integer")
}
