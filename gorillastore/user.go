package gorillastore

import (
	"fmt"
	"reflect"

	"github.com/coatcheck/session/internal/batch"
	"github.com/gorilla/sessions"
)

// loginOf returns the user whom a Save with the difference d has to log in, or whether it has to
// log out.
func (s *store) loginOf(gs *sessions.Session, d *difference, snap *snapshot, state batch.State) (user string, isLogout bool, err error) {
	key := s.userKey.Key
	was, wasSet := snap.seen[key]
	is, isSet := d.seen[key]
	if wasSet == isSet && (!isSet || is.Value == was.Value && is.isList() == was.isList()) {
		return "", false, nil
	}
	v := gs.Values[key]
	if isNobody(v) {
		return "", state.User != "", nil
	}
	user, err = textOf(v)
	return user, false, err
}

// isNobody reports whether the value says that no user is logged in: it is absent, or the zero
// value of its type.
func isNobody(v any) bool { return v == nil || reflect.ValueOf(v).IsZero() }

// textOf returns the user for Login.
func textOf(v any) (string, error) {
	_, isStringer := v.(fmt.Stringer)
	switch kind := reflect.TypeOf(v).Kind(); {
	case isStringer, kind == reflect.String, reflect.Int <= kind && kind <= reflect.Uint64:
	default:
		return "", fmt.Errorf("gorillastore: Save: the value of Options.UserKey is a %T: store the user's id, as a string, an integer or a fmt.Stringer", v)
	}
	user := fmt.Sprint(v)
	if user == "" {
		return "", fmt.Errorf("gorillastore: Save: the value of Options.UserKey, a %T, has no text", v)
	}
	return user, nil
}
