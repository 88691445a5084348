package migrate

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// user returns the user of an old session, "" if no user is logged in.
func (t *Takeover) user(old *oldSession) (string, error) {
	if t.o.UserFunc != nil {
		return t.userByFunc(old)
	}
	v := old.values[t.o.User]
	user, err := userText(v)
	if err != nil {
		return "", mistake{fmt.Errorf("the user %q is a %T, %w: set Options.UserFunc", t.o.User, v, err)}
	}
	return user, nil
}

// userByFunc returns the user that UserFunc returns. A panic of UserFunc is a mistake of the
// program: without recover, every request with an old session that UserFunc does not expect would
// fail.
func (t *Takeover) userByFunc(old *oldSession) (user string, err error) {
	defer func() {
		if p := recover(); p != nil {
			user, err = "", mistake{fmt.Errorf("Options.UserFunc panicked: %v", p)}
		}
	}()
	user, ok := t.o.UserFunc(old.values)
	if !ok {
		return "", nil
	}
	return user, nil
}

var errNoText = errors.New("neither text nor an integer")

// userText returns the text of a user. It uses the value and not a String method, which may hide a
// part of it. Only an array of bytes, such as a UUID, needs its String method. The zero value of a
// type means that no user is logged in.
func userText(v any) (string, error) {
	of := reflect.ValueOf(v)
	switch {
	case v == nil || of.IsZero():
		return "", nil
	case of.Kind() == reflect.String:
		return of.String(), nil
	case of.CanInt():
		return strconv.FormatInt(of.Int(), 10), nil
	case of.CanUint():
		return strconv.FormatUint(of.Uint(), 10), nil
	case of.CanFloat(): // an integer that was decoded from JSON
		if f := of.Float(); f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			return strconv.FormatInt(int64(f), 10), nil
		}
	case of.Kind() == reflect.Array && of.Type().Elem().Kind() == reflect.Uint8:
		if s, ok := v.(fmt.Stringer); ok && showsAll(of) {
			return s.String(), nil
		}
	}
	return "", errNoText
}

// showsAll reports whether the String method of an array of bytes depends on each byte. If not,
// several users would have the same text.
func showsAll(of reflect.Value) bool {
	text := func(v reflect.Value) string { return v.Interface().(fmt.Stringer).String() }
	original := text(of)
	for i := range of.Len() {
		other := reflect.New(of.Type()).Elem()
		other.Set(of)
		other.Index(i).SetUint(of.Index(i).Uint() ^ 0xff)
		if text(other) == original {
			return false
		}
	}
	return true
}
