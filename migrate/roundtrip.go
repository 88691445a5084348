package migrate

import (
	"encoding/json"
	"reflect"

	"github.com/coatcheck/session/internal/object"
)

// survives reports whether decoding raw, the JSON of v, returns v unchanged. Fields that are
// unexported or tagged `json:"-"` are lost, and so is the type of a number in an any.
func survives[T any](v T, raw []byte) bool {
	var again T
	return json.Unmarshal(raw, &again) == nil && same(reflect.ValueOf(&v).Elem(), reflect.ValueOf(&again).Elem(), isSameInAny)
}

// isWhole reports whether the JSON of v contains all of v, except the dynamic types of interface
// values: a conversion to another type sets those anew.
func isWhole(v any) bool {
	if v == nil {
		return true
	}
	raw, err := object.Marshal(v)
	again := reflect.New(reflect.TypeOf(v))
	return err == nil && json.Unmarshal(raw, again.Interface()) == nil &&
		same(reflect.ValueOf(v), again.Elem(), func(before, after reflect.Value) bool {
			if before.CanInterface() {
				return isWhole(before.Interface())
			}
			return isSameInAny(before, after)
		})
}

func isSameInAny(before, after reflect.Value) bool {
	return before.Type() == after.Type() && same(before, after, isSameInAny)
}

// same reports whether two values of one type are equivalent: an empty slice or map equals a nil
// one, and values of a type that has an Equal method are compared by it. inAny compares the values
// in two interfaces.
func same(before, after reflect.Value, inAny func(before, after reflect.Value) bool) bool {
	switch before.Kind() {
	case reflect.Interface, reflect.Pointer:
		if before.IsNil() || after.IsNil() {
			return before.IsNil() && after.IsNil()
		}
		if before.Kind() == reflect.Interface {
			return inAny(before.Elem(), after.Elem())
		}
		return same(before.Elem(), after.Elem(), inAny)
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return before.IsNil() && after.IsNil()
	}
	if before.CanInterface() {
		equal := before.MethodByName("Equal")
		if equal.IsValid() && equal.Type() == reflect.FuncOf([]reflect.Type{before.Type()}, []reflect.Type{reflect.TypeFor[bool]()}, false) {
			return equal.Call([]reflect.Value{after})[0].Bool()
		}
	}
	switch before.Kind() {
	case reflect.Struct:
		for i := range before.NumField() {
			if !same(before.Field(i), after.Field(i), inAny) {
				return false
			}
		}
		return true
	case reflect.Slice, reflect.Array:
		if before.Len() != after.Len() {
			return false
		}
		for i := range before.Len() {
			if !same(before.Index(i), after.Index(i), inAny) {
				return false
			}
		}
		return true
	case reflect.Map:
		if before.Len() != after.Len() {
			return false
		}
		for name, v := range before.Seq2() {
			if other := after.MapIndex(name); !other.IsValid() || !same(v, other, inAny) {
				return false
			}
		}
		return true
	}
	return before.Equal(after)
}
